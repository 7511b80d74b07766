"""Photographs for the two faces of a panel: uploads, the browser's camera, and the picture with what was cut out."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from torch import Tensor

from pcl_lib.utils import BadInput
from pcl_lib.widgets.base import Panel, Tile, wrapped
from pcl_lib.widgets.photographs import SHOWN, read_photograph
from pcl_lib.widgets.script import script

LOOK = "jupyter-widgets jupyter-button widget-button"  # that of the buttons of ipywidgets
BUTTON = f'<button type="button" class="{LOOK}" style="width: auto{{}}"{{}}>{{}}</button>'
HIDDEN = "; display: none"
VIDEO = '<video aria-label="camera" muted playsinline style="width: 320px; max-width: 100%; display: none"></video>'
CAMERA = "\n".join(
    (
        '<div class="pcl-camera">',
        BUTTON.format("", "", "camera"),
        VIDEO,
        BUTTON.format(HIDDEN, ' data-donor="A"', "take for A"),
        BUTTON.format(HIDDEN, ' data-donor="B"', "take for B"),
        BUTTON.format(HIDDEN, "", "close camera"),
        script("camera.js"),
        "</div>",
    )
)
NO_CAMERA = {
    "NotFoundError": "No camera was found: plug one in, or upload a picture instead.",
    "NotAllowedError": (
        "The browser may not use the camera: allow it next to the page's address, or upload a picture instead."
    ),
    "NotReadableError": "Another program holds the camera: close it, or upload a picture instead.",
    "insecure": "A browser lends its camera to pages at https:// and on this machine alone: upload a picture instead.",
}


class Portraits:
    """Buttons to upload a photograph for A or B, a camera, and the last photograph with the box of what was cut out.

    panel: whose message says what to expect, or what is wrong. use: gets "a" or "b" and the face, uint8 [3, S, S].
    """

    def __init__(self, panel: Panel, size: int, use: Callable[[str, Tensor], None]) -> None:
        self.panel, self.size, self.use = panel, size, use
        self.upload_a, self.upload_b = (
            ipywidgets.FileUpload(accept="image/*", multiple=False, description=f"upload {name}")
            for name in "AB"
        )
        for name, upload in (("a", self.upload_a), ("b", self.upload_b)):
            upload.observe(lambda change, name=name: self.upload_files(name, change.new), "value")
        self.camera = ipywidgets.HTML(CAMERA)
        self.said = ipywidgets.Textarea(continuous_update=False, layout=ipywidgets.Layout(display="none"))
        self.said.add_class("pcl-camera-said")
        self.said.observe(lambda change: self._hear(change.new), "value")
        self.whose = ""
        self.tile = Tile("Photograph", width=f"{SHOWN}px")
        self.forget("")
        self.box = wrapped([self.camera, self.said, self.tile.box])
        self.box.add_class("pcl-portraits")

    def forget(self, *names: str) -> None:
        """Hide the photograph where it is that of one of these: "a", "b", or "" for that of nobody."""
        if self.whose in names:
            self.tile.show(None)

    def upload_files(self, name: str, files: Sequence[Any]) -> None:
        """What an upload's value holds: nothing, or one file."""
        if files:
            content = bytes(files[0]["content"])
            upload = self.upload_a if name == "a" else self.upload_b
            upload.value = ()  # the file need not stay in the notebook, and may be chosen again
            self.panel.guarded(lambda: self._take(name, content))

    def _hear(self, said: str) -> None:
        """What camera.js says: "A data:image/jpeg;base64,..." or "! what is wrong"."""
        if said:
            self.said.value = ""  # a picture need not stay in the page, nor in a saved notebook
            self.panel.guarded(lambda: self._picture(said))

    def _picture(self, said: str) -> None:
        whom, _, rest = said.partition(" ")
        if whom not in ("A", "B"):
            name = rest.split(" ")[0]
            raise BadInput(
                NO_CAMERA.get(name, f"The camera cannot be used ({name}): upload a picture instead.")
            )
        try:
            content = base64.b64decode(rest.partition(",")[2], validate=True)
        except binascii.Error:
            raise BadInput("the camera's picture did not arrive whole: take it again") from None
        self._take(whom.lower(), content)

    def _take(self, name: str, content: bytes) -> None:
        found = read_photograph(content, self.size)
        self.use(name, found.face)
        self.whose = name
        self.tile.show(
            found.shown, f"the photograph for {name.upper()}: the thick box is what the model gets"
        )
        self.panel.say(found.note)
