"""Names of files and people as the scripts compare them."""

from __future__ import annotations

import unicodedata

from pcl_lib.data.labels import EXPRESSION_NAMES

# What folders of the seven expressions are called, in small letters.
EXPRESSION_WORDS = {name: name for name in EXPRESSION_NAMES} | {
    "angry": "anger", "happiness": "happy", "sadness": "sad", "surprised": "surprise",
    "disgusted": "disgust", "fearful": "fear", "afraid": "fear", "natural": "neutral", "neutrality": "neutral",
}  # fmt: skip


def plain(name: str) -> str:
    """A name in composed Unicode: Macs store e and its accent as two characters, label files as one."""
    return unicodedata.normalize("NFC", name)


def alike(name: str) -> str:
    """What is left of a name when capitals, accents and what stands between its words play no part."""
    apart = unicodedata.normalize("NFKD", name)
    return "".join(letter for letter in apart if letter.isalnum()).casefold()


def counted(number: int, one: str, many: str) -> str:
    """Such as "1 person" or "3 people"."""
    return f"{number:,} {one if number == 1 else many}"
