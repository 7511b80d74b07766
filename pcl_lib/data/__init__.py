"""Faces with labels, from the disk to the device.

face_set    `FaceSet`: what training, probes and widgets ask of a set
labels      names and ranges of the labels, and the split by people
writer      writing a prepared folder: whole files, `dataset.json` last
batches     who is drawn in an epoch, and where the pixels wait
pairs       verification pairs
folder      `PreparedFaces`: a prepared folder opened for reading
rendered    rendered faces as a prepared folder, or in memory
crop        where faces are in a picture, and the square about one
adapters    a set at another size, with one fold as test, or two sets joined
"""

from pcl_lib.data.adapters import FoldFaces, JoinedFaces, SizedFaces
from pcl_lib.data.batches import IdentityIndex, ImageSource, identity_index, read_ahead, resize_images
from pcl_lib.data.face_set import FaceSet
from pcl_lib.data.folder import PreparedFaces
from pcl_lib.data.pairs import make_pairs
from pcl_lib.data.rendered import open_faces, prepare_rendered
from pcl_lib.data.writer import write_prepared

__all__ = [
    "FaceSet",
    "FoldFaces",
    "IdentityIndex",
    "ImageSource",
    "JoinedFaces",
    "PreparedFaces",
    "SizedFaces",
    "identity_index",
    "make_pairs",
    "open_faces",
    "prepare_rendered",
    "read_ahead",
    "resize_images",
    "write_prepared",
]
