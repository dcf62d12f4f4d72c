"""Behaviour cloning: updates/s of our whole loop against the bare network step of the same run.

    python -m benchmarks.train_bc [--rounds 7] [--seconds 4]

The loop draws fresh windows from a file (39 observations, 4 actions: the size of a Meta-World task), updates, averages
weights, watches and logs. The floor is forward, backward and a fused AdamW step of an identical network on one fixed
batch, nothing else. Both alternate in short blocks, so that what else the machine does meets both.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._report import Row, write
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.tree import from_dict
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.imitation.bc import BehaviourCloning, DatasetSource, make_policy, make_sampler
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec, ArraySpec, Batch, Episode, EpisodeInfo, ObservationSpec
from robolearn.training.loop import run_loop
from robolearn.training.threads import fitting_threads, flushed_denormals, start_thread_pool
from robolearn.training.torch_device import resolve_device

EPISODES, STEPS, OBSERVATION, ACTION = 100, 54, 39, 4
GOAL = 0.97
CASES: dict[str, dict[str, Any]] = {
    "mixture, MLP 2x256, batch 256": {"policy": {"backbone": {"name": "mlp", "hidden_sizes": [256, 256]}}},
    "mixture, MLP 2x1024, batch 100 (robomimic's BC-GMM)": {
        "policy": {"backbone": {"name": "mlp", "hidden_sizes": [1024, 1024]}},
        "batch_size": 100,
    },
    "mixture, LSTM 2x400, 10 observations, batch 100 (robomimic's BC-RNN-GMM)": {
        "policy": {"obs_steps": 10, "backbone": {"name": "lstm", "hidden_size": 400, "num_layers": 2}},
        "batch_size": 100,
    },
}


def main() -> None:
    start_thread_pool()  # as a run does
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each block")
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        path = write_dataset(Path(scratch) / "data.hdf5")
        rows = [measure(case, path, values, args.rounds, args.seconds) for case, values in CASES.items()]
    write("train_bc", rows, seconds=time.perf_counter() - began, speed=True)


def measure(case: str, path: Path, values: dict[str, Any], rounds: int, seconds: float, *, goal: float = GOAL) -> Row:
    """One row: medians over the rounds."""
    config = from_dict(BCConfig, {"dataset": [str(path)], "loop": {"checkpoint_every": 0}, **values})
    with Dataset(config.dataset) as dataset:
        bench = Bench.make(config, dataset)
        with fitting_threads(bench.policy, rows=bench.config.batch_size):
            steps = max(20, int(seconds / (bench.floor(20) / 20)))
            bench.loop(20)
            times = [(bench.loop(steps), bench.floor(steps)) for _ in range(rounds)]
    ours, floor = (steps / statistics.median(column) for column in zip(*times))
    ratio = statistics.median(floor_s / loop_s for loop_s, floor_s in times)
    print(f"{case}: {ours:.1f} updates/s, bare step {floor:.1f}, ratio {ratio:.3f}", flush=True)
    return Row(
        case=case,
        unit="ratio to the bare step",
        ours=ratio,
        goal=goal,
        note=f"{ours:.1f} updates/s, bare step {floor:.1f}; median of {rounds} alternating blocks of {steps} updates",
    )


@dataclass
class Bench:
    """The loop and the floor on networks that start alike."""

    config: BCConfig
    algorithm: BehaviourCloning
    source: DatasetSource
    policy: Policy
    batch: Batch
    optimiser: torch.optim.Optimizer
    scratch: tempfile.TemporaryDirectory[str] = field(default_factory=tempfile.TemporaryDirectory)
    runs: int = 0

    @classmethod
    def make(cls, config: BCConfig, dataset: Dataset) -> Bench:
        device = resolve_device(config.device)
        policy = make_policy(config, dataset).to(device)
        source = DatasetSource(dataset, make_sampler(dataset, policy.config, config, device, config.batch_size))
        bare = copy.deepcopy(policy)
        return cls(
            config=config,
            algorithm=BehaviourCloning(policy, config.optimiser, config.loop.total_steps),
            source=source,
            policy=bare,
            batch=source.next(),
            optimiser=torch.optim.AdamW(bare.parameters(), lr=1e-4, fused=True),
        )

    def loop(self, steps: int) -> float:
        """Seconds of `steps` updates in the training loop, a fresh run folder each time."""
        self.runs += 1
        config = LoopConfig(total_steps=steps, log_every=100, evaluate_every=0, checkpoint_every=0)
        run_dir = Path(self.scratch.name) / str(self.runs)
        return self._seconds(lambda: run_loop(self.algorithm, self.source, config=config, run_dir=run_dir).time_s)

    def floor(self, steps: int) -> float:
        """Seconds of `steps` bare updates."""

        def run() -> float:
            start = time.perf_counter()
            with flushed_denormals():
                for _ in range(steps):
                    loss, _ = self.policy.loss(self.batch)
                    self.optimiser.zero_grad()
                    loss.backward()
                    self.optimiser.step()
            return time.perf_counter() - start

        return self._seconds(run)

    def _seconds(self, run: Callable[[], float]) -> float:
        elapsed = run()
        if torch.cuda.is_available():
            start = time.perf_counter()
            torch.cuda.synchronize()
            elapsed += time.perf_counter() - start
        return elapsed


def write_dataset(path: Path) -> Path:
    """Noise of the right size: what is learned does not matter to the speed."""
    rng = np.random.default_rng(0)
    ended = np.arange(STEPS) == STEPS - 1
    with DatasetWriter(
        path,
        task="noise",
        env_args={"env_name": "noise", "type": 3, "env_kwargs": {}},
        control_hz=20.0,
        action_spec=ActionSpec(low=(-1.0,) * ACTION, high=(1.0,) * ACTION),
        observation_spec=ObservationSpec({"state": ArraySpec(shape=(OBSERVATION,))}),
    ) as writer:
        for seed in range(EPISODES):
            states = rng.normal(size=(STEPS + 1, OBSERVATION)).astype(np.float32)
            writer.write_episode(
                Episode(
                    info=EpisodeInfo(success=True, seed=seed),
                    obs={"state": states[:-1]},
                    final_obs={"state": states[-1]},
                    actions=rng.uniform(-1, 1, size=(STEPS, ACTION)).astype(np.float32),
                    rewards=np.zeros(STEPS, np.float32),
                    terminated=ended,
                    truncated=np.zeros(STEPS, bool),
                    timestamps=np.arange(STEPS) * 0.05,
                )
            )
    return path


if __name__ == "__main__":
    main()
