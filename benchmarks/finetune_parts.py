"""What each part of fine-tuning is worth: steps of practice until 95% of Lift are solved.

    python -m benchmarks.finetune_parts [--ways ppo,residual] [--seeds 2]

A clone of twenty demonstrations, in chunks of four actions of which two are executed, is fine-tuned by success alone
with all parts, and with one of them left out or changed. A run ends where three evaluations in a row (100 held-out
seeds, every 3 updates of PPO and every 5 of a residual) solve 95% together, or when its updates are spent. Half-done
runs go on; the outcome of every finished one is kept in benchmarks/results/raw/finetune_parts.json and not run again.
Writes benchmarks/results/finetune_parts.json from all outcomes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from torch import Tensor

from benchmarks._finetune_methods import GAUSSIAN, PPO, PROCESSOR, STUDIES, Method
from benchmarks._report import Row, load_runs, save_runs, write
from benchmarks.finetune import Place, cloning, demonstrations, timed
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict
from robolearn.imitation.bc import train_bc
from robolearn.policies.heads.gaussian import DiagonalGaussian
from robolearn.rl.finetune import finetune
from robolearn.training.metrics import read_metrics

TASK, GOAL, IN_A_ROW = "Lift", 0.95, 3
RUNS = Path("runs/finetune_parts")
CHUNKED = GAUSSIAN | {"pred_steps": 4, "exec_steps": 2}
Part = dict[str, Any]
"""`policy`, `method` and whatever else of a run is different."""
WAYS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "ppo": (
        PPO | {"critic_warmup": 4, "prior_coef": 0.01, "prior_decay": 0.98, "cloning_coef": 0.01},
        {"num_envs": 64, "total_steps": 60, "every": 3},
    ),
    "residual": (
        {"name": "residual", "scale": 0.2, "algorithm": {"name": "sac", "gamma": 0.98, "collect_steps": 32}},
        {"num_envs": 16, "total_steps": 100, "every": 5},
    ),
}
"""A method with all its parts, and how long it runs."""
PARTS: dict[str, dict[str, Part]] = {
    "ppo": {
        "all": {},
        "no demonstrations": {"demonstrations": []},
        "no warm-up of the critic": {"method": {"critic_warmup": 0}},
        "no KL to the start": {"method": {"prior_coef": 0.0}},
        "no chunks": {"policy": GAUSSIAN},
        "log-probabilities clamped at 2": {"clamp": 2.0},
    },
    "residual": {
        "all": {},
        "no demonstrations": {"demonstrations": []},
        "no warm-up of the critics": {"method": {"algorithm": {"critic_warmup": 0}}},
        "no chunks": {"policy": GAUSSIAN},
        "with a simulated human": {"corrector": {"expert": "auto"}},
    },
}


class Reached(Exception):
    """Evaluations have solved as much as was wanted."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", default="ppo,residual", help="of ppo, residual")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=None, help="of the physics; none takes one for each core")
    parser.add_argument("--runs", type=Path, default=RUNS)
    args = parser.parse_args()
    if unknown := [way for way in args.ways.split(",") if way not in PARTS]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(PARTS)}")
    began, outcomes = time.perf_counter(), load_runs("finetune_parts")
    place = Place(backend="cpu", device="cpu", workers=args.workers, runs=args.runs)
    for seed in range(args.seeds):
        for way in args.ways.split(","):
            for part in PARTS[way]:
                if (key := f"{way}/{part}/{seed}") not in outcomes:
                    outcome = practise(way, part, place, seed)
                    print(key, outcome, flush=True)
                    outcomes = save_runs("finetune_parts", outcomes | {key: outcome})
    write("finetune_parts", rows(outcomes), seconds=time.perf_counter() - began)


def practise(way: str, name: str, place: Place, seed: int) -> dict[str, Any]:
    """Fine-tune until the goal is reached."""
    (method, scale), part = WAYS[way], PARTS[way][name]
    data, start = cloned(part.get("policy", CHUNKED), place, seed)
    folder = place.runs / f"{way}_{name.replace(' ', '_')}_seed{seed}"
    config = from_dict(
        FinetuneConfig,
        {
            "policy": str(start),
            "method": merged(method, part.get("method", {})),
            "output": str(folder),
            "demonstrations": part.get("demonstrations", [str(data)]),
            "corrector": part.get("corrector"),
            "task": {"id": TASK, "workers": place.workers},
            "max_steps": STUDIES[TASK].max_steps,
            "num_envs": scale["num_envs"],
            "test_episodes": 0,
            "seed": seed,
            "loop": {
                "total_steps": scale["total_steps"],
                "log_every": 1,
                "evaluate_every": scale["every"],
                "checkpoint_every": scale["every"],
                "tensorboard": False,
            },
        },
    )

    earlier = read_metrics(folder) if folder.exists() else []  # of a run that goes on
    solved = {int(row["step"]): row["eval_success"] for row in earlier if "eval_success" in row}

    def told(update: int, metrics: Mapping[str, float]) -> None:
        solved[update] = metrics["eval_success"]
        last = [solved[update] for update in sorted(solved) if update][-IN_A_ROW:]
        if len(last) == IN_A_ROW and np.mean(last) >= GOAL:
            raise Reached

    with clamped(part["clamp"]) if "clamp" in part else nullcontext():
        try:
            finetune(config, folder, resume=True, on_evaluation=told)
            reached = False
        except Reached:
            reached = True
    steps = [row["env_steps"] for row in read_metrics(folder) if "env_steps" in row]
    return {
        "way": way,
        "part": name,
        "seed": seed,
        "reached": reached,
        "env_steps": int(steps[-1]),
        "evaluations": [solved[update] for update in sorted(solved)],
    }


def cloned(policy: dict[str, Any], place: Place, seed: int) -> tuple[Path, Path]:
    """Return the demonstrations, and the policy cloned from them."""
    task = TaskConfig(id=TASK, workers=place.workers)
    data = demonstrations(task, place.runs / "demonstrations.hdf5", PROCESSOR.demonstrations)
    chunks = "chunks" if "pred_steps" in policy else "steps"
    config = cloning(Method(way={}, policy=policy), [data], seed, place, PROCESSOR)
    folder = place.runs / f"clone_{chunks}_seed{seed}"
    return data, timed(folder, lambda home: train_bc(config, home, resume=True))[0]


def merged(values: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return nested values with some of them replaced."""
    return values | {
        key: merged(values[key], value) if isinstance(value, dict) else value for key, value in changes.items()
    }


@contextmanager
def clamped(limit: float) -> Iterator[None]:
    """Cut joint log-probabilities off above `limit`, as a public implementation of PPO on such policies does."""
    exact = DiagonalGaussian.log_prob

    def cut_off(self: DiagonalGaussian, actions: Tensor, valid: Tensor | None = None) -> Tensor:
        return exact(self, actions, valid).clamp(max=limit)

    with patch.object(DiagonalGaussian, "log_prob", cut_off):
        yield


def rows(outcomes: dict[str, dict[str, Any]]) -> list[Row]:
    """Return the steps to the goal of each part, against those with all parts."""
    found: list[Row] = []
    for way, parts in PARTS.items():
        whole = None
        for part in parts:
            runs = [run for _, run in sorted(outcomes.items()) if (run["way"], run["part"]) == (way, part)]
            if not runs:
                continue
            steps = float(np.median([run["env_steps"] for run in runs]))
            whole = steps if part == "all" else whole
            came = ", ".join(
                f"{'' if run['reached'] else 'not by '}{run['env_steps'] / 1e3:.0f}"
                + (f" (best {max(run['evaluations']):.0%})" if not run["reached"] else "")
                for run in runs
            )
            found.append(
                Row(
                    case=f"{TASK}, {way}, {part if part != 'all' else 'with all parts'}",
                    unit=f"steps of practice until {GOAL:.0%}, or until it was stopped",
                    ours=steps,
                    floor=whole,
                    floor_name="" if whole is None else "with all parts",
                    better="lower",
                    note=f"by seed, in thousands: {came}; from {min(r['evaluations'][0] for r in runs):.0%} on",
                )
            )
    return found


if __name__ == "__main__":
    main()
