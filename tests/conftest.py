"""What several test files share: one thread, a small prepared folder, a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import browser
import numpy as np
import offline
import pandas as pd
import pytest
import torch

from pcl_lib import data

torch.set_num_threads(1)  # the models here are too small for more, and times stay steady


def blob_images(n: int, size: int, seed: int = 0) -> torch.Tensor:
    """Soft coloured blobs, uint8 [n, 3, size, size]: quick to make, and something to learn."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] / size
    cx, cy, spread = (
        rng.uniform(low, high, (n, 1, 1)) for low, high in ((0.3, 0.7), (0.3, 0.7), (0.15, 0.35))
    )
    blob = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * spread**2))[:, None]
    colour, ground = rng.uniform(0.3, 1, (n, 3, 1, 1)), rng.uniform(0, 0.3, (n, 3, 1, 1))
    images = 255 * np.clip(ground + (colour - ground) * blob + rng.normal(0, 0.01, (n, 3, size, size)), 0, 1)
    return torch.from_numpy(images.astype(np.uint8))


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> data.PreparedFaces:
    """96 training and 32 other images of 16 pixels, two an identity."""
    table = pd.DataFrame(
        {"identity": np.arange(128) // 2, "split": ["train"] * 96 + ["validation"] * 16 + ["test"] * 16}
    )
    folder: Path = tmp_path_factory.mktemp("blobs") / "set"
    data.write_prepared(folder, blob_images(128, 16), table, name="blobs", source="drawn by the tests")
    return data.PreparedFaces(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A function that makes a file system of a given size ("300k"); skips where none can be mounted."""
    made: list[Path] = []

    def make(size: str) -> Path:
        folder = tmp_path / f"disk{len(made)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        made.append(folder)
        return folder

    yield make
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """One browser for all tests that need one: a process can have no second Playwright beside it."""
    if why := browser.browser_missing():
        pytest.skip(why)
    with browser.start_chromium() as running:
        yield running


@pytest.fixture(scope="session")
def offline_window(chromium: Any) -> Iterator[Any]:
    """A window without network that can be touched, for `offline.page`."""
    with offline.window(chromium) as found:
        yield found


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory: pytest.TempPathFactory, chromium: Any) -> Iterator[browser.Jupyter]:
    """One JupyterLab for all tests that drive it."""
    with browser.serve(tmp_path_factory.mktemp("lab"), chromium) as running:
        yield running
