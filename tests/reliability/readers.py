"""Everything that reads files from elsewhere: for each reader small whole inputs, and what is done with one."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import mutators
import nbformat
import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy.io import savemat

from data_scripts import images, prepare_fer2013, prepare_folder, sources, video
from data_scripts.mat_pose import read_mat
from pcl_lib import data, presets, pretrain, reproduce
from pcl_lib.ablations import cells
from pcl_lib.data.writer import FolderWriter, read_parts, write_part
from pcl_lib.models import PCL, checkpoint_notes, load_checkpoint, load_released, save_checkpoint
from pcl_lib.pretrain.fabric import start_fabric
from pcl_lib.pretrain.trainer import Trainer
from pcl_lib.reproduce import notebooks
from pcl_lib.widgets.photographs import read_photograph

SIDE, COUNT = 16, 12
SETTINGS = {
    "model.image_size": SIDE,
    "model.projector_hidden": 8,
    "model.projector_out": 8,
    "train.frames_per_identity": 2,
    "train.pdd_batch": 4,
    "train.face_batch": 4,
    "train.pose_negatives": 2,
    "train.epochs": 1,
    "train.checkpoint_every": 1,
}
Mutator = Callable[[bytes, mutators.Random, bytes], bytes]


@dataclass(frozen=True)
class Reader:
    """make: fills a folder with whole inputs; files: which of them are damaged, and how; read: reads the folder."""

    make: Callable[[Path], object]
    read: Callable[[Path], object]
    files: Mapping[str, Mutator] = field(default_factory=dict)  # by pattern


def pictures(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (COUNT, 3, SIDE, SIDE), dtype=np.uint8)


def table() -> pd.DataFrame:
    n = np.arange(COUNT)
    split = ["train"] * 8 + ["validation"] * 2 + ["test"] * 2
    return pd.DataFrame(
        {
            "identity": n // 2,
            "yaw": n - 6.0,
            "au01": n % 6.0,
            "expression": ["happy", "sad"] * 6,
            "split": split,
        }
    )


def prepared(folder: Path) -> Path:
    pairs = pd.DataFrame({"first": [0, 2], "second": [1, 5], "same": [True, False], "fold": [0, 1]})
    return data.write_prepared(
        folder, pictures(), table(), name="set", source="drawn", pairs=pairs, shard_rows=8
    )


def read_prepared(folder: Path) -> None:
    faces = data.PreparedFaces(folder)
    _ = faces.pairs, faces.images(slice(None)), repr(faces)
    for name in ("train", "validation", "test"):
        faces.split(name)
    data.identity_index(faces.table, faces.split("train"))


def make_unfinished(folder: Path) -> None:
    with FolderWriter(folder, {"size": SIDE}, in_parts=True):
        write_part(folder, 0, pictures()[:8], {"failed": [], "boxes": []})
        write_part(folder, 1, pictures()[8:], {"failed": [[0, "x"]], "boxes": []})


def read_unfinished(folder: Path) -> None:
    with FolderWriter(folder, {"size": SIDE}, in_parts=True) as writer:
        parts = read_parts(folder)
        writer.add_parts(parts)
        writer.finish(
            table().iloc[: sum(part.rows for part in parts)], {"name": "set", "source": "x", "licence": ""}
        )


def tiny() -> presets.Preset:
    return presets.override(presets.get("smoke"), SETTINGS)


def make_state(folder: Path) -> None:
    faces = data.PreparedFaces(prepared(folder / "set"))
    pretrain.fit(preset=tiny(), faces=faces, out=folder / "run", progress=False)


def read_state(folder: Path) -> None:
    preset = tiny()
    faces = data.PreparedFaces(folder / "set")
    Trainer("pcl", preset, faces, folder / "run", 0, start_fabric(preset)).resume()


def make_checkpoint(folder: Path) -> None:
    save_checkpoint(
        PCL(tiny().model), folder / "pcl.safetensors", {"method": "pcl", "epoch": 3, "seconds": 1.5}
    )


def read_checkpoint(folder: Path) -> None:
    notes = checkpoint_notes(folder / "pcl.safetensors")
    assert isinstance(notes, dict)
    load_checkpoint(folder / "pcl.safetensors").features(torch.zeros(1, 3, SIDE, SIDE))


def make_released(folder: Path) -> None:
    torch.save(
        {"epoch": 3, "state_dict": {"module.encoder.conv1.0.weight": torch.ones(4, 3)}}, folder / "best.pth"
    )


def make_labels(folder: Path) -> None:
    lines = ["file,identity,yaw,expression,split"]
    for number, picture in enumerate(pictures()):
        place = folder / "in" / f"person{number // 4}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture.transpose(1, 2, 0)).save(place / f"{number}.png")
        lines.append(f"person{number // 4}/{number}.png,p{number // 4},{number - 6},happy,train")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "pairs.txt").write_text(
        "1\t2\nperson0\t0\t1\nperson1\t4\t5\nperson0\t0\tperson1\t4\nperson0\t1\tperson2\t8\n"
    )


def read_labels(folder: Path) -> None:
    line = [
        str(folder / "in"),
        str(folder / "out"),
        "--size",
        "8",
        "--workers",
        "1",
        "--labels",
        str(folder / "labels.csv"),
    ]
    with redirect_stdout(io.StringIO()):
        prepare_folder.main(line)
    read_prepared(folder / "out")


def make_fer(folder: Path) -> None:
    rows = [f"{n % 7},{' '.join(str((n * 7 + i) % 256) for i in range(2304))},Training" for n in range(3)]
    (folder / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")


def read_fer(folder: Path) -> None:
    options = argparse.Namespace(fer_plus=None, ferplus=None)
    listing = prepare_fer2013.read(folder, options)
    for file in listing.table["file"]:
        next(iter(images.open_all(listing.root, [file], [lambda *_: 48.0], 16)))


def make_mat(folder: Path) -> None:
    rng = np.random.default_rng(0)
    savemat(
        folder / "a.mat", {"Pose_Para": rng.normal(0, 0.3, (1, 7)), "pt3d_68": rng.uniform(0, 99, (3, 68))}
    )
    savemat(
        folder / "b.mat",
        {"Pose_Para": rng.normal(0, 0.3, (1, 7)), "pt2d": rng.uniform(0, 99, (2, 68))},
        do_compression=True,
    )
    savemat(
        folder / "c.mat",
        {"Pose_Para": rng.normal(0, 0.3, (1, 7)), "pt2d": rng.uniform(0, 99, (2, 68))},
        format="4",
    )


def each(read: Callable[[Path], object]) -> Callable[[Path], object]:
    """Read the one file of a folder that was damaged, which is the only one there."""

    def first(folder: Path) -> None:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                read(path)

    return first


def make_archives(folder: Path) -> None:
    content = {"set/a.txt": b"alpha" * 40, "set/sub/b.txt": b"beta", "set/c.bin": bytes(range(256))}
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    with zipfile.ZipFile(folder / "b.zip", "w") as archive:
        archive.writestr("../outside.txt", "x")
        archive.writestr("inside.txt", "x")
    for name, mode in (("c.tar", "w"), ("d.tar.gz", "w:gz"), ("e.tar.xz", "w:xz"), ("f.tar.bz2", "w:bz2")):
        with tarfile.open(folder / name, mode) as archive:
            for member, value in content.items():
                info = tarfile.TarInfo(member)
                info.size = len(value)
                archive.addfile(info, io.BytesIO(value))
            link = tarfile.TarInfo("set/link")
            link.type, link.linkname = tarfile.SYMTYPE, "../../../outside"
            archive.addfile(link)


def read_archive(path: Path) -> None:
    into = path.parent / "into"
    into.mkdir(exist_ok=True)
    sources.unpack(path, into)


def make_videos(folder: Path) -> None:
    for name, codec in (("a.mp4", "mpeg4"), ("b.avi", "mjpeg"), ("c.mkv", "mpeg4")):
        with av.open(str(folder / name), "w") as out:
            stream = out.add_stream(codec, rate=5)
            stream.width = stream.height = 32
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(11):
                grey = np.full((32, 32, 3), 20 * number, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
            out.mux(stream.encode())


def read_video(path: Path) -> None:
    times = video.frame_times(path)
    list(video.frames(path, times[:40] or [0.0]))


def make_pictures(folder: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "gif", "tif", "webp", "bmp", "ppm", "jp2"):
        picture.save(folder / f"a.{suffix}")
    picture.convert("RGBA").save(folder / "b.png")
    picture.convert("L").save(
        folder / "c.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    )


def read_picture(path: Path) -> None:
    images.open_image(path, lambda *_: 24.0, 16)


def make_notebook(folder: Path) -> None:
    source = 'preset = "smoke"\ndata = ""\nout = "../runs/smoke"\nseed = 0'
    cells_ = [
        nbformat.v4.new_markdown_cell("# T"),
        nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]}),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells_), folder / "00_a.ipynb")


def read_notebook(path: Path) -> None:
    notebooks.read_stamp(path)
    notebooks.check_parameters(path)


def make_run(folder: Path) -> None:
    faces = prepared(folder / "set")
    run = reproduce.open_run(tiny(), faces, folder / "run", 0)
    save_checkpoint(
        PCL(tiny().model), run.out / "checkpoints" / "pcl.safetensors", {"epoch": 1, "seconds": 2.0}
    )
    rows = pd.DataFrame(
        {"method": ["pcl"], "seed": [0], "settings": [cells.settings("pcl", tiny())], "value": [1.0]}
    )
    for kind in cells.KINDS:
        rows.to_csv(run.out / "tables" / f"ablation_{kind}.csv", index=False)


def read_run(folder: Path) -> None:
    run = reproduce.open_run(tiny(), folder / "set", folder / "run", 0)
    cells.left(run.out, run.preset, ["pcl"], [0])
    cells.current(run.out, run.preset)


def read_settings(path: Path) -> None:
    """Presets as a config.json holds them, and as the command line gives them."""
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        values: Any = json.loads(text)
    except (ValueError, RecursionError):
        values = dict([presets.parse_setting(text)])
    if isinstance(values, dict):
        presets.from_dict(presets.Preset, values) if "name" in values else presets.override(tiny(), values)


def make_settings(folder: Path) -> None:
    (folder / "preset.json").write_text(json.dumps(presets.to_dict(tiny())))
    (folder / "setting.txt").write_text("train.lr=1e-3")


READERS: dict[str, Reader] = {
    "prepared folder": Reader(
        prepared,
        read_prepared,
        {"dataset.json": mutators.json_of, "*.parquet": mutators.parquet_of, "*.npy": mutators.bytes_of},
    ),
    "unfinished folder": Reader(
        make_unfinished,
        read_unfinished,
        {"*.json": mutators.json_of, "*.npy": mutators.bytes_of},
    ),
    "checkpoint": Reader(make_checkpoint, read_checkpoint, {"*": mutators.safetensors_of}),
    "released checkpoint": Reader(make_released, each(load_released), {"*": mutators.torch_of}),
    "training state": Reader(make_state, read_state, {"run/checkpoints/*.state": mutators.torch_of}),
    "label table": Reader(make_labels, read_labels, {"labels.csv": mutators.bytes_of}),
    "FER-2013 table": Reader(make_fer, read_fer, {"*": mutators.bytes_of}),
    ".mat": Reader(make_mat, each(read_mat), {"*": mutators.bytes_of}),
    "archive": Reader(make_archives, each(read_archive), {"*": mutators.bytes_of}),
    "video": Reader(make_videos, each(read_video), {"*": mutators.bytes_of}),
    "picture": Reader(make_pictures, each(read_picture), {"*": mutators.bytes_of}),
    "upload": Reader(
        make_pictures, each(lambda path: read_photograph(path.read_bytes(), SIDE)), {"*": mutators.bytes_of}
    ),
    "notebook": Reader(make_notebook, each(read_notebook), {"*": mutators.json_of}),
    "run folder": Reader(
        make_run,
        read_run,
        {"run/config.json": mutators.json_of, "run/tables/*.csv": mutators.bytes_of},
    ),
    "settings": Reader(
        make_settings, each(read_settings), {"*.json": mutators.json_of, "*.txt": mutators.bytes_of}
    ),
}
