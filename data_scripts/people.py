"""Who is on a picture, by its path: what the rules for folders and for VoxCeleb share.

A rule looks at all paths at once, and says what it found. Folders are levels: 1 is the first below ROOT. Names that
only order files (train, test, images, mp4, 1.6, dates, day1, video ids, the seven expressions) are never people.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from data_scripts.names import alike, counted

SPLIT_WORDS = {
    "train": "train", "training": "train", "dev": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
WRAPPERS = re.compile(
    r"(vox|voxceleb)\w*|mp4|m4a|aac|avi|wav|txt|data(set|base)?s?|(un)?zipped\w*|(all_?)?faces?|(un)?aligned"
    r"|labels?|annotations?|(all_?)?(images?|imgs?|pictures|pics|photos?|frames?|crops?|cropped|videos?|clips|raw|original|processed)"
    r"|part[-_ ]?\d+|partition\w*|fold[-_ ]?\d+|batch[-_ ]?\d+|people|persons|subjects|identities|downloads?",
    re.IGNORECASE,
)
RATE = "1.6"  # between the person and the video in VoxCeleb1's crops
VOX_ID = re.compile(r"id\d{5}")
VOX_NAME = re.compile(
    r"(id\d{5})[#_.+@-]{1,2}([\w-]{11})(?:[#_.+@-]{1,2}(.*))?"
)  # id10283#tXmKFJIMVXo#004832#004981.mp4
VIDEO = re.compile(r"[\w-]{11}")
NAME = re.compile(r"[^\W\d_][\w.'’-]*?[_ ][\w.'’_ -]*[^\W\d_].*")  # Ann_Lee, A.J._Buckley
PROPER = re.compile(r"[^\W\d_a-z][^_ ]*(?:[_ ]+[^_ ]+)*[_ ]+[^\W\d_a-z][^_ ]*")  # of such, with capitals
IDENTIFIER = re.compile(r"id\d{3,}|n\d{6}|m\.[0-9a-z_]+|nm\d{7}", re.IGNORECASE)
# What systems call a second folder of one name: "id00012 (1)", "Ann Lee - Copy", "Ann Lee copy 2".
COPY = re.compile(r"(.+?)(?: ?\(\d{1,2}\)| - copy(?: ?\(\d{1,2}\))?| copy(?: \d{1,2})?)", re.IGNORECASE)
SHOWN = 3  # names in a sentence


@dataclass
class People:
    """Whom each file shows; all lists are as long as the files given.

    identity, video, track: None where not known; split: that of a folder of such a name, else None. levels: the folder
    levels on which people were found. sentence: what was found, for the summary. notes: what looks odd.
    """

    identity: list[str | None]
    video: list[str | None]
    track: list[str | None]
    split: list[str | None]
    sentence: str = ""
    notes: list[str] = field(default_factory=list)


def nobody(files: int) -> People:
    return People([None] * files, [None] * files, [None] * files, [None] * files)


def split_word(folder: str) -> str | None:
    """The split that a folder's name stands for: train for "Training", test for "vox1_test_wav"; else None."""
    parts = re.split(r"[-_ ]", folder.lower().removesuffix("set").rstrip("-_ "))
    words = [SPLIT_WORDS[part] for part in parts if part in SPLIT_WORDS]
    others = (part for part in parts if part not in SPLIT_WORDS)
    return words[0] if len(words) == 1 and all(WRAPPERS.fullmatch(part) for part in others) else None


def split_of(folders: Iterable[str]) -> str | None:
    """The split that the first of `folders` with such a name stands for."""
    return next((word for folder in folders if (word := split_word(folder))), None)


def join_copies(found: People) -> list[str]:
    """Give the people of copied folders (`COPY`) the name of the first, and say so.

    A number of VoxCeleb is a person's wherever it stands; another name is joined where the first is there too.
    """
    names = {name for name in found.identity if name}
    first = {name: match[1] for name in names if (match := COPY.fullmatch(name))}
    joined = {
        name: of
        for name, of in first.items()
        if VOX_ID.fullmatch(of) or (of in names and (IDENTIFIER.fullmatch(of) or NAME.fullmatch(of)))
    }
    found.identity = [joined.get(name, name) if name else None for name in found.identity]
    if not joined:
        return []
    copies = counted(len(joined), "folder has", "folders have")
    name = min(joined)
    return [f"{copies} the name of a copy, such as {name}: taken for the person {joined[name]}"]


def two_names(identities: Iterable[str | None]) -> list[str]:
    """A sentence where two identities differ in nothing but capitals, accents, spaces and underscores."""
    spelt: dict[str, set[str]] = defaultdict(set)
    for name in {name for name in identities if name}:
        if any(letter.isalpha() for letter in name):
            spelt[alike(name)].add(name)
    twice = sorted(sorted(names) for names in spelt.values() if len(names) > 1)
    if not twice:
        return []
    told = " and ".join(twice[0])
    names = counted(len(twice), "name is", "names are")
    return [f"{names} spelt in two ways, such as {told}: they count as two people; rename one"]


def mostly(names: set[str], form: re.Pattern[str]) -> bool:
    return sum(bool(form.fullmatch(name)) for name in names) * 2 > len(names)


def examples(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def levels_told(word: str, levels: set[int]) -> str:
    return f"{word}{'s' if len(levels) > 1 else ''} {' and '.join(map(str, sorted(levels)))}"
