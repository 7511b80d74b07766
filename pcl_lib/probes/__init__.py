"""What frozen features know, by linear probes.

tasks          what a set can be probed for, and what is left out and why
features       the features of a model, computed once
stored         features kept on disk, so that a run computes them once
scores         scores with intervals over test people
solver         many penalised problems at once, by L-BFGS
linear         linear probes: penalty paths, thresholds, weighted scores
released_code  the probes of the authors' code, chosen on the test split
evaluate       `evaluate`: every task that a set has labels for
handcrafted    HoG and LBP, which nobody trained
progress       quick readings on validation people while a model is trained
directions     linear probes that also say which way to move a feature
"""

from pcl_lib.probes.evaluate import baseline_rows, evaluate, evaluate_groups, evaluate_paired
from pcl_lib.probes.features import FEATURES, EvenOdd, FeatureModel, FrozenFeatures, RawPixels, extract
from pcl_lib.probes.tasks import LeftOut, left_out

__all__ = [
    "FEATURES",
    "EvenOdd",
    "FeatureModel",
    "FrozenFeatures",
    "LeftOut",
    "RawPixels",
    "baseline_rows",
    "evaluate",
    "evaluate_groups",
    "evaluate_paired",
    "extract",
    "left_out",
]
