"""From the executed notebooks of a run to a site: Sphinx with MyST-NB and the book theme, all of it on this machine.

What this module adds to them: which pages there are, what an executed notebook loses on its way to a page (progress
bars, replaced parameters), and the strips in the places of the widgets. Every warning of Sphinx, such as a broken
link, stops the build.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from pcl_lib.reproduce import readme
from pcl_lib.reproduce.notebooks import NOTEBOOKS, read_stamp
from pcl_lib.site.strips import STRIPS, Strip
from pcl_lib.utils import REPOSITORY, BadInput, make_folder, readable_errors

STATIC = Path(__file__).parent / "static"
PAGES = ("README", "method", "glossary", "project", "teaching")  # of Markdown, in the notebooks' folder
PLACE = re.compile(r'^<a id="([^"]+)"></a>$', re.MULTILINE)  # a place that a page sets itself
TO_PLACE = re.compile(r"\]\((?:(?:\.\./)?(\w+)\.md)?#([^)\s]+)\)")
PICTURE_OUT = re.compile(r"!\[[^\]]*\]\(\.\./[^)\s]+\)\n*")
LEADS_OUT = re.compile(
    r"(?<!!)\[([^\]]*)\]\((?:\.\./)+(?!\d\d_)[^)\s]*\)"
)  # to files that the site does not have
PROGRESS = "application/vnd.jupyter.widget-view+json"
MARK = ".pcl-site"  # in a folder that a build wrote, and that the next one may replace
NOT_OURS = ("index.html", "genindex.html", "search.html")
MATHJAX = "tex-chtml.js"  # the one of MathJax's bundles that pages load
SETTINGS: Mapping[str, Any] = {
    "project": "The PCL course",
    "html_title": "The PCL course",
    "author": "the PCL kit authors",
    "extensions": ["myst_nb", "sphinx.ext.mathjax", "sphinx-mathjax-offline"],
    "nb_execution_mode": "off",
    "nb_merge_streams": True,
    "nb_render_markdown_format": "myst",  # CommonMark, the default, has no tables
    "myst_enable_extensions": ["dollarmath", "amsmath"],
    "myst_heading_anchors": 4,
    "suppress_warnings": ["myst.header"],  # a notebook's exercise may begin below its section
    "html_theme": "sphinx_book_theme",
    "html_theme_options": {
        "use_download_button": False,
        "home_page_in_toc": True,
        "show_toc_level": 2,
        "navbar_persistent": [],  # the search is in the list of pages already
        "pygments_light_style": "a11y-high-contrast-light",
        "pygments_dark_style": "a11y-high-contrast-dark",
    },
    "html_context": {"default_mode": "auto"},
    "html_static_path": ["_static"],
    "html_css_files": ["strips.css"],
    "html_js_files": [("strips.js", {"defer": "defer"})],
    "html_logo": "_static/face.png",
    "html_favicon": "_static/face.png",
    "html_copy_source": False,
    "html_show_search_summary": False,  # it would fetch the pages, which browsers forbid where they are files
    "html_show_sourcelink": False,
    "html_show_copyright": False,
}


def build(
    run: Path, out: Path, notebooks: Path = NOTEBOOKS, strips: Sequence[Strip] | None = None
) -> list[Path]:
    """Write the site of a run folder to `out`; returns its pages, the first one first.

    notebooks: those that were run, with their solutions and the course's other pages. strips: at least one; made anew
    where None. Raises BadInput where a notebook was not executed to its end in this run, where `out` holds something
    else or cannot be written, where Sphinx is not installed, and on any warning of Sphinx, such as a broken link.
    """
    executed = [copy for copy in sorted((run / "notebooks").glob("*.ipynb")) if read_stamp(copy)]
    if not executed:
        raise BadInput(f"{run} has no executed notebooks: make reproduce OUT={run} makes them")
    missing = {path.stem for path in notebooks.glob("[0-9][0-9]_*.ipynb")} - {copy.stem for copy in executed}
    if missing or not (run / "summary.json").is_file():
        lacks = ", ".join(sorted(missing)) or "its summary.json"
        raise BadInput(
            f"{run} is a run that has not finished (it lacks {lacks}): make reproduce OUT={run} goes on"
        )
    if out.exists() and not (out / MARK).exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} holds something else than a site: give another folder by SITE=, or empty it")
    strips = [make() for make in STRIPS] if strips is None else strips
    make_folder(out.parent)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".site-") as temporary:
        source, made = Path(temporary, "source"), Path(temporary, "html")
        write_sources(run, executed, source, notebooks, strips)
        run_sphinx(source, made)
        for bundle in (made / "_static" / "mathjax").glob("*.js"):
            if bundle.name != MATHJAX:
                bundle.unlink()
        (made / MARK).touch()
        with readable_errors(out):
            shutil.rmtree(out, ignore_errors=True)
            made.rename(out)
    found = [*out.glob("*.html"), *(out / "solutions").glob("*.html")]
    return [out / "index.html", *sorted(path for path in found if path.name not in NOT_OURS)]


def run_sphinx(source: Path, out: Path) -> None:
    """Build the pages. Raises BadInput without Sphinx, and with the first warnings where there are any."""
    try:
        from sphinx.application import Sphinx
        from sphinx.errors import SphinxError
        from sphinx.util.docutils import docutils_namespace, patch_docutils
    except ImportError as error:
        raise BadInput(
            f"{error.name} is not installed: pip install 'pcl-kit[site]' (make env has it)"
        ) from None
    warnings = io.StringIO()
    try:
        with patch_docutils(), docutils_namespace():
            Sphinx(
                source,
                None,
                out,
                out.parent / "doctrees",
                "html",
                dict(SETTINGS),
                status=None,
                warning=warnings,
            ).build()
    except SphinxError as error:
        raise BadInput(f"the site cannot be built: {error}") from error
    said = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue()).replace(f"{source}/", "")
    if lines := [line for line in said.splitlines() if line.strip()]:
        raise BadInput("correct this in the notebooks: " + "; ".join(lines[:5]))


def write_sources(
    run: Path, executed: Sequence[Path], source: Path, notebooks: Path, strips: Sequence[Strip]
) -> None:
    """Sphinx's sources in the folder `source`: notebooks, solutions, pages of text, strips, the first page."""
    static = make_folder(source / "_static")
    for file in STATIC.iterdir():
        shutil.copy(file, static)
    for strip in strips:
        strip.save(static)
    Image.fromarray(strips[-1].pictures[0][:96, :96]).save(static / "face.png")
    make_folder(source / "solutions")
    texts = {name: notebooks / f"{name}.md" for name in PAGES if (notebooks / f"{name}.md").is_file()}
    pages = {name: path.read_text(encoding="utf-8") for name, path in texts.items()}
    places = {name: set(PLACE.findall(text)) for name, text in pages.items()}
    names, solved = [], []
    for copy in executed:
        text = copy.read_text(encoding="utf-8").replace(
            f"{REPOSITORY}/", "../"
        )  # nobody else has that folder
        nbformat.write(as_page(nbformat.reads(text, as_version=4), strips, places), source / copy.name)
        names.append(copy.stem)
        if (solution := notebooks / "solutions" / copy.name).is_file():
            nbformat.write(
                as_page(nbformat.read(solution, as_version=4), (), places), source / "solutions" / copy.name
            )
            solved.append(f"solutions/{copy.stem}")
    for name, text in pages.items():
        text = PLACE.sub(rf"({name.lower()}-\1)=", PICTURE_OUT.sub("", text))
        (source / f"{name}.md").write_text(relinked(text, places, name), encoding="utf-8")
    lists = {"Notebooks": names, "Pages": [*pages, "sliders"], "Solutions": solved}
    (source / "index.md").write_text(first_page(run, executed, strips[0], lists), encoding="utf-8")
    (source / "sliders.md").write_text(sliders_page(strips), encoding="utf-8")


def target(page: str, place: str) -> str:
    """Sphinx's name for a place that a page sets itself; unlike the place's own, there is one such in the site."""
    return f"{page}-{place}".lower()


def relinked(text: str, places: Mapping[str, set[str]], page: str = "") -> str:
    """Markdown whose links lead to `places` (by page) by Sphinx's names, or are plain text where they leave it."""

    def link(found: re.Match[str]) -> str:
        name = found[1] or page
        return f"](#{target(name, found[2])})" if found[2] in places.get(name, ()) else found[0]

    return LEADS_OUT.sub(r"\1", TO_PLACE.sub(link, text))


def as_page(
    notebook: nbformat.NotebookNode, strips: Sequence[Strip], places: Mapping[str, set[str]]
) -> nbformat.NotebookNode:
    """A notebook as a page shows it. places: that pages set themselves, by page.

    Without parameters that the run replaced and without progress bars, which need a kernel; with a strip in the place
    of each widget that has one; links to files that the site does not have as plain text; and what each picture is.
    """
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in notebook.cells):
        notebook.cells = [c for c in notebook.cells if "parameters" not in c.metadata.get("tags", [])]
    notebook.metadata.pop("widgets", None)
    section = ""
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            cell.source = relinked(cell.source, places)
            section = next(iter(re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)[-1:]), section)
        elif cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if PROGRESS not in output.get("data", {})]
            cell.metadata["mystnb"] = {
                "image": {"alt": f"Figure of the section: {section}".replace('"', "'")}
            }
            for output in cell.outputs:
                _put_strip(output, strips, number)
    return notebook


def _put_strip(output: nbformat.NotebookNode, strips: Sequence[Strip], number: int) -> None:
    """Put the strip in the place of a widget's still figure."""
    said = "".join(output.get("data", {}).get("text/plain", ""))
    for strip in strips:
        if said.startswith(f"{strip.widget}: "):
            output.data = {
                "text/html": strip.html(f"_static/{strip.name}.webp", number),
                "text/plain": strip.about,
            }


def first_page(run: Path, executed: Sequence[Path], strip: Strip, lists: Mapping[str, Sequence[str]]) -> str:
    """The first page: what this is, a picture that moves, question -> notebook -> minutes -> section, all pages."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    courses = {copy.stem: readme.course(nbformat.read(copy, as_version=4), copy.stem) for copy in executed}
    table = readme.table(courses, readme.measured(run)).replace("](notebooks/", "](")
    # A long name may break after an underscore.
    table = re.sub(r"\[\w+\]", lambda name: name[0].replace("_", "_<wbr>"), table)
    made = ", ".join(f"{key} {summary[key]}" for key in ("preset", "seed", "device", "commit"))
    trees = [
        f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```"
        for caption, names in lists.items()
        if names
    ]
    parts = [
        "# Pose-disentangled contrastive learning: the course",
        "How can a network learn what a face *is* apart from how the head is *turned*, without a single label?",
        strip.html(f"_static/{strip.name}.webp", 0),
        "## The notebooks",
        table,
        f"The pages show one run of the notebooks ({made}; {summary['versions']}).",
        *trees,
    ]
    return "\n\n".join(parts) + "\n"


def sliders_page(strips: Sequence[Strip]) -> str:
    """All strips on one page."""
    parts = [f"## {strip.widget}\n\n{strip.html(f'_static/{strip.name}.webp', 0)}" for strip in strips]
    said = (
        "These pictures were drawn beforehand for a few places of each slider. The notebooks have the same with every"
        " place, and with your own faces."
    )
    return "\n\n".join(["# Sliders without a kernel", said, *parts]) + "\n"
