"""A folder is the old one or the new one, on any file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from robolearn import storage as files
from robolearn.storage import atomic_folder


@pytest.mark.parametrize("exchange", [True, False])
def test_folders_are_replaced_whole(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(files, "_exchange", lambda a, b: False)
    target = tmp_path / "deep" / "target"
    for version in ("one", "two"):
        with atomic_folder(target) as fresh:
            (fresh / "inner").mkdir()
            (fresh / "inner" / version).write_text(version)
        assert [p.name for p in (target / "inner").iterdir()] == [version]
    assert os.listdir(target.parent) == ["target"]


def test_a_failure_while_writing_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "target"
    with atomic_folder(target) as fresh:
        (fresh / "file").write_text("old")

    def fail() -> None:
        with atomic_folder(target) as fresh:
            (fresh / "file").write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert (target / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]
