"""Recording two cameras of 640x480 and state at 50 Hz: rates, what a step blocks the control loop, nothing dropped.

python -m benchmarks.record [--seconds 20]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._report import Row, write
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.datasets.tools.validate import validate
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

HEIGHT, WIDTH, HZ = 480, 640, 50.0
SPEC = ObservationSpec(
    {
        "state": ArraySpec(shape=(39,)),
        "front": ArraySpec(shape=(HEIGHT, WIDTH, 3), dtype="uint8"),
        "wrist": ArraySpec(shape=(HEIGHT, WIDTH, 3), dtype="uint8"),
    }
)
ACTION = ActionSpec(low=(-1.0,) * 7, high=(1.0,) * 7)
GOAL_P99_MS = 2.0


def frames(count: int, seed: int) -> list[np.ndarray]:
    """Pictures like a camera's: a lit background, things that move, sensor noise of one grey level."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    background = np.stack([90 + y / 6, 80 + x / 8, 110 + (x + y) / 12], axis=-1)
    pictures = []
    for t in range(count):
        picture = background.copy()
        for number in range(6):
            cx = WIDTH * (0.5 + 0.4 * np.sin(0.05 * t + number))
            cy = HEIGHT * (0.5 + 0.4 * np.cos(0.04 * t + 2 * number))
            inside = (x - cx) ** 2 + (y - cy) ** 2 < (20 + 8 * number) ** 2
            picture[inside] = (40 * number, 200 - 30 * number, 60 + 20 * number)
        noisy = picture + rng.normal(0.0, 1.0, picture.shape)
        pictures.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return pictures


def record(path: Path, seconds: float) -> tuple[np.ndarray, float, dict[str, float], int]:
    """Blocking times of each step in s, seconds per commit, the writer's figures, late ticks."""
    front, wrist = frames(50, 0), frames(50, 1)
    rng = np.random.default_rng(2)
    steps = int(seconds * HZ)
    blocked = np.zeros(steps)
    late = 0
    with DatasetWriter(
        path,
        task="benchmark",
        env_args={"env_name": "benchmark", "type": 3, "env_kwargs": {}},
        control_hz=HZ,
        action_spec=ACTION,
        observation_spec=SPEC,
    ) as writer:
        episode = writer.begin_episode(seed=0)
        began = time.perf_counter()
        for t in range(steps):
            obs = {"state": rng.normal(size=39).astype(np.float32), "front": front[t % 50], "wrist": wrist[-t % 50]}
            action = np.tanh(rng.normal(size=7))
            due = began + t / HZ
            late += time.perf_counter() > due + 0.5 / HZ
            time.sleep(max(0.0, due - time.perf_counter()))
            called = time.perf_counter()
            episode.add_step(obs, action, 0.0, False, t == steps - 1, called - began)
            blocked[t] = time.perf_counter() - called
        elapsed = time.perf_counter() - began
        called = time.perf_counter()
        episode.commit(obs, success=True)
        commit = time.perf_counter() - called
        stats = writer.stats
        figures = {
            "steps/s": steps / elapsed,
            "raw bytes/s": stats.raw_bytes / elapsed,
            "stored bytes/s": stats.stored_bytes / elapsed,
            "ratio": stats.stored_bytes / stats.raw_bytes,
            "blocked steps": stats.blocked_steps,
            "uncompressed": stats.uncompressed_frames / stats.frames,
        }
    return blocked, commit, figures, late


def raw_write(path: Path, data: bytes, total: int) -> float:
    """The floor: bytes per second that the disk takes from a plain, synced write."""
    began = time.perf_counter()
    with path.open("wb") as file:
        for _ in range(max(1, total // len(data))):
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return max(1, total // len(data)) * len(data) / (time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    seconds = parser.parse_args().seconds
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "d.hdf5"
        blocked, commit, figures, late = record(path, seconds)
        assert validate(path) == []
        with Dataset(path) as dataset:
            kept = sum(dataset.lengths)
        dropped = len(blocked) - kept
        noise = np.random.default_rng(0).bytes(1 << 20)
        floor = raw_write(Path(folder) / "raw", noise, int(figures["stored bytes/s"] * seconds))
    case = "2 cameras 640x480 + state at 50 Hz"
    share = f"stored {figures['ratio']:.2f} of the raw bytes; {figures['uncompressed']:.1%} of frames uncompressed"
    rows = [
        Row(case=f"{case}: steps", unit="steps/s", ours=figures["steps/s"], goal=0.99 * HZ, note=f"{late} late ticks"),
        Row(case=f"{case}: pixels in", unit="MB/s", ours=figures["raw bytes/s"] / 1e6, note=share),
        Row(
            case=f"{case}: bytes to disk",
            unit="MB/s",
            ours=figures["stored bytes/s"] / 1e6,
            floor=floor / 1e6,
            floor_name="raw write and fsync",
            better="lower",
            note="the disk's share that recording takes",
        ),
        Row(
            case=f"{case}: add_step blocks, p99",
            unit="ms",
            ours=float(np.quantile(blocked, 0.99)) * 1e3,
            goal=GOAL_P99_MS,
            better="lower",
            note=f"median {np.median(blocked) * 1e3:.2f} ms, max {blocked.max() * 1e3:.2f} ms",
        ),
        Row(case=f"{case}: steps dropped", unit="steps", ours=float(dropped), goal=0.0, better="lower"),
        Row(case=f"{case}: commit", unit="s", ours=commit, better="lower", note=f"an episode of {seconds:g} s"),
    ]
    write("record", rows, seconds=time.perf_counter() - began, speed=True)


if __name__ == "__main__":
    main()
