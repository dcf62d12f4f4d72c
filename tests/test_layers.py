"""The layout is the way the data flows: a package imports only from those before it, and no files import in a circle.

Every import counts, wherever it stands: at the top of a file, inside a function, for type checkers only.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "robolearn"
LARGEST_FOLDER = 14

LAYERS = (
    *("errors", "specs", "picture_layout", "contract", "storage", "seeds", "workspace"),
    *("configuration", "sim", "tasks", "envs", "datasets", "policies", "deploy"),
    *("training", "episodes", "evaluation", "teleop", "imitation", "rl", "demo", "cli"),
)
"""Packages and single files, from the ground up."""

ENTRANCES = {"__init__", "__main__"}
"""Files above all layers: the names that the package offers, and `python -m robolearn`."""


def module_name(path: Path, package: Path) -> str:
    parts = path.relative_to(package.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(package: Path) -> dict[str, set[str]]:
    """Return for each module of a package those of its modules that it imports, anywhere in its file."""
    files = {module_name(path, package): path for path in package.rglob("*.py")}
    return {name: {m for m in _named(path, package) if m in files} - {name} for name, path in files.items()}


def _named(path: Path, package: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively; name the package"
            # `from a.b import c`: c may be a module, or a name in a.b.
            modules = {f"{node.module}.{alias.name}" for alias in node.names if _is_module(node, alias, package)}
            names.update(modules or {str(node.module)})
    return names


def _is_module(node: ast.ImportFrom, alias: ast.alias, package: Path) -> bool:
    place = package.parent.joinpath(*str(node.module).split("."), alias.name)
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected components of more than one node: two nodes that reach each other share one."""
    reached = {node: _reachable(graph, node) for node in graph}
    found = {frozenset(m for m in reached[node] if node in reached[m]) for node in graph if node in reached[node]}
    return sorted(sorted(circle) for circle in found)


def _reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for node in graph[waiting.pop()] - seen:
            seen.add(node)
            waiting.append(node)
    return seen


def layer_of(module: str) -> str:
    return module.split(".")[1]


GRAPH = imports(PACKAGE)


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_to_layers_before(layer: str) -> None:
    own = {name: found for name, found in GRAPH.items() if name.startswith("robolearn.") and layer_of(name) == layer}
    assert own, f"there is no robolearn.{layer}"
    before = LAYERS[: LAYERS.index(layer) + 1]
    wrong = [
        f"{name} imports {other}"
        for name, found in own.items()
        for other in sorted(found)
        if other != "robolearn" and layer_of(other) not in before
    ]
    assert not wrong


def test_only_the_command_line_asks_the_package_itself() -> None:
    """`robolearn/__init__.py` offers names of nearly all layers, so that importing it is importing upwards."""
    assert [name for name, found in GRAPH.items() if "robolearn" in found and layer_of(name) != "cli"] == []


def test_no_files_import_in_a_circle() -> None:
    assert circles(GRAPH) == []


def test_every_part_has_its_layer() -> None:
    parts = {path.stem for path in PACKAGE.glob("*.py")} | {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert parts - ENTRANCES == set(LAYERS)


def test_no_folder_is_too_flat_to_look_through() -> None:
    sizes: dict[str, int] = defaultdict(int)
    for path in PACKAGE.rglob("*.py"):
        sizes[str(path.parent.relative_to(PACKAGE.parent))] += path.stem != "__init__"
    assert {folder: size for folder, size in sizes.items() if size > LARGEST_FOLDER} == {}


def test_what_these_tests_find(tmp_path: Path) -> None:
    """The tests themselves, on a small package with a lazy circle, one for type checkers and an innocent file."""
    package = tmp_path / "toy"
    files = {
        "__init__": "",
        "low/__init__": "",
        "low/a": "def f():\n    from toy.low import b\n",
        "low/b": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import toy.low.c\n",
        "low/c": "from toy.low.a import f\n",
        "low/d": "import os\nfrom toy.low.a import f\nfrom toy.low import NAME\n",
    }
    for name, text in files.items():
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    graph = imports(package)
    assert graph["toy.low.d"] == {"toy.low", "toy.low.a"}
    assert circles(graph) == [["toy.low.a", "toy.low.b", "toy.low.c"]]
    assert circles({"a": {"b"}, "b": {"a", "c"}, "c": {"d"}, "d": {"c"}}) == [["a", "b"], ["c", "d"]]
