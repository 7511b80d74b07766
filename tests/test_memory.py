"""pcl_lib.presets: which errors mean a full memory, and what is then tried and offered."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from pcl_lib import presets, pretrain
from pcl_lib.methods.supervised import Labelled
from pcl_lib.presets import PRESETS


def test_a_full_main_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert pretrain.is_full(caught.value)
    with pytest.raises(RuntimeError) as caught:
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    assert not pretrain.is_full(caught.value)


@pytest.mark.parametrize(("fits", "found"), [(16, 16), (15, 8), (2, 2), (1, 0)])
@pytest.mark.parametrize("labelled", [False, True])
def test_the_largest_half_that_fits_is_found(fits: int, found: int, labelled: bool) -> None:
    tried: list[int] = []

    def attempt(batch: Any) -> None:
        images = batch.images if labelled else batch
        assert not labelled or torch.equal(batch.targets, images[:, 0])
        tried.append(len(images))
        if len(images) > fits:
            raise torch.OutOfMemoryError("full")

    x = torch.arange(64.0).view(32, 2)
    assert presets.largest(Labelled(x, x[:, 0]) if labelled else x, attempt) == found
    assert tried[0] == 16 and tried == [16 >> i for i in range(len(tried))]


def test_other_errors_pass() -> None:
    def attempt(_: Tensor) -> None:
        raise RuntimeError("another")

    with pytest.raises(RuntimeError, match="another"):
        presets.largest(torch.zeros(8, 1), attempt)


def test_presets_are_offered_only_where_network_and_batches_are_no_larger() -> None:
    paper, cpu = PRESETS["paper"], PRESETS["cpu"]
    assert presets.within(cpu, paper, 48) and not presets.within(cpu, paper, 47)
    assert not presets.within(paper, cpu, 1000)
    assert presets.smaller(paper, 48) == ["smoke", "cpu"] and presets.smaller(cpu, 4) == []
