"""What the loop of fine-tuning costs beyond stepping the environments and updating the networks, on Lift.

    python -m benchmarks.finetune_speed [--rounds 7]

One learner is timed in three ways, in turns: as a run uses it (collect, then update), its environments alone through
the same steps and resets once more, and its gradient steps alone on what was collected. The ratio is that of the first
to the sum of the others, the median over the turns; what it exceeds one by goes into the policy's decisions, windows,
advantages and bookkeeping. PPO as in configs/finetune/lift.yaml; a residual by SAC with demonstrations in half of each
batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._finetune_methods import GAUSSIAN, PPO
from benchmarks._report import Row, write
from benchmarks.finetune import demonstrations
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict
from robolearn.envs.interface import Observation, Step, VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import env_for
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.rl.finetune import prepare
from robolearn.rl.learner import Learner
from robolearn.rl.ways.practice import Practice
from robolearn.training.threads import fitting_threads, start_thread_pool

GOAL = 1.15
BLOCK = 20
"""Off-policy updates in a turn: one is too short to time."""
WAYS: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "PPO, 64 worlds x 64 steps, 5 x 4 gradient steps": ("ppo", PPO | {"target_kl": None, "critic_warmup": 0}, 64, 1),
    "residual by SAC, 8 worlds, half a gradient step each": (
        "residual",
        {"name": "residual", "algorithm": {"collect_steps": 4, "random_steps": 1000, "critic_warmup": 0}},
        8,
        BLOCK,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    began, task = time.perf_counter(), TaskConfig(id="Lift")
    start_thread_pool()  # as a run does
    with tempfile.TemporaryDirectory() as home:
        data = demonstrations(task, Path(home) / "demonstrations.hdf5", 20)
        clone = {"dataset": [str(data)], "policy": GAUSSIAN, "loop": {"total_steps": 200, "tensorboard": False}}
        train_bc(from_dict(BCConfig, clone), Path(home) / "clone")
        rows = [row for case in WAYS for row in way_rows(case, task, Path(home), args.rounds)]
    write("finetune_speed", rows, seconds=time.perf_counter() - began, speed=True)


def way_rows(case: str, task: TaskConfig, home: Path, rounds: int) -> Iterator[Row]:
    name, method, num_envs, block = WAYS[case]
    shown = [str(home / "demonstrations.hdf5")] if name == "residual" else []
    values = {"policy": str(home / "clone" / "policy"), "method": method, "num_envs": num_envs, "demonstrations": shown}
    config = from_dict(FinetuneConfig, values)
    policy = load_policy(config.policy)
    with make(task, num_envs) as made:
        env: Any = Remembering(env_for(policy, made, config.policy))
        learner = prepare(config, policy, Practice(env=env), torch.device("cpu"))
        with fitting_threads(*learner.networks, rows=learner.rows):
            turns = np.array([turn(learner, env, block) for _ in range(rounds + 2)][2:])  # the first ones compile
        learner.close()
    loop, stepping, updating = np.median(turns, axis=0)
    note = f"{loop:.3f} s against {stepping:.3f} s of stepping and {updating:.3f} s of updates"
    ratio = float(np.median(turns[:, 0] / turns[:, 1:].sum(axis=1)))
    yield Row(case=case, unit="ratio to both alone", ours=ratio, floor=1.0, goal=GOAL, better="lower", note=note)


class Remembering:
    """An environment that can be taken through its last steps and resets again."""

    def __init__(self, env: VectorEnv) -> None:
        self.env = env
        self.calls: list[Callable[[], Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.env, name)

    def step(self, *args: Any, **kwargs: Any) -> Step:
        self.calls.append(partial(self.env.step, *args, **kwargs))
        return self.calls[-1]()

    def reset(self, *args: Any, **kwargs: Any) -> Observation:
        self.calls.append(partial(self.env.reset, *args, **kwargs))
        return self.calls[-1]()


def turn(learner: Learner, env: Remembering, block: int) -> tuple[float, float, float]:
    """Return the seconds of `block` iterations, of their environment steps alone, and of their updates alone."""
    batches: list[Any] = []
    states = env.get_states()
    env.calls.clear()

    def iterate() -> None:
        batches.append(learner.source.next())
        learner.algorithm.update(batches[-1])

    loop = seconds(lambda: [iterate() for _ in range(block)])
    env.set_states(states)  # from where the same calls lead to where the learner is
    stepping = seconds(lambda: [call() for call in env.calls])
    updating = seconds(lambda: [learner.algorithm.update(batch) for batch in batches])
    return loop, stepping, updating


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
