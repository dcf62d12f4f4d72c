"""A file or folder is the old one or the new one, on any file system."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from robolearn import storage
from robolearn.storage import atomic_file, atomic_folder, write_json, write_text


@pytest.mark.parametrize("exchange", [True, False])
def test_folders_are_replaced_whole(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(storage, "_exchange", lambda a, b: False)
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


def test_files_are_replaced_whole_and_synced_before_they_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor: int) -> None:
        calls.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        calls.append(f"name {target.name}")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    target = tmp_path / "deep" / "notes.json"
    for version in (["one"], ["twö", 2]):
        write_json(target, version, ensure_ascii=False)
        assert json.loads(target.read_text(encoding="utf-8")) == version
        assert calls == ["sync .notes.json.tmp", "name notes.json", "sync deep"]
        calls.clear()
    assert os.listdir(target.parent) == ["notes.json"]


def test_a_failure_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    write_text(target, "old")

    def fail() -> None:
        with atomic_file(target) as fresh:
            fresh.write_text("half of the n")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["target"]
