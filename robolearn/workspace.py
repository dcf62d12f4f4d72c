"""The files of a workspace, from the installed package, or the source tree it was installed from."""

from __future__ import annotations

from pathlib import Path

SHIPPED = ("configs", "datasets/README.md", "datasets/sample", "policies/README.md", "policies/reference", "teleop")
"""The beginning of a new workspace; everything else in those folders is somebody's own work."""


def template() -> Path:
    """Return the folder that holds `SHIPPED`: `robolearn/workspace_files` in a wheel, else the repository."""
    package = Path(__file__).parent
    installed = package / "workspace_files"
    return installed if installed.is_dir() else package.parent


def shipped_files() -> list[Path]:
    """List every file of a new workspace, relative to `template()`."""
    root = template()
    items = [root / item for item in SHIPPED]
    found = [path for item in items for path in (item.rglob("*") if item.is_dir() else [item])]
    return sorted(path.relative_to(root) for path in found if path.is_file())
