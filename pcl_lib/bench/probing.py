"""The part of the benchmark about probes: the encoder once, and the kit's probes next to scikit-learn's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcl_lib.bench.timing import Bench
from pcl_lib.disentangle import PictureReader
from pcl_lib.models import PCL
from pcl_lib.presets import PRESETS
from pcl_lib.probes import linear
from pcl_lib.probes.tasks import Split

PENALTIES, CLASSES = np.array(linear.PENALTIES), 7


def bench_probes(bench: Bench) -> None:
    """A linear probe of 300 epochs: the encoder in every epoch, or once. Probes of the kit and of scikit-learn."""
    bench_epochs(bench)
    bench_library(bench)


def bench_epochs(bench: Bench) -> None:
    """A linear probe of 300 epochs (method.md, section 7) on 1,024 images: the encoder in every epoch, or once."""
    preset, count, epochs = PRESETS["cpu"], 1024, 300
    model = PCL(preset.model).to(bench.device).eval()
    generator = torch.Generator(bench.device).manual_seed(0)
    shape = (count, 3, preset.model.image_size, preset.model.image_size)
    images = torch.randint(256, shape, dtype=torch.uint8, device=bench.device, generator=generator)
    labels = torch.randint(7, (count,), device=bench.device, generator=generator)

    def encode(part: Tensor) -> Tensor:
        with torch.inference_mode():
            return model.general_feature(images[part])

    def train(features: Callable[[Tensor], Tensor], epochs: int) -> None:
        layer = torch.nn.Linear(model.general_feature(images[:1]).shape[1], 7, device=bench.device)
        optimizer = torch.optim.Adam(layer.parameters(), lr=1e-2)
        for _ in range(epochs):
            for part in torch.randperm(count, device=bench.device, generator=generator).split(256):
                optimizer.zero_grad(set_to_none=True)
                F.cross_entropy(layer(features(part).clone()), labels[part]).backward()
                optimizer.step()

    def features_once() -> None:
        cached = torch.cat([encode(part) for part in torch.arange(count, device=bench.device).split(256)])
        train(cached.__getitem__, epochs)

    measured = 2
    note = f"from {measured} measured epochs, times {epochs // measured}"
    time_probe = partial(bench.time, "300 epochs", count=count * epochs, unit="samples", repeats=3)
    time_probe("encoder in every epoch", partial(train, encode, measured), calls=epochs / measured, note=note)
    time_probe("features once", features_once, note="all epochs measured")


def bench_library(bench: Bench, images: int = 1500, width: int = 256, pictures: int = 200) -> None:
    """Expression, pose and pictures by the kit and by scikit-learn, chosen on the same fifth of the images.

    The features hold the labels linearly, with noise, and have variances that fall by a factor of 1,000 (as an
    encoder's). Where both choose one setting, the note says how far their answers differ.
    """
    x, classes, angles = simulated(images, width)
    cut = images * 4 // 5
    split = Split(np.arange(cut), np.arange(cut, images), np.arange(cut, images))
    cached = partial(linear.CachedFeatures, torch.from_numpy(x), np.arange(images), images)
    where = f"of {cut:,} images of {width} numbers"

    def ours_classes() -> tuple[np.ndarray, float]:
        return linear.predict_classes(cached(), split, classes)

    def ours_values() -> tuple[np.ndarray, list[float]]:
        return linear.predict_values(cached(), split, angles)

    own, other = ours_classes(), sklearn_classes(x, classes, cut)
    note = f"penalty {own[1]:g} and {other[1]:g}; {(own[0] == other[0]).mean():.1%} of the answers alike"
    case = f"{CLASSES} expressions {where}"
    few: dict[str, Any] = {"unit": "probes", "repeats": min(bench.repeats, 3)}
    bench.time(case, "LogisticRegressionCV", partial(sklearn_classes, x, classes, cut), **few)
    bench.time(case, "pcl_lib", ours_classes, note=note, **few)
    note = f"answers differ by {np.abs(ours_values()[0] - sklearn_values(x, angles, cut)).max():.2g} at most"
    case = f"3 angles {where}"
    bench.time(case, "RidgeCV", partial(sklearn_values, x, angles, cut), **few)
    bench.time(case, "pcl_lib", ours_values, note=note, **few)
    _bench_pictures(bench, pictures, few)


def _bench_pictures(bench: Bench, count: int, few: dict[str, Any]) -> None:
    x, _, angles = simulated(count + count // 4, 3 * 24 * 24)
    train, held = torch.from_numpy(x[:count]).double(), torch.from_numpy(x[count:]).double()

    def ours() -> np.ndarray:
        return PictureReader(train, angles[:count], held, angles[count:])(held)

    library = partial(sklearn_pictures, train.numpy(), angles[:count], held.numpy(), angles[count:])
    note = f"answers differ by {np.abs(ours() - library()).max():.2g} at most"
    case = f"3 angles of {count:,} pictures, Gaussian kernel"
    bench.time(case, "KernelRidge in GridSearchCV", library, **few)
    bench.time(case, "pcl_lib", ours, note=note, **few)


def simulated(n: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 [n, width], classes int64 [n] and angles [n, 3] that they hold linearly."""
    g = np.random.default_rng(0)
    hidden = g.normal(size=(n, width)) * np.logspace(0, -1.5, width)
    basis = np.linalg.qr(g.normal(size=(width, width)))[0]
    classes = (hidden[:, :CLASSES] + 0.5 * g.normal(size=(n, CLASSES))).argmax(1)
    angles = 25 * hidden[:, 3:6] + 5 * g.normal(size=(n, 3))
    return (hidden @ basis).astype(np.float32), classes, angles


def _validation(count: int, cut: int) -> Any:
    from sklearn.model_selection import PredefinedSplit

    return PredefinedSplit(np.where(np.arange(count) < cut, -1, 0))


def _standard(x: np.ndarray, cut: int) -> np.ndarray:
    return (x - x[:cut].mean(0)) / x[:cut].std(0)


def sklearn_classes(x: np.ndarray, y: np.ndarray, cut: int) -> tuple[np.ndarray, float]:
    """The rows from `cut` on by scikit-learn's logistic regression, and the penalty that they chose."""
    from sklearn.linear_model import LogisticRegressionCV

    z = _standard(x, cut)
    fitted = LogisticRegressionCV(
        Cs=1 / (cut * PENALTIES), cv=_validation(len(z), cut), scoring="neg_log_loss", refit=False,
        max_iter=2000, tol=1e-5, use_legacy_attributes=True,
    ).fit(z, y)  # fmt: skip
    return fitted.predict(z[cut:]), float(1 / (cut * np.ravel(fitted.C_)[0]))


def sklearn_values(x: np.ndarray, y: np.ndarray, cut: int) -> np.ndarray:
    """The rows from `cut` on by scikit-learn's ridge regression, a penalty for each column chosen on them."""
    from sklearn.linear_model import Ridge, RidgeCV

    z, found = _standard(x, cut), []
    for column in y.T:
        chosen = RidgeCV(
            cut * np.array(linear.RIDGE_PENALTIES),
            cv=_validation(len(z), cut),
            scoring="neg_mean_squared_error",
        ).fit(z, column)
        found.append(Ridge(chosen.alpha_).fit(z[:cut], column[:cut]).predict(z[cut:]))
    return np.stack(found, 1)


def sklearn_pictures(x: np.ndarray, y: np.ndarray, held: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`held` by scikit-learn's kernel ridge regression over `PictureReader`'s grid, chosen by `truth`."""
    from sklearn.kernel_ridge import KernelRidge
    from sklearn.model_selection import GridSearchCV

    some = torch.from_numpy(x[:500])
    typical = float(torch.cdist(some, some).square().median())
    grid = {"alpha": np.logspace(-6, 1, 15), "gamma": [1 / (2 * m * typical) for m in (0.3, 1.0, 3.0, 10.0)]}
    both, mean = np.concatenate([x, held]), y.mean(0)
    found = []
    for column, target in zip((y - mean).T, (truth - mean).T, strict=True):
        search = GridSearchCV(
            KernelRidge(kernel="rbf"), grid, cv=_validation(len(both), len(x)),
            scoring="neg_mean_squared_error", refit=False,
        ).fit(both, np.concatenate([column, target]))  # fmt: skip
        found.append(KernelRidge(kernel="rbf", **search.best_params_).fit(x, column).predict(held))
    return np.stack(found, 1) + mean
