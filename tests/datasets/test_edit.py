"""Editing writes new files, keeps everything, and never touches the input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from robolearn.cli.main import main
from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools import edit
from robolearn.datasets.tools.convert import convert
from robolearn.datasets.tools.revise import Revision, revise
from robolearn.datasets.tools.validate import validate
from robolearn.errors import DatasetError
from robolearn.specs import EpisodeInfo
from tests.datasets.factory import STATE, assert_same, episode, writer


def make(path: Path, seeds: range, **options: object) -> bytes:
    """A file with a mask, a model and things that we know nothing of; returns its bytes."""
    with writer(path, models={"m": b"<mujoco/>"}, **options) as w:
        names = w.write_episodes([episode(i, 4 + i % 3) for i in seeds])
        w.add_mask("train", names[1:])
    with h5py.File(path, "r+") as file:
        file["calibration"] = np.eye(3)
        file.attrs["lab"] = "ours"
        file["data"].attrs["note"] = "kept"
        file[f"data/{names[-1]}/tactile"] = np.arange(12.0)
        file[f"data/{names[-1]}"].attrs["weather"] = "rain"
    return path.read_bytes()


def check_views(path: Path, name: str, source: object) -> None:
    with h5py.File(path) as file:
        for key, value in source.obs.items():  # type: ignore[attr-defined]
            expected = np.concatenate([value[1:], source.final_obs[key][None]])  # type: ignore[attr-defined]
            assert file[f"data/{name}/next_obs/{key}"][()].tobytes() == expected.tobytes()


def test_merge(tmp_path: Path) -> None:
    first, second, merged = (tmp_path / f"{n}.hdf5" for n in "abc")
    before = make(first, range(3)), make(second, range(3, 5))
    notes = edit.merge([first, second], merged)
    assert (first.read_bytes(), second.read_bytes()) == before
    assert notes == [f"calibration of {second} was left out: an earlier file has one of that name"]
    assert validate(merged) == []
    with Dataset(merged) as dataset:
        assert dataset.episodes == tuple(f"demo_{i}" for i in range(5))
        assert dataset.masks == {"train": (1, 2, 4)}
        assert dataset.model("m") == b"<mujoco/>"
        for i in range(5):
            source = episode(i, 4 + i % 3)
            assert_same(dataset.read(i), source)
            check_views(merged, f"demo_{i}", source)
    with h5py.File(merged) as file:
        assert file["calibration"][()].tolist() == np.eye(3).tolist()
        assert file.attrs["lab"] == "ours"
        assert file["data"].attrs["note"] == "kept"
        assert file["data/demo_4/tactile"][()].tolist() == list(range(12))
        assert file["data/demo_4"].attrs["weather"] == "rain"
        # Frames are copied as they are stored, not inflated and packed again.
        with h5py.File(second) as source_file:
            chunks = [
                f[n].id.read_direct_chunk((1, 0, 0, 0))
                for f, n in ((file, "data/demo_3/obs/wrist"), (source_file, "data/demo_0/obs/wrist"))
            ]
        assert chunks[0] == chunks[1]


def test_delete_filter_and_split(tmp_path: Path) -> None:
    path = tmp_path / "a.hdf5"
    before = make(path, range(6))
    edit.delete(path, tmp_path / "deleted.hdf5", ["demo_1", "demo_4"])
    assert edit.filter(path, tmp_path / "filtered.hdf5", success=True, min_steps=5) == []
    train, valid = tmp_path / "train.hdf5", tmp_path / "valid.hdf5"
    edit.split(path, {train: ["demo_0", "demo_5"], valid: ["demo_2"]})
    assert path.read_bytes() == before
    expected = {
        tmp_path / "deleted.hdf5": [0, 2, 3, 5],
        tmp_path / "filtered.hdf5": [i for i in range(6) if episode(i, 4 + i % 3).info.success and 4 + i % 3 >= 5],
        train: [0, 5],
        valid: [2],
    }
    for output, numbers in expected.items():
        assert validate(output) == []
        with Dataset(output) as dataset:
            assert dataset.episodes == tuple(f"demo_{i}" for i in numbers)
            assert dataset.masks.get("train", ()) == tuple(k for k, i in enumerate(numbers) if i > 0)
            for k, i in enumerate(numbers):
                assert_same(dataset.read(k), episode(i, 4 + i % 3))
                check_views(output, f"demo_{i}", episode(i, 4 + i % 3))


def test_refusals_leave_nothing_behind(tmp_path: Path) -> None:
    path, other, strange = (tmp_path / f"{n}.hdf5" for n in ("a", "b", "c"))
    make(path, range(2))
    with writer(strange, STATE) as w:
        w.write_episode(episode(0, 3, STATE))
    with writer(other, models={"m": b"another model"}) as w:
        w.write_episode(episode(9))
    before = sorted(p.name for p in tmp_path.iterdir())
    new = tmp_path / "new.hdf5"
    for call, message in (
        (lambda: edit.merge([path, strange], new), "observation_spec differs"),
        (lambda: edit.merge([path, other], new), "models/m .* differs"),
        (lambda: edit.merge([], new), "at least one"),
        (lambda: edit.delete(path, new, ["demo_7"]), "has no episodes"),
        (lambda: edit.delete(path, path, ["demo_0"]), "exists already"),
        (lambda: edit.delete(path, tmp_path / "no" / "x.hdf5", ["demo_0"]), "does not exist"),
        (lambda: edit.filter(tmp_path / "none.hdf5", new), "does not exist"),
        (lambda: edit.filter(path, new, mask="nope"), "no mask"),
    ):
        with pytest.raises(DatasetError, match=message):
            call()
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_editing_what_is_still_being_recorded(tmp_path: Path) -> None:
    path, copy = tmp_path / "a.hdf5", tmp_path / "copy.hdf5"
    with writer(path) as w:
        w.write_episodes([episode(0), episode(1)])
        w.write_episode(episode(2))
        edit.delete(path, copy, ["demo_1"])
    assert validate(copy) == []
    with Dataset(copy) as dataset:
        assert dataset.episodes == ("demo_0", "demo_2")
        assert_same(dataset.read(1), episode(2))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, second = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    make(path, range(10))
    make(second, range(10, 12))
    merged = tmp_path / "m.hdf5"
    assert main(["dataset", "merge", str(path), str(second), "--output", str(merged)]) == 0
    assert main(["dataset", "delete", str(merged), "demo_3", "demo_4", "--output", str(tmp_path / "d.hdf5")]) == 0
    assert main(["dataset", "filter", str(merged), "--output", str(tmp_path / "f.hdf5"), "--max_steps", "5"]) == 0
    assert main(["dataset", "split", str(path), "--masks", "train"]) == 0
    assert main(["dataset", "repair", str(path)]) == 0
    assert main(["dataset", "info", str(merged), "--episodes"]) == 0
    printed = capsys.readouterr().out
    assert "12 episodes" in printed
    assert "10 episodes" in printed
    assert "Åsa" in printed
    with Dataset(tmp_path / "a_train.hdf5") as dataset:
        assert len(dataset) == 9
    for arguments in (["info"], ["info", str(tmp_path / "none.hdf5")], ["merge", "--output", "x"], ["mend", str(path)]):
        assert main(["dataset", *arguments]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_what_is_written_anew_says_what_it_cannot_hold(tmp_path: Path) -> None:
    """Of the last episode, which has an array and an attribute that we know nothing of."""
    path = tmp_path / "a.hdf5"
    make(path, range(2))
    trimmed = revise(path, tmp_path / "trimmed.hdf5", revisions={"demo_1": Revision(first=1)})
    dropped = edit.filter(path, tmp_path / "dropped.hdf5", reading=Reading(drop=("state",)))
    for notes in (trimmed, dropped):
        assert any("tactile" in line for line in notes)
        assert any("weather" in line for line in notes)
    assert revise(path, tmp_path / "other.hdf5", revisions={"demo_0": Revision(first=1)}) == []


FACTS = EpisodeInfo(
    success=True,
    seed=7,
    source="dagger",
    round=3,
    operator="Ada",
    device="gamepad",
    started_at="2026-03-04T05:06:07+00:00",
    model="m",
    policy="abc",
    notes="slipped",
    late_steps=1,
    clipped_steps=2,
    clipped_share=0.25,
    interrupted=True,
)
DROPPED = Reading(drop=("state",))
VERBS: dict[str, Callable[[Path, Path], object]] = {
    "convert": convert,
    "convert and drop": lambda a, b: convert(a, b, reading=DROPPED),
    "robomimic and back": lambda a, b: (
        convert(a, a.with_name("r.hdf5"), to="robomimic"),
        convert(a.with_name("r.hdf5"), b),
    ),
    "merge": lambda a, b: edit.merge([a], b),
    "merge and drop": lambda a, b: edit.merge([a], b, DROPPED),
    "filter": lambda a, b: edit.filter(a, b, interrupted=True, reading=DROPPED),
    "split": lambda a, b: edit.split(a, {b: ["demo_0"]}, DROPPED),
    "delete": lambda a, b: edit.delete(a, b, ["demo_1"], DROPPED),
    "trim": lambda a, b: revise(a, b, revisions={"demo_0": Revision(first=1, last=3)}),
    "trim and drop": lambda a, b: revise(a, b, revisions={"demo_0": Revision(first=1, last=3)}, reading=DROPPED),
}


@pytest.mark.parametrize("verb", VERBS)
def test_whatever_is_done_to_a_file_facts_of_its_episodes_stay(tmp_path: Path, verb: str) -> None:
    default = EpisodeInfo(success=False, seed=0)
    assert all(getattr(FACTS, f.name) != getattr(default, f.name) for f in fields(EpisodeInfo)), "a new fact: try it"
    a, b = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    with writer(a, models={"m": b"<mujoco/>"}) as w:
        w.write_episodes([replace(episode(i, 6), info=FACTS) for i in range(2)])
    VERBS[verb](a, b)
    with Dataset(b) as dataset:
        found = dataset.episode_info(0)
        assert replace(found, model="m") == FACTS
        assert dataset.model(found.model) == b"<mujoco/>"
