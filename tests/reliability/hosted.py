"""The course where it is hosted: the set-up cell and notebooks with the package versions that Colab has.

    python tests/reliability/hosted.py                   (all notebooks at smoke; 6 GB of downloads, or a full cache)
    python tests/reliability/hosted.py --only 00         (some notebooks)

It builds an environment of `colab.lock` outside of the repository, runs the set-up cell there in a notebook, with a
clone of the last commit, and then the notebooks of that clone. They see nothing of the repository's .venv.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

import nbformat

from pcl_lib.reproduce import hosted

LOCK = Path(__file__).with_name("colab.lock")
PYTHON = "3.13"  # Colab's
SAID = "import pcl_lib, torch\nprint(pcl_lib.__file__, torch.__version__, sep='\\n')"


def environment(folder: Path) -> Path:
    """An environment of the lock, without the kit; its folder of programs."""
    uv, made = Path(sys.prefix, "bin", "uv"), folder / "env"
    subprocess.run([uv, "venv", "--quiet", "--seed", "--python", PYTHON, made], check=True)
    install = [uv, "pip", "install", "--quiet", "--python", made / "bin" / "python", "-r", LOCK]
    subprocess.run(install, check=True)
    return made / "bin"


def run(command: list[str | Path], folder: Path) -> str:
    """What a command prints that knows nothing of this repository. Raises AssertionError, with that, if it fails."""
    dropped = ("VIRTUAL_ENV", "PYTHONPATH", "JUPYTER_PATH")
    bare = {name: value for name, value in os.environ.items() if name not in dropped}
    bare["PATH"] = f"{Path(command[0]).parent}:/usr/bin:/bin"
    done = subprocess.run(command, cwd=folder, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def set_up(programs: Path, folder: Path) -> Path:
    """The clone that the set-up cell made in a notebook that starts without the kit."""
    cells = [hosted.SETUP.format(address=ROOT.resolve().as_uri()), SAID]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    made = [nbformat.v4.new_code_cell(cell) for cell in cells]
    notebook = nbformat.v4.new_notebook(cells=made, metadata=kernel)
    nbformat.write(notebook, folder / "setup.ipynb")
    run([programs / "papermill", "setup.ipynb", "done.ipynb"], folder)
    executed = nbformat.read(folder / "done.ipynb", as_version=4)
    said = "".join(output.get("text", "") for output in executed.cells[-1].outputs)
    assert str(folder / "pcl_kit" / "pcl_lib") in said, said
    print(f"the set-up cell installed the kit: {said.split()}", flush=True)
    return folder / "pcl_kit"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="numbers of notebooks, such as 05,08; all by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        programs = environment(folder)
        clone = set_up(programs, folder)
        command: list[str | Path] = [programs / "python", "-m", "pcl_lib.reproduce", "--preset", "smoke"]
        print(run([*command, *(["--only", given.only] if given.only else [])], clone))


if __name__ == "__main__":
    main()
