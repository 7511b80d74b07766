"""The check of an exercise tells undone, right, wrong and broken answers apart."""

from __future__ import annotations

from pcl_lib.reproduce.exercises import NOT_DONE, RIGHT, WRONG, check


def said(answer: object) -> str:
    return check(answer, lambda double: double(3) == 6, "Twice three is six.")  # type: ignore[operator]


def test_an_untouched_exercise_is_not_done() -> None:
    assert said(None).startswith(NOT_DONE)


def test_a_right_answer_is_right() -> None:
    assert said(lambda x: 2 * x) == f"{RIGHT}."


def test_a_wrong_answer_gets_the_hint() -> None:
    assert said(lambda x: x**2) == f"{WRONG}. Twice three is six."


def test_an_answer_that_raises_is_wrong_and_names_the_error() -> None:
    assert said(lambda x: x / 0) == f"{WRONG}: it raises ZeroDivisionError: division by zero"
