"""Other people's files, through the command line: read with stated assumptions, refused with a remedy."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from robolearn.cli.main import main
from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from tests.datasets import foreign_files as files

SMALL = (
    *("--policy.backbone.hidden_sizes", "8", "--policy.head", "gaussian", "--batch_size", "8"),
    *("--policy.pred_steps", "2", "--policy.exec_steps", "1", "--loop.total_steps", "2"),
)


def run(*words: object) -> int:
    return main([str(word) for word in words])


def train(path: Path, *words: object) -> int:
    return run("train", "--dataset", path, *SMALL, "--output", path.with_suffix(".run"), *words)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """What was printed since the last call."""

    def read() -> str:
        captured = capsys.readouterr()
        return captured.out + captured.err

    return read


DIALECTS: dict[str, tuple[Callable[[Path], files.Recorded], list[str]]] = {
    "robomimic": (files.robomimic, []),
    "robosuite": (files.robosuite, ["--control_hz", "20"]),
    "mimicgen": (files.mimicgen, []),
    "libero": (files.libero, ["--drop", "agentview_rgb"]),
    "isaac_lab": (files.isaac_lab, []),
}


@pytest.mark.parametrize("name", DIALECTS)
def test_every_verb_reads_every_dialect_with_the_same_options(tmp_path: Path, name: str, said: Any) -> None:
    write, options = DIALECTS[name]
    path = tmp_path / "a.hdf5"
    recorded = write(path)
    before = path.read_bytes()
    assert run("dataset", "info", path, *options) == 0
    assert run("dataset", "validate", path, *options) == 0
    assert "assumed: timestamps" in said()
    assert train(path, *options) == 0
    assert "assumed: " in said()
    assert run("dataset", "convert", path, tmp_path / "b.hdf5", *options) == 0
    assert run("dataset", "merge", path, path, "--output", tmp_path / "m.hdf5", *options) == 0
    assert "are the same episode" in said()
    assert run("dataset", "split", path, *options) == 0
    assert path.read_bytes() == before
    assert validate(tmp_path / "b.hdf5") == []
    with Dataset(tmp_path / "b.hdf5") as dataset:
        assert len(dataset) == len(recorded)
        for found, source in zip(dataset, recorded, strict=True):
            assert np.allclose(found.actions, source["actions"][: len(found)], atol=1e-6)
            for key in dataset.observation_spec:
                rows = np.asarray(source[key]).reshape(len(source[key]), -1)[: len(found)]
                assert np.allclose(found.obs[key].reshape(len(found), -1), rows), key


@pytest.mark.parametrize("name", DIALECTS)
def test_what_others_recorded_counts_as_demonstrations_wherever_labels_are_asked_for(tmp_path: Path, name: str) -> None:
    """DAgger aggregates them, and PPO's cloning loss reads them, with files that have labels."""
    write, options = DIALECTS[name]
    path = tmp_path / "a.hdf5"
    write(path)
    for target in ("actions", "labels"):
        words = ("--target", target, "--output", tmp_path / target)
        assert run("train", "--dataset", path, *SMALL, *options, *words) == 0
    alike = [load_file(tmp_path / target / "policy" / "policy.safetensors") for target in ("actions", "labels")]
    assert all(torch.equal(alike[0][key], alike[1][key]) for key in alike[0])


def test_isaac_labs_facts(tmp_path: Path, said: Any) -> None:
    path = tmp_path / "a.hdf5"
    files.isaac_lab(path)
    assert run("dataset", "convert", path, tmp_path / "b.hdf5") == 0
    printed = said()
    assert "processed_actions (12, 8) float32, not taken" in printed
    assert "initial_state/articulation/robot/joint_position (1, 9) float32, not taken" in printed
    assert "in the order articulation/robot/joint_position, rigid_object/cube/root_pose" in printed
    with Dataset(tmp_path / "b.hdf5") as dataset:
        assert dataset.control_hz == pytest.approx(20.0)  # 1 / (0.01 s x 5)
        assert [(i.success, i.seed) for i in dataset.info] == [(True, 7), (False, 8)]
        assert list(dataset.observation_spec) == ["policy/eef_pos", "policy/gripper_pos", "subtask_terms/grasp"]
        assert dataset.read(0).states.shape == (11, 16)
        assert dataset.read(0).rewards.tolist() == [0.0] * 10 + [1.0]
    with h5py.File(tmp_path / "b.hdf5") as file:
        assert file["data/demo_0/next_obs/policy/eef_pos"].shape == (11, 3)


def test_what_libero_and_mimicgen_say_beside(tmp_path: Path, said: Any) -> None:
    files.libero(tmp_path / "l.hdf5")
    files.mimicgen(tmp_path / "m.hdf5")
    assert run("dataset", "convert", tmp_path / "l.hdf5", tmp_path / "lo.hdf5") == 0
    printed = said()
    assert "robot_states (12, 9) float64, not taken" in printed
    assert "attribute bddl_file_name of data" in printed
    assert "attribute init_state of data/demo_i (9) float64" in printed
    with Dataset(tmp_path / "lo.hdf5") as dataset:
        assert {info.notes for info in dataset.info} == {"close the drawer"}
    assert run("dataset", "convert", tmp_path / "m.hdf5", tmp_path / "mo.hdf5") == 0
    printed = said()
    assert "datagen_info/object_poses/cube (12, 4, 4) float64, not taken" in printed
    assert "src_demo_inds (3,) int64, not taken" in printed


@pytest.mark.parametrize("jpeg", [*(pytest.param(j, marks=pytest.mark.long) for j in ("", "padded")), "variable"])
def test_a_mobile_aloha_loses_nothing_in_silence(tmp_path: Path, jpeg: str, said: Any) -> None:
    recorded = files.aloha(tmp_path / "cup", base=True, jpeg=jpeg, depth=True)
    out = tmp_path / "b.hdf5"
    assert run("dataset", "convert", tmp_path / "cup", out) == 0
    printed = said()
    assert "unknown/tactile (12, 5) float64, not taken" in printed
    assert "attribute robot_version" in printed
    with Dataset(out) as dataset:
        assert dataset.action_spec.names[-1] == "base_action_1"
        assert dataset.observation_spec["images_depth/cam_high"].shape == (48, 64, 1)
        for found, source in zip(dataset, recorded, strict=True):
            both = np.concatenate([source["action"], source["base_action"]], axis=1)[:-1]
            assert np.allclose(dataset.action_spec.to_physical(found.actions), both, atol=1e-5)
            assert np.abs(found.obs["cam_high"].astype(int) - source["cam_high"][:-1]).mean() < 4
            assert found.info.notes == "pick up the cup"
    assert train(out) == 2
    assert "--depth_range NEAR FAR" in said()
    assert train(out, "--drop", "images_depth/cam_high") == 0
    assert train(out, "--depth_range", "400", "4000", "--output", tmp_path / "other") == 0
    assert run("dataset", "convert", tmp_path / "cup", tmp_path / "arms.hdf5", "--actions", "action") == 0
    assert "base_action (12, 2) float32, not taken" in said()


UNITS = {
    "degrees": lambda rng, T: rng.uniform(-180, 180, (T, 4)),
    "millimetres": lambda rng, T: rng.uniform(0, 300, (T, 3)),
    "a little more": lambda rng, T: rng.choice([-1.2, 1.2], (T, 2)),
    "one dimension": lambda rng, T: np.c_[rng.uniform(-1, 1, (T, 2)), rng.uniform(-5, 5, T)],
    "whole numbers": lambda rng, T: rng.integers(0, 9, (T, 2)),
}


@pytest.mark.parametrize("name", UNITS)
def test_data_outside_of_its_limits_never_trains(tmp_path: Path, name: str, said: Any) -> None:
    path = tmp_path / "a.hdf5"
    recorded = files.robomimic(path, action=UNITS[name])
    assert train(path) == 2
    printed = said()
    assert "% of the steps" in printed
    assert "--limits" in printed
    files.robomimic(
        tmp_path / "unit.hdf5", action=lambda rng, T: rng.uniform(-1, 1, (T, recorded[0]["actions"].shape[1]))
    )
    assert run("dataset", "merge", tmp_path / "unit.hdf5", path, "--output", tmp_path / "m.hdf5") == 2
    worst = max(float(np.abs(r["actions"]).max()) for r in recorded)
    limits = ("--limits", f"{-worst}", f"{worst}")
    assert run("dataset", "merge", tmp_path / "unit.hdf5", path, "--output", tmp_path / "m.hdf5", *limits) == 0
    assert run("dataset", "convert", path, tmp_path / "b.hdf5", *limits) == 0
    with Dataset(tmp_path / "b.hdf5") as ours, Dataset(path, reading=Reading(limits=("data",))) as theirs:
        assert ours.action_spec.high == pytest.approx((worst,) * ours.action_spec.size)
        for dataset in (ours, theirs):
            for found, source in zip((dataset.arrays(i, ["actions"])["actions"] for i in range(3)), recorded):
                physical = dataset.action_spec.to_physical(found)
                assert np.allclose(physical, source["actions"], atol=1e-5 * worst)
    assert train(path, *limits) == 0
    assert run("dataset", "convert", path, tmp_path / "c.hdf5", "--limits", "-0.5", "0.5") == 2
    assert "lie outside of --limits -0.5 0.5" in said()
    assert run("dataset", "convert", tmp_path / "b.hdf5", tmp_path / "c.hdf5", "--limits", -2 * worst, 2 * worst) == 0
    assert run("dataset", "merge", tmp_path / "b.hdf5", tmp_path / "c.hdf5", "--output", tmp_path / "d.hdf5") == 2
    assert "action_spec differs" in said()


PICTURES: dict[str, tuple[Callable[[np.random.Generator, int], Any], tuple[int, ...]]] = {
    "channels first": (lambda rng, T: rng.integers(0, 255, (T, 3, 40, 48), dtype=np.uint8), (40, 48, 3)),
    "grey": (lambda rng, T: rng.integers(0, 255, (T, 40, 48), dtype=np.uint8), (40, 48, 1)),
    "grey, channels first": (lambda rng, T: rng.integers(0, 255, (T, 1, 40, 48), dtype=np.uint8), (40, 48, 1)),
    "floats to 1": (lambda rng, T: rng.random((T, 40, 48, 3), dtype=np.float32), (40, 48, 3)),
    "floats to 255": (lambda rng, T: rng.integers(0, 255, (T, 3, 40, 48)).astype("f4"), (40, 48, 3)),
    "a stack": (lambda rng, T: rng.integers(0, 255, (T, 2, 40, 48, 3), dtype=np.uint8), (40, 48, 6)),
    "a stack, channels first": (lambda rng, T: rng.integers(0, 255, (T, 2, 3, 40, 48), dtype=np.uint8), (40, 48, 6)),
    "a grey stack": (lambda rng, T: rng.integers(0, 255, (T, 4, 40, 48), dtype=np.uint8), (40, 48, 4)),
    "channels last": (lambda rng, T: rng.integers(0, 255, (T, 40, 48, 3), dtype=np.uint8), (40, 48, 3)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_any_layout_become_one_form(tmp_path: Path, name: str, said: Any) -> None:
    make, shape = PICTURES[name]
    path = tmp_path / "a.hdf5"
    recorded = files.robomimic(path, obs=lambda rng, T: {"s": rng.normal(size=(T, 3)), "cam": make(rng, T)})
    assert run("dataset", "info", path) == 0
    assert ("assumed: pictures: obs/cam" in said()) == (name != "channels last")
    assert run("dataset", "convert", path, tmp_path / "b.hdf5") == 0
    with Dataset(tmp_path / "b.hdf5") as dataset, Dataset(path) as direct:
        spec = dataset.observation_spec["cam"]
        assert (spec.shape, spec.dtype, spec.is_image) == (shape, "uint8", True)
        assert direct.observation_spec == dataset.observation_spec
        found = dataset.read(1)
        frame = recorded[1]["cam"]
        if "floats to 1" in name:
            frame = np.rint(frame * 255.0)
        # Every pixel, told by its place: the last frame of a stack has the last channels.
        y, x = 7, 33
        expected = {
            "channels first": lambda: frame[:, :, y, x],
            "grey": lambda: frame[:, y, x][:, None],
            "grey, channels first": lambda: frame[:, :, y, x],
            "floats to 1": lambda: frame[:, y, x],
            "floats to 255": lambda: frame[:, :, y, x],
            "a stack": lambda: frame[:, :, y, x].reshape(len(frame), -1),
            "a stack, channels first": lambda: frame[:, :, :, y, x].reshape(len(frame), -1),
            "a grey stack": lambda: frame[:, :, y, x],
            "channels last": lambda: frame[:, y, x],
        }[name]()
        assert np.array_equal(found.obs["cam"][:, y, x], expected[:-1])
        assert np.array_equal(found.final_obs["cam"][y, x], expected[-1])
        assert np.array_equal(direct.frame(1, "cam", 3)[y, x], expected[3])
    assert train(path) == 0


BAD: dict[str, Callable[[h5py.Group], None]] = {}


def bad(name: str) -> Callable[[Callable[[h5py.Group], None]], None]:
    return lambda spoil: BAD.__setitem__(name, spoil)


@bad("no steps")
def _(demo: h5py.Group) -> None:
    for name in ("actions", "rewards", "dones", "obs/eef", "next_obs/eef"):
        shape = demo[name].shape[1:]
        del demo[name]
        demo.create_dataset(name, (0, *shape), "f8")
    demo.attrs["num_samples"] = 0


@bad("not finite")
def _(demo: h5py.Group) -> None:
    demo["obs/eef"][4, 0] = np.nan


@bad("an infinite action")
def _(demo: h5py.Group) -> None:
    demo["actions"][3, 1] = np.inf


@bad("another shape")
def _(demo: h5py.Group) -> None:
    del demo["actions"]
    demo["actions"] = np.zeros((files.STEPS, 9))


@bad("a row too few")
def _(demo: h5py.Group) -> None:
    rows = demo["obs/eef"][:-1]
    del demo["obs/eef"]
    demo["obs/eef"] = rows


@bad("a key too few")
def _(demo: h5py.Group) -> None:
    del demo["obs/eef"]


@bad("success in words")
def _(demo: h5py.Group) -> None:
    demo.attrs["success"] = "perhaps"


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("number", [0, 2])
def test_one_bad_episode_is_named_and_left_out_in_one_command(
    tmp_path: Path, name: str, number: int, said: Any
) -> None:
    path, demo = tmp_path / "with space.hdf5", f"demo_{number}"
    files.robomimic(path, episodes=4)
    with h5py.File(path, "r+") as file:
        BAD[name](file[f"data/{demo}"])
    assert run("dataset", "validate", path) == 2
    printed = said()
    assert {f"demo_{i}" for i in range(4) if re.search(rf"\ndata/demo_{i}|/data/demo_{i}\b", printed)} == {demo}
    command = shlex.split(re.findall("`(.*)`", printed)[-1])
    assert command[0] == "robolearn"
    assert train(path) == 2
    assert demo in said()
    assert run("dataset", "convert", path, tmp_path / "b.hdf5") == 2
    assert f"--exclude {demo}" in said() or name == "success in words"
    for verb in ("info", "validate"):
        assert run("dataset", verb, path, "--exclude", demo) == 0
    assert train(path, "--exclude", demo) == 0
    assert run("dataset", "convert", path, tmp_path / "b.hdf5", "--exclude", demo) == 0
    assert run("dataset", "filter", path, "--output", tmp_path / "f.hdf5", "--exclude", demo) == 0
    assert run("dataset", "merge", path, path, "--output", tmp_path / "m.hdf5", "--exclude", demo) == 0
    assert main(command[1:]) == 0  # the remedy of validate, as it was printed
    mended = tmp_path / "with space_mended.hdf5"
    assert run("dataset", "validate", mended) == 0
    with Dataset(mended) as dataset:
        assert len(dataset) == (4 if name == "success in words" else 3)


FAULTS: dict[str, tuple[Callable[[Path], Any], Callable[[h5py.File], Any]]] = {
    "limits": (lambda p: files.robomimic(p, action=UNITS["degrees"]), lambda f: None),
    "no rate": (lambda p: files.robomimic(p, env_args={"env_name": "R", "type": 2, "env_kwargs": {}}), lambda f: None),
    "success as a dictionary": (lambda p: files.robomimic(p, attrs={"success": '{"task": true}'}), lambda f: None),
    "success of several values": (lambda p: files.robomimic(p, attrs={"success": [True, False]}), lambda f: None),
    "success as NaN": (lambda p: files.robomimic(p, attrs={"success": np.nan}), lambda f: None),
    "a mask of nobody": (files.robomimic, lambda f: f.__setitem__("mask/train", ["demo_0", "demo_9"])),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_remedy_of_validate_works(tmp_path: Path, name: str, said: Any) -> None:
    write, spoil = FAULTS[name]
    path = tmp_path / "it's.hdf5"
    write(path)
    with h5py.File(path, "r+") as file:
        spoil(file)
    assert run("dataset", "validate", path) == 2
    commands = {tuple(shlex.split(found)) for found in re.findall("`(.*)`", said())}
    assert len(commands) == 1
    assert main(list(commands.pop()[1:])) == 0
    assert run("dataset", "validate", tmp_path / "it's_mended.hdf5") == 0
    said()


def test_names_and_dialects_of_attributes(tmp_path: Path, said: Any) -> None:
    """Bytes, arrays of one, variable-length masks, scalars, empty vectors, text and whole numbers."""
    path = tmp_path / "a.hdf5"
    files.robomimic(
        path,
        obs=lambda rng, T: {
            "s": rng.normal(size=(T, 3)),
            "gripper": rng.normal(size=T),
            "nothing": np.zeros((T, 0)),
            "words": np.array([b"up"] * T),
            "half": rng.normal(size=(T, 2)).astype(np.float16),
        },
        attrs={"success": np.array([True]), "num_samples": np.array([files.STEPS])},
    )
    with h5py.File(path, "r+") as file:
        file["data"].attrs["env_args"] = np.array([file["data"].attrs["env_args"].encode()])
        file["mask/train"], file["mask/valid"] = ["demo_0", "demo_1"], ["demo_2"]
    assert run("dataset", "info", path) == 0
    printed = said()
    assert "train (2), valid (1)" in printed
    assert "obs/words (12,) text holds no numbers" in printed
    assert "obs/nothing (12, 0) float64 has no values" in printed
    assert train(path, "--filter_key", "train") == 0
    assert run("dataset", "convert", path, tmp_path / "b.hdf5") == 0
    with Dataset(tmp_path / "b.hdf5") as dataset:
        assert {k: s.shape for k, s in dataset.observation_spec.items()} == {"gripper": (1,), "half": (2,), "s": (3,)}
        assert dataset.masks == {"train": (0, 1), "valid": (2,)}
    with h5py.File(tmp_path / "b.hdf5", "r+") as file:  # a mask that somebody adds to ours with plain h5py
        file["mask/some"] = ["demo_1"]
    assert run("dataset", "info", tmp_path / "b.hdf5") == 0
    assert "some (1)" in said()


def test_our_rate_and_task_survive_robomimics_layout(tmp_path: Path, said: Any) -> None:
    ours, theirs, back = (tmp_path / f"{n}.hdf5" for n in "abc")
    assert run("record", ours, "--task", "Reach", "--episodes", "2") == 0
    assert run("dataset", "convert", ours, theirs, "--to", "robomimic") == 0
    with h5py.File(theirs) as file:
        import json

        env_args = json.loads(file["data"].attrs["env_args"])
        assert (env_args["env_name"], env_args["type"]) == ("robolearn/Reach-v0", 2)  # type 3 is iGibson's there
    assert run("dataset", "convert", theirs, back) == 0
    with Dataset(ours) as first, Dataset(theirs) as middle, Dataset(back) as second:
        assert first.header == second.header == middle.header
        assert [i.operator for i in first.info] == [i.operator for i in second.info]
        assert [(i.success, i.seed) for i in first.info] == [(i.success, i.seed) for i in second.info]
    assert train(theirs) == 0


def test_renaming_dropping_and_lists_of_episodes(tmp_path: Path, said: Any) -> None:
    path = tmp_path / "a.hdf5"
    files.isaac_lab(path, episodes=4)
    (tmp_path / "bad.txt").write_text("demo_1\n# a comment\ndemo_3\n")
    options = (
        "--rename",
        "{policy/eef_pos: eef}",
        "--drop",
        "subtask_terms/grasp",
        "--exclude",
        f"@{tmp_path / 'bad.txt'}",
    )
    assert run("dataset", "convert", path, tmp_path / "b.hdf5", *options) == 0
    with Dataset(tmp_path / "b.hdf5") as dataset:
        assert set(dataset.observation_spec) == {"eef", "policy/gripper_pos"}
        assert len(dataset) == 2
    assert (
        run("dataset", "delete", tmp_path / "b.hdf5", "demo_0", "--output", tmp_path / "c.hdf5", "--drop", "eef") == 0
    )
    with Dataset(tmp_path / "c.hdf5") as dataset:
        assert list(dataset.observation_spec) == ["policy/gripper_pos"]
    for wrong in (("--rename", "{policy/eef_pos: policy/gripper_pos}"), ("--rename", "{policy/eef_pos: policy}")):
        assert run("dataset", "info", path, *wrong) == 2
    for wrong in (("--drop", "nope"), ("--exclude", "demo_9"), ("--control_hz", "7"), ("--limits", "1", "-1")):
        assert run("dataset", "info", path, *wrong) == 2, wrong
    said()


def test_extra_action_vectors(tmp_path: Path, said: Any) -> None:
    path = tmp_path / "a.hdf5"
    recorded = files.robomimic(path)
    with h5py.File(path, "r+") as file:
        for i, demo in enumerate(file["data"].values()):
            demo["base/velocity"] = recorded[i]["actions"][:, :2] / 2
    assert run("dataset", "convert", path, tmp_path / "b.hdf5", "--actions", "actions", "base/velocity") == 0
    with Dataset(tmp_path / "b.hdf5") as dataset:
        assert dataset.action_spec.names[3:] == ("actions_3", "base_velocity_0", "base_velocity_1")
        assert np.allclose(dataset.read(2).actions[:, 4:], recorded[2]["actions"][:, :2] / 2)
    assert run("dataset", "info", path, "--actions", "nope") == 2
    assert "Name the arrays that are the action" in said()


def follow(path: Path, spoil: Callable[[np.ndarray], None], scale: float = 1.0) -> None:
    def obs(rng: np.random.Generator, T: int) -> dict[str, Any]:
        s = scale * np.random.default_rng(int(rng.integers(1 << 30))).uniform(-1, 1, (T, 2))
        return {"s": s}

    files.robomimic(path, episodes=20, steps=50, obs=obs)
    with h5py.File(path, "r+") as file:
        spoil(file["data/demo_3/obs/s"])


GLITCHES = {
    "huge": lambda s: s.__setitem__((7, 0), 1e6),
    "negative": lambda s: s.__setitem__((7, 1), -500.0),
    "largest float": lambda s: s.__setitem__((7, 0), 1e30),
    "two": lambda s: s.__setitem__((slice(7, 9), 0), 4e4),
}


@pytest.mark.parametrize("name", GLITCHES)
def test_a_glitch_is_named_and_does_not_rule_the_scale(tmp_path: Path, name: str, said: Any) -> None:
    from robolearn.datasets.normalisation import normalisation_statistics
    from robolearn.datasets.windows import WindowSampler

    clean, path = tmp_path / "clean.hdf5", tmp_path / "a.hdf5"
    follow(clean, lambda s: None)
    follow(path, GLITCHES[name])
    for verb in (lambda: run("dataset", "info", path), lambda: run("dataset", "validate", path), lambda: train(path)):
        assert verb() == 0
        assert "at step 7 of demo_3" in said()
    with Dataset(clean) as first, Dataset(path) as second:
        a, b = normalisation_statistics(first)["s"], normalisation_statistics(second)["s"]
        assert all(np.allclose(a[key], b[key], atol=0.02) for key in a)
        sampler = WindowSampler(second, obs_steps=2, pred_steps=1, batch_size=8, seed=0)
        seen = max(float(batch.obs["s"].abs().max()) for batch in sampler)
        assert seen < 2
        assert sampler.num_windows == 1000 - (3 if name == "two" else 2)
    assert train(clean) == 0
    assert "a glitch" not in said()


def test_what_is_rare_but_honest_is_no_glitch() -> None:
    from robolearn.datasets.normalisation import glitch_mask

    rng = np.random.default_rng(0)
    flag = (rng.random((1000, 1)) < 0.003).astype(float)
    force = np.where(rng.random((1000, 1)) < 0.004, rng.uniform(50, 200, (1000, 1)), 0.0)
    heavy = rng.standard_cauchy((1000, 3)) * 10.0 ** rng.integers(-20, 20, (1000, 3))
    for values in (flag, force, heavy, rng.normal(size=(5000, 8)), rng.integers(0, 2, (300, 2)), np.zeros((50, 2))):
        assert glitch_mask(values, [len(values)]) is None
    tipped = rng.normal(0.0, 0.002, (1000, 2))
    tipped[92:100, 1] = 0.6  # from there to the end of its episode
    assert glitch_mask(tipped, [100] * 10) is None
    assert glitch_mask(tipped[:99], [99]) is None
    pressed = np.zeros((5000, 1))  # forces at contacts: often small, seldom large, once or twice larger still
    pressed[rng.random(5000) < 0.4] = 1.0
    pressed[100:140, 0], pressed[[500, 900], 0] = np.linspace(1.0, 18.0, 40), (23.0, 26.0)
    assert glitch_mask(pressed, [5000]) is None
    pressed[700] = 500.0
    assert np.argwhere(glitch_mask(pressed, [5000])).tolist() == [[700, 0]]
    tipped[50:52, 1] = 0.6  # there and back again, but where others have been for long
    assert glitch_mask(tipped, [100] * 10) is None
    tipped[50:52, 1] = 6.0
    found = glitch_mask(tipped, [100] * 10)
    assert found is not None
    assert np.argwhere(found).tolist() == [[50, 1], [51, 1]]
    stuck = rng.normal(size=(2000, 1))
    stuck[30:36] = 1e5
    found = glitch_mask(stuck, [2000])
    assert found is not None
    assert np.flatnonzero(found).tolist() == list(range(30, 36))


def test_trimming_idle_ends(tmp_path: Path, said: Any) -> None:
    def obs(rng: np.random.Generator, T: int) -> dict[str, Any]:
        moving = np.clip(np.arange(T) - 5, 0, T - 11)[:, None] * [1.0, -2.0]
        return {"q": moving + 1e-4 * rng.normal(size=(T, 2))}

    path = tmp_path / "a.hdf5"
    files.robomimic(path, steps=30, obs=obs)
    assert run("dataset", "convert", path, tmp_path / "ours.hdf5") == 0
    for source in (path, tmp_path / "ours.hdf5"):
        out = tmp_path / f"trimmed_{source.stem}.hdf5"
        assert run("dataset", "trim", source, "--output", out, "--margin", "1") == 0
        assert "demo_0: steps 4 to 26 are kept" in said()
        assert run("dataset", "validate", out) == 0
        with Dataset(out) as dataset:
            assert dataset.lengths == (23, 23, 23)


def test_minaris_names_are_those_of_environments(tmp_path: Path, said: Any) -> None:
    pytest.importorskip("minari")
    for nested, key in ((True, "arm/q"), (False, "state")):
        folder, out = tmp_path / f"m{nested}", tmp_path / f"{nested}.hdf5"
        files.minari(folder, nested=nested)
        assert run("dataset", "convert", folder, out) == 2
        assert "--control_hz 20" in said()
        assert run("dataset", "convert", folder, out, "--control_hz", "25", "--exclude", "episode_0") == 0
        assert "infos/contact (4,) float64 per step, not taken" in said()
        with Dataset(out) as dataset:
            assert list(dataset.observation_spec) == [key]
            assert len(dataset) == 1
            assert dataset.action_spec.high == (2.0, 2.0)
        assert run("dataset", "convert", out, tmp_path / f"back{nested}", "--to", "minari") == 0
        assert run("dataset", "convert", tmp_path / f"back{nested}", tmp_path / f"again{nested}.hdf5") == 0
        with Dataset(out) as first, Dataset(tmp_path / f"again{nested}.hdf5") as second:
            assert first.header == second.header
    said()
