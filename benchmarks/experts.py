"""How often the scripted experts solve their tasks: 500 seeds each, with Wilson's 95% interval.

    python -m benchmarks.experts [--tasks Lift,Stack] [--episodes 500]

Writes benchmarks/results/experts.json; benchmarks.tables makes the table of docs/tasks.md from it.
"""

from __future__ import annotations

import argparse
import time

import torch

from benchmarks._report import SuccessRow, write
from robolearn.envs.make import make_task
from robolearn.seeds import ROLLOUT_SEED
from robolearn.tasks import registry

GOAL = 0.98
CONTROL_HZ = 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(registry.own_names()))
    parser.add_argument("--episodes", type=int, default=500)
    args = parser.parse_args()
    start = time.perf_counter()
    rows = [measure(name, args.episodes) for name in args.tasks.split(",")]
    write("experts", rows, seconds=time.perf_counter() - start)


def measure(name: str, episodes: int) -> SuccessRow:
    """One row: the expert of task `name` over `episodes` consecutive seeds."""
    seeds = range(ROLLOUT_SEED, ROLLOUT_SEED + episodes)
    solved, steps = rollout(name, seeds)
    seconds = steps[solved].double().mean().item() / CONTROL_HZ
    note = f"{seconds:.1f} s to success on average"
    row = SuccessRow.of(name, int(solved.sum()), episodes, seeds, goal=GOAL, note=note)
    print(f"{name}: {row.successes}/{episodes}, {note}", flush=True)
    return row


def rollout(name: str, seeds: range, num_envs: int = 125) -> tuple[torch.Tensor, torch.Tensor]:
    """Success (E,) bool and length in steps (E,) of the expert's episode for every seed."""
    solved, steps = [], []
    for first in range(0, len(seeds), num_envs):
        batch = list(seeds[first : first + num_envs])
        env = make_task(name, len(batch))
        expert = env.expert()
        obs = env.reset(batch)
        expert.reset(batch)
        running = torch.ones(len(batch), dtype=torch.bool)
        success, length = torch.zeros_like(running), torch.zeros(len(batch), dtype=torch.long)
        while running.any():
            step = env.step(expert.act(obs), running)
            obs = step.obs
            length += running.long()
            success |= step.success & running
            running &= ~step.done
        env.close()
        solved.append(success)
        steps.append(length)
    return torch.cat(solved), torch.cat(steps)


if __name__ == "__main__":
    main()
