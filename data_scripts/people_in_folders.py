"""Who is on a picture of any folder of faces, by the folders it lies in."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

from data_scripts.names import EXPRESSION_WORDS, counted, plain
from data_scripts.people import (
    IDENTIFIER,
    NAME,
    PROPER,
    RATE,
    VIDEO,
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
from pcl_lib.utils import BadInput

OCCASIONS = re.compile(
    r"(sess(ion)?s?|day|date|visit|shoot(ing)?|take|trial|seq(uence)?|scene|setting|cam(era)?|view|angle|pose|light(ing)?"
    r"|clip|track|vid(eo)?|frame|img|image|recording|rec|run|round|week|month|year)([-_ ]?\d{0,5}|[-_ ][a-z])"
    r"|(19|20)\d\d([-_.]?(0\d|1[012])([-_.]?([012]\d|3[01])([-_ T]\d\d[-_:]?\d\d([-_:]?\d\d)?)?)?)?"
    r"|left|right|front(al)?|profile|indoors?|outdoors?|up|down|morning|noon|evening|night",
    re.IGNORECASE,
)
SUBJECT = re.compile(
    r"(subj(ect)?|pers(on)?|people|participant|identity|actor|sn|id|sub|user|p|s)[-_ ]?\d+", re.IGNORECASE
)
JOINED = re.compile(r"([^#]+)#.+")  # PERSON#VIDEO#...
# Sorts of people or pictures.
GROUPS = re.compile(
    r"(wo)?m[ae]n|(fe)?males?|boys?|girls?|adults?|children|kids?|young|old|controls?|patients?|(group|class)[-_ ]?\w*"
    r"|asian|black|white|indian|african|caucasian|latino|real|fakes?|live|spoof(ed)?|smil(e|es|ed|ing)|awake|drowsy"
    r"|((with(out)?|no|not|non)[-_ ]?)?(mask|glasses|eyeglasses|sunglasses|beard|smil(e|ing))(ed)?",
    re.IGNORECASE,
)
NUMBERED = re.compile(r"(.*[^\W\d_])[-_ ]?\d{1,3}")  # ann_2
COUNTED = re.compile(
    r"[A-Za-z]*[-_ ]?\d+|[^\W\d_]+"
)  # person_0001, 00000000001, Christopher: no ids of videos
SHORT = 3  # digits of a number that counts sessions; longer ones are people's
MOST_CLASSES = 12  # numbered from 0 or 1, as expressions are (AffectNet has 11)


def in_folders(files: Sequence[str], level: int | None = None) -> People:
    """People by the folders that files lie in: on `level` (from 1), or on the level that the names tell.

    The level is decided once for all files of one depth. Files outside such a folder show somebody unknown. Raises
    BadInput where two levels could be people.
    """
    found = nobody(len(files))
    by_depth: dict[int, list[int]] = defaultdict(list)
    paths = [[plain(part) for part in file.replace("\\", "/").split("/")[:-1]] for file in files]
    for place, folders in enumerate(paths):
        by_depth[len(folders)].append(place)
    levels: set[int] = set()
    single = _single(paths)
    portions = _portions(files, paths)
    for depth in sorted(by_depth):
        places = by_depth[depth]
        chosen = level
        if level is None and not portions:
            chosen = _level([paths[place] for place in places], found.identity, single)
        for place in places:
            if chosen is not None and chosen <= depth and not split_word(paths[place][chosen - 1]):
                found.identity[place] = _before_video(paths[place][chosen - 1])
                levels.add(chosen)
            found.split[place] = split_of(paths[place])
        if chosen is not None and chosen == level and level <= depth:
            found.notes += _shared([paths[place] for place in places], level - 1)
    if level is not None and not levels:
        deepest = max(by_depth, default=0)
        raise BadInput(
            f"--identity-level is {level}, but folders are nested {deepest} deep; give 1 to {deepest}"
        )
    found.notes += join_copies(found)
    found.sentence = _people_found(found, paths, levels)
    found.notes += two_names(found.identity) + _numbered(found.identity)
    found.notes += _maybe_classes(found.identity) if level is None else []
    return found


def _single(paths: Sequence[Sequence[str]]) -> set[int]:
    """The levels (from 0) on which all files lie in one folder: it is a wrapper, whatever it is called."""
    names: dict[int, set[str]] = defaultdict(set)
    for folders in paths:
        for i, name in enumerate(folders):
            names[i].add(name)
    return {i for i, here in names.items() if len(here) == 1}


def _portions(files: Sequence[str], paths: Sequence[Sequence[str]]) -> bool:
    """Whether folders only portion a big set, as FFHQ's do: 01000/01000.png to 01999.png."""
    inner = [folders[-1] if folders else "" for folders in paths]
    stems = [file.rsplit("/", 1)[-1].split(".")[0] for file in files]
    if len(set(inner)) < 2 or not all(name.isdecimal() and len(name) > SHORT for name in {*inner, *stems}):
        return False
    return all(int(stem) // 1000 * 1000 == int(name) for name, stem in zip(inner, stems, strict=True))


def _before_video(folder: str) -> str:
    """The person of PERSON#VIDEO#... or id00012_21Uxsk56VDQ_...; other names as they are."""
    joined = VOX_NAME.fullmatch(folder) or JOINED.fullmatch(folder)
    return joined[1] if joined else folder


def _shared(folders: list[list[str]], level: int) -> list[str]:
    """A sentence where the names on a level that was asked for lie in several folders, which may be two people's."""
    above = [i for i in range(level) if not _orders({path[i] for path in folders})]
    if not above or not _crossed(folders, level, [*above, level]):
        return []
    name = folders[0][level]
    where = examples({"/".join(path[:level]) for path in folders if path[level] == name})
    return [f"folders of one name count as one person wherever they lie, such as {name} in {where}"]


def _numbered(identities: Iterable[str | None]) -> list[str]:
    """A sentence where some people, not all, are called alike but for a number at the end."""
    stems: dict[str, set[str]] = defaultdict(set)
    for name in {name for name in identities if name}:
        if (numbered := NUMBERED.fullmatch(name)) and not SUBJECT.fullmatch(name):
            stems[numbered[1]].add(name)
    alike = sorted(sorted(names) for names in stems.values() if len(names) > 1)
    if len(stems) < 2 or not alike:
        return []
    return [
        f"some folders differ in a number at the end alone, such as {' and '.join(alike[0][:2])}: they count as"
        " different people; if they are not, put them into one folder"
    ]


def _maybe_classes(identities: Iterable[str | None]) -> list[str]:
    """A sentence where people are called 0, 1, 2, ... as classes, or parts of a big set, are."""
    people = {name for name in identities if name}
    if len(people) < 2 or not all(name.isdecimal() for name in people):
        return []
    if not _few_numbers(people):
        return [
            f"people are called {examples(people)}: if those only number parts of the set, say --identity-from image or"
            " none"
        ]
    return [
        f"people are called {examples(people)}: if those are classes, such as expressions, say --identity-from none"
    ]


def _level(folders: list[list[str]], known: Iterable[str | None], single: set[int]) -> int | None:
    """The level (from 1) of people among folders of one depth; None where none can be. BadInput where two can be.

    single: levels that are one folder for all files, which say nothing of anybody.
    """
    names = [set(level) for level in zip(*folders, strict=True)]
    people = {name for name in known if name}
    open_levels = [i for i, here in enumerate(names) if i not in single and not _orders(here)]
    groups = [i for i in open_levels if all(GROUPS.fullmatch(name) for name in names[i])]
    if not any(_crossed(folders, i, groups) for i in open_levels if i not in groups):
        open_levels = [i for i in open_levels if i not in groups]
    if not open_levels:
        return None
    for form in (IDENTIFIER, PROPER if len(open_levels) > 1 else NAME, SUBJECT):
        formed = [i for i in open_levels if i not in groups and mostly(names[i], form)]
        if formed and not _crossed(folders, formed[0], open_levels):
            return formed[0] + 1
    seen = [i for i in open_levels if len(names[i] & people) * 2 > len(names[i])]
    if len(seen) == 1:
        return seen[0] + 1
    several = [i for i in open_levels if len(names[i]) > 1] or open_levels[-1:]
    if len(several) == 1:
        _no_classes(folders, several[0])
        return several[0] + 1
    outer, inner = several[0], several[-1]
    numbers = [i for i in several if all(name.isdecimal() for name in names[i])]
    within = _crossed(folders, inner, several)
    counts = inner in numbers and (outer in numbers or max(map(len, names[inner])) <= SHORT)  # as sessions do
    if len(several) == 2 and within and outer not in groups and (counts or mostly(names[outer], SUBJECT)):
        return outer + 1
    raise BadInput(
        "two folder levels could be people: "
        + ", or ".join(f"level {i + 1} ({examples(names[i])})" for i in several)
        + f"; say --identity-level {' or '.join(str(i + 1) for i in several)}, or --identity-from none"
    )


def _no_classes(folders: list[list[str]], level: int) -> None:
    """Raises BadInput where names on a level are small numbers that lie in several splits, as those of classes do."""
    splits = [i for i in range(level) if any(split_word(path[i]) for path in folders)]
    if (
        splits
        and _few_numbers(found := {path[level] for path in folders})
        and _crossed(folders, level, splits)
    ):
        above = examples({path[splits[0]] for path in folders})
        raise BadInput(
            f"folders {examples(found)} lie in each of {above}: they may be people, or classes such as expressions;"
            f" say --identity-level {level + 1} if they are people, --identity-from none if not"
        )


def _few_numbers(names: Iterable[str]) -> bool:
    """Whether names are small numbers of one or two digits, as those of classes are."""
    return all(name.isdecimal() and len(name) < 3 and int(name) < MOST_CLASSES for name in names)


def _orders(names: set[str]) -> bool:
    """Whether names on one level only order files: splits, wrappers, occasions, videos, expressions."""
    words = {split_word(name) for name in names} - {None}
    if len(words) > 1 or (words and len(names) == 1):
        return True
    if sum(name.lower() in EXPRESSION_WORDS for name in names) * 2 > len(names):  # and contempt, calm, ...
        return True
    if (
        all(VIDEO.fullmatch(name) for name in names)
        and not mostly(names, COUNTED)
        and not mostly(names, NAME)
    ):
        return any(re.search(r"[\d_-]", name) for name in names)
    return all(
        WRAPPERS.fullmatch(name) or OCCASIONS.fullmatch(name) or split_word(name) or name == RATE
        for name in names
    )


def _crossed(folders: list[list[str]], level: int, open_levels: list[int]) -> bool:
    """Whether most names on `level` occur in several folders of the open levels above it: so no person's own."""
    above = [i for i in open_levels if i < level]
    parents: dict[str, set[tuple[str, ...]]] = defaultdict(set)
    for path in folders:
        parents[path[level]].add(tuple(path[i] for i in above))
    return sum(len(found) > 1 for found in parents.values()) * 2 > len(parents)


def _people_found(found: People, paths: list[list[str]], levels: set[int]) -> str:
    """Such as "3 people (folder level 1: ann, bob, cyd); level 2 (day1, day2) is not people"."""
    people = {name for name in found.identity if name}
    told = "no folder is one person's: who is on a picture is not known"
    if people:
        told = f"{counted(len(people), 'person', 'people')} ({levels_told('folder level', levels)}: {examples(people)})"
    other: dict[int, set[str]] = defaultdict(set)
    for folders, who in zip(paths, found.identity, strict=True):
        for i, name in enumerate(folders, 1):
            if i not in levels and (who is not None or not people):
                other[i].add(name)
    for i in sorted(other):
        told += f"; level {i} ({examples(other[i])}) is not people"
    return told
