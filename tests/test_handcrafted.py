"""Hand-crafted features: sizes, what they ignore, what they tell apart, and that probes take them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcl_lib import probes
from pcl_lib.data import PreparedFaces
from pcl_lib.probes.handcrafted import LBP, PATTERNS, Eigenfaces, HoG, grey
from pcl_lib.utils import BadInput


def noise(n: int = 3, size: int = 48) -> torch.Tensor:
    return torch.randint(
        20, 200, (n, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_grey_is_luma_and_resizes_without_aliasing() -> None:
    x = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    x[:, 0], x[:, 1], x[:, 2] = 100, 50, 200
    np.testing.assert_allclose(grey(x, 4), 0.299 * 100 + 0.587 * 50 + 0.114 * 200, rtol=1e-6)
    stripes = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 200
    np.testing.assert_allclose(grey(stripes, 8)[0, :, 1:-1], 100, atol=1e-3)
    with pytest.raises(BadInput, match=r"\[N, 3, H, W\], not \[2, 1, 4, 4\]"):
        grey(torch.zeros(2, 1, 4, 4), 4)


@pytest.mark.parametrize(("model", "width"), [(HoG(), 36 * 49), (HoG(32, 8), 36 * 9), (LBP(), PATTERNS * 36)])
def test_rows_do_not_hang_on_the_batch_and_floats_are_bytes(model: HoG | LBP, width: int) -> None:
    x = noise()
    general, *others = model.features(x)
    assert general.shape == (3, width) and general.dtype == torch.float32 and others == [None] * 4
    assert torch.equal(model.features(x[1:2]).general, general[1:2])
    torch.testing.assert_close(model.features(x.float() / 255).general, general, atol=1e-5, rtol=0)
    assert not torch.allclose(general[0], general[1])


def test_hog_tells_directions_and_ignores_contrast() -> None:
    ramp = torch.arange(48).repeat(48, 1)
    across = (ramp * 4)[None, None].expand(1, 3, 48, 48).to(torch.uint8)
    bins = HoG().features(torch.cat([across, across.mT])).general.reshape(2, -1, 9).sum(1)
    assert (bins.max(1).values / bins.sum(1) > 0.99).all()  # a ramp has one direction
    assert bins[0].argmax() != bins[1].argmax()
    brighter = (noise().float() * 1.2 + 10).round().to(torch.uint8)
    cosine = torch.cosine_similarity(HoG().features(noise()).general, HoG().features(brighter).general)
    assert (cosine > 0.995).all()


def test_lbp_is_a_histogram_of_each_cell_and_ignores_brightness() -> None:
    flat = torch.full((1, 3, 48, 48), 90, dtype=torch.uint8)
    cells = LBP(48, 4).features(flat).general.reshape(16, PATTERNS)
    assert ((cells > 0.99).sum(1) == 1)[[5, 6, 9, 10]].all()  # inside: one pattern and nothing else
    x = noise()
    general = LBP().features(x).general
    torch.testing.assert_close(general.square().reshape(3, 36, PATTERNS).sum(2), torch.ones(3, 36))
    torch.testing.assert_close(LBP().features(x + 30).general, general)
    half = x.clone()
    half[..., 24:] = 0
    same = LBP(48, 2).features(half).general.reshape(3, 4, PATTERNS)
    whole = LBP(48, 2).features(x).general.reshape(3, 4, PATTERNS)
    left = torch.cosine_similarity(same[:, 0], whole[:, 0])
    assert (left > 0.95).all() and (torch.cosine_similarity(same[:, 1], whole[:, 1]) < 0.6).all()


@pytest.mark.parametrize(
    "make", [lambda: HoG(48, 7), lambda: HoG(8, 8), lambda: LBP(48, 5), lambda: LBP(48, 0)]
)
def test_sizes_that_do_not_fit(make: object) -> None:
    with pytest.raises(BadInput, match="must be a multiple"):
        make()  # type: ignore[operator]


def test_eigenfaces_are_the_singular_vectors_of_training_images(blobs: PreparedFaces) -> None:
    train = blobs.split("train")
    pixels = grey(blobs.images(train), 8).reshape(len(train), -1).astype(np.float64)
    mean = pixels.mean(0)
    _, values, vectors = np.linalg.svd(pixels - mean, full_matrices=False)
    everything = grey(blobs.images(np.arange(len(blobs))), 8).reshape(len(blobs), -1)
    wanted = (everything - mean) @ vectors[:5].T / values[:5] * np.sqrt(len(train) - 1)
    found = probes.extract(Eigenfaces(blobs, 8, 5), blobs).general.numpy()
    assert found.shape == (len(blobs), 5)
    np.testing.assert_allclose(np.abs(found), np.abs(wanted), rtol=1e-3, atol=1e-3)  # signs are free
    np.testing.assert_allclose(np.cov(found[train].T), np.eye(5), atol=1e-3)


def test_eigenfaces_need_training_images() -> None:
    class One:
        name = "one face"

        def split(self, _: str) -> np.ndarray:
            return np.arange(1)

    with pytest.raises(BadInput, match="two training images, and one face has 1"):
        Eigenfaces(One())  # type: ignore[arg-type]


def test_probes_take_them(blobs: PreparedFaces) -> None:
    features = probes.extract(HoG(16, 4), blobs)
    assert features.general.shape == (128, 36 * 9) and features.face is None
