"""From twenty demonstrations to a policy that beats them: success and time to success, before and after fine-tuning.

    python -m benchmarks.finetune [--tasks Lift,PegInsert] [--methods ppo] [--seeds 3]

A cell is one task and method; each seed is a run of its own under runs/finetune: demonstrations are recorded once for
a task, then cloned, corrected (methods that begin with dagger) and fine-tuned from success alone. Half-done runs go on;
the outcome of every finished one is kept in benchmarks/results/raw/finetune.json and not run again (take it out there
to have it run anew). Policies are judged on 500 seeds that nothing was trained or tuned on.
Writes benchmarks/results/finetune.json from all outcomes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import Row, SuccessRow, load_runs, save_runs, write
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree import from_dict
from robolearn.datasets.dataset import Dataset
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.evaluation.compare import compare
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.bc import train_bc
from robolearn.imitation.dagger import dagger
from robolearn.policies.folder import load_policy
from robolearn.rl.finetune import finetune
from robolearn.seeds import DAGGER_SEED, REPORT_SEED
from robolearn.training.metrics import read_metrics

RUNS = Path("runs/finetune")
DEMONSTRATIONS, EPISODES = 20, 500
SUCCESS_GOAL, TIME_GOAL = 0.99, 0.55
"""Of the success rate, and of the median time to success over the demonstrations'."""

GAUSSIAN: dict[str, Any] = {
    "backbone": {"name": "mlp", "hidden_sizes": [256, 256], "activation": "tanh"},
    "head": {"name": "gaussian", "squash": False},
    "obs_steps": 1,
}
PPO: dict[str, Any] = {
    "name": "ppo",
    "num_steps": 64,
    "batch_size": 1024,
    "learning_rate": 3e-4,
    "clip": 0.2,
    "target_kl": 0.02,
    "gamma": 0.98,
    "compile": True,
}


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a cloned policy becomes a good one."""

    way: dict[str, Any]
    """`method` of `robolearn finetune`."""
    policy: dict[str, Any] = field(default_factory=lambda: GAUSSIAN)
    rounds: int = 0
    """DAgger rounds of twenty episodes between cloning and fine-tuning."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """One task."""

    updates: int
    max_steps: int
    """Of a training episode; evaluations take the task's own limit."""
    clone_steps: int = 4000
    way: dict[str, Any] = field(default_factory=dict)
    """What of the method is different for this task."""


METHODS = {"ppo": Method(way=PPO), "dagger_ppo": Method(way=PPO, rounds=3)}
STUDIES = {
    "Lift": Study(updates=300, max_steps=100),
    "PickPlace": Study(updates=600, max_steps=150, way={"min_std": 0.05}),
    "Stack": Study(updates=800, max_steps=150, way={"min_std": 0.03}),
    "PegInsert": Study(updates=800, max_steps=150, way={"min_std": 0.03}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(STUDIES))
    parser.add_argument("--methods", default="ppo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num_envs", type=int, default=64)
    parser.add_argument("--workers", type=int, default=None, help="of the physics; none takes one for each core")
    parser.add_argument("--runs", type=Path, default=RUNS)
    args = parser.parse_args()
    for given, known in ((args.tasks, STUDIES), (args.methods, METHODS)):
        if unknown := [name for name in given.split(",") if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    began, outcomes = time.perf_counter(), load_runs("finetune")
    for seed in range(args.seeds):
        for task in args.tasks.split(","):
            for method in args.methods.split(","):
                key = f"{task}/{method}/{seed}"
                if key not in outcomes:
                    outcomes[key] = run(task, method, seed, args)
                    outcomes = save_runs("finetune", outcomes)
    write("finetune", rows(outcomes), seconds=time.perf_counter() - began)


def run(name: str, method_name: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Clone, correct where the method asks for it, fine-tune, and judge before and after."""
    method, study = METHODS[method_name], STUDIES[name]
    task = TaskConfig(id=name, workers=args.workers)
    data = demonstrations(task, args.runs / name / "demonstrations.hdf5")
    folder = args.runs / name / f"{method_name}_seed{seed}"
    start, seconds = imitated(task, data, method, study, seed, folder)
    config = from_dict(
        FinetuneConfig,
        {
            "policy": str(start),
            "method": method.way | study.way,
            "output": str(folder / "finetune"),
            "max_steps": study.max_steps,
            "num_envs": args.num_envs,
            "seed": seed,
            "loop": {
                "total_steps": study.updates,
                "log_every": 1,
                "evaluate_every": 25,
                "checkpoint_every": 25,
                "tensorboard": False,
            },
        },
    )
    result = finetune(config, config.output, resume=True)
    curve = [row for row in read_metrics(config.output) if "eval_success" in row or "env_steps" in row]
    before = judged(start, task, folder / "before.json", args)
    after = judged(result.policy, task, folder / "after.json", args)
    demonstrated = demonstration_seconds(data)
    print(f"{before}\n{after}\n{compare(before, after)}", flush=True)
    return {
        "task": name,
        "method": method_name,
        "seed": seed,
        "first_seed": REPORT_SEED,
        "dagger_episodes": 20 * method.rounds,
        "env_steps": result.env_steps,
        "minutes": round((seconds + float(curve[-1]["time_s"])) / 60.0, 2),
        "demonstrated_s": demonstrated,
        "before": figures(before),
        "after": figures(after),
        "p_value": compare(before, after).p_value,
        "curve": [
            [round(row["time_s"] / 60.0, 2), row["step"], row["eval_success"], row["eval_steps"]]
            for row in curve
            if "eval_success" in row
        ],
    }


def imitated(task: TaskConfig, data: Path, method: Method, study: Study, seed: int, folder: Path) -> tuple[Path, float]:
    """Return the folder of the policy that fine-tuning starts from, and the seconds that it took, as first made."""
    took = folder / "imitation_seconds"
    began = time.perf_counter()
    clone = from_dict(
        BCConfig,
        {
            "dataset": [str(data)],
            "policy": method.policy,
            "optimiser": {"learning_rate": 1e-3, "weight_decay": 1e-4},
            "loop": {"total_steps": study.clone_steps, "evaluate_every": 0, "tensorboard": False},
            "seed": seed,
        },
    )
    start = folder / "clone" / "policy"
    if not start.exists():
        train_bc(clone, folder / "clone", resume=True, label=f"{task.id} clone {seed}")
    if method.rounds:
        corrected = DaggerConfig(
            policy=str(start),
            dataset=(str(data),),
            task=TaskConfig(id=task.id, max_steps=200),
            rounds=method.rounds,
            episodes_per_round=20,
            eval_episodes=0,
            optimiser=clone.optimiser,
            loop=clone.loop,
            seed=DAGGER_SEED + 1000 * seed,
        )
        start = folder / "dagger" / "policy"
        if not start.exists():
            dagger(corrected, folder / "dagger")
    if not took.exists():
        took.write_text(f"{time.perf_counter() - began:.1f}\n", encoding="utf-8")
    return start, float(took.read_text(encoding="utf-8"))


def demonstrations(task: TaskConfig, path: Path) -> Path:
    """Return the file that all policies of a task learn from, recorded once."""
    if not path.exists():
        partial = path.with_name("recording")
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted recording
        partial.mkdir(parents=True)
        record(RecordConfig(task=task, output=str(partial / path.name), episodes=DEMONSTRATIONS))
        os.replace(partial / path.name, path)
        shutil.rmtree(partial)
    return path


def demonstration_seconds(path: Path) -> float:
    """Return the median time to success of the demonstrations, which end with it."""
    with Dataset(path) as dataset:
        return float(np.median(dataset.lengths)) / dataset.control_hz


def judged(policy: Path, task: TaskConfig, path: Path, args: argparse.Namespace) -> EvaluationResult:
    """Evaluate on the fresh seeds, once."""
    if not path.exists():
        with make(task, args.num_envs) as env:
            name = f"{task.id} {path.stem}"
            evaluate(load_policy(policy), env, range(REPORT_SEED, REPORT_SEED + EPISODES), name=name).save(path)
    return EvaluationResult.load(path)


def figures(result: EvaluationResult) -> dict[str, Any]:
    return {
        "successes": result.successes,
        "episodes": len(result.episodes),
        "seconds": result.median_time_to_success_s,
    }


def rows(outcomes: dict[str, dict[str, Any]]) -> list[Row]:
    """Return, for each task and method, success before and after and the time against the demonstrations'."""
    cells: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _, outcome in sorted(outcomes.items()):
        cells.setdefault((outcome["task"], outcome["method"]), []).append(outcome)
    order = {name: i for i, name in enumerate(STUDIES)}
    found: list[Row] = []
    for task, method in sorted(cells, key=lambda cell: (order[cell[0]], cell[1])):
        found += cell_rows(f"{task}, {method}", cells[task, method])
    return found


def cell_rows(case: str, runs: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the rows of one task and method, over the seeds of training."""
    seeds = [run["seed"] for run in runs]
    steps, minutes = (float(np.mean([run[name] for run in runs])) for name in ("env_steps", "minutes"))
    dagger = f", {runs[0]['dagger_episodes']} corrected episodes" if runs[0]["dagger_episodes"] else ""
    rows: list[Row] = []
    for when, goal in (("before", None), ("after", SUCCESS_GOAL)):
        successes, episodes = (sum(run[when][name] for run in runs) for name in ("successes", "episodes"))
        by_seed = ", ".join(f"{run[when]['successes']}/{run[when]['episodes']}" for run in runs)
        note = f"by seed {by_seed}"
        if when == "after":
            note += f"; {steps / 1e6:.2f} M steps of practice, {minutes:.0f} minutes{dagger}"
            note += f"; largest p of the paired tests {max(run['p_value'] for run in runs):.2g}"
        rows.append(SuccessRow.of(f"{case}, {when}", successes, episodes, seeds, goal=goal, note=note))
    ratios = [run["after"]["seconds"] / run["demonstrated_s"] for run in runs if run["after"]["seconds"]]
    if ratios:
        times = ", ".join(f"{run['after']['seconds']:.2f}" for run in runs if run["after"]["seconds"])
        rows.append(
            Row(
                case=f"{case}, median time to success",
                unit="ratio to the demonstrations' median",
                ours=float(np.median(ratios)),
                goal=TIME_GOAL,
                better="lower",
                note=f"{times} s against {runs[0]['demonstrated_s']:.2f} s",
            )
        )
    return rows


if __name__ == "__main__":
    main()
