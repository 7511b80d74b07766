"""Networks and their weights.

encoder     the paper's encoder: a trunk and two branches
backbones   encoders whose trunk is a timm model
pretrained  a timm model that was pre-trained elsewhere, from a file, for the probes
patches     an encoder of patches, faster than the paper's
decoder     the decoder of the PDD
painter     a decoder that adds the pose to the face level by level
pcl         `PCL`: encoder, decoder and projectors in one module
checkpoint  weights on disk, with their settings
released    checkpoints of the authors' released code
shipped     the weights that come with the kit
"""

from pcl_lib.models.checkpoint import checkpoint_notes, load_checkpoint, save_checkpoint
from pcl_lib.models.pcl import PCL, Features
from pcl_lib.models.pretrained import PretrainedBackbone, load_backbone
from pcl_lib.models.released import load_released, save_released

__all__ = [
    "PCL",
    "Features",
    "PretrainedBackbone",
    "checkpoint_notes",
    "load_backbone",
    "load_checkpoint",
    "load_released",
    "save_checkpoint",
    "save_released",
]
