"""Who is on a picture, by its path: one rule for any folder of faces, one for VoxCeleb; both say what they found.

A rule looks at all paths at once. Folders are levels: 1 is the first below ROOT. Names that only order files (train,
test, images, mp4, 1.6, dates, day1, video ids, the seven expressions) are never people.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from data_scripts.names import EXPRESSION_WORDS, alike, counted, plain
from pcl_lib.utils import BadInput

SPLIT_WORDS = {
    "train": "train", "training": "train", "dev": "train",
    "validation": "validation", "valid": "validation", "val": "validation",
    "test": "test", "testing": "test", "eval": "test",
}  # fmt: skip
WRAPPERS = re.compile(
    r"(vox|voxceleb)\w*|mp4|m4a|aac|avi|wav|txt|data(set|base)?s?|(un)?zipped\w*|(all_?)?faces?|(un)?aligned"
    r"|(all_?)?(images?|imgs?|pictures|pics|photos?|frames?|crops?|cropped|videos?|clips|raw|original|processed)"
    r"|part[-_ ]?\d+|partition\w*|fold[-_ ]?\d+|batch[-_ ]?\d+|people|persons|subjects|identities|downloads?",
    re.IGNORECASE,
)
OCCASIONS = re.compile(
    r"(sess(ion)?s?|day|date|visit|shoot(ing)?|take|trial|seq(uence)?|scene|setting|cam(era)?|view|angle|pose|light(ing)?"
    r"|clip|track|vid(eo)?|frame|img|image|recording|rec|run|round|week|month|year)([-_ ]?\d{0,5}|[-_ ][a-z])"
    r"|(19|20)\d\d([-_.]?(0\d|1[012])([-_.]?([012]\d|3[01])([-_ T]\d\d[-_:]?\d\d([-_:]?\d\d)?)?)?)?"
    r"|left|right|front(al)?|profile|indoors?|outdoors?|up|down|morning|noon|evening|night",
    re.IGNORECASE,
)
RATE = "1.6"  # between the person and the video in VoxCeleb1's crops
VOX_ID = re.compile(r"id\d{5}")
VOX_FIRST = re.compile(
    r"id1\d{4}"
)  # of VoxCeleb1, whose people lie under names too; VoxCeleb2 has others, from id0
VOX_NAME = re.compile(
    r"(id\d{5})[#_.+@-]([\w-]{11})(?:[#_.+@-](.*))?"
)  # id10283#tXmKFJIMVXo#004832#004981.mp4
VIDEO = re.compile(r"[\w-]{11}")
NAME = re.compile(r"[^\W\d_][\w.'’-]*?[_ ][\w.'’_ -]*[^\W\d_].*")  # Ann_Lee, A.J._Buckley
IDENTIFIER = re.compile(r"id\d{3,}|n\d{6}|m\.[0-9a-z_]+|nm\d{7}", re.IGNORECASE)
SUBJECT = re.compile(
    r"(subj(ect)?|pers(on)?|people|participant|identity|actor|sn|id|sub|user|p|s)[-_ ]?\d+", re.IGNORECASE
)
JOINED = re.compile(r"([^#]+)#.+")  # PERSON#VIDEO#...
GROUPS = re.compile(
    r"(wo)?men|(fe)?males?|boys?|girls?|adults?|children|kids?|young|old|controls?|patients?|(group|class)[-_ ]?\w*"
    r"|asian|black|white|indian|african|caucasian|latino",
    re.IGNORECASE,
)
# What systems call a second folder of one name: "id00012 (1)", "Ann Lee - Copy", "Ann Lee copy 2".
COPY = re.compile(r"(.+?)(?: ?\(\d{1,2}\)| - copy(?: ?\(\d{1,2}\))?| copy(?: \d{1,2})?)", re.IGNORECASE)
NUMBERED = re.compile(r"(.*[^\W\d_])[-_ ]?\d{1,3}")  # ann_2
COUNTED = re.compile(
    r"[A-Za-z]*[-_ ]?\d+|[^\W\d_]+"
)  # person_0001, 00000000001, Christopher: no ids of videos
SHORT = 3  # digits of a number that counts sessions; longer ones are people's
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


def _nobody(files: int) -> People:
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


# VoxCeleb ---------------------------------------------------------------------------------------------------


def in_voxceleb(files: Sequence[str], numbers: Mapping[str, str] | None = None) -> People:
    """People, videos and tracks of VoxCeleb's paths in the layouts in which the sets are passed on.

    numbers: of people by another name of theirs (`names.alike`), so that nobody counts as two.
    [wrappers/]PERSON[/1.6][/VIDEO[/TRACK]]/FILE, PERSON a number such as id00012 or a name; or PERSON#VIDEO#... as
    the name of a file or folder. The level of named people is decided once for all paths of one depth.
    """
    found = _nobody(len(files))
    levels: dict[str, set[int]] = defaultdict(set)
    others: dict[int, list[int]] = defaultdict(list)
    for place, file in enumerate(files):
        parts = [plain(part) for part in file.split("/")]
        at = _vox_person(parts)
        if at is None:
            others[len(parts)].append(place)
        else:
            _fill(found, place, parts, at, levels)
    for places in others.values():
        split_paths = [[plain(part) for part in files[place].split("/")] for place in places]
        level = _vox_level([parts[:-1] for parts in split_paths])
        for place, parts in zip(places, split_paths, strict=True):
            if level is not None:
                _fill(found, place, parts, level, levels)
    copied = _join_copies(found)
    renamed = {name: (numbers or {}).get(alike(name), name) for name in set(found.identity) if name}
    found.identity = [renamed[name] if name else None for name in found.identity]
    found.sentence = _counted(found, levels)
    found.notes = [*copied, *_numbers_told(renamed), *_odd(found)]
    return found


def _join_copies(found: People) -> list[str]:
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
            f"some people of VoxCeleb1 are numbers, others names without one ({_examples(names)}): whoever is both"
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
    named = [i for i in range(first, last) if _mostly(names[i], NAME)]
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
    else:
        found.identity[place] = parts[at]
        after = at + 2 if folders[at + 1 : at + 2] == [RATE] else at + 1
        if after < len(folders):
            found.video[place] = folders[after]
            levels["video"].add(after + 1)
            film = parts[-1].lower().endswith((".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v"))
            below = folders[after + 1 :] or ([parts[-1]] if film else [])
            found.track[place] = "/".join(below) or None
    found.split[place] = split_of(folders[:at])
    levels["person"].add(at + 1)


def _counted(found: People, levels: dict[str, set[int]]) -> str:
    """Such as "3 people (folder level 1), 6 videos (level 3), 12 tracks"."""
    people = {name for name in found.identity if name}
    videos = {pair for pair in zip(found.identity, found.video, strict=True) if pair[1]}
    tracks = {three for three in zip(found.identity, found.video, found.track, strict=True) if three[2]}
    told = [f"{counted(len(people), 'person', 'people')} ({_levels('folder level', levels['person'])})"]
    if videos:
        where = f" ({_levels('level', levels['video'])})" if levels["video"] else ""
        told.append(counted(len(videos), "video", "videos") + where)
    if tracks:
        told.append(counted(len(tracks), "track", "tracks"))
    return ", ".join(told)


def _levels(word: str, levels: set[int]) -> str:
    return f"{word}{'s' if len(levels) > 1 else ''} {' and '.join(map(str, sorted(levels)))}"


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


# Any folder of faces ----------------------------------------------------------------------------------------


def in_folders(files: Sequence[str], level: int | None = None) -> People:
    """People by the folders that files lie in: on `level` (from 1), or on the level that the names tell.

    The level is decided once for all files of one depth. Files outside such a folder show somebody unknown. Raises
    BadInput where two levels could be people.
    """
    found = _nobody(len(files))
    by_depth: dict[int, list[int]] = defaultdict(list)
    paths = [[plain(part) for part in file.split("/")[:-1]] for file in files]
    for place, folders in enumerate(paths):
        by_depth[len(folders)].append(place)
    levels: set[int] = set()
    for depth in sorted(by_depth):
        places = by_depth[depth]
        chosen = _level([paths[place] for place in places], found.identity) if level is None else level
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
    found.notes += _join_copies(found)
    found.sentence = _people_found(found, paths, levels)
    found.notes += two_names(found.identity) + _numbered(found.identity)
    return found


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
    where = _examples({"/".join(path[:level]) for path in folders if path[level] == name})
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


def _level(folders: list[list[str]], known: Iterable[str | None]) -> int | None:
    """The level (from 1) of people among folders of one depth; None where none can be. BadInput where two can be."""
    names = [set(level) for level in zip(*folders, strict=True)]
    people = {name for name in known if name}
    open_levels = [i for i, here in enumerate(names) if not _orders(here)]
    if not open_levels:
        return None
    for form in (IDENTIFIER, NAME, SUBJECT):
        formed = [i for i in open_levels if _mostly(names[i], form)]
        if formed and not _crossed(folders, formed[0], open_levels):
            return formed[0] + 1
    seen = [i for i in open_levels if len(names[i] & people) * 2 > len(names[i])]
    if len(seen) == 1:
        return seen[0] + 1
    several = [i for i in open_levels if len(names[i]) > 1] or open_levels[-1:]
    if len(several) == 1:
        return several[0] + 1
    outer, inner = several[0], several[-1]
    numbers = [i for i in several if all(name.isdecimal() for name in names[i])]
    within = _crossed(folders, inner, several)
    counts = inner in numbers and (outer in numbers or max(map(len, names[inner])) <= SHORT)  # as sessions do
    grouped = all(GROUPS.fullmatch(name) for name in names[outer])
    if len(several) == 2 and within and not grouped and (counts or _mostly(names[outer], SUBJECT)):
        return outer + 1
    raise BadInput(
        "two folder levels could be people: "
        + ", or ".join(f"level {i + 1} ({_examples(names[i])})" for i in several)
        + f"; say --identity-level {' or '.join(str(i + 1) for i in several)}, or --identity-from none"
    )


def _orders(names: set[str]) -> bool:
    """Whether names on one level only order files: splits, wrappers, occasions, videos, expressions."""
    words = {split_word(name) for name in names} - {None}
    if len(words) > 1 or (words and len(names) == 1):
        return True
    if {name.lower() for name in names} <= {*EXPRESSION_WORDS, "contempt"}:
        return True
    if (
        all(VIDEO.fullmatch(name) for name in names)
        and not _mostly(names, COUNTED)
        and not _mostly(names, NAME)
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


def _mostly(names: set[str], form: re.Pattern[str]) -> bool:
    return sum(bool(form.fullmatch(name)) for name in names) * 2 > len(names)


def _examples(names: Iterable[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")


def _people_found(found: People, paths: list[list[str]], levels: set[int]) -> str:
    """Such as "3 people (folder level 1: ann, bob, cyd); level 2 (day1, day2) is not people"."""
    people = {name for name in found.identity if name}
    if not people:
        return "no folder is one person's: who is on a picture is not known"
    told = (
        f"{counted(len(people), 'person', 'people')} ({_levels('folder level', levels)}: {_examples(people)})"
    )
    other: dict[int, set[str]] = defaultdict(set)
    for folders, who in zip(paths, found.identity, strict=True):
        for i, name in enumerate(folders, 1):
            if who is not None and i not in levels:
                other[i].add(name)
    for i in sorted(other):
        told += f"; level {i} ({_examples(other[i])}) is not people"
    return told
