"""The animated swap of the README, by the shipped weights: `python figures/swap_gif.py figures/swap.gif`."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pcl_lib.data import FaceSet, rendered
from pcl_lib.faces import render, sample_factors
from pcl_lib.models import PCL
from pcl_lib.models.shipped import shipped
from pcl_lib.reproduce import measure
from pcl_lib.utils import exit_cleanly, replace_atomically
from pcl_lib.widgets import pictures

FRAMES, PEOPLE, FURTHEST = 24, 4, 50.0  # pictures of one turn to and fro, face donors, degrees of yaw
DURATION = 90  # milliseconds a frame
POSE_DONOR = rendered.STRANGERS - 1


def swap_frames(model: PCL, faces: FaceSet) -> list[Image.Image]:
    """A stranger who turns from side to side, and unseen people who are decoded in the pose of each moment.

    Above: the pose donor, then the face donors; below: what the decoder makes of each face and that pose.
    """
    yaw = FURTHEST * np.sin(np.linspace(0, 2 * np.pi, FRAMES, endpoint=False))
    stranger = sample_factors(1, first_identity=POSE_DONOR).assign(pitch=0.0, roll=0.0)
    turning = stranger.loc[stranger.index.repeat(FRAMES)].reset_index(drop=True).assign(yaw=yaw)
    poses = render(turning, size=model.image_size)
    donors = faces.images(measure.donors(faces, (PEOPLE, 1))[0])
    with torch.inference_mode():
        face, pose = model.decoder_features(donors).face, model.decoder_features(poses).pose
        decoded = model.decode(face.repeat(FRAMES, 1), pose.repeat_interleave(len(face), 0))
    swaps = decoded.unflatten(0, (FRAMES, len(face)))
    blank = torch.ones_like(swaps[0, :1])
    frames = []
    for degrees, head, own in zip(yaw, poses, swaps, strict=True):
        above = torch.cat([head[None], donors]).float() / 255
        captions = [[f"pose: yaw {degrees:+.0f}°", *[f"face {n}" for n in range(1, len(face) + 1)]]]
        captions.append(["decoded:", *[f"face {n}, that pose" for n in range(1, len(face) + 1)]])
        page = pictures.sheet(torch.stack([above, torch.cat([blank, own])]), captions, side=112, letters=12)
        # Dithering flickers from frame to frame, and packs badly.
        frames.append(Image.fromarray(page).quantize(160, dither=Image.Dither.NONE))
    return frames


def main() -> None:
    """Command line: python figures/swap_gif.py."""
    parser = argparse.ArgumentParser(prog="python figures/swap_gif.py", description=__doc__)
    parser.add_argument("file", type=Path, help="the GIF to write")
    file = parser.parse_args().file
    model = shipped("pcl_video")
    first, *others = swap_frames(model, rendered.gallery(model.image_size))
    with replace_atomically(file) as temporary:
        first.save(temporary, format="gif", save_all=True, append_images=others, duration=DURATION, loop=0)
    print(f"{file} ({file.stat().st_size / 1e6:.2f} MB)")


if __name__ == "__main__":
    exit_cleanly(main)
