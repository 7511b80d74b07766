"""Who is on a picture of VoxCeleb, in which video and track, by its path."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from data_scripts.names import alike, counted, plain
from data_scripts.people import (
    COPY,
    NAME,
    RATE,
    VIDEO,
    VOX_ID,
    VOX_NAME,
    WRAPPERS,
    People,
    examples,
    join_copies,
    levels_told,
    mostly,
    nobody,
    split_of,
    split_word,
    two_names,
)

FILM = re.compile(r"\.(mp4|avi|mkv|mov|webm|m4v)$", re.IGNORECASE)
VOX_FIRST = re.compile(
    r"id1\d{4}"
)  # of VoxCeleb1, whose people lie under names too; VoxCeleb2 has others, from id0


def in_voxceleb(files: Sequence[str], numbers: Mapping[str, str] | None = None) -> People:
    """People, videos and tracks of VoxCeleb's paths in the layouts in which the sets are passed on.

    numbers: of people by another name of theirs (`names.alike`), so that nobody counts as two.
    [wrappers/]PERSON[/1.6][/VIDEO[/TRACK]]/FILE, PERSON a number such as id00012 or a name; or PERSON#VIDEO#... as
    the name of a file or folder. The level of named people is decided once for all paths of one depth.
    """
    found = nobody(len(files))
    levels: dict[str, set[int]] = defaultdict(set)
    others: dict[int, list[int]] = defaultdict(list)
    for place, file in enumerate(files):
        parts = [plain(part) for part in file.replace("\\", "/").split("/")]
        at = _vox_person(parts)
        if at is None:
            others[len(parts)].append(place)
        else:
            _fill(found, place, parts, at, levels)
    for places in others.values():
        split_paths = [
            [plain(part) for part in files[place].replace("\\", "/").split("/")] for place in places
        ]
        level = _vox_level([parts[:-1] for parts in split_paths])
        for place, parts in zip(places, split_paths, strict=True):
            if level is not None:
                _fill(found, place, parts, level, levels)
    copied = join_copies(found)
    renamed = {name: (numbers or {}).get(alike(name), name) for name in set(found.identity) if name}
    found.identity = [renamed[name] if name else None for name in found.identity]
    found.sentence = _counted(found, levels)
    found.notes = [*copied, *_numbers_told(renamed), *_odd(found)]
    return found


def _numbers_told(renamed: dict[str, str]) -> list[str]:
    """Sentences on names that became numbers, and on names that may be people of VoxCeleb1 who lie under a number."""
    notes = []
    if given := sum(old != new for old, new in renamed.items()):
        notes.append(
            f"{counted(given, 'name stands', 'names stand')} for a number of vox1_meta.csv or vox2_meta.csv"
        )
    names = sorted(new for new in renamed.values() if not VOX_ID.fullmatch(new))
    if names and any(VOX_FIRST.fullmatch(new) for new in renamed.values()):
        notes.append(
            f"some people of VoxCeleb1 are numbers, others names without one ({examples(names)}): whoever is both"
            " counts as two people; put vox1_meta.csv, which tells names and numbers, into the folder"
        )
    return notes


def _vox_person(parts: list[str]) -> int | None:
    """The place of the person in a path where its form alone tells: a number, or what stands before 1.6."""
    marked = [i for i, part in enumerate(parts[:-1]) if VOX_ID.fullmatch(COPY.sub(r"\1", part))]
    marked += [i for i, part in enumerate(parts) if VOX_NAME.fullmatch(part.rsplit(".", 1)[0])]
    if marked:
        return min(marked)
    return parts.index(RATE) - 1 if RATE in parts[1:-1] else None


def _vox_level(folders: list[list[str]]) -> int | None:
    """The level (from 0) of people among folders of one depth, none of them a number of VoxCeleb; None: none is."""
    names = [set(level) for level in zip(*folders, strict=True)]
    first = 0
    while first < len(names) and all(split_word(n) or WRAPPERS.fullmatch(n) for n in names[first]):
        first += 1
    last = len(names)
    while last > first + 1 and all(name.isdecimal() for name in names[last - 1]):
        last -= 1
    named = [i for i in range(first, last) if mostly(names[i], NAME)]
    if named:
        return named[0]
    if last - first >= 2:
        return last - 2
    is_person = last - first == 1 and not all(VIDEO.fullmatch(name) for name in names[first])
    return first if is_person else None


def _fill(found: People, place: int, parts: list[str], at: int, levels: dict[str, set[int]]) -> None:
    """Take person, video and track of one path, the person at `at`."""
    folders = parts[:-1]
    joined = VOX_NAME.fullmatch(parts[at].rsplit(".", 1)[0])
    if joined:
        found.identity[place], found.video[place], found.track[place] = joined[1], joined[2], joined[3]
        if at == len(parts) - 1 and not FILM.search(parts[at]):  # a picture: its last number is the frame's
            found.track[place] = re.sub(r"[#_.+@-]*\d+$", "", joined[3] or "") or None
    else:
        found.identity[place] = parts[at]
        after = at + 2 if folders[at + 1 : at + 2] == [RATE] else at + 1
        if after < len(folders):
            found.video[place] = folders[after]
            levels["video"].add(after + 1)
            film = FILM.search(parts[-1])
            below = folders[after + 1 :] or ([parts[-1]] if film else [])
            found.track[place] = "/".join(below) or None
    found.split[place] = split_of(folders[:at])
    levels["person"].add(at + 1)


def _counted(found: People, levels: dict[str, set[int]]) -> str:
    """Such as "3 people (folder level 1), 6 videos (level 3), 12 tracks"."""
    people = {name for name in found.identity if name}
    videos = {pair for pair in zip(found.identity, found.video, strict=True) if pair[1]}
    tracks = {three for three in zip(found.identity, found.video, found.track, strict=True) if three[2]}
    told = [f"{counted(len(people), 'person', 'people')} ({levels_told('folder level', levels['person'])})"]
    if videos:
        where = f" ({levels_told('level', levels['video'])})" if levels["video"] else ""
        told.append(counted(len(videos), "video", "videos") + where)
    if tracks:
        told.append(counted(len(tracks), "track", "tracks"))
    return ", ".join(told)


def _odd(found: People) -> list[str]:
    """What makes one doubt the people found: as many as videos, one name in two spellings, a video of two people."""
    notes = two_names(found.identity)
    pairs = {(who, video) for who, video in zip(found.identity, found.video, strict=True) if who and video}
    people = {who for who, _ in pairs}
    if len(people) > 1 and len(pairs) == len(people):
        notes.append(f"as many people as videos ({len(people)}): is that folder level really one of people?")
    owners = Counter(video for _, video in pairs if VIDEO.fullmatch(str(video)))
    shared = sorted(str(video) for video, count in owners.items() if count > 1)
    if shared:
        whose = " and ".join(sorted(str(who) for who, video in pairs if video == shared[0]))
        lie = counted(len(shared), "video lies", "videos lie")
        notes.append(
            f"{lie} with two people or more, such as {shared[0]} with {whose}: one person under two names, or two in"
            " one video"
        )
    return notes
