"""Frames of videos by PyAV: which there are at one per second, and their pixels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import av
import joblib
from PIL import Image

from data_scripts.listing import LeftOut
from data_scripts.sources import MAX_PIXELS, MIN_SIDE, inside
from pcl_lib.utils import BadInput

JUMP = 5.0  # seconds from which on it pays to seek rather than to decode what lies before
LONGEST = 48 * 3600.0  # seconds; more is taken for damage
CLOSE = 1e-3  # seconds by which a frame may be early, for times are rounded


def frame_times(path: Path, every: float = 1.0) -> list[float]:
    """0, every, 2 every, ... seconds, as far as the video goes by its header (half a frame short of its end).

    Raises BadInput with the reason where it cannot be opened, or has no pictures.
    """
    try:
        with av.open(str(path)) as video:
            stream = _stream(video)
            if stream.duration is not None and stream.time_base is not None:
                seconds = float(stream.duration * stream.time_base)
            elif video.duration is not None:
                seconds = video.duration / av.time_base
            else:
                raise BadInput("its header does not say how long it is")
            rate = float(stream.average_rate or 25)
            if not 0 <= seconds <= LONGEST:
                raise BadInput(f"its header says {seconds:.0f} seconds: {LONGEST:.0f} at most are read")
    except BadInput:
        raise
    except Exception as error:  # on damaged bytes PyAV raises almost anything
        raise BadInput(_told(error)) from error
    return [every * i for i in range(max(0, math.floor((seconds - 0.5 / rate) / every) + 1))]


def list_frames(
    root: Path, files: Sequence[str], left_out: LeftOut, every: float = 1.0, workers: int = 1
) -> list[str]:
    """The names "FILE#t=SECONDS" of one frame per `every` seconds of each video, in order.

    Headers are read by `workers` threads. Videos that cannot be opened go to `left_out`.
    """

    def times(file: str) -> list[float] | str:
        try:
            return frame_times(inside(root, file), every)
        except BadInput as error:
            return str(error)

    names = []
    read = joblib.Parallel(workers, backend="threading")(joblib.delayed(times)(file) for file in files)
    for file, found in zip(files, read, strict=True):
        if isinstance(found, str):
            left_out.add(file, found)
        else:
            names += [f"{file}#t={time:.6g}" for time in found]
    return names


def frames(path: Path, times: Sequence[float]) -> Iterator[Image.Image | BadInput]:
    """The first RGB frame at or after each of `times` (seconds), or why there is none.

    Where a time is earlier than the one before, the video is opened again. Frames are turned as the
    container says. Damage ends a video: later times get the reason.
    """
    return _wanted(path, times, _timed, "no frame at {:g} s; the video ends before")


def numbered_frames(path: Path, numbers: Sequence[float]) -> Iterator[Image.Image | BadInput]:
    """As `frames`, by numbers from 0: for labels of frames, as the times that containers give can be wrong.

    AVI gives no times of its own, and frames may lie unevenly in time. It always decodes from the beginning.
    """
    return _wanted(path, numbers, _counted, "no frame {:g} (from 0); the video ends before")


Clock = Callable[[av.container.InputContainer, float], Iterator[tuple[float, av.VideoFrame]]]


def _wanted(
    path: Path, places: Sequence[float], clock: Clock, reason: str
) -> Iterator[Image.Image | BadInput]:
    back = [place for place in range(1, len(places)) if places[place] < places[place - 1]]
    for first, last in itertools.pairwise([0, *back, len(places)]):
        yield from _ascending(path, places[first:last], clock, reason)


def _ascending(
    path: Path, places: Sequence[float], clock: Clock, reason: str
) -> Iterator[Image.Image | BadInput]:
    """Frames by places that only grow; `clock` says where each is, `reason` why one is not there."""
    waiting = list(places)
    try:
        with av.open(str(path)) as video:
            for place, frame in clock(video, waiting[0]):
                while waiting and place >= waiting[0] - CLOSE:
                    waiting.pop(0)
                    yield frame.to_image().rotate(frame.rotation, expand=True)
                if not waiting:
                    return
    except BadInput as error:
        reason = str(error)
    except Exception as error:  # on damaged bytes PyAV raises almost anything
        reason = _told(error)
    yield from (BadInput(reason.format(place)) for place in waiting)


def _counted(video: av.container.InputContainer, _: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """All frames with their numbers in the order in which they are shown."""
    for number, frame in enumerate(video.decode(_stream(video))):
        yield float(number), frame


def _timed(video: av.container.InputContainer, first: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with their times from `first` on or a little before, seeking where that saves much."""
    stream = _stream(video)
    start = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
    if first >= JUMP and stream.time_base:
        target = int((first + start) / stream.time_base)
        video.seek(target, stream=stream)
        landed = next(iter(video.decode(stream)), None)
        if landed is None or _time(landed) - start > first:  # an index that points too far
            target = stream.start_time or 0
        video.seek(target, stream=stream)
    for frame in video.decode(stream):
        yield _time(frame) - start, frame


def _time(frame: av.VideoFrame) -> float:
    if frame.time is None:
        raise BadInput("its frames carry no times")
    return float(frame.time)


def _stream(video: av.container.InputContainer) -> av.VideoStream:
    if not video.streams.video:
        raise BadInput("there are no pictures in it")
    stream = video.streams.video[0]
    if stream.width * stream.height > MAX_PIXELS or min(stream.width, stream.height) < MIN_SIDE:
        raise BadInput(f"frames of {stream.width}x{stream.height} pixels")
    stream.codec_context.thread_count = 1  # many videos are read side by side
    return stream


def _told(error: Exception) -> str:
    return f"not a video that can be read ({getattr(error, 'strerror', None) or type(error).__name__})"
