"""Conversions: what the target can hold comes back, what it cannot is listed."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from robolearn.cli.main import main
from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.convert import convert
from robolearn.datasets.tools.validate import validate
from robolearn.errors import DatasetError
from tests.datasets.factory import CAMERA, assert_same, assert_same_array, episode, writer


def make_ours(path: Path) -> None:
    with writer(path, models={"m": b"<mujoco/>"}) as w:
        names = w.write_episodes([episode(i, 4 + i).with_info(model="m") for i in range(3)])
        w.add_mask("valid", names[1:2])


def make_robomimic(path: Path, *, next_obs: bool = True, scale: float = 1.0) -> None:
    """Written by hand after robomimic's documentation: float64 everywhere, integer dones, variable-length strings."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = 11
        kwargs = {"control_freq": 20, "has_renderer": False}
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_version": "1.4", "env_kwargs": kwargs})
        for name, steps in (("demo_0", 5), ("demo_3", 6)):
            demo = data.create_group(name)
            demo.attrs["num_samples"] = steps
            demo.attrs["model_file"] = f"<mujoco model='{name}'/>"
            demo["actions"] = rng.uniform(-1, 1, (steps, 7)) * scale
            demo["states"] = rng.normal(size=(steps, 32))
            demo["rewards"] = np.r_[np.zeros(steps - 1), float(steps == 6)]
            demo["dones"] = np.r_[np.zeros(steps - 1, int), 1]
            for key, rows in (
                ("eef", rng.normal(size=(steps + 1, 3))),
                ("cam", rng.integers(0, 255, (steps + 1, 8, 8, 3), dtype=np.uint8)),
            ):
                demo[f"obs/{key}"] = rows[:-1]
                if next_obs:
                    demo[f"next_obs/{key}"] = rows[1:]
        file["mask/train"] = np.array([b"demo_3"])


def test_ours_to_robomimic_and_back(tmp_path: Path) -> None:
    ours, theirs, back = (tmp_path / f"{n}.hdf5" for n in "abc")
    make_ours(ours)
    done = convert(ours, theirs, to="robomimic")
    assert done.episodes == 3
    assert {"action_modes", "policy_actions", "expert_actions", "gate", "events"} <= set(done.lost)
    with h5py.File(theirs) as file:  # by robomimic's rules, written down independently of our code
        assert set(file) == {"data", "mask"}
        env = json.loads(file["data"].attrs["env_args"])
        assert set(env) >= {"env_name", "type", "env_kwargs"}
        assert file["data"].attrs["total"] == 4 + 5 + 6
        assert [v.decode() for v in file["mask/valid"][()]] == ["demo_1"]
        for i in range(3):
            source, demo = episode(i, 4 + i), file[f"data/demo_{i}"]
            assert demo.attrs["num_samples"] == 4 + i
            assert demo.attrs["model_file"] == "<mujoco/>"
            assert demo["dones"].dtype.kind == "i"
            assert demo["dones"][()].tolist() == [0] * (3 + i) + [1]
            for name in ("actions", "rewards", "states"):
                assert np.array_equal(demo[name][()], getattr(source, name))
            for key in CAMERA:
                assert np.array_equal(demo[f"obs/{key}"][()], source.obs[key])
                assert np.array_equal(demo[f"next_obs/{key}"][:-1], source.obs[key][1:])
                assert np.array_equal(demo[f"next_obs/{key}"][-1], source.final_obs[key])
                assert not demo[f"next_obs/{key}"].is_virtual
    convert(theirs, back)
    assert validate(back) == []
    with Dataset(back) as dataset:
        assert dataset.masks == {"valid": (1,)}
        for i, found in enumerate(dataset):
            source = episode(i, 4 + i)
            for name in ("actions", "rewards", "states"):
                assert_same_array(getattr(found, name), getattr(source, name), name)
            for key in CAMERA:
                assert_same_array(found.obs[key], source.obs[key], key)
                assert_same_array(found.final_obs[key], source.final_obs[key], key)
            assert dataset.model(found.info.model) == b"<mujoco/>"


def test_a_robomimic_file_is_read_as_it_is_and_converted(tmp_path: Path) -> None:
    theirs, ours, back = (tmp_path / f"{n}.hdf5" for n in "abc")
    make_robomimic(theirs)
    assert validate(theirs) == []
    with Dataset(theirs) as dataset:
        assert (dataset.task, dataset.control_hz, dataset.lengths) == ("Lift", 20.0, (5, 6))
        assert [info.success for info in dataset.info] == [False, True]
        found = dataset.read(1)
        assert found.terminated.tolist() == [False] * 5 + [True]
        assert np.allclose(found.timestamps, np.arange(6) / 20)
        assert dataset.masks == {"train": (1,)}
    convert(theirs, ours)
    assert validate(ours) == []
    convert(ours, back, to="robomimic")
    with h5py.File(theirs) as first, h5py.File(back) as second:
        for old, new in (("demo_0", "demo_0"), ("demo_3", "demo_1")):
            for name in ("actions", "states", "rewards", "dones", "obs/eef", "obs/cam", "next_obs/eef", "next_obs/cam"):
                a, b = first[f"data/{old}/{name}"][()], second[f"data/{new}/{name}"][()]
                exact = name.startswith(("obs", "next_obs", "states", "dones"))
                assert np.array_equal(a, b) if exact else np.array_equal(a.astype(np.float32), b), name
            assert first[f"data/{old}"].attrs["model_file"] == second[f"data/{new}"].attrs["model_file"]
        assert json.loads(first["data"].attrs["env_args"]) == json.loads(second["data"].attrs["env_args"])
        assert second["mask/train"][()].tolist() == [b"demo_1"]


def test_robomimic_without_next_obs_loses_a_step_and_says_so(tmp_path: Path) -> None:
    theirs, ours = tmp_path / "a.hdf5", tmp_path / "b.hdf5"
    make_robomimic(theirs, next_obs=False, scale=3.0)
    with Dataset(theirs) as dataset, pytest.raises(DatasetError, match="next_obs is missing"):
        dataset.read(0)
    done = convert(theirs, ours)
    assert any("last step" in line for line in done.lost)
    assert any("scaled" in line for line in done.lost)
    with Dataset(ours) as dataset, h5py.File(theirs) as file:
        assert dataset.lengths == (4, 5)
        found = dataset.read(0)
        assert np.array_equal(found.final_obs["eef"], file["data/demo_0/obs/eef"][4])
        assert np.allclose(dataset.action_spec.to_physical(found.actions), file["data/demo_0/actions"][:4], atol=1e-5)


@pytest.mark.parametrize("name", ["actions", "rewards", "dones", "obs", "obs/eef", "next_obs/eef"])
def test_what_robomimic_must_have_is_asked_for_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.hdf5"
    make_robomimic(path)
    with h5py.File(path, "r+") as file:
        del file[f"data/demo_3/{name}"]
    with Dataset(path) as dataset, pytest.raises(DatasetError, match=rf"demo_3/{name}.* is missing"):
        dataset.read(1)


@pytest.mark.parametrize("jpeg", [False, True])
def test_aloha(tmp_path: Path, jpeg: bool) -> None:
    import cv2

    folder = tmp_path / "cube"
    folder.mkdir()
    rng = np.random.default_rng(0)
    recorded = []
    for number, rows in ((0, 6), (10, 4), (2, 5)):
        smooth = cv2.resize(rng.integers(0, 255, (2, 2, 3), dtype=np.uint8), (32, 24))
        pictures = np.stack([np.roll(smooth, t, axis=1) for t in range(rows)])
        values = {
            "qpos": rng.normal(size=(rows, 14)),
            "qvel": rng.normal(size=(rows, 14)),
            "action": rng.normal(size=(rows, 14)) * 2,
        }
        recorded.append((number, values, pictures))
        with h5py.File(folder / f"episode_{number}.hdf5", "w") as file:
            file.attrs["sim"] = True
            file["action"] = values["action"]
            file["observations/qpos"], file["observations/qvel"] = values["qpos"], values["qvel"]
            if jpeg:
                packed = [cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 95])[1] for p in pictures]
                longest = max(map(len, packed)) + 7
                padded = np.stack([np.pad(p.reshape(-1), (0, longest - len(p))) for p in packed])
                file["observations/images/top"] = padded
            else:
                file["observations/images/top"] = pictures
    done = convert(folder, tmp_path / "ours.hdf5")
    assert any("rewards" in line or "reward" in line for line in done.lost)
    assert validate(tmp_path / "ours.hdf5") == []
    with Dataset(tmp_path / "ours.hdf5") as dataset:
        assert dataset.lengths == (5, 4, 3)
        for found, (_, values, pictures) in zip(dataset, sorted(recorded, key=lambda r: r[0]), strict=True):
            assert np.array_equal(found.obs["qpos"], values["qpos"][:-1])
            assert np.array_equal(found.final_obs["qvel"], values["qvel"][-1])
            physical = dataset.action_spec.to_physical(found.actions)
            assert np.allclose(physical, values["action"][:-1], atol=1e-5)
            difference = np.abs(found.obs["top"].astype(int) - pictures[:-1])
            assert difference.max() == 0 if not jpeg else difference.mean() < 4
            assert found.info.success
            assert found.rewards.tolist() == [0.0] * (len(found) - 1) + [1.0]
    with h5py.File(folder / "episode_2.hdf5", "r+") as file:
        del file["observations/qvel"]
    with pytest.raises(DatasetError, match="qvel is missing"):
        convert(folder, tmp_path / "other.hdf5")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cube", "ours.hdf5"]


def test_ours_to_minari_and_back_loses_nothing(tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    ours, theirs, back = tmp_path / "a.hdf5", tmp_path / "minari", tmp_path / "b.hdf5"
    make_ours(ours)
    assert convert(ours, theirs, to="minari").lost == ()
    dataset = minari.MinariDataset(theirs / "data")
    assert dataset.total_episodes == 3
    for i, found in enumerate(dataset.iterate_episodes()):
        source = episode(i, 4 + i)
        assert np.array_equal(found.observations["wrist"][:-1], source.obs["wrist"])
        assert np.array_equal(found.observations["state"][-1], source.final_obs["state"])
        assert np.array_equal(found.terminations, source.terminated)
        assert all(dataset.action_space.contains(action) for action in found.actions)
    assert convert(theirs, back).lost == ()
    assert validate(back) == []
    with Dataset(ours) as first, Dataset(back) as second:
        assert first.header == second.header
        assert first.masks == second.masks
        assert second.model("m") == b"<mujoco/>"
        for a, b in zip(first, second, strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("limits", [(-2.0, 6.0), (float(np.finfo("f4").min), float(np.finfo("f4").max))])
def test_a_foreign_minari_dataset(tmp_path: Path, limits: tuple[float, float]) -> None:
    minari = pytest.importorskip("minari")
    import gymnasium as gym
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    rng = np.random.default_rng(0)
    spaces = gym.spaces.Dict(
        {"arm": gym.spaces.Dict({"q": gym.spaces.Box(-9, 9, (3,))}), "goal": gym.spaces.Box(-9, 9, (2,), np.float64)}
    )
    (tmp_path / "theirs" / "data").mkdir(parents=True)
    storage = MinariStorage.new(
        tmp_path / "theirs" / "data",
        observation_space=spaces,
        action_space=gym.spaces.Box(*limits, (2,)),
        jpeg_encoding=False,
    )
    storage.update_metadata({"dataset_id": "lab/reach-v0", "minari_version": minari.__version__})
    q, goal = rng.normal(size=(6, 3)).astype(np.float32), rng.normal(size=(6, 2))
    actions = rng.uniform(-2, 6, (5, 2)).astype(np.float32)
    last = np.arange(5) == 4
    buffer = EpisodeBuffer(
        id=0,
        seed=7,
        observations={"arm": {"q": q}, "goal": goal},
        actions=actions,
        rewards=rng.normal(size=5),
        terminations=np.zeros(5, bool),
        truncations=last,
        infos={"success": np.array([0, 0, 0, 1, 0, 0])},
    )
    storage.update_episodes([buffer])
    with pytest.raises(DatasetError, match="control_hz"):
        convert(tmp_path / "theirs", tmp_path / "ours.hdf5")
    convert(tmp_path / "theirs", tmp_path / "ours.hdf5", reading=Reading(control_hz=25.0, success=False))
    with Dataset(tmp_path / "ours.hdf5") as dataset:
        found = dataset.read(0)
        assert np.array_equal(found.obs["arm/q"], q[:5])
        assert np.array_equal(found.final_obs["goal"], goal[5])
        assert np.allclose(dataset.action_spec.to_physical(found.actions), actions, atol=1e-5)
        assert max(dataset.action_spec.high) <= 6.0, "the range in the data, where the space has none"
        assert (found.info.seed, found.info.success) == (7, True)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_ours(tmp_path / "a.hdf5")
    target = str(tmp_path / "b.hdf5")
    assert main(["dataset", "convert", str(tmp_path / "a.hdf5"), target, "--to", "robomimic"]) == 0
    assert "not kept as it was: gate" in capsys.readouterr().out
    assert main(["dataset", "convert", str(tmp_path / "a.hdf5"), target]) == 2
    with h5py.File(target, "r+") as file:  # somebody's whose rate nobody knows
        del file["data"].attrs["robolearn"]
    assert main(["dataset", "convert", target, str(tmp_path / "c.hdf5")]) == 2
    assert "--control_hz" in capsys.readouterr().err
    assert main(["dataset", "convert", target, str(tmp_path / "c.hdf5"), "--control_hz", "50"]) == 0
    assert main(["dataset", "convert", str(tmp_path), str(tmp_path / "c.hdf5")]) == 2
