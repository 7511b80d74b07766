"""What one training iteration does: a method is a few tasks, each with its own batch and loss.

To add a method, write one small class with `tasks` (and `end_epoch` where weights change, `changes` where it differs
from another only in settings) and put it in `METHODS`; the loop of `pretrain.fit` does the rest.
"""

from __future__ import annotations

from pcl_lib.errors import BadInput
from pcl_lib.methods.base import Method, Task, TaskLoss
from pcl_lib.methods.motion import TCAE, FAbNet, FaceCycle
from pcl_lib.methods.pcl import PCLMethod, PCLPlus
from pcl_lib.methods.simclr import SimCLR, SimCLRNoFlip
from pcl_lib.methods.ssl import BYOL, MoCo, SimSiam
from pcl_lib.methods.supervised import (
    SupervisedExpression,
    SupervisedIdentity,
    SupervisedPose,
    SupervisedUnits,
)
from pcl_lib.methods.video import PCLVideo
from pcl_lib.presets import Preset

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
    "simclr": SimCLR,
    "simclr_noflip": SimCLRNoFlip,
    "moco": MoCo,
    "byol": BYOL,
    "simsiam": SimSiam,
    "fabnet": FAbNet,
    "tcae": TCAE,
    "facecycle": FaceCycle,
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
