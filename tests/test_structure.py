"""The rooms of pcl_lib: imports run one way, without circles, and every package says what is in each of its files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Reading order: a room may import those before it, never those after it.
ORDER = (
    "utils", "distributed", "presets", "faces", "data", "augment", "losses", "models", "methods", "probes",
    "pretrain", "disentangle", "tables", "plots", "finetune", "reproduce", "ablations", "widgets", "site", "bench",
)  # fmt: skip
# Jupyter's own packages, which a machine without notebooks does not have.
JUPYTER = ("IPython", "ipywidgets", "nbclient", "nbconvert", "nbformat", "papermill", "jupyter_client")


def module_of(path: Path) -> str:
    """pcl_lib/data/folder.py -> pcl_lib.data.folder; an __init__ is its package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules() -> dict[str, Path]:
    return {
        module_of(path): path for top in ("pcl_lib", "data_scripts") for path in (ROOT / top).rglob("*.py")
    }


def names_imported(tree: ast.Module) -> Iterator[str]:
    """Dotted names that are imported anywhere in a module, in functions too; not those for type checkers alone."""
    checked = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.dump(n.test)]
    left_out = {id(n) for block in checked for n in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in left_out:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)


def imports() -> dict[str, set[str]]:
    """Each module -> the modules of the project that it imports.

    `from package import name` counts as an import of the module `package.name` where there is one, else of the
    package itself, whose __init__ runs.
    """
    known = modules()
    found: dict[str, set[str]] = {}
    for module, path in known.items():
        targets = set()
        for name in names_imported(ast.parse(path.read_text(encoding="utf-8"))):
            whole = next((part for part in (name, name.rpartition(".")[0]) if part in known), None)
            targets |= {whole} - {module, None}
        found[module] = {target for target in targets if target}
    return found


def rooms(edges: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same between rooms: modules at the top of pcl_lib and its packages; data_scripts is one room."""

    def room(module: str) -> str:
        parts = module.split(".")
        return parts[1] if parts[0] == "pcl_lib" and len(parts) > 1 else parts[0]

    found: dict[str, set[str]] = {}
    for module, targets in edges.items():
        found.setdefault(room(module), set()).update(room(target) for target in targets)
    return {name: targets - {name, "data_scripts"} for name, targets in found.items()}


def circle(edges: dict[str, set[str]]) -> list[str]:
    """A path of imports that leads back to where it began; empty where there is none."""
    done: set[str] = set()

    def walk(module: str, path: list[str]) -> list[str]:
        if module in path:
            return [*path[path.index(module) :], module]
        if module in done:
            return []
        for target in sorted(edges.get(module, ())):
            if found := walk(target, [*path, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(edges) if (found := walk(module, []))), [])


def test_a_circle_is_found_where_there_is_one() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    edges = imports()
    assert circle(edges) == []
    # A package's __init__ runs before any of its modules: it may gather them, they may not ask it back.
    for module, targets in edges.items():
        package = module.rpartition(".")[0]
        assert package not in targets or package in ("pcl_lib", "data_scripts"), module


def test_rooms_import_one_way_in_the_reading_order() -> None:
    edges = rooms(imports())
    print(
        "\n"
        + "\n".join(
            f"{name:13} <- {', '.join(sorted(edges.get(name, ()), key=ORDER.index))}" for name in ORDER
        )
    )
    print(f"{len(ORDER)} rooms, {sum(len(edges[name]) for name in ORDER)} arrows")
    assert set(edges) - {"pcl_lib", "data_scripts"} == set(ORDER)
    for name in ORDER:
        later = [target for target in edges[name] if ORDER.index(target) > ORDER.index(name)]
        assert not later, f"{name} imports {later}, which comes after it"


def test_only_notebooks_widgets_and_their_bench_need_jupyter() -> None:
    for module, path in modules().items():
        if module.split(".")[1:2] in (["widgets"], ["reproduce"], ["site"]):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [name for name in names_imported(tree) if name.split(".")[0] in JUPYTER], module


def test_every_package_says_what_is_in_each_file() -> None:
    for init in (ROOT / "pcl_lib").glob("*/__init__.py"):
        said = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))) or ""
        lines = {line.split()[0] for line in said.splitlines()[1:] if line.strip()}
        there = {path.stem for path in init.parent.glob("*.py")} - {"__init__", "__main__"}
        assert there <= lines, f"{init}: {sorted(there - lines)} not described"
