"""Files as other people's tools write them, written down from their public sources and independently of our readers.

Each writer takes a path and a number of episodes and returns what it recorded: a list of dictionaries of arrays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Recorded = list[dict[str, np.ndarray]]
STEPS = 12


def robomimic(
    path: Path,
    *,
    episodes: int = 3,
    steps: int = STEPS,
    action: Callable[[np.random.Generator, int], Any] | None = None,
    obs: Callable[[np.random.Generator, int], dict[str, Any]] | None = None,
    env_args: dict[str, Any] | None = None,
    next_obs: bool = True,
    flags: bool = True,
    attrs: dict[str, Any] | None = None,
) -> Recorded:
    """robomimic 0.1 to 0.5: one group per episode, flags, obs and next_obs side by side; next_obs is one row on."""
    rng = np.random.default_rng(0)
    recorded: Recorded = []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = episodes * steps
        args = {"env_name": "Lift", "type": 1, "env_kwargs": {"control_freq": 20}} if env_args is None else env_args
        data.attrs["env_args"] = json.dumps(args)
        for i in range(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = steps
            for name, value in (attrs or {}).items():
                demo.attrs[name] = value
            actions = action(rng, steps) if action else rng.uniform(-1, 1, (steps, 4))
            demo["actions"] = actions
            if flags:
                demo["rewards"] = np.r_[np.zeros(steps - 1), 1.0]
                demo["dones"] = np.r_[np.zeros(steps - 1), 1].astype(np.int64)
            frames = obs(rng, steps + 1) if obs else {"eef": rng.normal(size=(steps + 1, 3))}
            for key, value in frames.items():
                demo[f"obs/{key}"] = value[:-1]
                if next_obs:
                    demo[f"next_obs/{key}"] = value[1:]
            recorded.append({"actions": np.asarray(actions), **{key: np.asarray(v) for key, v in frames.items()}})
    return recorded


def robosuite(path: Path, episodes: int = 2) -> Recorded:
    """collect_human_demonstrations.py: states and actions, demo_1 first, no lengths, no observations, no env_args."""
    rng = np.random.default_rng(1)
    recorded: Recorded = []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["date"], data.attrs["env"] = "1-2-2026", "Stack"
        data.attrs["env_info"] = json.dumps({"robots": "Panda"})
        for i in range(1, episodes + 1):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["model_file"] = "<mujoco/>"
            values = {"states": rng.normal(size=(STEPS, 32)), "actions": rng.uniform(-1, 1, (STEPS, 7))}
            for name, value in values.items():
                demo[name] = value
            recorded.append(values)
    return recorded


def mimicgen(path: Path, episodes: int = 2) -> Recorded:
    """Generated data: robomimic's layout with datagen_info and where each episode came from."""
    recorded = robomimic(path, episodes=episodes)
    with h5py.File(path, "a") as file:
        for i in range(episodes):
            demo = file[f"data/demo_{i}"]
            demo["datagen_info/eef_pose"] = np.zeros((STEPS, 4, 4))
            demo["datagen_info/object_poses/cube"] = np.zeros((STEPS, 4, 4))
            demo["src_demo_inds"] = np.arange(3)
    return recorded


def libero(path: Path, episodes: int = 2) -> Recorded:
    """LIBERO: 8-bit flags, no next_obs, the instruction in problem_info, attributes of its own."""
    rng = np.random.default_rng(2)
    recorded: Recorded = []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        kwargs = {"control_freq": 20, "camera_names": ["agentview"]}
        data.attrs["env_args"] = json.dumps({"type": 1, "env_name": "Libero_Kitchen", "env_kwargs": kwargs})
        data.attrs["problem_info"] = json.dumps({"problem_name": "p", "language_instruction": "close the drawer"})
        data.attrs["bddl_file_name"] = "kitchen.bddl"
        for i in range(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"], demo.attrs["init_state"] = STEPS, rng.normal(size=9)
            values = {
                "ee_pos": rng.normal(size=(STEPS, 3)),
                "agentview_rgb": rng.integers(0, 255, (STEPS, 32, 32, 3), dtype=np.uint8),
            }
            for key, value in values.items():
                demo[f"obs/{key}"] = value
            actions = rng.uniform(-1, 1, (STEPS, 7))
            demo["actions"], demo["robot_states"] = actions, rng.normal(size=(STEPS, 9))
            demo["states"] = rng.normal(size=(STEPS, 40))
            demo["dones"] = np.r_[np.zeros(STEPS - 1), 1].astype(np.uint8)
            demo["rewards"] = np.r_[np.zeros(STEPS - 1), 1].astype(np.uint8)
            recorded.append({"actions": actions, **values})
    return recorded


def isaac_lab(path: Path, episodes: int = 2) -> Recorded:
    """HDF5DatasetFileHandler: observations and states in groups of groups, the rate in sim_args."""
    rng = np.random.default_rng(3)
    recorded: Recorded = []
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        sim = {"dt": 0.01, "decimation": 5, "render_interval": 5, "num_envs": 1}
        data.attrs["env_args"] = json.dumps({"env_name": "Isaac-Stack-Cube-v0", "type": 2, "sim_args": sim})
        data.attrs["total"] = episodes * STEPS
        for i in range(episodes):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"], demo.attrs["success"], demo.attrs["seed"] = STEPS, np.bool_(i == 0), 7 + i
            values = {
                "policy/eef_pos": rng.normal(size=(STEPS, 3)).astype("f4"),
                "policy/gripper_pos": rng.normal(size=STEPS).astype("f4"),
                "subtask_terms/grasp": rng.random((STEPS, 1)) > 0.5,
            }
            for key, value in values.items():
                demo[f"obs/{key}"] = value
            demo["states/articulation/robot/joint_position"] = rng.normal(size=(STEPS, 9)).astype("f4")
            demo["states/rigid_object/cube/root_pose"] = rng.normal(size=(STEPS, 7)).astype("f4")
            demo["initial_state/articulation/robot/joint_position"] = rng.normal(size=(1, 9)).astype("f4")
            demo["actions"] = rng.uniform(-1, 1, (STEPS, 7)).astype("f4")
            demo["processed_actions"] = rng.uniform(-1, 1, (STEPS, 8)).astype("f4")
            recorded.append({"actions": demo["actions"][()], **values})
    return recorded


def aloha(folder: Path, episodes: int = 2, *, base: bool = False, jpeg: str = "", depth: bool = False) -> Recorded:
    """ACT's episode files; `jpeg` is "padded" or "variable", as ALOHA's successors pack pictures."""
    import cv2

    rng = np.random.default_rng(4)
    folder.mkdir(exist_ok=True)
    recorded: Recorded = []
    for i in range(episodes):
        with h5py.File(folder / f"episode_{i}.hdf5", "w") as file:
            file.attrs["sim"], file.attrs["robot_version"] = False, "v2"
            values = {"action": rng.normal(size=(STEPS, 14)).astype("f4") * 2}
            if base:
                values["base_action"] = rng.normal(size=(STEPS, 2)).astype("f4")
                file["language_raw"] = [b"pick up the cup"]
            for name, value in values.items():
                file[name] = value
            file["observations/qpos"] = qpos = rng.normal(size=(STEPS, 14)).astype("f4")
            smooth = cv2.resize(rng.integers(0, 255, (2, 2, 3), dtype=np.uint8), (64, 48))
            pictures = np.stack([np.roll(smooth, t, axis=1) for t in range(STEPS)])
            place = "observations/images/cam_high"
            if jpeg:
                packed = [cv2.imencode(".jpg", p, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].reshape(-1) for p in pictures]
                file.attrs["compress"] = True
            if jpeg == "padded":
                longest = max(map(len, packed)) + 3
                file[place] = np.stack([np.pad(p, (0, longest - len(p))) for p in packed])
            elif jpeg == "variable":
                data = file.create_dataset(place, (STEPS,), dtype=h5py.vlen_dtype(np.uint8))
                for t, p in enumerate(packed):
                    data[t] = p
            else:
                file[place] = pictures
            if depth:
                file["observations/images_depth/cam_high"] = rng.integers(400, 4000, (STEPS, 48, 64), dtype=np.uint16)
            file["unknown/tactile"] = np.zeros((STEPS, 5))
            recorded.append({**values, "qpos": qpos, "cam_high": pictures})
    return recorded


def minari(folder: Path, *, episodes: int = 2, nested: bool = True, high: float = 2.0) -> None:
    """A dataset as the minari package stores it, with nested observations or a bare Box."""
    import gymnasium as gym
    from minari.data_collector import EpisodeBuffer
    from minari.dataset.minari_storage import MinariStorage

    rng = np.random.default_rng(5)
    box = gym.spaces.Box(-9, 9, (3,))
    (folder / "data").mkdir(parents=True)
    storage = MinariStorage.new(
        folder / "data",
        observation_space=gym.spaces.Dict({"arm": gym.spaces.Dict({"q": box})}) if nested else box,
        action_space=gym.spaces.Box(-high, high, (2,)),
        jpeg_encoding=False,
    )
    storage.update_metadata({"dataset_id": "lab/reach-v0", "minari_version": "0.5.4"})
    for i in range(episodes):
        q = rng.uniform(-1, 1, (STEPS + 1, 3)).astype(np.float32)
        buffer = EpisodeBuffer(
            id=i,
            seed=i,
            observations={"arm": {"q": q}} if nested else q,
            actions=rng.uniform(-high, high, (STEPS, 2)).astype(np.float32),
            rewards=np.zeros(STEPS),
            terminations=np.zeros(STEPS, bool),
            truncations=np.arange(STEPS) == STEPS - 1,
            infos={"success": np.arange(STEPS + 1) == STEPS, "contact": np.zeros((STEPS + 1, 4))},
        )
        storage.update_episodes([buffer])
