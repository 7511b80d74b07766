"""pcl_lib.losses against naive float64 restatements (tests/oracles.py) and closed forms."""

from __future__ import annotations

import math

import numpy as np
import oracles
import pytest
import torch
from scipy import stats
from skimage.metrics import structural_similarity
from torch import Tensor

from pcl_lib import losses


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_mix(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).beta(1.6, 1.6, shape))


def permutation_of(n: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed + 1).permutation(n))


def assert_same_value_and_gradient(ours: Tensor, oracle: Tensor, *inputs: Tensor) -> None:
    """Both outputs weighted by the same random numbers, so that every entry's gradient is checked."""
    torch.testing.assert_close(ours, oracle, rtol=1e-9, atol=1e-11)
    weight = randn(*ours.shape, seed=9)
    for a, b in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((oracle * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("batch", "face", "pose"), [(2, 3, 3), (5, 8, 8), (9, 4, 4), (6, 7, 2), (3, 2, 12)])
def test_orthogonality_is_the_mean_square_of_the_explicit_matrix(batch: int, face: int, pose: int) -> None:
    x = (3 * randn(batch, face) + 1).requires_grad_()
    y = randn(batch, pose, seed=1).requires_grad_()
    assert_same_value_and_gradient(losses.orthogonality(x, y), oracles.orthogonality(x, y), x, y)


def test_orthogonality_of_independent_and_of_equal_features() -> None:
    # Rows (+-1, 0) and (0, +-1) in all four combinations: centred already, and uncorrelated by construction.
    face = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])
    pose = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    assert losses.orthogonality(face, pose).item() == pytest.approx(0, abs=1e-12)
    assert losses.orthogonality(face, face).item() == pytest.approx(16, rel=1e-4)  # (1 + 1 + 1 + 1) squared


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((1, 3), (1, 3)), ((4, 3, 1), (4, 3, 1))])
def test_orthogonality_refuses_other_shapes(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="must be"):
        losses.orthogonality(torch.zeros(shapes[0]), torch.zeros(shapes[1]))


def test_reconstruction_is_the_mean_absolute_error() -> None:
    output = torch.zeros(2, 3, 4, 4)
    target = torch.zeros(2, 3, 4, 4)
    target[1, 2, 3, 0] = 0.96
    assert losses.reconstruction(output, target).item() == pytest.approx(0.96 / 96)
    with pytest.raises(ValueError, match="differ in shape"):
        losses.reconstruction(output, target[:1])


@pytest.mark.parametrize("batch", range(2, 10))
def test_face_logits_equal_the_tensor_form(batch: int) -> None:
    n, width = 2 * batch, 2 + batch % 4
    z = randn(n, width, seed=batch).requires_grad_()
    mix, permutation = random_mix(n, n - 2, seed=batch), permutation_of(n - 2, batch)
    ours = losses.face_logits(z, 0.07, mix, permutation)
    assert ours.shape == (n, n - 1)
    assert_same_value_and_gradient(ours, oracles.face_logits(z, 0.07, mix, permutation), z)


@pytest.mark.parametrize("batch", range(1, 10))
def test_pose_logits_equal_the_loop_over_samples(batch: int) -> None:
    count, width = 1 + batch % 5, 2 + batch % 4
    z = randn(2 * batch, width, seed=batch).requires_grad_()
    negatives = randn(batch, count, width, seed=50 + batch).requires_grad_()
    mix, permutation = random_mix(batch, count, seed=batch), permutation_of(count, batch)
    ours = losses.pose_logits(z, negatives, 0.2, mix, permutation)
    assert ours.shape == (2 * batch, 1 + count)
    oracle = oracles.pose_logits(z, negatives, 0.2, mix, permutation)
    assert_same_value_and_gradient(ours, oracle, z, negatives)


@pytest.mark.parametrize("batch", range(2, 6))
def test_plain_logits_equal_the_loop_and_are_the_unmixed_face_logits(batch: int) -> None:
    z = randn(2 * batch, 5, seed=batch).requires_grad_()
    assert_same_value_and_gradient(losses.plain_logits(z, 0.1), oracles.plain_logits(z, 0.1), z)
    torch.testing.assert_close(losses.face_logits(z, 0.1, mixing=0), losses.plain_logits(z, 0.1))


@pytest.mark.parametrize("batch", range(2, 5))
def test_mirror_logits_equal_the_loop(batch: int) -> None:
    z, mirrored = (
        randn(2 * batch, 5, seed=batch).requires_grad_(),
        randn(2 * batch, 5, seed=9).requires_grad_(),
    )
    ours = losses.mirror_logits(z, mirrored, 0.2)
    assert ours.shape == (2 * batch, 4 * batch - 1)
    assert_same_value_and_gradient(ours, oracles.mirror_logits(z, mirrored, 0.2), z, mirrored)


def test_info_nce_is_cross_entropy_with_target_zero() -> None:
    logits = (4 * randn(6, 5)).requires_grad_()
    ours, oracle = losses.info_nce(logits), oracles.info_nce(logits)
    torch.testing.assert_close(ours, oracle)
    # All candidates alike: the loss is the logarithm of their number.
    assert losses.info_nce(torch.full((3, 8), 2.5)).item() == pytest.approx(math.log(8))


def test_gram_form_in_float32_stays_close_to_float64() -> None:
    """Logits at T 0.07 within 2e-3 for typical features; the Gram form loses digits only where a mixed negative
    nearly cancels, so features with a large common part, as after training, are tried too."""
    batch = 32
    n = 2 * batch
    mix, permutation = random_mix(n, n - 2), permutation_of(n - 2)
    for common in (0.0, 3.0, 30.0):
        z = randn(n, 128) + common
        exact = losses.face_logits(z, 0.07, mix, permutation)
        single = losses.face_logits(z.float(), 0.07, mix.float(), permutation)
        assert single.dtype == torch.float32
        assert (single - exact).abs().max() < 2e-3
        assert (losses.info_nce(single) - losses.info_nce(exact)).abs() < 1e-4


def test_gradients_stay_finite_where_features_vanish_or_cancel() -> None:
    z = randn(8, 4).float()
    z[3] = 0
    z[5] = -z[6]
    z.requires_grad_()
    mix = torch.full((8, 6), 0.5)
    losses.info_nce(losses.face_logits(z, 0.07, mix, torch.arange(6).flip(0))).backward()
    assert z.grad is not None and torch.isfinite(z.grad).all()


def test_draws_are_repeated_by_their_generator_and_are_those_of_the_arguments() -> None:
    z, negatives = randn(8, 4).float(), randn(4, 5, 4, seed=1).float()
    for function, inputs, shape in (
        (losses.face_logits, (z,), (8, 6)),
        (losses.pose_logits, (z, negatives), (4, 5)),
    ):
        drawn = [function(*inputs, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
        assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
        generator = torch.Generator().manual_seed(3)
        mix = losses.draw_mix(shape, 1.6, "cpu", generator)
        permutation = torch.randperm(shape[1], generator=generator)
        assert torch.equal(function(*inputs, mix=mix, permutation=permutation), drawn[0])


def test_drawing_with_a_generator_leaves_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    losses.face_logits(randn(8, 4), generator=torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("mixing", [0.5, 1.6, 5.0])
def test_mix_is_beta_distributed(mixing: float) -> None:
    drawn = losses.draw_mix((100, 400), mixing, "cpu", torch.Generator().manual_seed(0))
    assert drawn.dtype == torch.float32 and drawn.min() >= 0 and drawn.max() <= 1
    assert stats.kstest(drawn.flatten().double().numpy(), stats.beta(mixing, mixing).cdf).pvalue > 1e-3
    rows = np.corrcoef(drawn.numpy())  # drawn one by one: no row resembles another
    assert np.abs(rows - np.eye(100)).max() < 6 / math.sqrt(400)


def test_quantiles_are_as_exact_as_stated() -> None:
    table = losses._beta_quantiles(1.6, torch.device("cpu")).double().numpy()
    place = np.linspace(0, 1, 400_001)
    interpolated = np.interp(place * (len(table) - 1), np.arange(len(table)), table)
    assert np.abs(interpolated - stats.beta(1.6, 1.6).ppf(place)).max() < 3e-4


def test_dynamic_weights_follow_the_formula() -> None:
    previous, before = {"face": 3.1, "pose": 0.4}, {"face": 3.5, "pose": 1.2}
    ours = losses.dynamic_weights(previous, before)
    assert ours == pytest.approx(oracles.dynamic_weights(previous, before))
    assert sum(ours.values()) == pytest.approx(2)
    assert ours["face"] > 1 > ours["pose"]  # the one that falls slower weighs more
    assert losses.dynamic_weights(before, before) == pytest.approx({"face": 1, "pose": 1})


@pytest.mark.parametrize(
    ("previous", "before"),
    [({"a": 1.0}, {"b": 1.0}), ({}, {}), ({"a": 1.0}, {"a": 0.0}), ({"a": 1.0}, {"a": -1.0})],
)
def test_dynamic_weights_refuse_bad_losses(previous: dict[str, float], before: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"tasks|losses"):
        losses.dynamic_weights(previous, before)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda z: losses.face_logits(z[:7]), "two stacked views"),
        (lambda z: losses.face_logits(z[:2]), "2B >= 4"),
        (lambda z: losses.plain_logits(z[0]), "two stacked views"),
        (lambda z: losses.face_logits(z, 0.0), "temperature"),
        (lambda z: losses.plain_logits(z, -1.0), "temperature"),
        (lambda z: losses.plain_logits(z, math.nan), "temperature"),
        (lambda z: losses.face_logits(z, mix=torch.ones(8, 5)), "are needed"),
        (lambda z: losses.face_logits(z, permutation=torch.arange(5)), "are needed"),
        (lambda z: losses.pose_logits(z, torch.zeros(4, 3, 5)), "do not fit"),
        (lambda z: losses.pose_logits(z, torch.zeros(3, 3, 4)), "do not fit"),
        (lambda z: losses.pose_logits(z, torch.zeros(4, 4)), "do not fit"),
        (lambda z: losses.mirror_logits(z, z[:4]), "differ in shape"),
        (lambda z: losses.pose_logits(z, torch.zeros(4, 3, 4), mix=torch.ones(3, 4)), "are needed"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(call, said: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=said):
        call(torch.zeros(8, 4))


def test_under_autocast_losses_are_computed_in_float32() -> None:
    z, negatives, mix = randn(8, 16).float(), randn(4, 3, 16, seed=1).float(), random_mix(8, 6).float()
    pose_mix, permutation, three = random_mix(4, 3).float(), permutation_of(6), permutation_of(3)

    def every(z: Tensor, negatives: Tensor) -> list[Tensor]:
        return [
            losses.face_logits(z, 0.07, mix, permutation),
            losses.pose_logits(z, negatives, 0.07, pose_mix, three),
            losses.plain_logits(z),
            losses.mirror_logits(z, z.flip(0)),
            losses.orthogonality(z, z.flip(0)),
            losses.orthogonality(z[:2], z[2:4]),
            losses.info_nce(z),
            losses.reconstruction(negatives, negatives.flip(0)),
        ]

    wanted = every(z, negatives)
    with torch.autocast("cpu", torch.bfloat16):
        inside = every(z, negatives)
        rounded = every(z.bfloat16(), negatives.bfloat16())
    for one, two, three_ in zip(wanted, inside, rounded, strict=True):
        assert torch.equal(one, two)
        assert three_.dtype == torch.float32


def halved(image: np.ndarray) -> np.ndarray:
    """Means of blocks of 2 x 2, of what there is of them at odd edges."""
    blocks = [np.arange(0, side, 2) for side in image.shape]
    return np.array([[image[y : y + 2, x : x + 2].mean() for x in blocks[1]] for y in blocks[0]])


def enlarged(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear between the centres of pixels, flat beyond the outermost."""
    for axis in (0, 1):
        places = (np.arange(shape[axis]) + 0.5) * image.shape[axis] / shape[axis] - 0.5
        known = np.arange(image.shape[axis])
        image = np.apply_along_axis(lambda line, at=places, x=known: np.interp(at, x, line), axis, image)
    return image


@pytest.mark.parametrize("shape", [(16, 32), (25, 17), (40, 40), (3, 5)])
def test_the_pyramid_is_what_each_halving_loses(shape: tuple[int, int]) -> None:
    output, target = (randn(2, 3, *shape, seed=seed) for seed in (0, 1))
    wanted = []
    for rest in (output - target).flatten(0, 1).numpy():
        total = 0.0
        for _ in range(4):
            small = halved(rest)
            total, rest = total + 4 * np.abs(rest - enlarged(small, rest.shape)).mean(), small
        wanted.append(total + np.abs(rest).mean())
    assert losses.pyramid_l1(output, target).item() == pytest.approx(np.mean(wanted))


@pytest.mark.parametrize("size", [11, 16, 33])
def test_structural_similarity_is_that_of_scikit_image(size: int) -> None:
    x, noise = torch.rand(2, 3, 3, size, size + 2, generator=torch.Generator().manual_seed(0)).unbind(0)
    y = (x + 0.3 * noise).clamp(0, 1)
    wanted = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(x.double(), y.double(), strict=True)
    ]  # fmt: skip
    assert losses.structural_similarity(x, y).item() == pytest.approx(np.mean(wanted), abs=1e-5)
    assert losses.structural_similarity(x, x).item() == pytest.approx(1)
    with pytest.raises(ValueError, match="smaller than the window of 11"):
        losses.structural_similarity(x[..., :10], y[..., :10])
