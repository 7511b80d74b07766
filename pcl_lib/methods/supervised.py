"""Upper bounds: the same trunk trained on the labels of one task, whose own probe it should read best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib.data import FaceSet, ImageSource
from pcl_lib.data.labels import ANGLE_NAMES, AU_NAMES, PRESENT, expression_codes, identity_codes
from pcl_lib.methods.base import SingleTaskMethod, views
from pcl_lib.models import PCL
from pcl_lib.utils import BadInput


@dataclass(frozen=True)
class Labelled:
    """Images uint8 [B, 3, S, S] and targets [B] int or [B, C] float; -1 or NaN where there is no label."""

    images: Tensor
    targets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, part: slice) -> Labelled:
        return Labelled(self.images[part], self.targets[part])

    @property
    def is_cuda(self) -> bool:
        """Whether it lies on a GPU."""
        return self.images.is_cuda


class Supervised(SingleTaskMethod):
    """A linear head on the general feature, trained with the encoder on photometric views of `preset.pose_view`.

    Views are neither cropped nor flipped, so that every label stays true. A subclass gives `targets` and `error`.
    """

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """Read the labels of the set, and make the head. Raises BadInput where no training image has one."""
        self.labels = torch.from_numpy(self.targets(faces))
        train = self.labels[torch.from_numpy(faces.split("train"))]
        if not (torch.isfinite(train) if train.is_floating_point() else train >= 0).any():
            raise BadInput(
                f"method {self.name} needs labels, and {faces.name} has none in train: choose another"
            )
        size = model.decoder.fc.in_features  # that of the general feature too
        self.head = nn.Linear(size, self.outputs(train))
        return self.head

    def take(self, source: ImageSource, rows: np.ndarray, _: np.random.Generator) -> Labelled:
        """The images of these rows and their targets."""
        return Labelled(source.take(rows), self.labels[torch.from_numpy(rows)].to(source.device))

    def loss(self, model: PCL, images: Labelled, generator: torch.Generator) -> dict[str, Tensor]:
        """The task's error of the head's outputs."""
        seen = views(images.images, self.preset.pose_view, generator, 1)
        return {self.name: self.error(self.head(model.general_feature(seen)).float(), images.targets)}

    def outputs(self, train: Tensor) -> int:
        """How many numbers the head gives, from the targets of the training images."""
        return train.shape[1] if train.ndim == 2 else int(train.max()) + 1

    def targets(self, faces: FaceSet) -> np.ndarray:
        """The target of every image of the set."""
        raise NotImplementedError

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of a batch; images without a label do not count."""
        raise NotImplementedError


class _Classes(Supervised):
    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over what is labelled; 0 in a batch where nothing is."""
        total = F.cross_entropy(output, target, ignore_index=-1, reduction="sum")
        return total / (target >= 0).sum().clamp_min(1)


class SupervisedExpression(_Classes):
    """Cross-entropy over the seven expressions."""

    name = "supervised_expression"

    def targets(self, faces: FaceSet) -> np.ndarray:
        """[n] codes of the expressions."""
        return expression_codes(column(faces, "expression"))


class SupervisedIdentity(_Classes):
    """Cross-entropy over the training people; test people are others."""

    name = "supervised_identity"

    def targets(self, faces: FaceSet) -> np.ndarray:
        """[n] codes of the training people, from 0 on; -1 for everybody else."""
        return training_people(faces)


class SupervisedPose(Supervised):
    """Absolute error of yaw, pitch and roll in standard deviations of the training set, as the paper's pose probe."""

    name = "supervised_pose"

    def targets(self, faces: FaceSet) -> np.ndarray:
        """[n, 3] angles, standardised."""
        return standard_angles(faces)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean absolute error over what is labelled."""
        known = torch.isfinite(target)
        return (output - target.nan_to_num()).abs().mul(known).sum() / known.sum().clamp_min(1)


class SupervisedUnits(Supervised):
    """Binary cross-entropy of the presence of each action unit."""

    name = "supervised_units"

    def targets(self, faces: FaceSet) -> np.ndarray:
        """[n, units] 1 where present, 0 where not."""
        units = [name for name in AU_NAMES if name in faces.table]
        column(faces, units[0] if units else AU_NAMES[0])
        values = faces.table[units].to_numpy(np.float32)
        return np.where(np.isnan(values), np.nan, values >= PRESENT).astype(np.float32)

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over what is labelled."""
        known = torch.isfinite(target)
        each = F.binary_cross_entropy_with_logits(output, target.nan_to_num(), reduction="none")
        return each.mul(known).sum() / known.sum().clamp_min(1)


def training_people(faces: FaceSet) -> np.ndarray:
    """[n] codes of the training people, from 0 on; -1 for everybody else. Raises BadInput as `column`."""
    column(faces, "identity")
    codes, found = identity_codes(faces.table), np.full(len(faces), -1)
    train = faces.split("train")
    found[train] = np.unique(codes[train], return_inverse=True)[1]
    return found


def standard_angles(faces: FaceSet) -> np.ndarray:
    """[n, 3] yaw, pitch and roll, standardised by the training images. Raises BadInput as `column`."""
    angles = np.stack([column(faces, name).to_numpy(np.float32) for name in ANGLE_NAMES], 1)
    train = angles[faces.split("train")]
    return np.asarray((angles - np.nanmean(train, 0)) / np.nanstd(train, 0).clip(1e-6), np.float32)


def column(faces: FaceSet, name: str) -> pd.Series:
    """A column of labels. Raises BadInput where the set has none."""
    if name not in faces.table:
        raise BadInput(f"{faces.name} has no labels for {name}: choose a method that needs none, such as pcl")
    return faces.table[name]
