"""Devices that act on what is seen do what recording, evaluation and replay would do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.policy import GaussianHeadConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.errors import DatasetError, DeviceError, PolicyError, TaskError
from robolearn.policies.build import build_policy
from robolearn.policies.folder import load_policy, save_policy
from robolearn.teleop.devices.actions import CommandMapper
from robolearn.teleop.devices.device import Device, SeeingDevice
from robolearn.teleop.devices.known_devices import make_device
from robolearn.workspace import template

REFERENCE = template() / "policies" / "reference"


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "reach.hdf5"
    return record(RecordConfig(task=TaskConfig(id="Reach"), output=str(path), episodes=2, seed=7, num_envs=1)).path


def drive(env: VectorEnv, device: Device, seed: int, steps: int = 200) -> tuple[list[np.ndarray], bool]:
    """The actions that a device gives in an episode, and whether they solved it."""
    assert isinstance(device, SeeingDevice)
    mapper = CommandMapper(env.action_spec, str(env.env_args["env_name"]), needs_twist=False)
    obs = env.reset([seed])
    device.connect()
    device.reset(seed)
    assert not device.read().engaged, "nothing was seen yet"
    actions = []
    for _ in range(steps):
        device.see(obs)
        command = device.read()
        if not command.engaged:
            break
        actions.append(mapper(command, 0.0))
        step = env.step(torch.from_numpy(actions[-1])[None])
        obs = step.obs
        if bool(step.done[0]):
            return actions, bool(step.success[0])
    return actions, False


def test_the_expert_does_what_it_does_in_a_recording(recorded: Path) -> None:
    with Dataset(recorded) as dataset, make("Reach") as env:
        device = make_device("expert", env=env)
        for i, info in enumerate(dataset.info):
            actions, success = drive(env, device, info.seed)
            assert success
            np.testing.assert_array_equal(actions, dataset.read(i).actions)


def test_a_replay_gives_the_actions_of_the_episode_of_the_seed(recorded: Path) -> None:
    with Dataset(recorded) as dataset, make("Reach") as env:
        device = make_device("replay", env=env, file=recorded)
        for i, info in reversed(list(enumerate(dataset.info))):
            actions, success = drive(env, device, info.seed)
            assert success
            np.testing.assert_array_equal(actions, dataset.read(i).actions)
        with pytest.raises(DeviceError, match=r"no episode of seed 1234, but of \[7, 8\]"):
            device.reset(1234)  # pyright: ignore[reportAttributeAccessIssue]
        second = make_device("replay", env=env, file=recorded, episode=1)
        actions, _ = drive(env, second, 1234, steps=10_000)
        wanted = dataset.read(1).actions
        np.testing.assert_array_equal(actions, wanted[: len(actions)])


def test_a_replay_into_another_task_is_refused(recorded: Path) -> None:
    with make("Lift") as env, pytest.raises(PolicyError, match=r"has 3 actions .* the task Lift takes 5"):
        make_device("replay", env=env, file=recorded)


def test_a_policy_drives_as_its_runner_does(tmp_path: Path) -> None:
    config = PolicyConfig(obs_steps=2, pred_steps=4, exec_steps=3, head=GaussianHeadConfig())
    with make("Reach") as env:
        save_policy(build_policy(config, env.observation_spec, env.action_spec), tmp_path / "policy")
        device = make_device("policy", env=env, folder=tmp_path / "policy")
        actions, _ = drive(env, device, seed=5, steps=20)
        assert len(actions) == 20
        runner = PolicyRunner(load_policy(tmp_path / "policy"), 1, inference_rows=1)
        runner.reset([5])
        obs = env.reset([5])
        for action in actions:
            expected = runner.act(obs)
            np.testing.assert_allclose(action, expected[0].numpy().clip(-1, 1))
            obs = env.step(expected).obs


def test_what_is_wrong_is_named(tmp_path: Path, recorded: Path) -> None:
    with make("Reach") as env:
        with pytest.raises(DeviceError, match="needs the environment that it acts in, received none"):
            make_device("expert")
        with pytest.raises(DeviceError, match="takes no profile, received keyboard"):
            make_device("expert", "keyboard", env)
        with pytest.raises(TaskError, match="unknown expert 'wizard'"):
            make_device("expert", env=env, expert="wizard")
        with pytest.raises(PolicyError, match="no policy folder"):
            make_device("policy", env=env, folder=tmp_path / "none")
        with pytest.raises(PolicyError, match=r"sees .*; the task Reach offers"):
            make_device("policy", env=env, folder=REFERENCE)
        with pytest.raises(DeviceError, match=r"device policy: .*'folder'; its options: folder, deterministic"):
            make_device("policy", env=env)
        with pytest.raises(DatasetError):
            make_device("replay", env=env, file=tmp_path / "none.hdf5")
        with pytest.raises(DeviceError, match="holds the episodes 0 to 1, received 2"):
            make_device("replay", env=env, file=recorded, episode=2)
