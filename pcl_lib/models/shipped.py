"""Weights that come with the kit, each with a card of where it is from (made by `reproduce.shipped_weights`).

They are kept in float16, half the size; pictures and readings made with them differ from the run's in rounding.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pcl_lib.models.checkpoint import load_checkpoint
from pcl_lib.models.pcl import PCL
from pcl_lib.utils import PACKAGE, BadInput

WEIGHTS = PACKAGE / "weights"
SHIPPED = ("pcl", "pcl_plus", "pcl_video")  # the methods whose decoder swaps
NOT_FOR = (
    "recognising, verifying or tracking real people",
    "judging feelings, health, character, age, sex or origin of real people",
    "any decision about a person",
)
LIMIT = 10_000_000  # bytes of all shipped weights


def shipped(method: str = "pcl", device: str = "cpu") -> PCL:
    """The shipped model of a method, in eval mode and float32. Raises BadInput where there is none."""
    return load_checkpoint(_weights(method), device)


def card(method: str = "pcl") -> dict[str, Any]:
    """Where the shipped weights of a method come from. Raises BadInput where there are none.

    Keys: method, preset, seed, epochs, seconds, command, hardware, data (which it learnt from), versions, commit,
    begins with (of weights that trained in two steps: epochs, seconds, hardware and settings of the first; seconds
    counts both), metrics (on the test people of those, or of the set that "measured on" names), groups (scores by
    skin tone and age, see `reproduce.fairness`), not_for, exported (date).
    """
    path = _weights(method).with_suffix(".json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): export the weights again (make weights)") from None


def _weights(method: str) -> Path:
    path = WEIGHTS / f"{method}.safetensors"
    if not path.is_file():
        there = ", ".join(sorted(p.stem for p in WEIGHTS.glob("*.safetensors"))) or "none"
        raise BadInput(f"no weights of {method} come with the kit (there are: {there}): train them")
    return path
