"""What a feature knows while it is trained: quick readings on validation people, for the training log."""

from __future__ import annotations

import numpy as np

from pcl_lib.data import FaceSet, SizedFaces
from pcl_lib.data.labels import ANGLE_NAMES, EXPRESSION_NAMES, LARGEST_ANGLE, expression_codes, identity_codes
from pcl_lib.probes.features import FeatureModel, extract
from pcl_lib.utils import BadInput

MOST = 320  # images
NEIGHBOURS = 5  # that vote for an expression
FOLDS = 5  # of people
READINGS = ("knn_identity", "knn_expression", "pose_mae")  # as the log calls them


class ValidationProbe:
    """Reads the general feature of some hundred validation images: whole people, always the same ones.

    Called with a model it returns a dict of

    - knn_identity: share of images whose nearest neighbour by cosine similarity shows the same person, among the
      images of people who have two or more;
    - knn_expression: accuracy of the vote of the `NEIGHBOURS` nearest images of *other* people;
    - pose_mae: mean absolute error in degrees, over yaw, pitch and roll where they are known, of a ridge regression
      that is cross-validated over people;

    without what the set has no labels for. It draws no random numbers and leaves the model as it is. The numbers
    compare the epochs of a run; for results take `evaluate`.
    faces: a prepared set. image_size: side in pixels at which the model sees its images.
    Raises BadInput where validation people have no labels for any of the three.
    """

    def __init__(self, faces: FaceSet, image_size: int) -> None:
        self.faces = SizedFaces(faces, image_size)
        codes, split = identity_codes(faces.table), faces.split("validation")
        shuffled = np.random.default_rng(0).permutation(codes.max() + 1)
        self.rows = split[np.argsort(shuffled[codes[split]], kind="stable")[:MOST]]
        self.people = codes[self.rows]
        table = faces.table.iloc[self.rows]
        self.paired = np.bincount(self.people, minlength=1)[self.people] > 1
        self.moods = (
            expression_codes(table["expression"]) if "expression" in table else np.full(len(table), -1)
        )
        self.named = self.moods >= 0
        if len(np.unique(self.people[self.named])) < 2 or len(np.unique(self.moods[self.named])) < 2:
            self.named[:] = False
        self.angles = table[[name for name in ANGLE_NAMES if name in table and table[name].notna().any()]]
        self.posed = (self.angles.abs() <= LARGEST_ANGLE).all(axis=1).to_numpy() & bool(
            len(self.angles.columns)
        )
        self.folds = min(FOLDS, len(np.unique(self.people[self.posed])))
        if not (self.paired.any() or self.named.any() or self.folds > 1):
            raise BadInput(
                f"{faces.name} has no labels to read while training (validation people with two images, expressions "
                "or angles): set train.probe_every=0"
            )

    def __call__(self, model: FeatureModel) -> dict[str, float]:
        """The readings by name."""
        x = extract(model, self.faces, self.rows).general.cpu().numpy().astype(np.float64)
        unit = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
        alike = unit @ unit.T
        np.fill_diagonal(alike, -np.inf)
        found = {}
        if self.paired.any():
            found["knn_identity"] = float((self.people[alike.argmax(1)] == self.people)[self.paired].mean())
        if self.named.any():
            found["knn_expression"] = self._expression(alike)
        if self.folds > 1:
            found["pose_mae"] = self._pose(x[self.posed])
        return found

    def _expression(self, alike: np.ndarray) -> float:
        own = self.people[self.named]
        alike = np.where(own[:, None] == own, -np.inf, alike[np.ix_(self.named, self.named)])
        moods = self.moods[self.named]
        nearest = np.argsort(-alike, axis=1, kind="stable")[:, :NEIGHBOURS]
        counts = np.isfinite(np.take_along_axis(alike, nearest, 1))  # few people: fewer than that many others
        votes = [(counts & (moods[nearest] == mood)).sum(1) for mood in range(len(EXPRESSION_NAMES))]
        return float((np.argmax(votes, axis=0) == moods).mean())

    def _pose(self, x: np.ndarray) -> float:
        from sklearn.linear_model import RidgeCV  # seconds to import, for every notebook
        from sklearn.model_selection import GroupKFold, cross_val_predict
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        y, people = self.angles.to_numpy(float)[self.posed], self.people[self.posed]
        ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 6)))
        predicted = cross_val_predict(ridge, x, y, groups=people, cv=GroupKFold(self.folds))
        return float(np.abs(predicted.reshape(y.shape) - y).mean())
