"""Damaged files: always one clear error, never a crash, a hang, a huge allocation or a silent acceptance."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import h5py
import pytest

from robolearn.cli.main import main
from robolearn.datasets.dataset import Dataset
from robolearn.errors import DatasetError
from tests.datasets.mutations import damaged_bytes, make_good, structured

ROOT = Path(__file__).parents[2]


def read_damaged(folder: Path, count: int, seed: int, first: int = 0, step: int = 1) -> None:
    command = [sys.executable, "-m", "tests.datasets.mutations", *map(str, (folder, count, seed, first, step))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    last = reports[-1]["case"] if reports else "the first case"
    assert done.returncode == 0, f"the reader died after {last}: {done.stderr[-2000:]}"
    silent = [report["case"] for report in reports if report["outcome"] == "silent"]
    assert not silent
    named = [r["case"] for r in reports[: len(reports) - count] if r["outcome"] != "error"]
    assert not named, f"faults that nobody noticed: {named}"
    assert Counter(report["outcome"] for report in reports)["error"] > 0.8 * len(reports)
    assert len(reports) >= 300 // step + count


def test_damaged_files(tmp_path: Path) -> None:
    read_damaged(tmp_path, 20, seed=0, first=0, step=4)


@pytest.mark.long
@pytest.mark.parametrize(("first", "step"), [(2, 4), (1, 2)])
def test_all_other_damaged_files(first: int, step: int, tmp_path: Path) -> None:
    read_damaged(tmp_path, 100, seed=first, first=first, step=step)


@pytest.mark.slow
def test_many_damaged_files(tmp_path: Path) -> None:
    read_damaged(tmp_path, 5000, seed=1)


def test_the_command_line_says_so_and_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, case = tmp_path / "good.hdf5", tmp_path / "case.hdf5"
    make_good(good)
    assert main(["dataset", "validate", str(good)]) == 0
    assert main(["dataset", "info", str(good)]) == 0
    cases = list(structured(good).items())[::20]
    for name, mutate in cases:
        shutil.copyfile(good, case)
        with h5py.File(case, "r+") as file:
            mutate(file)
        assert main(["dataset", "validate", str(case)]) == 2, name
    for name, data in list(damaged_bytes(good.read_bytes(), 12, seed=5)):
        case.write_bytes(data)
        if main(["dataset", "validate", str(case)]) == 2:
            assert main(["dataset", "info", str(case), "--episodes"]) in (0, 2), name
    capsys.readouterr()
    case.write_bytes(good.read_bytes()[:3000])
    assert main(["dataset", "info", str(case)]) == 2
    assert "case.hdf5" in capsys.readouterr().err


def test_links_out_of_the_file_are_not_followed(tmp_path: Path) -> None:
    """A hostile file must not be able to show another file's contents."""
    secret, hostile = tmp_path / "secret.hdf5", tmp_path / "hostile.hdf5"
    make_good(secret)
    make_good(hostile)
    (tmp_path / "hostile.hdf5.parts").mkdir()
    (tmp_path / "hostile.hdf5.parts" / "link.hdf5").symlink_to(secret)
    for filename in (
        "secret.hdf5",
        str(secret),
        "./secret.hdf5",
        "hostile.hdf5.parts/../secret.hdf5",
        "hostile.hdf5.parts/link.hdf5",
        "hostile.hdf5.parts/",
    ):
        with h5py.File(hostile, "r+") as file:
            del file["data/demo_1"]
            file["data/demo_1"] = h5py.ExternalLink(filename, "/data/demo_1")
        with Dataset(hostile) as dataset, pytest.raises(DatasetError, match=r"outside|missing|not followed"):
            dataset.read(1)
