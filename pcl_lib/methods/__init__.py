"""What one training iteration does: a method is a few tasks, each with its own batch and loss.

base         `Method` and `Task`; to add a method, see pcl_lib/README.md
pcl          PCL and pcl_plus
changes      PCL with another change than the flip: rotation, light, colour, an occluder
simclr       SimCLR, with and without flips
video        pcl_video: several frames of one person
siamese      MoCo, BYOL, SimSiam
masked       a masked autoencoder
flow         warping one frame into another
frame_pairs  FAb-Net and TCAE: what moves between frames of a person
facecycle    FaceCycle: a mean face, an identity and a motion
gan          DR-GAN's idea: turn a head so that a discriminator of person and pose believes it
supervised   upper bounds, trained on the labels of one task
"""

from __future__ import annotations

from pcl_lib.methods.base import Method, Task, TaskLoss
from pcl_lib.methods.changes import PCLOfChange, PCLOfFreedChange
from pcl_lib.methods.facecycle import FaceCycle
from pcl_lib.methods.frame_pairs import TCAE, FAbNet
from pcl_lib.methods.gan import DRGAN
from pcl_lib.methods.masked import MaskedAutoencoder
from pcl_lib.methods.pcl import PCLMethod, PCLPlus
from pcl_lib.methods.siamese import BYOL, MoCo, SimSiam
from pcl_lib.methods.simclr import SimCLR, SimCLRNoFlip
from pcl_lib.methods.supervised import (
    SupervisedExpression,
    SupervisedIdentity,
    SupervisedPose,
    SupervisedUnits,
)
from pcl_lib.methods.video import PCLVideo
from pcl_lib.presets import Preset
from pcl_lib.utils import BadInput

__all__ = [
    "METHODS",
    "Method",
    "PCLMethod",
    "PCLPlus",
    "SimCLR",
    "SimCLRNoFlip",
    "Task",
    "TaskLoss",
    "build",
]
METHODS: dict[str, type[Method]] = {
    "pcl": PCLMethod,
    "pcl_plus": PCLPlus,
    "pcl_video": PCLVideo,
    "pcl_change": PCLOfChange,
    "pcl_change_freed": PCLOfFreedChange,
    "simclr": SimCLR,
    "simclr_noflip": SimCLRNoFlip,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "masked": MaskedAutoencoder,
    "fabnet": FAbNet,
    "tcae": TCAE,
    "facecycle": FaceCycle,
    "drgan": DRGAN,
    "supervised_expression": SupervisedExpression,
    "supervised_identity": SupervisedIdentity,
    "supervised_pose": SupervisedPose,
    "supervised_units": SupervisedUnits,
    "random": Method,
}


def build(name: str, preset: Preset) -> Method:
    """The method of that name. Raises BadInput naming those there are."""
    if name not in METHODS:
        raise BadInput(f"unknown method '{name}': choose one of {', '.join(METHODS)}")
    return METHODS[name](preset)
