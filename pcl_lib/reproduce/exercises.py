"""The check cells of the notebooks' exercises: say whether an answer is right, never how to get it right."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
NOT_DONE, RIGHT, WRONG = "Not done yet", "Right", "Not right yet"


def check(answer: T | None, is_right: Callable[[T], bool], hint: str) -> str:
    """One sentence on an answer: not done yet (None), right, or not right yet with the hint.

    answer: what the exercise asks for, mostly a function. is_right: tries it. An answer that raises is not right yet,
    and the sentence names the error, so that a notebook with a half-done exercise still runs to its end.
    """
    if answer is None:
        return f"{NOT_DONE}: put your answer in the place of None, then run both cells again."
    try:
        right = bool(is_right(answer))
    except Exception as error:  # whatever a reader's code may raise
        return f"{WRONG}: it raises {type(error).__name__}: {error}"
    return f"{RIGHT}." if right else f"{WRONG}. {hint}"
