"""Updates/s of every expressive policy in the training loop against the bare network step of the same run.

    python -m benchmarks.policy_train [--rounds 5] [--seconds 6] [--cases flow,images]

As `benchmarks.train_bc`, which measures the simple heads; here the published sizes of the others, and images from an
HDF5 file: two cameras of 84 x 84 pixels, decoded while the network works.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import write
from benchmarks.train_bc import measure, write_dataset
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, ObservationSpec
from robolearn.training.threads import start_thread_pool

CHUNK = {"obs_steps": 2, "pred_steps": 16, "exec_steps": 8, "backbone": {"name": "mlp", "hidden_sizes": [256]}}
LOW_DIM: dict[str, dict[str, Any]] = {
    "autoregressive, chunk 8, batch 256": {
        "policy": {**CHUNK, "pred_steps": 8, "head": {"name": "autoregressive"}},
    },
    "mixture, transformer 6x512, 10 observations, batch 100 (robomimic's BC-Transformer-GMM)": {
        "policy": {"obs_steps": 10, "backbone": {"name": "transformer"}},
        "batch_size": 100,
    },
    "diffusion, MLP 3x512, batch 256": {
        "policy": {**CHUNK, "head": {"name": "diffusion", "network": {"name": "mlp", "width": 512}}},
    },
    "diffusion, U-Net 256-512-1024, batch 64": {
        "policy": {**CHUNK, "head": {"name": "diffusion", "network": {"name": "unet"}}},
        "batch_size": 64,
    },
    "diffusion, transformer 8x256, batch 64": {
        "policy": {**CHUNK, "head": {"name": "diffusion", "network": {"name": "transformer"}}},
        "batch_size": 64,
    },
    "flow, MLP 3x512, batch 256": {
        "policy": {**CHUNK, "head": {"name": "flow", "network": {"name": "mlp", "width": 512}}},
    },
    "ACT 4+7x512, chunk 50, batch 8": {
        "policy": {**CHUNK, "obs_steps": 1, "pred_steps": 50, "head": {"name": "act"}},
        "batch_size": 8,
    },
}
IMAGES = "images: mixture, 2 cameras of 84 x 84, ResNet-18, batch 16"
IMAGE_POLICY: dict[str, Any] = {"policy": {"obs_steps": 1, "pred_steps": 8, "exec_steps": 4}, "batch_size": 16}
IMAGE_GOAL = 0.9
EPISODES, STEPS = 8, 50


def main() -> None:
    start_thread_pool()  # as a run does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="of each block")
    parser.add_argument("--cases", default="", help="beginnings of cases, comma-separated; empty for all")
    args = parser.parse_args()
    wanted = tuple(args.cases.split(","))
    began = time.perf_counter()
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        states, images = write_dataset(Path(scratch) / "states.hdf5"), Path(scratch) / "images.hdf5"
        for case, values in LOW_DIM.items():
            if case.startswith(wanted):
                rows.append(measure(case, states, values, args.rounds, args.seconds))
        if IMAGES.startswith(wanted):
            write_images(images)
            rows.append(measure(IMAGES, images, IMAGE_POLICY, args.rounds, args.seconds, goal=IMAGE_GOAL))
    write("policy_train", rows, seconds=time.perf_counter() - began, speed=True)


def write_images(path: Path) -> None:
    """Smooth pictures that move, so that compressing them is neither trivial nor hopeless."""
    camera = ArraySpec(shape=(84, 84, 3), dtype="uint8")
    rng = np.random.default_rng(0)
    ended = np.arange(STEPS) == STEPS - 1
    rows, columns = np.meshgrid(np.arange(84), np.arange(84), indexing="ij")
    with DatasetWriter(
        path,
        task="noise",
        env_args={"env_name": "noise", "type": 3, "env_kwargs": {}},
        control_hz=20.0,
        action_spec=ActionSpec(low=(-1.0,) * 4, high=(1.0,) * 4),
        observation_spec=ObservationSpec({"front": camera, "state": ArraySpec(shape=(9,)), "wrist": camera}),
    ) as writer:
        for seed in range(EPISODES):
            waves = [np.sin((rows + columns * s) / (6 + s) + t / 5) for t in range(STEPS + 1) for s in range(3)]
            pictures = (127 + 80 * np.stack(waves, -1)).reshape(84, 84, STEPS + 1, 3).transpose(2, 0, 1, 3)
            pictures = (pictures + rng.normal(scale=2, size=pictures.shape)).clip(0, 255).astype(np.uint8)
            obs = {"front": pictures, "state": rng.normal(size=(STEPS + 1, 9)).astype(np.float32), "wrist": pictures}
            writer.write_episode(
                Episode(
                    info=EpisodeInfo(success=True, seed=seed),
                    obs={key: value[:-1] for key, value in obs.items()},
                    final_obs={key: value[-1] for key, value in obs.items()},
                    actions=rng.uniform(-1, 1, size=(STEPS, 4)).astype(np.float32),
                    rewards=np.zeros(STEPS, np.float32),
                    terminated=ended,
                    truncated=np.zeros(STEPS, bool),
                    timestamps=np.arange(STEPS) * 0.05,
                )
            )


if __name__ == "__main__":
    main()
