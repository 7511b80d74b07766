"""Whether the tests would notice: known lines are changed in a copy, one at a time; the tests of them must fail.

python tests/reliability/mutations.py
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]


class Mutation(NamedTuple):
    """A change of one line: in `file`, `old` (which occurs once) becomes `new`; `tests` must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: str


MUTATIONS = (
    Mutation(
        "sign in the Gram identity",
        "pcl_lib/losses.py",
        "+ 2 * a * b * cross",
        "- 2 * a * b * cross",
        "test_losses",
    ),
    Mutation(
        "weights of the mixed norms swapped",
        "pcl_lib/losses.py",
        "a * a * square[j] + b * b * square[k]",
        "b * b * square[j] + a * a * square[k]",
        "test_losses",
    ),
    Mutation(
        "own view among the negatives",
        "pcl_lib/losses.py",
        "j = j + (j >= low)\n",
        "j = j + (j > low)\n",
        "test_losses",
    ),
    Mutation(
        "the slower task weighs less",
        "pcl_lib/losses.py",
        "share = np.exp(ratio - ratio.max())",
        "share = np.exp(ratio.min() - ratio)",
        "test_losses",
    ),
    Mutation(
        "temperature multiplies",
        "pcl_lib/losses.py",
        "return torch.cat([positives, dots], 1) / temperature",
        "return torch.cat([positives, dots], 1) * temperature",
        "test_losses",
    ),
    Mutation(
        "branches swapped",
        "pcl_lib/models/pcl.py",
        "self._face(general), self._pose(general))",
        "self._pose(general), self._face(general))",
        "test_models test_released",
    ),
    Mutation(
        "the odd component is even",
        "pcl_lib/models/pcl.py",
        "(pose_s - pose_f) / 2",
        "(pose_s + pose_f) / 2",
        "test_models test_methods",
    ),
    Mutation(
        "a fold chooses its own threshold",
        "pcl_lib/probes/linear.py",
        'best_threshold(similarity[~held], same[~held], "accuracy")',
        'best_threshold(similarity[held], same[held], "accuracy")',
        "test_probes",
    ),
    Mutation(
        "test people choose the penalty of classes",
        "pcl_lib/probes/linear.py",
        "float(F.cross_entropy(w(validation), truth))",
        "float(F.cross_entropy(w(test), torch.from_numpy(y[split.test].astype(np.int64))))",
        "test_probes",
    ),
    Mutation(
        "test people choose the penalty of values",
        "pcl_lib/probes/linear.py",
        "error = (w(validation) - truth).abs()",
        "error = (w(test) - torch.from_numpy(y[split.test] / spread).to(train)).abs()",
        "test_probes",
    ),
    Mutation(
        "test people choose the thresholds of action units",
        "pcl_lib/probes/evaluate.py",
        "zip(validation.T, seen.T, strict=True)",
        "zip(test.T, present[split.test].T, strict=True)",
        "test_probes",
    ),
    Mutation(
        "whitening sees the test people",
        "pcl_lib/probes/linear.py",
        "own = whitening(train)",
        "own = whitening(self.at(np.concatenate(split)))",
        "test_probes",
    ),
    Mutation(
        "attention over places, not channels",
        "pcl_lib/models/encoder.py",
        "g = self.g(x).flatten(2).softmax(dim=1)",
        "g = self.g(x).flatten(2).softmax(dim=2)",
        "test_models",
    ),
    Mutation(
        "a flip keeps the sign of yaw",
        "pcl_lib/faces/factors.py",
        '    "yaw",\n    "roll",\n    "gaze_x",',
        '    "roll",\n    "gaze_x",',
        "test_faces",
    ),
    Mutation(
        "yaw turns the other way",
        "pcl_lib/faces/raster.py",
        "cb * cc, cb * sc, -sb",
        "cb * cc, cb * sc, sb",
        "test_faces",
    ),
    Mutation(
        "negatives of two images mixed up",
        "pcl_lib/methods/pcl.py",
        "negatives = negatives.unflatten(0, (count, -1)).transpose(0, 1)",
        "negatives = negatives.unflatten(0, (-1, count))",
        "test_methods",
    ),
    Mutation(
        "reconstructions not swapped",
        "pcl_lib/methods/pcl.py",
        "torch.cat([face, face_f, face_s]), torch.cat([pose, pose_s, pose_f])",
        "torch.cat([face, face_s, face_f]), torch.cat([pose, pose_s, pose_f])",
        "test_methods",
    ),
    Mutation(
        "each rank sees its own rows alone",
        "pcl_lib/distributed.py",
        "        dist.all_gather(parts, x.contiguous())\n",
        "        parts = [x.contiguous() for _ in parts]\n",
        "test_distributed",
    ),
    Mutation(
        "no cosine of the learning rate",
        "pcl_lib/pretrain/trainer.py",
        "0.5 * (1 + math.cos(math.pi * share))",
        "1.0",
        "test_pretrain",
    ),
    Mutation(
        "the optimiser is not resumed",
        "pcl_lib/pretrain/trainer.py",
        '        self.optimizer.load_state_dict(state["optimizer"])\n',
        "",
        "test_pretrain",
    ),
    Mutation(
        "one seed for all epochs",
        "pcl_lib/pretrain/trainer.py",
        "default_rng([self.seed, self.epoch, number])",
        "default_rng([self.seed, 0, number])",
        "test_pretrain",
    ),
    Mutation(
        "hue turned twice as far",
        "pcl_lib/augment/batched.py",
        "(sector + 6 * turn",
        "(sector + 12 * turn",
        "test_augment",
    ),
    Mutation(
        "pairs that show one person called different",
        "pcl_lib/data/pairs.py",
        "((owner[first] == owner[second]) == same)",
        "((owner[first] == owner[second]) != same)",
        "test_data",
    ),
    Mutation(
        "a person in two splits",
        "pcl_lib/data/labels.py",
        "pd.Series(split_of[codes], index",
        "pd.Series(split_of[(codes + np.arange(len(codes)) % 2) % len(people)], index",
        "test_data",
    ),
    Mutation(
        "a released file's projectors swapped",
        "pcl_lib/models/released.py",
        '{"exp_fc": "face_projector", "pose_fc": "pose_projector"}',
        '{"pose_fc": "face_projector", "exp_fc": "pose_projector"}',
        "test_released",
    ),
    Mutation(
        "a shard may be cut short",
        "pcl_lib/data/folder.py",
        "path.stat().st_size != shard.offset + shard.nbytes",
        "path.stat().st_size < shard.offset",
        "test_data",
    ),
    Mutation(
        "a swap is right when it shows the pose donor",
        "pcl_lib/methods/video.py",
        "same = clip[donor][:, None] == clip[None]",
        "same = clip[lent][:, None] == clip[None]",
        "test_video",
    ),
)


def left_behind(folder: str, names: list[str]) -> set[str]:
    """What a copy of the repository does without; pcl_lib/data is no data."""
    made = {"runs", "data", "build"} if Path(folder) == ROOT else set()
    return shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__")(folder, names) | made & set(
        names
    )


def fails(copy: Path, tests: str, minutes: float) -> tuple[bool, str]:
    """Whether the tests of a copy fail, and the first line that says why."""
    files = [f"tests/{name}.py" for name in tests.split()]
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    line = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *files]
    try:
        done = subprocess.run(
            line, cwd=copy, env=environment, capture_output=True, text=True, timeout=60 * minutes
        )
    except subprocess.TimeoutExpired:
        return True, "the tests did not end"
    said = [text for text in done.stdout.splitlines() if text.startswith(("FAILED", "ERROR"))]
    return done.returncode == 1, (said or [f"exit {done.returncode}"])[0][:150]


def changed(mutation: Mutation, root: Path) -> str:
    """The source with the line changed; raises ValueError where it does not have it once."""
    path = root / mutation.file
    source = path.read_text(encoding="utf-8") if path.is_file() else ""
    if source.count(mutation.old) != 1 or mutation.old == mutation.new:
        raise ValueError(
            f"{mutation.name}: {mutation.file} has {mutation.old!r} {source.count(mutation.old)} times"
        )
    return source.replace(mutation.old, mutation.new)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="WORD", help="mutations whose names hold one of these")
    parser.add_argument("--minutes", type=float, default=10, help="for the tests of one mutation (10)")
    given = parser.parse_args()
    chosen = [m for m in MUTATIONS if not given.only or any(word in m.name for word in given.only)]
    missed = []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "copy"
        shutil.copytree(ROOT, copy, ignore=left_behind)
        for mutation in chosen:
            begun = time.monotonic()
            path, before = copy / mutation.file, (copy / mutation.file).read_bytes()
            path.write_text(changed(mutation, copy), encoding="utf-8")
            caught, why = fails(copy, mutation.tests, given.minutes)
            path.write_bytes(before)
            missed += [] if caught else [mutation.name]
            print(
                f"{'caught' if caught else 'MISSED'}: {mutation.name} ({time.monotonic() - begun:.0f} s) {why}",
                flush=True,
            )
    print(
        f"{len(chosen) - len(missed)} of {len(chosen)} caught"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    sys.exit(bool(missed))


if __name__ == "__main__":
    main()
