"""The viewer behind its page: what it serves of a dataset, what marks it takes, and what it saves."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
from starlette.testclient import TestClient

from robolearn.cli.main import verb_commands
from robolearn.cli.parsing.parser import parse
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.convert import convert
from robolearn.datasets.tools.revise import Revision, revise, revised
from robolearn.datasets.tools.validate import validate
from robolearn.errors import DatasetError
from robolearn.sim import rendering
from robolearn.teleop.view.app import PAGE, Viewer
from robolearn.teleop.web.guard import Access, Guard
from robolearn.teleop.web.server import make_app
from tests.datasets.factory import assert_same, episode, writer

STEPS = 9


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "demos.hdf5"
    with writer(file) as recorder:
        names = recorder.write_episodes([episode(i, STEPS + i) for i in range(4)])
        recorder.add_mask("train", names[:3])
        recorder.add_mask("chosen", names[1:2])
    return file


@pytest.fixture
def web(path: Path) -> Iterator[TestClient]:
    yield from serve(str(path))


def serve(source: str, **options: Any) -> Iterator[TestClient]:
    viewer = Viewer(source, **options)
    try:
        yield TestClient(Guard(make_app(viewer.routes(), PAGE), Access()), base_url="http://localhost")
    finally:
        viewer.close()


def pictures(web: TestClient, **wish: Any) -> list[bytes]:
    """The JPEGs that the viewer answers a wish with."""
    found = []
    with web.websocket_connect("ws://localhost/api/pictures") as socket:
        socket.send_json(wish)
        data = socket.receive_bytes()
    while data:
        size = int.from_bytes(data[:4], "big")
        found.append(data[4 : 4 + size])
        data = data[4 + size :]
    return found


def rows(web: TestClient) -> list[dict[str, Any]]:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = web.get("/api/rows").json()
        if len(found["rows"]) == found["of"]:
            return found["rows"]
        time.sleep(0.02)
    raise AssertionError("the rows were never read")


def test_the_table_holds_what_the_file_says(web: TestClient) -> None:
    about = web.get("/api/dataset").json()
    assert about["names"] == [f"demo_{i}" for i in range(4)]
    assert about["cameras"] == ["wrist"]
    assert about["masks"] == {"chosen": [1], "train": [0, 1, 2]}
    for i, row in enumerate(rows(web)):
        info = episode(i, STEPS + i).info
        assert (row["steps"], row["success"], row["seed"]) == (STEPS + i, info.success, info.seed)
        assert (row["operator"], row["source"], row["round"]) == ("Åsa", "dagger", info.round)


def test_pictures_are_the_recorded_ones(web: TestClient) -> None:
    (jpeg,) = pictures(web, episode=2, step=5, cameras=["wrist"])
    shown = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[:, :, ::-1]
    recorded = episode(2, STEPS + 2).obs["wrist"][5]
    assert shown.shape == recorded.shape
    # Noise loses much in a JPEG, but what is left belongs to this step and to no other.
    off = [np.abs(shown.astype(int) - frame).mean() for frame in episode(2, STEPS + 2).obs["wrist"]]
    assert int(np.argmin(off)) == 5


def test_curves_are_the_recorded_numbers(web: TestClient) -> None:
    content = web.get("/api/episodes/1/curves").content
    (length,) = struct.unpack("<I", content[:4])
    header = json.loads(content[4 : 4 + length])
    values = np.frombuffer(content, "<f4", offset=4 + length)
    recorded = episode(1, STEPS + 1)
    groups = {group["name"]: group for group in header["groups"]}
    assert header["modes"] == recorded.action_modes.tolist()  # type: ignore[union-attr]
    expected = {"actions": recorded.actions, "rewards": recorded.rewards[:, None], "gate": recorded.gate[:, None]}  # type: ignore[index]
    with np.errstate(over="ignore", under="ignore"):
        for name, array in (expected | {"obs/state": recorded.obs["state"]}).items():
            start, width = groups[name]["offset"], groups[name]["width"]
            shown = values[start : start + width * header["steps"]].reshape(width, -1).T
            np.testing.assert_array_equal(shown, array.astype(np.float32))
    assert groups["actions"]["labels"] == ["x", "grip"]


def test_events_and_measured_times_are_told(web: TestClient) -> None:
    found = web.get("/api/episodes/0").json()
    recorded = episode(0, STEPS)
    assert [(e["step"], e["kind"], e["reason"]) for e in found["events"]] == [
        (e.step, e.kind, e.reason) for e in recorded.events
    ]
    np.testing.assert_allclose(found["times"], recorded.timestamps, atol=1e-4)


@pytest.mark.parametrize("address", ["/api/episodes/4", "/api/episodes/99/curves", "/api/rows?since=nan"])
def test_what_is_not_there_is_refused_with_words(web: TestClient, address: str) -> None:
    answer = web.get(address)
    assert answer.status_code == 400
    assert len(answer.json()["error"]) > 10


@pytest.mark.parametrize(
    "wish",
    [
        {"episode": 4, "step": 0, "cameras": ["wrist"]},
        {"episode": 0, "step": 0, "cameras": ["front"]},
        {"episode": 0, "step": 99, "cameras": ["wrist"]},
        {"episode": 0, "step": -2, "cameras": ["wrist"]},
        {"episode": "0", "step": 0},
        {"episode": 0, "step": 0, "view": {"zoom": "nan"}},
        {"episode": 0, "step": 0, "view": {"zoom": [1]}},
        {"episode": 0, "step": 0, "view": 7},
        {"step": 0},
        [1],
    ],
)
def test_pictures_that_are_not_there_are_refused_with_words_and_others_follow(web: TestClient, wish: Any) -> None:
    with web.websocket_connect("ws://localhost/api/pictures") as socket:
        socket.send_json(wish)
        assert len(socket.receive_json()["error"]) > 10
        socket.send_text("{")
        assert "JSON" in socket.receive_json()["error"]
        socket.send_json({"episode": 1, "step": 3, "cameras": ["wrist", "wrist"]})
        assert socket.receive_bytes()[4:6] == b"\xff\xd8"


def test_a_scene_that_cannot_be_shown_says_why(web: TestClient) -> None:
    found = web.get("/api/episodes/0/scene").json()
    assert not found["available"]
    assert len(found["reason"]) > 10


def test_marks_are_saved_as_a_new_file_and_the_old_one_stays(path: Path, web: TestClient) -> None:
    before = path.read_bytes()
    flipped = not episode(0, STEPS).info.success
    marks = {
        "demo_0": {"success": flipped},
        "demo_1": {"deleted": True},
        "demo_2": {"first": 2, "last": 6},
        "demo_3": {"split": "valid"},
    }
    assert set(web.post("/api/marks", json=marks).json()) == set(marks)
    answer = web.post("/api/save", json={"name": "better.hdf5"}).json()
    assert Path(answer["path"]) == path.parent / "better.hdf5"
    assert path.read_bytes() == before
    assert validate(path.parent / "better.hdf5") == []
    assert sorted(file.name for file in path.parent.iterdir()) == ["better.hdf5", "demos.hdf5"]
    with Dataset(path.parent / "better.hdf5") as saved:
        assert saved.episodes == ("demo_0", "demo_2", "demo_3")
        assert_same(saved.read(0), episode(0, STEPS).with_info(success=flipped))
        assert_same(saved.read(2), episode(3, STEPS + 3))
        cut, whole = saved.read(1), episode(2, STEPS + 2)
        assert len(cut) == 5
        np.testing.assert_array_equal(cut.obs["wrist"], whole.obs["wrist"][2:7])
        np.testing.assert_array_equal(cut.final_obs["wrist"], whole.obs["wrist"][7])
        np.testing.assert_array_equal(cut.states, whole.states[2:7])  # type: ignore[index]
        assert saved.masks == {"train": (0, 1), "valid": (2,)}


def test_masks_alone_are_saved_in_place(path: Path, web: TestClient) -> None:
    web.post("/api/marks", json={"demo_0": {"split": "valid"}, "demo_3": {"split": "train"}, "demo_2": {"split": ""}})
    answer = web.post("/api/save_masks", json={}).json()
    assert answer["counts"] == {"train": 2, "valid": 1}
    assert answer["marks"] == {}
    assert web.get("/api/episodes/3").json()["name"] == "demo_3"
    with Dataset(path) as dataset:
        assert dataset.masks == {"chosen": (1,), "train": (1, 3), "valid": (0,)}
        for i in range(4):
            assert_same(dataset.read(i), episode(i, STEPS + i))


def test_a_mark_of_nothing_goes_away(web: TestClient) -> None:
    assert web.post("/api/marks", json={"demo_0": {"deleted": True}}).json()["demo_0"]["deleted"]
    assert web.post("/api/marks", json={"demo_0": {"deleted": False}}).json() == {}
    web.post("/api/marks", json={"demo_0": {"first": 3}})
    assert web.post("/api/marks", json={"demo_0": None}).json() == {}


@pytest.mark.parametrize(
    "marks",
    [
        {"demo_9": {"deleted": True}},
        {"demo_0": {"delted": True}},
        {"demo_0": {"success": "yes"}},
        {"demo_0": {"success": 0.5}},
        {"demo_0": {"split": "test"}},
        {"demo_0": {"first": 9}},
        {"demo_0": {"first": 5, "last": 4}},
        {"demo_0": {"first": 1.5}},
        {"demo_0": {"last": -1}},
        {"demo_0": [1]},
        [],
        "x",
    ],
)
def test_marks_that_mean_nothing_change_nothing(web: TestClient, marks: Any) -> None:
    answer = web.post("/api/marks", json={"demo_1": {"deleted": True}} | marks if isinstance(marks, dict) else marks)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert web.get("/api/dataset").json()["marks"] == {}


@pytest.mark.parametrize(
    "name", ["", "../out.hdf5", "/tmp/out.hdf5", "a/b.hdf5", ".hdf5", "out.txt", "a\\b.hdf5", "demos.hdf5", "x\0.hdf5"]
)
def test_a_new_file_goes_beside_the_old_one_and_never_over_anything(path: Path, web: TestClient, name: str) -> None:
    before = sorted(path.parent.rglob("*"))
    assert web.post("/api/save", json={"name": name}).status_code == 400
    assert sorted(path.parent.rglob("*")) == before


def test_bodies_that_are_no_json_or_huge_are_refused(web: TestClient) -> None:
    assert web.post("/api/marks", content=b"{").status_code == 400
    assert web.post("/api/marks", content=b"[" * 100_000).status_code == 400
    assert web.post("/api/marks", content=bytes((1 << 20) + 1)).status_code == 413


def test_a_damaged_episode_is_a_row_that_says_so(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["data/demo_1"].attrs["success"]
    for web in serve(str(path)):
        found = rows(web)
        assert "success" in found[1]["problem"]
        assert found[2]["steps"] == STEPS + 2


def test_a_file_of_robomimics_layout_is_shown_and_revised(path: Path, tmp_path: Path) -> None:
    convert(path, tmp_path / "theirs.hdf5", to="robomimic")
    with h5py.File(tmp_path / "theirs.hdf5", "r+") as file:
        arguments = json.loads(file["data"].attrs["env_args"])
        arguments["env_kwargs"]["control_freq"] = 50
        file["data"].attrs["env_args"] = json.dumps(arguments)
    for web in serve(str(tmp_path / "theirs.hdf5")):
        assert not web.get("/api/dataset").json()["in_place"]
        assert [row["steps"] for row in rows(web)] == [STEPS + i for i in range(4)]
        assert len(pictures(web, episode=1, step=3, cameras=["wrist"])) == 1
        web.post("/api/marks", json={"demo_3": {"deleted": True}})
        assert web.post("/api/save_masks", json={}).status_code == 400
        assert web.post("/api/save", json={"name": "mine.hdf5"}).json()["notes"]
    with Dataset(tmp_path / "mine.hdf5") as saved:
        np.testing.assert_array_equal(saved.read(1).obs["wrist"], episode(1, STEPS + 1).obs["wrist"])
        assert len(saved) == 3


def test_an_aloha_folder_is_shown(tmp_path: Path) -> None:
    folder = tmp_path / "aloha"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        with h5py.File(folder / f"episode_{i}.hdf5", "w") as file:
            file["action"] = rng.uniform(-1, 1, (6, 3))
            file["observations/qpos"] = rng.normal(size=(6, 3))
            file["observations/images/top"] = rng.integers(0, 255, (6, 8, 10, 3), dtype=np.uint8)
    for web in serve(str(folder)):
        assert [row["steps"] for row in rows(web)] == [5, 5]
        assert web.get("/api/dataset").json()["notes"]
        web.post("/api/marks", json={"demo_0": {"success": False}})
        assert Path(web.post("/api/save", json={"name": "ours.hdf5"}).json()["path"]) == tmp_path / "ours.hdf5"
    with Dataset(tmp_path / "ours.hdf5") as saved:
        assert [info.success for info in saved.info] == [False, True]


def test_a_trim_at_the_end_truncates_and_one_at_the_beginning_does_not() -> None:
    whole = replace(episode(0, 6), terminated=np.arange(6) == 5, truncated=np.zeros(6, bool))
    tail = revised(whole, Revision(first=2))
    assert tail.terminated.tolist() == [False] * 3 + [True]
    assert not tail.truncated.any()
    head = revised(whole, Revision(last=3))
    assert head.truncated.tolist() == [False] * 3 + [True]
    assert not head.terminated.any()
    assert [event.step for event in head.events] == [0]
    assert [event.step for event in tail.events] == [3]
    np.testing.assert_allclose(np.diff(tail.timestamps), np.diff(whole.timestamps[2:]))
    assert tail.timestamps[0] == pytest.approx(whole.timestamps[0])
    assert revised(whole, Revision()) is whole


def test_deleting_everything_is_refused(path: Path) -> None:
    with pytest.raises(DatasetError, match="at least one"):
        revise(path, path.with_name("none.hdf5"), revisions={}, deleted=[f"demo_{i}" for i in range(4)])
    assert not path.with_name("none.hdf5").exists()


@pytest.mark.skipif(rendering.find_backend() is None, reason=rendering.ADVICE)
def test_the_scene_is_drawn_from_the_model_in_the_file(tmp_path: Path) -> None:
    from robolearn.configuration.parts.task import TaskConfig
    from robolearn.configuration.record import RecordConfig
    from robolearn.episodes.record import record

    record(RecordConfig(task=TaskConfig(id="Reach"), episodes=1, output=str(tmp_path / "reach.hdf5")))
    for web in serve(str(tmp_path / "reach.hdf5")):
        assert web.get("/api/episodes/0").json()["model"]
        assert web.get("/api/episodes/0/scene").json() == {
            "available": True,
            "reason": "",
            "cameras": ["front", "side", "wrist"],
            "turns": True,
        }
        last = web.get("/api/dataset").json() and rows(web)[0]["steps"] - 1
        views = [{}, {"azimuth": 10}, {"camera": "front"}, {"zoom": 0.5, "elevation": -80}]
        asked = [{"step": last, "view": {}}, *({"step": 0, "view": view} for view in views)]
        later, first, *others = (
            cv2.imdecode(np.frombuffer(pictures(web, episode=0, **wish)[0], np.uint8), cv2.IMREAD_COLOR).astype(int)
            for wish in asked
        )
        for shown in (later, *others):
            assert shown.std() > 5
            assert np.abs(shown - first).max() > 30
        assert pictures(web, episode=0, step=0, view={}) == pictures(web, episode=0, step=0, view={"camera": "free"})


@pytest.mark.skipif(rendering.find_backend() is None, reason=rendering.ADVICE)
def test_a_scene_of_a_file_that_names_no_task_to_be_made_is_that_of_the_task_asked_for(tmp_path: Path) -> None:
    from robolearn.envs.make import make

    with make("Reach") as env:
        env.reset([0])
        states = env.get_states()
    assert states is not None
    path = tmp_path / "robosuite.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Reach", "type": 1, "env_kwargs": {"control_freq": 20}})
        data["demo_0/actions"] = np.zeros((STEPS, 4), np.float32)
        data["demo_0/obs/state"] = np.zeros((STEPS, 3), np.float32)
        data["demo_0/states"] = np.repeat(states, STEPS, axis=0)
    for web in serve(str(path)):
        assert "name that: --task gym:MODULE:ID" in web.get("/api/episodes/0/scene").json()["reason"]
    config = parse(verb_commands("view")["view"], [str(path), "--task", "Reach"])
    for web in serve(str(path), task=config.task):
        assert web.get("/api/episodes/0/scene").json()["cameras"] == ["front", "side", "wrist"]
        assert pictures(web, episode=0, step=0, view={})


def test_the_table_waits_for_neither_torch_nor_mujoco() -> None:
    script = "import sys, robolearn.teleop.view.app; sys.exit(bool({'torch', 'mujoco'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
