"""A package imports only from those above it: the layout is the way the data flows."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "robolearn"

LAYERS = (
    *("errors", "config", "specs", "rendering"),
    *(
        "sim",
        "tasks",
        "envs",
        "datasets",
        "policies",
        "training",
        "evaluation",
        "teleop",
        "imitation",
        "rl",
        "plotting",
    ),
    *("pipeline_config", "pipeline", "workspace", "cli"),
)

ALLOWED = {
    ("tasks", "envs"): "Task.make makes the vector environment of a task, so that a task is one entry point",
}


def imported(path: Path) -> set[str]:
    """The parts of robolearn that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name.split(".")[1] for name in names if name.startswith("robolearn.")}


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_point_upwards(layer: str) -> None:
    own = PACKAGE / layer
    files = sorted(own.rglob("*.py")) if own.is_dir() else [own.with_suffix(".py")]
    above = LAYERS[: LAYERS.index(layer) + 1]
    wrong = {
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in files
        for name in imported(path)
        if name not in above and (layer, name) not in ALLOWED
    }
    assert not wrong


def test_every_part_has_its_layer() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    parts |= {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.glob("*.py"))}
    assert parts - {"__init__", "__main__"} == set(LAYERS)
