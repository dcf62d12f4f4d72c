"""How often the scripted experts solve their tasks: 500 seeds each, with Wilson's 95% interval.

    python -m benchmarks.experts [--tasks Lift,Stack] [--episodes 500]

Writes benchmarks/results/experts.json and the table of docs/tasks.md.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from benchmarks._report import SuccessRow, write
from robolearn.tasks import registry

FIRST_SEED = 10_000
GOALS = {"PushT": 0.90}
GOAL = 0.98
CONTROL_HZ = 20.0
DOCS = Path(__file__).parent.parent / "docs" / "tasks.md"
BEGIN, END = "<!-- experts: written by benchmarks/experts.py -->", "<!-- end -->"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", default=",".join(registry.own_names()))
    parser.add_argument("--episodes", type=int, default=500)
    args = parser.parse_args()
    start = time.perf_counter()
    rows = [measure(name, args.episodes) for name in args.tasks.split(",")]
    write("experts", rows, seconds=time.perf_counter() - start)
    if args.episodes >= 500 and {row.case for row in rows} == set(registry.own_names()):
        write_table(rows)


def measure(name: str, episodes: int) -> SuccessRow:
    """One row: the expert of task `name` over `episodes` consecutive seeds."""
    seeds = range(FIRST_SEED, FIRST_SEED + episodes)
    solved, steps = rollout(name, seeds)
    seconds = steps[solved].double().mean().item() / CONTROL_HZ
    note = f"{seconds:.1f} s to success on average"
    row = SuccessRow.of(name, int(solved.sum()), episodes, seeds, goal=GOALS.get(name, GOAL), note=note)
    print(f"{name}: {row.successes}/{episodes}, {note}", flush=True)
    return row


def rollout(name: str, seeds: range, num_envs: int = 125) -> tuple[torch.Tensor, torch.Tensor]:
    """Success (E,) bool and length in steps (E,) of the expert's episode for every seed."""
    solved, steps = [], []
    for first in range(0, len(seeds), num_envs):
        batch = list(seeds[first : first + num_envs])
        env = registry.task_factory(name)(len(batch))
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


def write_table(rows: list[SuccessRow]) -> None:
    """Put the measured figures into docs/tasks.md, between its markers."""
    lines = ["| task | expert solves | 95% interval | mean time to success |", "|---|---|---|---|"]
    for row in rows:
        rate = f"{row.successes}/{row.episodes} ({100 * row.ours:.1f}%)"
        interval = f"{100 * row.low:.1f} to {100 * row.high:.1f}%"
        lines.append(f"| `{row.case}` | {rate} | {interval} | {row.note.split()[0]} s |")
    text = DOCS.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    DOCS.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
