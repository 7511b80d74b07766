"""Pages of a folder in a Chromium without network, for the tests of the site; nothing here is a test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from browser import SECOND

NARROW = 360  # pixels: a small telephone


@contextmanager
def window(chromium: Any) -> Iterator[Any]:
    """A window of a Chromium that is offline and can be touched."""
    opened = chromium.new_context(offline=True, has_touch=True, viewport={"width": 1280, "height": 900})
    opened.set_default_timeout(30 * SECOND)
    yield opened
    opened.close()


@contextmanager
def page(context: Any, path: Path) -> Iterator[tuple[Any, list[str]]]:
    """A page of a file, and what went wrong in it: the console's errors, files that failed, requests to the network."""
    opened, wrong = context.new_page(), []
    opened.on("console", lambda m: wrong.append(m.text) if m.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
    opened.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:")) else wrong.append(f"network: {r.url}"),
    )
    try:
        opened.goto(path.resolve().as_uri())
        opened.wait_for_function("!window.MathJax?.startup || MathJax.startup.promise.then(() => true)")
        yield opened, wrong
    finally:
        opened.close()


def serious(opened: Any) -> list[str]:
    """What axe-core finds serious or critical on a page: rule and the elements."""
    from axe_playwright_python.sync_playwright import Axe

    found = (
        Axe().run(opened, options={"preload": False}).response
    )  # preloading asks for files by XMLHttpRequest
    assert found["passes"], "axe-core did not run"
    return [
        f"{rule['id']}: {[node['html'][:200] for node in rule['nodes'][:3]]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


def width_needed(opened: Any, width: int = NARROW) -> int:
    """How wide a page is in a window of that width; more than the window where one has to scroll sideways."""
    opened.set_viewport_size({"width": width, "height": 800})
    opened.wait_for_timeout(300)
    return int(opened.evaluate("document.documentElement.scrollWidth"))
