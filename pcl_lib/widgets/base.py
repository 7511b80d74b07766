"""What all widgets share: tiles, labelled sliders, messages, pictures to keep, things to try, how they are shown."""

from __future__ import annotations

import base64
import html
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets
from IPython.display import display
from matplotlib.figure import Figure

from pcl_lib.utils import BadInput, headless
from pcl_lib.widgets.pictures import RGB, gif, png
from pcl_lib.widgets.script import script

WRAP = ipywidgets.Layout(display="flex", flex_flow="row wrap", align_items="flex-start", width="100%")
TOGETHER = ipywidgets.Layout(display="flex", flex_flow="row wrap", max_width="100%")
DESCRIBED = {"description_width": "11.5em"}
# Below each panel, because a saved notebook shows its widgets as they stood and cannot know that it is one.
SAVED = "The panel moves while its kernel runs. In a saved copy it is a still of what was live: run its cell again."
WAS_LIVE = "This panel was live when the notebook was saved; here is a still of it. Run its cell to move it."


class Tile:
    """A picture over its caption. Only the PNG changes, in a box of fixed width, so nothing jumps or flickers."""

    def __init__(self, name: str, width: str = "160px") -> None:
        """name: the first caption, and the CSS class pcl-<name>; width: as in CSS, at most that of the page."""
        # No tooltip: ipywidgets 8.1.9 cannot show an Image that has one.
        self.image = ipywidgets.Image(format="png", layout=ipywidgets.Layout(width="100%", height="auto"))
        self.image.add_class(f"pcl-{name.lower().replace(' ', '-')}")
        self.caption = ipywidgets.HTML(name)
        layout = ipywidgets.Layout(
            width=width,
            max_width="100%",
            margin="0 8px 4px 0",
            overflow="visible",  # nothing to scroll in
        )
        self.box = ipywidgets.VBox([self.image, self.caption], layout=layout)

    def show(self, picture: RGB | bytes | None, caption: str | None = None) -> None:
        """Put a picture (or a PNG file) in, or hide the tile (None); the caption stays where None is given."""
        if picture is not None:  # there before its tile can be seen
            self.image.value = picture if isinstance(picture, bytes) else png(picture)
        self.box.layout.display = "none" if picture is None else "flex"
        if caption is not None:
            self.caption.value = f"<div style='line-height: 1.3'>{html.escape(caption)}</div>"


def slider(
    name: str, value: float, low: float, high: float, step: float, *, unit: str = "", digits: int = 2
) -> ipywidgets.FloatSlider:
    """A labelled slider that redraws while it moves. unit: shown after the label; digits: after the point."""
    return ipywidgets.FloatSlider(
        value=value, min=low, max=high, step=step, description=f"{name} ({unit})" if unit else name,
        readout_format=f".{digits}f", continuous_update=True, style=DESCRIBED,
        layout=ipywidgets.Layout(flex="1 1 300px", min_width="260px", max_width="480px"),
    )  # fmt: skip


def wrapped(children: Sequence[ipywidgets.Widget]) -> ipywidgets.Box:
    """Widgets side by side as far as the page is wide, the rest below."""
    return ipywidgets.Box(list(children), layout=WRAP)


def together(children: Sequence[ipywidgets.Widget]) -> ipywidgets.Box:
    """Widgets that belong together: `wrapped` puts them on one line if that line is wide enough for all of them."""
    return ipywidgets.Box(list(children), layout=TOGETHER)


def as_png(figure: Figure, dpi: int) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def download(name: str, kind: str, content: bytes) -> str:
    """A link in HTML that saves the content under this name; it holds the content, so it works wherever it is shown."""
    data = base64.b64encode(content).decode()
    said = f"{name} ({len(content) / 1000:.0f} kB)"
    return f'<a download="{name}" href="data:image/{kind};base64,{data}">{said}</a>'


class Panel(ABC):
    """Base of the widgets. `view` holds the ipywidgets, `message` what went wrong (empty while nothing did).

    tries: things to try, shown below. keep: the button that makes a still and a moving picture; kept: links to them.
    """

    problem = ""  # why it can show no more than its figure
    tries: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.message, self.kept = ipywidgets.HTML(), ipywidgets.HTML()
        self.keep = ipywidgets.Button(description="keep picture", icon="camera")
        self.keep.on_click(lambda _: self.guarded(self._keep))
        self.view: ipywidgets.Box = ipywidgets.VBox([self.message])
        self.view.add_class("pcl-panel")

    def put(self, *parts: ipywidgets.Widget) -> None:
        """Show these parts, and below them the button for pictures and the things to try."""
        items = "".join(f"<li>{html.escape(text)}</li>" for text in self.tries)
        tries = (
            f"<div style='line-height: 1.4'>Three things to try:<ol style='margin: 0'>{items}</ol>"
            f"<em>{html.escape(SAVED)}</em>{script('names.js')}</div>"
        )
        self.view.children = (*parts, wrapped([self.keep, self.kept]), ipywidgets.HTML(tries))

    def frames(self) -> list[RGB]:
        """What moves here, picture by picture, for a GIF; fewer than two where nothing does."""
        return []

    def _keep(self) -> None:
        name, frames = type(self).__name__.lower(), self.frames()
        links = [download(f"{name}.png", "png", as_png(self.figure(), dpi=100))]
        if len(frames) > 1:
            links.append(download(f"{name}.gif", "gif", gif(frames)))
        self.kept.value = "Save as it is now: " + ", ".join(links)

    @abstractmethod
    def figure(self) -> Figure:
        """The static figure of what the widget shows now."""

    def say(self, text: str) -> None:
        """Put a plain sentence in the line for messages."""
        self.message.value = (
            f"<div role='status' style='line-height: 1.4'>{html.escape(text)}</div>" if text else ""
        )

    def guarded(self, action: Callable[[], None]) -> None:
        """Do something that a reader asked for: BadInput becomes the message, and what was shown before stays."""
        try:
            action()
        except BadInput as error:
            self.say(str(error))

    def redraw_on(self, controls: Sequence[ipywidgets.Widget], redraw: Callable[[], None]) -> None:
        """Call `redraw`, guarded, whenever the value of a control changes."""

        def changed(_: Any) -> None:
            self.say("")
            self.kept.value = ""  # these pictures show what was here before
            self.guarded(redraw)

        for control in controls:
            control.observe(changed, names="value")

    def show(self) -> None:
        """Display the widget, or its static figure with the reason."""
        display(self)

    def still(self) -> Figure | None:
        """The static figure for the cell below a live widget; None where the widget itself is shown as its figure."""
        return None if self.problem or headless() else self.figure()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        why = self.problem or headless()
        still = self._as_html(why or WAS_LIVE)
        if why:
            return still | {"text/plain": f"{type(self).__name__}: {why}"}
        live: dict[str, Any] = self.view._repr_mimebundle_()
        return live | still  # what shows no widgets, or has lost their state, shows the still

    def _as_html(self, why: str) -> dict[str, str]:
        data = base64.b64encode(as_png(self.figure(), dpi=100)).decode()
        picture = (
            f'<img alt="{type(self).__name__}" style="max-width: 100%" src="data:image/png;base64,{data}">'
        )
        return {"text/html": f"<p>{html.escape(why)}</p>{picture}"}
