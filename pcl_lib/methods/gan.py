"""DR-GAN's idea at the kit's size: a conditional GAN that turns a head, judged by person and pose."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pcl_lib import losses
from pcl_lib.data import FaceSet, ImageSource
from pcl_lib.methods.base import Method, Task, held
from pcl_lib.methods.supervised import Labelled, standard_angles, training_people
from pcl_lib.models import PCL
from pcl_lib.models.encoder import as_float
from pcl_lib.models.patches import PatchEncoder
from pcl_lib.presets import ModelPreset, Preset
from pcl_lib.utils import BadInput

ANGLES = 3
POSE, RECONSTRUCTION = 1.0, 10.0  # weights of the terms beside that of the person


class DRGAN(Method):
    """Draw the person of an image in any pose, so that a discriminator finds that person and that pose.

    The face-aware feature of an image and a pose code (the standardised angles of another image of the batch) are
    decoded. The discriminator tells the training people apart, has one more class for drawn images, and predicts the
    angles; it needs both labels of every training image, and images without one of them are refused. The generator
    (encoder and decoder) is to be taken for the person with the angles of the code. Steps alternate.

    How it differs from the paper, whose images are of 96 pixels:

    - The code is three angles, not one of nine poses, and the discriminator predicts them by L1.
    - No noise joins the code: a picture that depends on it cannot be judged by a rendered truth.
    - With the image's own angles for a code the image itself is to be drawn (L1 of a Laplacian pyramid): trainings here
      last minutes, and the discriminator alone says little about pixels at first.
    - A branch of the encoder predicts the angles, as the pose-related feature. So a face whose angles nobody knows can
      give its pose to another: the whole is a `PCL`, and swaps as one.
    - Encoder and decoder are the kit's (`models.patches`, `models.painter`), and they see one image of a person at a
      time, where the paper also fuses several.
    Source: Tran, Yin and Liu, CVPR 2017 (Disentangled Representation Learning GAN for Pose-Invariant Face Recognition).
    """

    name = "drgan"
    one_process = True  # the codes are the angles of other images of the whole batch
    changes = MappingProxyType(
        {
            "model.backbone": "patches",
            "model.decoder": "painter",
            "model.face_dim": 128,
            "model.pose_dim": ANGLES,
            "model.norm": "batch",
            "train.lr": 1e-3,
        }
    )

    def __init__(self, preset: Preset) -> None:
        super().__init__(preset)
        train = self.preset.train
        batch = (train.pdd_batch + train.face_batch + train.pose_batch) // 2
        self.tasks = (
            Task("discriminator", batch, self.discriminate, self.take),
            Task("generator", batch, self.generate, self.take),
        )
        self.weights = {"discriminator": 1.0, "generator": 1.0}

    def auxiliary(self, model: PCL, faces: FaceSet) -> nn.Module:
        """The discriminator. Raises BadInput where a training image lacks its identity or an angle."""
        people, angles, train = training_people(faces), standard_angles(faces), faces.split("train")
        if (people[train] < 0).any() or not np.isfinite(angles[train]).all():
            raise BadInput(
                f"method drgan needs identity, yaw, pitch and roll of every training image, and {faces.name} has some "
                "without: choose a method that needs none, such as pcl"
            )
        self.labels = torch.from_numpy(np.column_stack([people, angles]).astype(np.float32))
        self.people = int(people.max()) + 1
        self.discriminator = Discriminator(model.config, self.people)
        return self.discriminator

    def take(self, source: ImageSource, rows: np.ndarray, _: np.random.Generator) -> Labelled:
        """The images of these rows, and of each the number of its person and its standardised angles: [n, 1 + 3]."""
        return Labelled(source.take(rows), self.labels[torch.from_numpy(rows)].to(source.device))

    def discriminate(self, model: PCL, batch: Labelled, generator: torch.Generator) -> dict[str, Tensor]:
        """What the discriminator minimises: true images are of their people and angles, drawn ones are drawn."""
        images, person, angles = as_float(batch.images), batch.targets[:, 0].long(), batch.targets[:, 1:]
        with torch.no_grad():
            drawn = model.decode(model.face_feature(images), shuffled(angles, generator))
        true_person, true_angles = self.discriminator(images)
        drawn_person, _ = self.discriminator(drawn)
        made_up = torch.full_like(person, self.people)
        believed = (drawn_person.detach().argmax(1) != self.people).float().mean()
        total = F.cross_entropy(true_person, person) + F.cross_entropy(drawn_person, made_up)
        return {"discriminator": total + POSE * F.l1_loss(true_angles, angles), "believed": believed}

    def generate(self, model: PCL, batch: Labelled, generator: torch.Generator) -> dict[str, Tensor]:
        """What encoder and decoder minimise: the drawn image is taken for its person in the pose of its code."""
        images, person, angles = as_float(batch.images), batch.targets[:, 0].long(), batch.targets[:, 1:]
        found = model.features(images)
        code = shuffled(angles, generator)
        with held(self.discriminator):
            drawn_person, drawn_angles = self.discriminator(model.decode(found.face, code))
        parts = {
            "person": F.cross_entropy(drawn_person, person),
            "pose": F.l1_loss(drawn_angles, code),
            "reconstruction": losses.pyramid_l1(model.decode(found.face, angles), images),
            "own pose": F.l1_loss(found.pose.float(), angles),
        }
        total = (
            parts["person"]
            + POSE * (parts["pose"] + parts["own pose"])
            + RECONSTRUCTION * parts["reconstruction"]
        )
        return {"generator": total, **parts}


class Discriminator(nn.Module):
    """Images [N, 3, S, S] in 0..1 -> logits of people and "drawn" [N, people + 1], standardised angles [N, 3].

    It normalises over groups of channels: over a batch, it could tell true from drawn images by their statistics.
    """

    def __init__(self, config: ModelPreset, people: int) -> None:
        super().__init__()
        own = ModelPreset(image_size=config.image_size, norm="group", backbone="patches", width=config.width)
        self.layers = PatchEncoder(own).layers
        with torch.no_grad():
            size = self.layers(torch.zeros(1, 3, config.image_size, config.image_size)).numel()
        self.person, self.angles = nn.Linear(size, people + 1), nn.Linear(size, ANGLES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(images.contiguous(memory_format=torch.channels_last)).flatten(1)
        return self.person(x).float(), self.angles(x).float()


def shuffled(angles: Tensor, generator: torch.Generator) -> Tensor:
    """The same rows in a random order: poses of other images of the batch."""
    return angles[torch.randperm(len(angles), generator=generator, device=angles.device)]
