"""Files and environments of other tools as they really are: written by the tool, converted, trained on, evaluated.

Tools that the lock does not hold are installed into build/others/<tool>, once, with what they need; where that cannot
be done the test is skipped.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import h5py
import numpy as np
import pytest

from robolearn.cli.main import main
from robolearn.configuration.parts.reading import Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SMALL = ("--policy.backbone.hidden_sizes", "16", "--batch_size", "32", "--loop.total_steps", "20")
EVAL = ("--episodes", "2", "--num_envs", "2", "--videos", "0")


def tool(name: str, *packages: str) -> Path:
    """Return a Python with `packages`, and after them all that this one has; skips where they cannot be installed."""
    folder = ROOT / "build" / "others" / name
    python, ready = folder / "bin" / "python", folder / ".ready"
    wanted = json.dumps(packages)
    if ready.exists() and ready.read_text() == wanted:
        return python
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    for command in ([sys.executable, "-m", "venv", "--clear", folder], install):
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{name} cannot be installed: {done.stderr.strip().splitlines()[-1][:200]}")
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "after.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n")
    ready.write_text(wanted)
    return python


def run(python: Path, *words: object, code: str = "", cwd: Path, **environment: str) -> str:
    """Run a program in another Python, robolearn's where `code` is empty; returns what it printed."""
    command = [python, "-c", code] if code else [python, "-m", "robolearn"]
    variables = os.environ | {"PYTHONPATH": f"{ROOT}:{cwd}", "OMP_NUM_THREADS": "1", "MUJOCO_GL": "egl"} | environment
    done = subprocess.run(
        list(map(str, [*command, *words])), capture_output=True, text=True, check=False, cwd=cwd, env=variables
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


MINARI = """
import sys
import gymnasium, gymnasium_robotics, minari

gymnasium.register_envs(gymnasium_robotics)
env = minari.DataCollector(gymnasium.make(sys.argv[1]))
env.action_space.seed(0)
for seed in range(3):
    env.reset(seed=seed)
    over = False
    while not over:
        _, _, terminated, truncated, _ = env.step(env.action_space.sample())
        over = terminated or truncated
env.create_dataset("test/one-v0", algorithm_name="random", author="test", code_permalink="none")
"""


@pytest.mark.parametrize("env_id", ["Reacher-v5", "FetchReach-v4"])
def test_minari_records_gymnasium_and_gymnasium_robotics(
    env_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tool("minari", "minari[create]==0.5.4", "gymnasium-robotics==1.4.2", "gymnasium==1.4.0", "mujoco==3.11.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    run(python, env_id, code=MINARI, cwd=tmp_path)
    assert main(["dataset", "convert", "minari:test/one-v0", "ours.hdf5"]) == 0
    assert main(["dataset", "convert", str(tmp_path / "minari" / "test" / "one-v0"), "again.hdf5"]) == 0
    assert validate("ours.hdf5") == []
    with Dataset("ours.hdf5") as ours, Dataset("again.hdf5") as again:
        assert ours.header == again.header
        assert [info.seed for info in ours.info] == [0, 1, 2]
    assert main(["train", "--dataset", "ours.hdf5", *SMALL, "--output", "run"]) == 0
    assert main(["eval", "run", *EVAL, "--output", "eval"]) == 0
    figures = json.loads(Path("eval/run.json").read_text())
    assert figures["env_args"]["env_name"] == env_id


PUSHT_EXPERT = """
import numpy as np

def wander(obs):
    state = obs["state"] if isinstance(obs, dict) else obs
    return np.clip(np.array([256.0, 256.0]) + 0.5 * (state[:2] - 256.0), 0.0, 512.0)
"""


def test_gym_pusht(tmp_path: Path) -> None:
    python = tool("gym_pusht", "gym-pusht", "pymunk<7")
    (tmp_path / "experts.py").write_text(PUSHT_EXPERT)
    task = ("--task", "gym:gym_pusht:gym_pusht/PushT-v0", "--task.max_steps", 20)
    record = ("record", "demos.hdf5", *task, "--expert", "experts:wander", "--episodes", 2, "--keep_failures")
    run(python, *record, cwd=tmp_path)
    with Dataset(tmp_path / "demos.hdf5") as dataset:
        assert (dataset.action_spec.low, dataset.action_spec.high) == ((0.0, 0.0), (512.0, 512.0))
        assert dataset.control_hz == 10.0
        physical = dataset.action_spec.to_physical(dataset.read(0).actions)
        state = dataset.read(0).obs["state"]
    np.testing.assert_allclose(physical, 256.0 + 0.5 * (state[:, :2] - 256.0), atol=0.01)
    run(python, "train", "--dataset", "demos.hdf5", *SMALL, "--output", "run", cwd=tmp_path)
    assert "/2 solved" in run(python, "eval", "run", *EVAL, "--output", "eval", cwd=tmp_path)


ALOHA = """
import gymnasium, gym_aloha, h5py, numpy as np, sys

env = gymnasium.make("gym_aloha/AlohaTransferCube-v0", obs_type="pixels_agent_pos")
rng = np.random.default_rng(0)
for i in range(2):
    obs, _ = env.reset(seed=i)
    qpos, pictures, actions = [], [], []
    for t in range(6):
        action = np.clip(obs["agent_pos"] + rng.uniform(-0.05, 0.05, 14), -1, 1).astype("f4")
        qpos.append(obs["agent_pos"]); pictures.append(obs["pixels"]["top"]); actions.append(action)
        obs = env.step(action)[0]
    with h5py.File(f"{sys.argv[1]}/episode_{i}.hdf5", "w") as file:  # as ACT's record_sim_episodes.py lays it out
        file.attrs["sim"] = True
        file["action"] = np.stack(actions)
        file["observations/qpos"] = np.stack(qpos)
        file["observations/qvel"] = np.zeros((6, 14))
        file["observations/images/top"] = np.stack(pictures)
"""


def test_gym_aloha(tmp_path: Path) -> None:
    """Episodes of ALOHA's simulation in ACT's layout; a policy of theirs drives the simulation by a stated mapping."""
    python = tool("gym_aloha", "gym-aloha")
    (tmp_path / "cube").mkdir()
    run(python, "cube", code=ALOHA, cwd=tmp_path)
    assert main(["dataset", "convert", str(tmp_path / "cube"), str(tmp_path / "ours.hdf5"), "--limits", "-1", "1"]) == 0
    assert validate(tmp_path / "ours.hdf5") == []
    with h5py.File(tmp_path / "cube" / "episode_1.hdf5") as theirs, Dataset(tmp_path / "ours.hdf5") as ours:
        assert np.array_equal(ours.read(1).obs["top"], theirs["observations/images/top"][:-1])
    small = ("--policy.backbone.hidden_sizes", 8, "--batch_size", 2, "--loop.total_steps", 2)
    run(python, "train", "--dataset", "ours.hdf5", "--drop", "qvel", *small, "--output", "run", cwd=tmp_path)
    task = ("--task", "gym:gym_aloha:gym_aloha/AlohaTransferCube-v0", "--task.max_steps", 3)
    task += ("--task.kwargs.obs_type", "pixels_agent_pos", "--task.rename", "{agent_pos: qpos, pixels/top: top}")
    assert "/2 solved" in run(python, "eval", "run", *task, *EVAL, "--output", "eval", cwd=tmp_path)


ROBOSUITE = """
import json, sys
import numpy as np
import robosuite
from robosuite.controllers import load_composite_controller_config
from robosuite.scripts.collect_human_demonstrations import gather_demonstrations_as_hdf5
from robosuite.wrappers import DataCollectionWrapper

config = {"env_name": "Lift", "robots": "Panda", "controller_configs": load_composite_controller_config(robot="Panda")}
env = robosuite.make(**config, has_renderer=False, has_offscreen_renderer=False, ignore_done=True, use_camera_obs=False,
                     reward_shaping=True, control_freq=20, hard_reset=False)
env._check_success = lambda: True  # random motion solves nothing, and only successes are gathered
env = DataCollectionWrapper(env, sys.argv[1] + "/raw")
rng = np.random.default_rng(0)
for _ in range(2):
    env.reset()
    for _ in range(12):
        env.step(rng.uniform(-0.5, 0.5, env.action_dim))
env.close()
gather_demonstrations_as_hdf5(sys.argv[1] + "/raw", sys.argv[1], json.dumps(config | {"control_freq": 20}))
"""
ROBOMIMIC = """
import runpy, sys, types

# robomimic 0.3 names an exception of the bindings before MuJoCo's own, which nobody can install any more.
sys.modules["mujoco_py"] = types.SimpleNamespace(builder=types.SimpleNamespace(MujocoException=RuntimeError))
sys.argv[0] = "robomimic"
runpy.run_module("robomimic.scripts." + sys.argv.pop(1), run_name="__main__")
"""


ROBOSUITE_ENV = """
import gymnasium, robosuite
from robosuite.wrappers import GymWrapper

KEYS = ["robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"]


class Lift(gymnasium.Env):
    def __init__(self):
        options = dict(has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False, hard_reset=False)
        env = robosuite.make("Lift", robots="Panda", control_freq=20, horizon=100, **options)
        self.inner, self.control_freq = GymWrapper(env, keys=KEYS, flatten_obs=False), 20
        self.observation_space, self.action_space = self.inner.observation_space, self.inner.action_space

    def reset(self, *, seed=None, options=None):
        return self.inner.reset(seed=seed)

    def step(self, action):
        return self.inner.step(action)


gymnasium.register("Lift-v0", entry_point=Lift, max_episode_steps=10)
"""


def test_robosuite_and_robomimic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """robosuite records states, robomimic makes observations of them and splits the file; we read all three."""
    python = tool("robosuite", "robosuite==1.5.2", "robomimic==0.3.0", "mujoco==3.3.7")
    run(python, tmp_path, code=ROBOSUITE, cwd=tmp_path)
    states = tmp_path / "demo.hdf5"
    with Dataset(states, reading=Reading(control_hz=20.0)) as dataset:
        assert (len(dataset), dataset.lengths, dataset.action_spec.size) == (2, (12, 12), 7)
        assert list(dataset.observation_spec) == ["states"]
        assert "Lift" in str(dataset.env_args["env_name"])
    run(python, "conversion.convert_robosuite", "--dataset", states, code=ROBOMIMIC, cwd=tmp_path)
    extract = ("dataset_states_to_obs", "--dataset", states, "--output_name", "low_dim.hdf5", "--done_mode", 2)
    run(python, *extract, code=ROBOMIMIC, cwd=tmp_path)
    split = ("split_train_val", "--dataset", tmp_path / "low_dim.hdf5", "--ratio", 0.5)
    run(python, *split, code=ROBOMIMIC, cwd=tmp_path)
    assert main(["dataset", "convert", str(tmp_path / "low_dim.hdf5"), str(tmp_path / "ours.hdf5")]) == 0
    assert validate(tmp_path / "ours.hdf5") == []
    with h5py.File(tmp_path / "low_dim.hdf5") as theirs, Dataset(tmp_path / "ours.hdf5") as ours:
        assert {name: len(demos) for name, demos in ours.masks.items()} == {"train": 1, "valid": 1}
        assert ours.control_hz == 20.0
        first = min(theirs["data"])  # robosuite counts from 1, we count from 0
        for key in theirs[f"data/{first}/obs"]:
            assert np.allclose(ours.read(0).obs[key], theirs[f"data/{first}/obs/{key}"])
        assert np.array_equal(ours.read(0).states, theirs[f"data/{first}/states"])
    (tmp_path / "lift_of_robosuite.py").write_text(ROBOSUITE_ENV)
    keys = ("--policy.obs_keys", "robot0_eef_pos,robot0_eef_quat,robot0_gripper_qpos")
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--dataset", "ours.hdf5", *keys, *SMALL, "--output", "run"]) == 0
    assert main(["eval", "run"]) == 2
    assert "Lift of robosuite, which robolearn cannot make" in capsys.readouterr().err
    task = ("--task", "gym:lift_of_robosuite:Lift-v0", "--task.worker_kind", "sync")
    assert "/2 solved" in run(python, "eval", "run", *task, *EVAL, "--output", "eval", cwd=tmp_path)
