"""What overfitting costs a clone of few demonstrations, and what helps: one change at a time.

    python -m benchmarks.overfitting [--tasks PickPlace] [--policy mixture] [--seeds 1]

Every variant learns from the same 18 of 20 demonstrations; the other two say how the loss on what was not seen goes. As
this is to pick defaults, success is counted on tuning seeds, not on those of reports. Finished runs are kept in
benchmarks/results/raw/overfitting.json and not run again. Writes benchmarks/results/overfitting.json.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import SuccessRow, load_runs, save_runs, write
from benchmarks.imitation import MODAL, POLICIES, STUDIES, demonstrations
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict
from robolearn.envs.make import make
from robolearn.evaluation.evaluate import evaluate
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.seeds import ROLLOUT_SEED
from robolearn.training.metrics import read_metrics

RUNS = Path("runs/overfitting")
DEMONSTRATIONS, EPISODES = 20, 200
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "a fifth of the updates": {"loop.total_steps": 0.2},
    "exported where the validation loss was least": {"export": "best"},
    "weight decay 0.01": {"optimiser.weight_decay": 0.01},
    "weight decay 0.1": {"optimiser.weight_decay": 0.1},
    "dropout 0.1": {"policy.backbone.dropout": 0.1},
    "layer norm": {"policy.backbone.layer_norm": True},
    "two modes": {"policy.head.num_modes": 2},
    "deviations of 0.05 at least": {"policy.head.min_std": 0.05},
}
"""Settings by their places; the number of updates as a share of the usual."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="PickPlace")
    parser.add_argument("--policy", default="mixture", choices=list(POLICIES))
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if unknown := [name for name in args.tasks.split(",") if name not in STUDIES]:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(STUDIES)}")
    began, outcomes = time.perf_counter(), load_runs("overfitting")
    for seed in range(args.seeds):
        for task in args.tasks.split(","):
            for variant in VARIANTS:
                key = f"{task}/{args.policy}/{variant}/{seed}"
                if key not in outcomes:
                    outcomes = save_runs("overfitting", outcomes | {key: run(task, args.policy, variant, seed)})
    write("overfitting", rows(outcomes), seconds=time.perf_counter() - began)


def run(task: str, policy: str, variant: str, seed: int) -> dict[str, Any]:
    study = STUDIES[task]
    data = demonstrations(task, study, DEMONSTRATIONS, RUNS)
    settings: dict[str, Any] = {
        "dataset": [str(data)],
        "target": "labels" if study.disturbances else "actions",
        "valid_fraction": 0.1,
        "policy": {**study.policy, **POLICIES[policy], **study.own.get(policy, {})},
        "batch_size": study.batch_size,
        "optimiser": {"learning_rate": study.learning_rate, "warmup_steps": 200, "max_grad_norm": 1.0},
        "loop": {"total_steps": study.steps, "tensorboard": False, "evaluate_every": 250},
        "seed": seed,
    }
    for place, value in VARIANTS[variant].items():
        settings = changed(settings, place.split("."), value)
    if settings["loop"]["total_steps"] < 1:
        settings["loop"]["total_steps"] = round(settings["loop"]["total_steps"] * study.steps)
    folder = RUNS / task / f"{policy}_{variant.replace(' ', '_')}_seed{seed}"
    result = train_bc(from_dict(BCConfig, settings), folder, resume=folder.exists(), label=f"{task}, {variant}")
    with make(from_dict(TaskConfig, study.task), 50) as env:
        seeds = range(ROLLOUT_SEED, ROLLOUT_SEED + EPISODES)
        found = evaluate(load_policy(result.policy), env, seeds, deterministic=policy not in MODAL, name=variant)
    print(found, flush=True)
    metrics = read_metrics(folder)
    valid = [row["valid_loss"] for row in metrics if "valid_loss" in row]
    return {
        "successes": found.successes,
        "episodes": len(found.episodes),
        "first_seed": ROLLOUT_SEED,
        "train_loss": next(row["loss"] for row in reversed(metrics) if "loss" in row),
        "valid_loss": valid[-1],
        "least_valid_loss": min(valid),
    }


def changed(settings: dict[str, Any], place: list[str], value: Any) -> dict[str, Any]:
    """Return settings with one of them changed, or added."""
    first, *rest = place
    return settings | {first: changed(settings.get(first, {}), rest, value) if rest else value}


def rows(outcomes: dict[str, dict[str, Any]]) -> list[SuccessRow]:
    """Return the success of each variant over the seeds of training, with the losses."""
    cells: dict[tuple[str, str, str], dict[int, dict[str, Any]]] = {}
    for key, outcome in outcomes.items():
        task, policy, variant, seed = key.split("/")
        cells.setdefault((task, policy, variant), {})[int(seed)] = outcome
    order = list(VARIANTS)
    found = []
    for task, policy, variant in sorted(cells, key=lambda cell: (*cell[:2], order.index(cell[2]))):
        runs = cells[task, policy, variant]
        means = {
            of: np.mean([run[of] for run in runs.values()]) for of in ("train_loss", "valid_loss", "least_valid_loss")
        }
        found.append(
            SuccessRow.of(
                f"{task}, {policy} of {DEMONSTRATIONS} demonstrations, {variant}",
                sum(run["successes"] for run in runs.values()),
                sum(run["episodes"] for run in runs.values()),
                sorted(runs),
                note=f"loss {means['train_loss']:.2f}, on what was not seen {means['valid_loss']:.2f}, "
                f"at its least {means['least_valid_loss']:.2f}",
            )
        )
    return found


if __name__ == "__main__":
    main()
