"""Fine-tuning beside what the same practice could have bought: more demonstrations, or SAC from nothing.

    python -m benchmarks.finetune_beside [--tasks Lift,PegInsert] [--seeds 0]

For every headline outcome of `benchmarks.finetune` (that benchmark's first seeds), with as many control steps as its
practice took:

    cloning    demonstrations of the scripted expert, cloned by the same kind of policy
    SAC        from scratch, by success alone, without demonstrations

All are judged on the same 500 fresh seeds. Half-done trainings go on; outcomes are kept in
benchmarks/results/raw/finetune_beside.json and not run again. Writes benchmarks/results/finetune_beside.json.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._finetune_methods import HEADLINE, METHODS, PROCESSOR, STUDIES
from benchmarks._report import Row, SuccessRow, load_runs, save_runs, write
from benchmarks.finetune import Place, cloning, figures, judged, timed
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.rl import RLConfig
from robolearn.configuration.tree import from_dict
from robolearn.datasets.dataset import Dataset
from robolearn.episodes.record import record
from robolearn.imitation.bc import train_bc
from robolearn.rl.from_scratch import train_rl
from robolearn.seeds import REPORT_SEED, run_seeds

RUNS = Path("runs/finetune_beside")
CLONE_STEPS = 20_000
"""Five times and more what twenty demonstrations are cloned with."""
SAC: dict[str, Any] = {
    "name": "sac",
    "gamma": 0.98,
    "n_step": 3,
    "random_steps": 10_000,
    "normalise_obs": True,
    "collect_steps": 64,
    "utd": 0.125,
    "temperature": 0.1,
    "critic": {"hidden_sizes": [256, 256], "layer_norm": True},
}
KEPT = 1_000_000
"""Transitions that SAC remembers."""
WAYS = {"cloning": "cloned from as many steps of demonstrations", "sac": "SAC from scratch, as many steps"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="Lift,PegInsert")
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--workers", type=int, default=None, help="of the physics; none takes one for each core")
    parser.add_argument("--runs", type=Path, default=RUNS)
    args = parser.parse_args()
    for given, known in ((args.tasks, STUDIES), (args.ways, WAYS)):
        if unknown := [name for name in given.split(",") if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    began, tuned, outcomes = time.perf_counter(), load_runs("finetune"), load_runs("finetune_beside")
    place = Place(backend="cpu", device="cpu", workers=args.workers, runs=args.runs)
    for seed in range(args.seeds):
        for task in args.tasks.split(","):
            method = headline(tuned, task, seed)
            if method is None:
                parser.error(f"{task}: run `python -m benchmarks.finetune --tasks {task}` first, for its steps")
            for way in args.ways.split(","):
                if (key := f"{task}/{way}/{seed}") not in outcomes:
                    outcome = beside(task, way, method, tuned[f"{task}/{method}/{seed}"], place, seed)
                    print(key, outcome, flush=True)
                    outcomes = save_runs("finetune_beside", outcomes | {key: outcome})
    write("finetune_beside", rows(outcomes, tuned), seconds=time.perf_counter() - began)


def headline(tuned: dict[str, Any], task: str, seed: int) -> str | None:
    """Return the method that the task's outcome is quoted for: the last of them that has run."""
    return next((method for method in reversed(HEADLINE) if f"{task}/{method}/{seed}" in tuned), None)


def beside(name: str, way: str, method: str, outcome: dict[str, Any], place: Place, seed: int) -> dict[str, Any]:
    """Spend the steps of a fine-tuning's practice another way, and judge what comes of it."""
    task, folder = place.task(name, PROCESSOR), place.runs / name / f"{way}_seed{seed}"
    steps = int(outcome["env_steps"])
    if way == "cloning":
        data, episodes = many_demonstrations(task, STUDIES[name].action_noise, place.runs / name, steps)
        config = replace(cloning(METHODS[method], [data], seed, place, PROCESSOR), batch_size=512)
        config = replace(config, loop=replace(config.loop, total_steps=CLONE_STEPS))
        policy, seconds = timed(folder / "clone", lambda home: train_bc(config, home, resume=True))
    else:
        episodes = 0
        config = from_dict(
            RLConfig,
            {
                "task": asdict(replace(task, max_steps=STUDIES[name].max_steps)),
                "algorithm": SAC | {"capacity": min(KEPT, steps)},
                "reward": "success",
                "num_envs": 32,
                "env_steps": steps,
                "evaluate_every": 0,
                "eval_episodes": 0,
                "seed": seed,
                "output": str(folder / "rl"),
            },
        )
        policy, seconds = timed(folder / "rl", lambda _: train_rl(config, resume=True))
    result = judged(policy, task, folder / "result.json", place, PROCESSOR)
    return {
        "task": name,
        "way": way,
        "seed": seed,
        "env_steps": steps,
        "episodes": episodes,
        "minutes": round(seconds / 60.0, 2),
        "result": figures(result),
        "first_seed": REPORT_SEED,
    }


def many_demonstrations(task: TaskConfig, noise: float, folder: Path, steps: int) -> tuple[Path, int]:
    """Return a file of about that many steps of demonstrations, and their number; a hundred tell how many it takes.

    Args:
        noise: standard deviation of that on the expert's actions.
    """
    path = folder / "demonstrations.hdf5"
    config = RecordConfig(
        task=task, output=str(path), episodes=100, action_noise=noise, seed=run_seeds(0).start, num_envs=32
    )
    if not path.exists():
        record(config)
    with Dataset(path) as dataset:
        recorded, wanted = len(dataset), math.ceil(steps / float(np.mean(dataset.lengths)))
    if recorded < 0.99 * wanted:
        record(replace(config, episodes=wanted, resume=True))
        recorded = wanted
    return path, recorded


def rows(outcomes: dict[str, dict[str, Any]], tuned: dict[str, Any]) -> list[Row]:
    """Return success and time of each task and way, beside the fine-tuned policy's."""
    found: list[Row] = []
    for task, way in dict.fromkeys((run["task"], run["way"]) for run in outcomes.values()):
        runs = [run for run in outcomes.values() if (run["task"], run["way"]) == (task, way)]
        ours = [tuned[f"{task}/{headline(tuned, task, run['seed'])}/{run['seed']}"] for run in runs]
        share = sum(run["after"]["successes"] for run in ours) / sum(run["after"]["episodes"] for run in ours)
        times = ", ".join(
            "-" if run["result"]["seconds"] is None else f"{run['result']['seconds']:.2f}" for run in runs
        )
        finer = ", ".join(f"{run['after']['seconds']:.2f}" for run in ours)
        many = f", {runs[0]['episodes']} episodes" if runs[0]["episodes"] else ""
        found.append(
            SuccessRow.of(
                f"{task}, {WAYS[way]}",
                sum(run["result"]["successes"] for run in runs),
                sum(run["result"]["episodes"] for run in runs),
                [run["seed"] for run in runs],
                peer=share,
                peer_name="fine-tuned from 20",
                note=f"{runs[0]['env_steps'] / 1e6:.2f} M steps{many}; median time {times} s, fine-tuned {finer} s",
            )
        )
    return found


if __name__ == "__main__":
    main()
