"""Commands become actions; an environment that no map knows is refused with what to write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.errors import ConfigError, DeviceError
from robolearn.specs import ActionSpec
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import Command, hold


def command(*twist: float, gripper: float | None = None, engaged: bool = True, action: object = None) -> Command:
    full = np.array([*twist, *[0.0] * (6 - len(twist))])
    own = None if action is None else np.asarray(action)
    return Command(twist=full, gripper=gripper, buttons=(), engaged=engaged, sampled_at=0.0, action=own)


def unnamed(size: int) -> ActionSpec:
    return ActionSpec(low=(-1.0,) * size, high=(1.0,) * size)


@pytest.mark.parametrize(
    ("axis", "sensor", "index"), [(0, "tcp_pos", 0), (1, "tcp_pos", 1), (2, "tcp_pos", 2)], ids=["x", "y", "z"]
)
def test_a_twist_along_an_axis_moves_the_tool_along_it(axis: int, sensor: str, index: int) -> None:
    with make("Lift") as env:
        mapper = CommandMapper(env.action_spec, "Lift")
        before = env.reset([3])["proprio"][0, :3]
        twist = [0.0] * 6
        twist[axis] = 0.6
        for _ in range(10):
            after = env.step(torch.from_numpy(mapper(command(*twist), -1.0))[None]).obs["proprio"][0, :3]
    moved = after - before
    assert moved[index] > 0.04, sensor
    assert moved.abs().sum() - moved[index] < 0.02


def test_a_turn_about_z_turns_the_tool_and_the_gripper_closes() -> None:
    with make("Lift") as env:
        mapper = CommandMapper(env.action_spec, "Lift")
        before = env.reset([3])["proprio"][0]
        for _ in range(8):
            after = env.step(torch.from_numpy(mapper(command(0, 0, 0, 0, 0, 0.5, gripper=1.0), -1.0))[None]).obs
        after = after["proprio"][0]
    turned = torch.atan2(after[4], after[3]) - torch.atan2(before[4], before[3])
    assert 0.2 < float(turned) < 0.6
    assert before[5] > 0.035
    assert after[5] < 0.03


def test_planar_tasks_take_x_and_y() -> None:
    for task in ("PushT", "Fork"):
        with make(task) as env:
            mapper = CommandMapper(env.action_spec, task)
        np.testing.assert_allclose(mapper(command(0.5, -0.25, 1.0, 1.0), 0.0), [0.5, -0.25])
        assert mapper.axes == ("x", "y")
        assert not mapper.has_gripper


def test_tasks_without_yaw_or_gripper_have_less_to_drive() -> None:
    with make("Reach") as env:
        mapper = CommandMapper(env.action_spec, TaskConfig(id="Reach"))
    np.testing.assert_allclose(mapper(command(0.1, 0.2, 0.3, 1, 1, 1, gripper=1.0), 1.0), [0.1, 0.2, 0.3], rtol=1e-6)


@pytest.mark.parametrize(
    ("task", "closed"), [("gym:Meta-World/MT1", 1.0), ("gym:FetchPickAndPlace-v4", -1.0), ("FetchReach-v4", -1.0)]
)
def test_third_parties_have_their_own_sign_of_the_gripper(task: str, closed: float) -> None:
    mapper = CommandMapper(unnamed(4), task)
    action = mapper(command(0.5, -0.5, 0.25, gripper=1.0), -1.0)
    np.testing.assert_allclose(action, [0.5, -0.5, 0.25, closed])
    assert mapper.gripper_of(action) == 1.0


def test_the_gripper_stays_where_it_was_told_to_be() -> None:
    mapper = CommandMapper(unnamed(4), "gym:Meta-World/MT1")
    assert mapper(command(gripper=None), 0.5)[3] == 0.5
    np.testing.assert_allclose(mapper(hold(0.0), 1.0), [0, 0, 0, 1])
    np.testing.assert_allclose(mapper(command(1, 1, 1, gripper=-1.0, engaged=False), 1.0), [0, 0, 0, 1])


def test_actions_of_a_device_pass_and_are_checked() -> None:
    mapper = CommandMapper(unnamed(4), "gym:Meta-World/MT1")
    np.testing.assert_allclose(mapper(command(action=[0.1, 0.2, 0.3, 2.0]), 0.0), [0.1, 0.2, 0.3, 1.0], rtol=1e-6)
    for wrong in ([0.0] * 3, [0.0, 0.0, np.nan, 0.0]):
        with pytest.raises(DeviceError, match="takes 4 finite numbers: action_0"):
            mapper(command(action=wrong), 0.0)


def test_an_environment_without_a_map_is_refused_with_its_names_and_what_to_write() -> None:
    with make("Lift", control="joint") as env:
        spec = env.action_spec
    with pytest.raises(DeviceError, match=r"(?s)delta_j1 in .*teleop/actions/NAME.yaml.*tasks: \[\"Lift\"\]"):
        CommandMapper(spec, "Lift")
    assert CommandMapper(spec, "Lift", needs_twist=False)(command(action=np.ones(7)), 0.0).shape == (7,)


def test_what_the_error_says_to_write_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError) as refused:
        CommandMapper(unnamed(3), "gym:Swimmer-v5")
    (tmp_path / "teleop" / "actions").mkdir(parents=True)
    written = tmp_path / "teleop" / "actions" / "mine.yaml"
    written.write_text(str(refused.value).split("for example:\n", 1)[1].replace("\n  ", "\n").removeprefix("  "))
    np.testing.assert_allclose(CommandMapper(unnamed(3), "gym:Swimmer-v5")(command(0.1, 0.2, 0.3), 0.0)[:2], [0.1, 0.2])
    written.write_text("actions: {action_0: +left}")
    with pytest.raises(ConfigError, match=r"mine.yaml.*unknown axis in actions.action_0: 'left'.*x, y, z"):
        CommandMapper(unnamed(1), "gym:Swimmer-v5")


@pytest.mark.parametrize(
    ("package", "config", "key", "fingers"),
    [
        ("gymnasium_robotics", {"id": "gym:FetchPickAndPlace-v4"}, "observation", slice(9, 11)),
        ("metaworld", {"id": "gym:Meta-World/MT1", "kwargs": {"env_name": "pick-place-v3"}}, "state", slice(3, 4)),
    ],
)
def test_third_parties_move_along_their_worlds_axes_and_close(
    package: str, config: dict, key: str, fingers: slice
) -> None:
    pytest.importorskip(package)
    task = TaskConfig(**config, worker_kind="sync")
    with make(task) as env:
        mapper = CommandMapper(env.action_spec, task)

        def go(wanted: Command, steps: int) -> np.ndarray:
            for _ in range(steps):
                step = env.step(torch.from_numpy(mapper(wanted, -1.0))[None])
            return step.obs[key][0].numpy().copy()

        for axis in range(3):
            before = env.reset([1])[key][0].numpy().copy()
            moved = (go(command(*(0.5 * np.eye(3)[axis]), gripper=-1.0), 8) - before)[:3]
            assert moved[axis] > 0.01
            assert np.abs(np.delete(moved, axis)).max() < 0.3 * moved[axis]
        opened = go(command(gripper=-1.0), 10)[fingers].sum()
        assert go(command(gripper=1.0), 10)[fingers].sum() < 0.7 * opened
