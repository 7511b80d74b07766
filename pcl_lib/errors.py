"""The one exception that a command line turns into a sentence and exit code 2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class BadInput(ValueError):
    """Bad arguments, data or checkpoint: the message says what, where and what to do."""


def exit_cleanly(main: Callable[[], None]) -> None:
    """Run a command line's `main`; BadInput becomes one sentence on stderr and exit code 2.

    Among several processes the sentence says whose it is: the launcher ends the others.
    """
    try:
        main()
    except BadInput as error:
        rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK"))
        print("error:", *([f"rank {rank}:"] if rank else []), error, file=sys.stderr)
        raise SystemExit(2) from None
