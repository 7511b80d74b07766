"""Pictures that are there twice: found by their pixels, told by what differs, never dropped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from data_scripts import prepare_folder
from data_scripts.repeats import PLAIN, digest_of, repeats
from pcl_lib.data import PreparedFaces


def test_a_digest_is_of_the_pixels_in_their_places() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 9, 9), dtype=np.uint8)
    other = image.copy()
    other[1, 4, 4] ^= 1
    turned = np.asarray(np.asfortranarray(image))  # the same pixels, laid out otherwise
    assert digest_of(turned) == digest_of(image)
    assert len({digest_of(image), digest_of(other), digest_of(image[:, ::-1]), PLAIN}) == 4


def test_one_colour_is_nobodys_copy() -> None:
    colour = np.repeat(np.array([7, 8, 9], np.uint8), 16).reshape(3, 4, 4)
    assert digest_of(colour) == PLAIN
    colour[2, 3, 3] = 10
    assert digest_of(colour) != PLAIN


@pytest.mark.parametrize("seed", range(5))
def test_all_and_only_what_differs_is_told(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 200
    digests = rng.choice(["", *"abcdefghijklmnopqrstuvwxyz"], n).tolist()
    names = rng.choice(np.array(["x", "y", None], object), n, p=[0.9, 0.04, 0.06]).tolist()
    splits = rng.choice(["train", "test"], n, p=[0.97, 0.03]).tolist()
    table = pd.DataFrame({"file": [f"{i}.png" for i in range(n)], "identity": names, "split": splits})
    wanted = {"names": 0, "splits": 0}
    for digest in set(digests) - {""}:
        rows = [i for i in range(n) if digests[i] == digest]
        wanted["names"] += len({names[i] for i in rows} - {None}) > 1
        wanted["splits"] += len({splits[i] for i in rows}) > 1
    told = " ".join(repeats(table, digests))
    for what, count in wanted.items():
        words = "1 picture is" if count == 1 else f"{count} pictures are"
        assert (f"{words} {'under' if what == 'names' else 'in'} two {what}" in told) == (count > 0)
    assert f"{digests.count('')} pictures are of one colour" in told


def test_what_lies_in_the_folder_stays_and_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    images = {f"{who}/{i}.png": rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
              for who in ("Ann_Lee", "Bo_Ek", "Cy_Du", "Di_Fa") for i in range(2)}  # fmt: skip
    images |= {"Zoe_X/0.png": images["Ann_Lee/1.png"], "Bo_Ek/3.png": images["Bo_Ek/0.png"]}
    images["Cy_Du/3.png"] = np.zeros((16, 16, 3), np.uint8)
    for name, image in images.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / name)
    labels = "file,expression\nBo_Ek/0.png,sad\nBo_Ek/3.png,happy\nAnn_Lee/1.png,fear\nZoe_X/0.png,fear\n"
    (tmp_path / "l.csv").write_text(labels)
    line = [str(tmp_path / "in"), str(tmp_path / "out"), "--size", "8", "--labels", str(tmp_path / "l.csv")]
    prepare_folder.main(line)
    said = capsys.readouterr().out
    assert (
        "1 picture is under two names, such as Ann_Lee/1.png and Zoe_X/0.png: if that is one person" in said
    )
    assert "1 picture is with two expressions, such as Bo_Ek/0.png and Bo_Ek/3.png" in said
    assert "1 picture is of one colour, such as Cy_Du/3.png" in said
    faces = PreparedFaces(tmp_path / "out")
    assert len(faces) == len(images)
    assert any("two names" in note for note in faces.info["notes"])
