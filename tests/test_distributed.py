"""pcl_lib.distributed: two and three gloo processes against one, and a process that is killed under torchrun."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_pretrain import FORK, SETTINGS, fit, forks, tiny
from torch import Tensor, nn

from pcl_lib import data, distributed, pretrain
from pcl_lib.models import PCL
from pcl_lib.pretrain.trainer import Trainer
from pcl_lib.utils import BadInput

METHODS = ("pcl", "pcl_plus", "simclr", "fabnet")
SLOW = ("moco", "byol")  # with a momentum encoder as auxiliary module, and a queue or a predictor
SHARED: dict[str, Any] = {  # batches that two and three processes can share; batch norm in the encoder too
    "train__pdd_batch": 12,
    "train__face_batch": 12,
    "train__pose_batch": 12,
    "train__epochs": 2,
    "train__lr": 1e-5,  # at 2e-3 rounding grows by orders of magnitude within three iterations
    "model__norm": "batch",
}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def settings(**changes: Any) -> dict[str, Any]:
    return SHARED | changes


def processes(count: int, work: Callable[..., None], *arguments: Any) -> None:
    """Run `work(rank, ...)` in so many processes, told their place by the environment as a cluster would."""
    port = free_port()

    def start(rank: int) -> None:
        os.environ |= {"LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        work(rank, count, *arguments)

    members = [FORK.Process(target=start, args=(rank,)) for rank in range(count)]
    for process in members:
        process.start()
    for process in members:
        process.join(120)
        process.kill()
    assert [process.exitcode for process in members] == [0] * count


def norm_over_ranks(folder: Path) -> None:
    """A batch norm of this rank's rows of a batch of six; what came out of it is kept."""
    torch.manual_seed(0)
    whole, wanted = torch.randn(2, 6, 3, 4, 4)
    norm = nn.Sequential(nn.BatchNorm2d(3))
    norm[0].weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
    distributed.share_batch_norms(norm)
    x = distributed.own(whole).clone().requires_grad_()
    y = distributed.gather(norm(x))
    (y * wanted).sum().backward()
    distributed.average_gradients(norm.parameters())
    found = {"y": y.detach(), "x": x.grad, **{f"grad {k}": p.grad for k, p in norm.named_parameters()}}
    torch.save(found | norm.state_dict(), folder / f"norm{distributed.rank()}.pt")


def weights(run: pretrain.Trained) -> dict[str, Tensor]:
    """Those of the model, and of the method's auxiliary modules."""
    auxiliary = getattr(run.method, "auxiliary_modules", nn.Module()).state_dict()
    return {**run.model.state_dict(), **{f"auxiliary.{name}": value for name, value in auxiliary.items()}}


def train(rank: int, count: int, names: tuple[str, ...], faces: data.PreparedFaces, folder: Path) -> None:
    for method in names:
        preset = tiny(**settings())
        run = pretrain.fit(
            method, preset=preset, faces=faces, out=folder, seed=3, devices=count, progress=False
        )
        torch.save(weights(run), folder / f"{method}{rank}.pt")
    norm_over_ranks(folder)


def apart(one: dict[str, Tensor], other: dict[str, Tensor], start: dict[str, Tensor]) -> float:
    """Length of the difference of two sets of weights, of the way that the first went from the start."""
    names = [name for name, value in start.items() if value.is_floating_point()]
    flat = [torch.cat([found[name].flatten() for name in names]) for found in (one, other, start)]
    return float((flat[0] - flat[1]).norm() / (flat[0] - flat[2]).norm())


@forks
@pytest.mark.parametrize(("count", "names"), [(2, METHODS), (3, METHODS), (2, SLOW)])
def test_processes_train_as_one(
    count: int, names: tuple[str, ...], blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    processes(count, train, names, blobs, tmp_path)
    for method in names:
        alone = fit(blobs, tmp_path / "alone", method, **settings())
        log = pd.read_csv(tmp_path / "logs" / f"{method}.csv").drop(columns="seconds")
        # Sums of float32 in another order: losses near 7 differ by up to 2e-4 of themselves with AVX2, by as much
        # with some AVX-512 processors. A rank that saw its own rows alone would move them by a tenth and more.
        pd.testing.assert_frame_equal(log, alone.history.drop(columns="seconds"), rtol=1e-3, atol=1e-5)
        first, *others = (torch.load(tmp_path / f"{method}{rank}.pt") for rank in range(count))
        for other in others:
            assert all(torch.equal(value, other[name]) for name, value in first.items())
        start = PCL(alone.method.preset.model, 3).state_dict()
        # Adam turns rounding in gradients near zero into whole steps, so equal weights are not to be had.
        assert apart(weights(alone), first, start) < 0.02
        check_auxiliary(weights(alone), first)
    check_norm(count, tmp_path)


def check_auxiliary(alone: dict[str, Tensor], shared: dict[str, Tensor]) -> None:
    """Momentum encoder, predictor and queue are those of one process; of the queue that means the keys in order."""
    assert alone.keys() == shared.keys()
    for name in (name for name in alone if name.startswith("auxiliary")):
        torch.testing.assert_close(alone[name], shared[name], rtol=1e-3, atol=1e-3)


def check_norm(count: int, folder: Path) -> None:
    """Outputs, gradients and running statistics are those of one batch norm over the whole batch."""
    torch.manual_seed(0)
    whole, wanted = torch.randn(2, 6, 3, 4, 4)
    norm = nn.Sequential(nn.BatchNorm2d(3))
    norm[0].weight.data.copy_(torch.tensor([0.5, 1.0, 2.0]))
    x = whole.clone().requires_grad_()
    y = norm(x)
    (y * wanted).sum().backward()
    assert x.grad is not None
    for rank in range(count):
        found = torch.load(folder / f"norm{rank}.pt")
        torch.testing.assert_close(found["y"], y.detach())
        own = x.grad[rank * 6 // count : (rank + 1) * 6 // count]
        torch.testing.assert_close(found["x"], count * own)  # the gradient of the sum over ranks
        for name, parameter in norm.named_parameters():
            torch.testing.assert_close(found[f"grad {name}"], parameter.grad)
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(found[name], value)


def test_a_run_goes_on_with_another_number_of_processes(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    whole = fit(blobs, tmp_path / "whole", **settings(train__epochs=3, loss__negatives="released_code"))
    short = settings(train__epochs=3, loss__negatives="released_code")
    part, out = fit_until(blobs, tmp_path / "part", 1, short), tmp_path / "part"
    assert part == 1
    processes(2, go_on, blobs, out, short)
    resumed = torch.load(out / "0.pt")
    start = PCL(whole.method.preset.model, 3).state_dict()
    assert apart(whole.model.state_dict(), resumed, start) < 0.02
    assert pd.read_csv(out / "logs" / "pcl.csv")["epoch"].tolist() == [1, 2, 3]


def fit_until(faces: data.PreparedFaces, out: Path, epochs: int, changes: dict[str, Any]) -> int:
    """Stop a run after so many epochs, as a kill would; returns the epoch of its checkpoint."""
    train_epoch = Trainer.train_epoch

    def stopping(self: Any) -> dict[str, float]:
        if self.epoch == epochs:
            raise KeyboardInterrupt
        return train_epoch(self)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Trainer, "train_epoch", stopping)
        fit(faces, out, **changes)
    return int(torch.load(out / "checkpoints" / "pcl.state")["epoch"])


def go_on(rank: int, count: int, faces: data.PreparedFaces, out: Path, changes: dict[str, Any]) -> None:
    run = pretrain.fit(preset=tiny(**changes), faces=faces, out=out, seed=3, devices=count, progress=False)
    torch.save(run.model.state_dict(), out / f"{rank}.pt")


def refuse(rank: int, count: int, faces: data.PreparedFaces, out: Path) -> None:
    with pytest.raises(BadInput, match=r"batch of 16 of task 'pdd' cannot be shared evenly by 3 processes"):
        pretrain.fit(preset=tiny(), faces=faces, out=out / str(rank), devices=count, progress=False)


@forks
def test_batches_that_cannot_be_shared_are_refused(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    processes(3, refuse, blobs, tmp_path)


FALLING = """
import os, signal
from pcl_lib.pretrain.__main__ import main
from pcl_lib.pretrain.trainer import Trainer
from pcl_lib.utils import exit_cleanly
train_epoch = Trainer.train_epoch
def falling(self):
    if self.epoch == 2 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return train_epoch(self)
Trainer.train_epoch = falling
exit_cleanly(main)
"""


def test_a_killed_rank_starts_again_from_the_checkpoint(blobs: data.PreparedFaces, tmp_path: Path) -> None:
    """torchrun --max-restarts: one of two ranks is killed in mid-run; the end is that of an undisturbed run."""
    (tmp_path / "falling.py").write_text(FALLING)
    command = torchrun(blobs, tmp_path / "run", tmp_path / "falling.py", restarts=1, train__epochs=4)
    # Shared, torchrun's store would give a restarted rank the address of one that has died.
    own_store = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=own_store)
    assert ended.returncode == 0, ended.stderr
    assert "exitcode: -9" in ended.stderr  # it was killed, and torchrun saw it
    resumed = torch.load(tmp_path / "run" / "checkpoints" / "pcl.state")
    assert resumed["epoch"] == 4
    whole = fit(blobs, tmp_path / "whole", **settings(train__epochs=4))
    start = PCL(whole.method.preset.model, 3).state_dict()
    assert apart(whole.model.state_dict(), resumed["model"], start) < 0.02


FAILING = """
import os
from pcl_lib import methods
from pcl_lib.pretrain.__main__ import main
from pcl_lib.utils import exit_cleanly
import torch
def hungry(self, *rest):
    raise torch.OutOfMemoryError("full")
if os.environ["RANK"] == "1":
    methods.PCLMethod.face = hungry
exit_cleanly(main)
"""


def test_a_rank_that_fails_ends_the_others_with_its_own_message(
    blobs: data.PreparedFaces, tmp_path: Path
) -> None:
    script = tmp_path / "failing.py"
    script.write_text(FAILING)
    command = torchrun(blobs, tmp_path / "run", script)
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode != 0
    assert ended.stderr.count("error: rank 1: out of memory in task 'face' with a batch of 12") == 1, (
        ended.stderr
    )
    assert ended.stderr.count("error: rank") <= 2 and "[rank" not in ended.stderr  # no traceback of any rank


def torchrun(
    faces: data.PreparedFaces, out: Path, script: Path, restarts: int = 0, **changes: Any
) -> list[str]:
    """The command that trains in two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", str(script), "--preset", "smoke", "--seed", "3"]
    return [*command, "--data", str(faces.folder), "--out", str(out), *flags(settings(**changes))]


def flags(changes: dict[str, Any]) -> list[str]:
    values = SETTINGS | {name.replace("__", "."): value for name, value in changes.items()}
    return [item for key, value in values.items() for item in ("--set", f"{key}={value}")]


def test_one_process_gathers_and_owns_everything() -> None:
    x = torch.from_numpy(np.arange(6.0)).view(3, 2)
    assert distributed.world() == 1 and distributed.rank() == 0
    assert distributed.gather(x) is x and distributed.own(x, 3) is x and distributed.mean(x) is x
