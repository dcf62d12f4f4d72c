"""Training windows per second, against a plain PyTorch DataLoader over the same file and against the bare gather.

python -m benchmarks.sampler
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np
import torch

from benchmarks._report import Row, write
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.datasets.windows import WindowSampler
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, ObservationSpec

EPISODES, STEPS, BATCH = 100, 500, 256
GOAL = 1e6
STATE = ObservationSpec({"state": ArraySpec(shape=(39,))})
CAMERA = ObservationSpec({"state": ArraySpec(shape=(9,)), "camera": ArraySpec(shape=(84, 84, 3), dtype="uint8")})
ACTION = ActionSpec(low=(-1.0,) * 4, high=(1.0,) * 4)
MEASURE_SECONDS = 3.0


class PlainWindows(torch.utils.data.Dataset):
    """What one writes first: arrays in memory, a window per item, the loader's collate."""

    def __init__(self, path: Path, obs_steps: int, pred_steps: int) -> None:
        with h5py.File(path) as file:
            self.obs = [demo["obs/state"][()] for demo in file["data"].values()]
            self.actions = [demo["actions"][()] for demo in file["data"].values()]
        self.index = [(e, t) for e, obs in enumerate(self.obs) for t in range(len(obs))]
        self.before, self.ahead = np.arange(1 - obs_steps, 1), np.arange(1 - obs_steps, pred_steps)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, i: int) -> dict[str, np.ndarray | int]:
        episode, step = self.index[i]
        last = len(self.obs[episode]) - 1
        rows = np.clip(step + self.ahead, 0, last)
        return {
            "obs": self.obs[episode][np.clip(step + self.before, 0, last)],
            "actions": self.actions[episode][rows],
            "valid": rows == step + self.ahead,
            "episodes": episode,
            "steps": step,
        }


def make(path: Path, spec: ObservationSpec, episodes: int, steps: int) -> None:
    rng = np.random.default_rng(0)
    with DatasetWriter(
        path,
        task="benchmark",
        env_args={"env_name": "benchmark", "type": 2, "env_kwargs": {}},
        control_hz=50.0,
        action_spec=ACTION,
        observation_spec=spec,
    ) as writer:
        for seed in range(episodes):
            obs = {key: make_values(rng, array, steps + 1) for key, array in spec.items()}
            writer.write_episode(
                Episode(
                    info=EpisodeInfo(success=True, seed=seed),
                    obs={key: value[:-1] for key, value in obs.items()},
                    final_obs={key: value[-1] for key, value in obs.items()},
                    actions=rng.uniform(-1, 1, (steps, 4)),
                    rewards=np.zeros(steps),
                    terminated=np.arange(steps) == steps - 1,
                    truncated=np.zeros(steps, bool),
                    timestamps=np.arange(steps) / 50.0,
                )
            )


def make_values(rng: np.random.Generator, spec: ArraySpec, rows: int) -> np.ndarray:
    """Random numbers, or pictures of a drifting gradient with a camera's noise of one grey level."""
    if not spec.is_image:
        return rng.normal(size=(rows, *spec.shape)).astype(spec.dtype)
    height, width, _ = spec.shape
    t, y, x = np.ogrid[0:rows, 0:height, 0:width]
    channels = 60 + (y + t) % height, 200 - (x + t) % width, 80 + (x + y) / 2
    smooth = np.stack(np.broadcast_arrays(*channels), axis=-1)
    return np.clip(smooth + rng.normal(size=smooth.shape), 0, 255).astype(np.uint8)


def rate(batches: Iterable[object], size: Callable[[object], int]) -> float:
    """Windows per second, after a warm-up."""
    stream = iter(batches)
    for batch in itertools.islice(stream, 20):
        size(batch)
    windows, began = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < MEASURE_SECONDS:
        for batch in itertools.islice(stream, 16):
            windows += size(batch)
    return windows / elapsed


def bare_gather(path: Path, obs_steps: int, pred_steps: int) -> float:
    """The floor: the two gathers alone, with indices made beforehand."""
    with Dataset(path) as dataset:
        parts = [dataset.arrays(i, ["obs/state", "actions"]) for i in range(len(dataset))]
    obs, actions = (torch.from_numpy(np.concatenate([p[name] for p in parts])) for name in ("obs/state", "actions"))
    generator = torch.Generator().manual_seed(0)
    index = torch.randint(len(obs) - 32, (64, BATCH, 1), generator=generator) + torch.arange(obs_steps - 1 + pred_steps)

    def batches() -> Iterable[torch.Tensor]:
        for rows in itertools.cycle(index):
            yield obs.index_select(0, rows[:, :obs_steps].reshape(-1))
            actions.index_select(0, rows.reshape(-1))

    return rate(batches(), lambda _: BATCH)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    began = time.perf_counter()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        state, camera = Path(folder) / "state.hdf5", Path(folder) / "camera.hdf5"
        make(state, STATE, EPISODES, STEPS)
        for obs_steps, pred_steps in ((1, 1), (2, 16)):
            with Dataset(state) as dataset:
                sampler = WindowSampler(dataset, obs_steps=obs_steps, pred_steps=pred_steps, batch_size=BATCH, seed=0)
                ours = rate(sampler.forever(), len)
            plain = PlainWindows(state, obs_steps, pred_steps)
            loader = torch.utils.data.DataLoader(plain, batch_size=BATCH, shuffle=True, drop_last=True)
            peer = rate(itertools.chain.from_iterable(itertools.repeat(loader)), lambda batch: len(batch["steps"]))
            rows.append(
                Row(
                    case=f"39-dim state, To={obs_steps} Tp={pred_steps}, batches of {BATCH}, one core",
                    unit="windows/s",
                    ours=ours,
                    peer=peer,
                    peer_name="PyTorch DataLoader",
                    floor=bare_gather(state, obs_steps, pred_steps),
                    floor_name="index_select alone",
                    goal=GOAL if obs_steps == 1 else None,
                    note=f"{EPISODES} episodes of {STEPS} steps",
                )
            )
        make(camera, CAMERA, 10, 200)
        peer = rate(hdf5_windows(camera), len)
        for memory, where in ((1 << 30, "in memory"), (0, "streamed from the file")):
            with Dataset(camera) as dataset:
                sampler = WindowSampler(dataset, obs_steps=2, pred_steps=16, batch_size=64, seed=0, image_memory=memory)
                ours = rate(sampler.forever(), len)
            rows.append(
                Row(
                    case=f"84x84 camera and state, To=2 Tp=16, batches of 64, {where}",
                    unit="windows/s",
                    ours=ours,
                    peer=peer,
                    peer_name="h5py slicing",
                    note="gradients with sensor noise; h5py without its chunk cache, which here would hold everything",
                )
            )
    write("sampler", rows, seconds=time.perf_counter() - began, speed=True)


def hdf5_windows(path: Path) -> Iterable[np.ndarray]:
    """Pictures of windows by slicing the HDF5 file, one window at a time."""
    rng = np.random.default_rng(0)
    with h5py.File(path, rdcc_nbytes=0) as file:
        cameras = [demo["obs/camera"] for demo in file["data"].values()]
        while True:
            draws = rng.integers((0, 1), (len(cameras), 200), (64, 2))
            yield np.stack([cameras[e][t - 1 : t + 1] for e, t in draws])


if __name__ == "__main__":
    main()
