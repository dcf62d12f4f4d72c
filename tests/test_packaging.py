"""The wheel and the sdist: what is in them, and that an installed wheel works outside the repository."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


def test_the_wheel_holds_every_file_of_the_package(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    package = [p for p in (ROOT / "robolearn").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    assert {str(p.relative_to(ROOT)) for p in package} <= names
    shipped = {f"robolearn/workspace_files/{name}" for name in ("datasets/README.md", "policies/README.md")}
    assert shipped <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]


def test_the_sdist_builds_from_itself(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = archive.getnames()
    assert any(name.endswith("/pyproject.toml") for name in names)
    assert any(name.endswith("/tests/configuration/test_tree.py") for name in names)


@pytest.mark.timeout(1500)
def test_an_installed_wheel_works_outside_the_repository(built: Path, tmp_path: Path) -> None:
    """Dependencies come from the environment that runs the tests; the package itself only from the wheel."""
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = tmp_path / "venv/bin/python"
    (wheel,) = built.glob("*.whl")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-deps", wheel], check=True)
    here = Path(next(p for p in sys.path if p.endswith("site-packages")))
    target = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    # Not a .pth file: it would bring the editable install of the repository along.
    for path in here.iterdir():
        if "robolearn" not in path.name and not (target / path.name).exists() and not path.name.endswith(".pth"):
            (target / path.name).symlink_to(path)
    where = subprocess.run(
        [python, "-c", "import robolearn; print(robolearn.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(tmp_path) in where.stdout
    command = tmp_path / "venv/bin/robolearn"
    subprocess.run([command, "init", "workspace"], cwd=tmp_path, check=True)
    assert list((tmp_path / "workspace/configs").rglob("*.yaml"))
    small = ["--demonstrations", "4", "--clone_steps", "50", "--rounds", "1", "--episodes_per_round", "2"]
    short = ["--round_steps", "20", "--updates", "1", "--episodes", "4"]
    subprocess.run([command, "demo", "out", *small, *short], cwd=tmp_path, check=True, timeout=900)
    assert (tmp_path / "out/report.html").exists()
