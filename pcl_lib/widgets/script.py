"""What ipywidgets cannot do alone: a small script of `static/` that comes with a piece of HTML."""

from __future__ import annotations

import html
from pathlib import Path

STATIC = Path(__file__).parent / "static"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="


def script(name: str) -> str:
    """HTML that runs static/<name> where it is shown, in an `ipywidgets.HTML`.

    A widget's HTML runs no <script>, but a picture's handler. In the script, `this` is that picture, of one pixel.
    """
    code = html.escape((STATIC / name).read_text(encoding="utf-8"))
    return f'<img alt="" src="{PIXEL}" width="0" height="0" style="position: absolute" onload="{code}">'
