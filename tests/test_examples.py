"""The examples in docstrings are true; every public loss, `evaluate`, `PreparedFaces` and `render` have one."""

from __future__ import annotations

import doctest
import importlib

import pytest

WANTED = {
    "pcl_lib.losses": {
        "reconstruction", "orthogonality", "info_nce", "plain_logits", "face_logits", "pose_logits", "mirror_logits",
        "dynamic_weights",
    },
    "pcl_lib.probes.evaluate": {"evaluate"},
    "pcl_lib.data.folder": {"PreparedFaces"},
    "pcl_lib.faces.render": {"render"},
}  # fmt: skip


@pytest.mark.parametrize("name", WANTED)
def test_examples_are_there_and_true(name: str) -> None:
    module = importlib.import_module(name)
    found = {test.name.removeprefix(f"{name}."): test for test in doctest.DocTestFinder().find(module)}
    assert {key for key, test in found.items() if test.examples} >= WANTED[name]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in found.values():
        runner.run(test)
    assert runner.failures == 0
