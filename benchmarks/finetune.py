"""From twenty demonstrations to a policy that beats them: success and time to success, before and after fine-tuning.

    python -m benchmarks.finetune [--tasks Lift,PegInsert] [--methods ppo] [--seeds 3]
    python -m benchmarks.finetune --tasks Lift --backend warp                            # all of it on a CUDA card
    python -m benchmarks.finetune --tasks Lift --backend warp --rehearse --runs FOLDER   # tiny, on Warp's CPU device

A cell is one task and method; each seed is a run of its own under runs/finetune: demonstrations are recorded once for
a task, then cloned and fine-tuned from success alone. Methods with rounds clone what rounds of DAgger have labelled,
too; a Gaussian policy drives these, once for a task and seed, so that all methods start from the same data. Half-done
runs go on; the outcome of every finished one is kept in benchmarks/results/raw/finetune.json and not run again (take it
out there to have it run anew). Policies are judged on 500 seeds that nothing was trained or tuned on.
Writes benchmarks/results/finetune.json from all outcomes.

    ppo          from the clone of the demonstrations
    dagger_ppo   after ten rounds of DAgger
    gaussian, mixture, autoregressive, diffusion, flow, act
                 each kind of policy, after the first three rounds only (autoregressive and ACT: ten): likelihoods by
                 PPO, chains by PPO on their steps (DPPO), ACT by a residual, learned by PPO, too
    flow_residual, flow_steering
                 a flow policy by a residual, and by its noise (off-policy, with the demonstrations)

With `--backend warp` worlds, observations, rewards, policy and updates live on one device, cloning too; outcomes and
rows name back end and card, and count the minutes until an evaluation first solves 99%. A rehearsal shows that every
part runs, and no more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks._expert_pace import PACED, hurried_seconds, least_seconds, top_speed_share
from benchmarks._finetune_methods import (
    CARD,
    EPISODES_PER_ROUND,
    HEADLINE,
    METHODS,
    PROCESSOR,
    REHEARSAL,
    ROUNDS,
    STUDIES,
    Method,
    Scale,
    Study,
)
from benchmarks._report import Row, SuccessRow, gpu_name, load_runs, save_runs, write
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
SUCCESS_GOAL, TIME_GOAL, CARD_MINUTES = 0.99, 0.55, 10.0
"""Of the success rate, of the median time to success over the demonstrations', of the way to the first on a card."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(STUDIES))
    parser.add_argument("--methods", default="ppo")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--backend", choices=("cpu", "warp"), default="cpu")
    parser.add_argument("--num_envs", type=int, help="none takes the task's, or 2048 on a card")
    parser.add_argument("--updates", type=int, help="none takes the task's, or 150 on a card")
    parser.add_argument("--workers", type=int, default=None, help="of the physics; none takes one for each core")
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--rehearse", action="store_true", help="every part, tiny; on Warp's CPU device without a card")
    args = parser.parse_args()
    for given, known in ((args.tasks, STUDIES), (args.methods, METHODS)):
        if unknown := [name for name in given.split(",") if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    foreign = [name for name in args.tasks.split(",") if STUDIES[name].task]
    if foreign and (args.backend == "warp" or args.methods != "ppo"):
        parser.error(f"{', '.join(foreign)}: not ours, and so for --methods ppo on the processor only")
    if args.backend == "warp" and not (torch.cuda.is_available() or args.rehearse):
        parser.error("--backend warp needs a CUDA card, and there is none; --rehearse tries every part on the CPU")
    place, scale, name = Place.of(args), scale_of(args), "finetune_rehearsal" if args.rehearse else "finetune"
    began, outcomes = time.perf_counter(), load_runs(name)
    if not args.rehearse:
        for task in (name for name in args.tasks.split(",") if name in PACED):
            for pace, seconds in (("hurried", hurried_seconds), ("least", least_seconds)):
                if f"{task}/{pace}" not in outcomes:
                    outcomes = save_runs(name, outcomes | {f"{task}/{pace}": {"seconds": seconds(task)}})
    for seed in range(args.seeds):
        for task in args.tasks.split(","):
            for method in args.methods.split(","):
                key = f"{task}/{method}{place.suffix}/{seed}"
                if key not in outcomes:
                    outcomes[key] = run(task, method, seed, place, scale)
                    outcomes = save_runs(name, outcomes)
    write(name, rows(outcomes), seconds=time.perf_counter() - began)


def scale_of(args: argparse.Namespace) -> Scale:
    scale = REHEARSAL if args.rehearse else CARD if args.backend == "warp" else PROCESSOR
    given = {"num_envs": args.num_envs, "updates": args.updates}
    return replace(scale, **{name: value for name, value in given.items() if value is not None})


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where physics and networks live, and the runs' folders."""

    backend: Literal["cpu", "warp"]
    device: str
    workers: int | None
    runs: Path

    @classmethod
    def of(cls, args: argparse.Namespace) -> Place:
        device = "cuda" if args.backend == "warp" and torch.cuda.is_available() else "cpu"
        return cls(backend=args.backend, device=device, workers=args.workers, runs=args.runs)

    @property
    def name(self) -> str:
        """Back end and card; empty for MuJoCo on a processor."""
        return "" if self.backend == "cpu" else f"{self.backend}, {gpu_name() or 'CPU device'}"

    @property
    def suffix(self) -> str:
        return f" on {self.name}" if self.name else ""

    def task(self, name: str, scale: Scale) -> TaskConfig:
        task = TaskConfig(id=name, backend=self.backend, workers=self.workers, max_steps=scale.max_steps)
        return replace(task, **STUDIES[name].task)

    def folder(self, task: str, method: str, seed: int) -> Path:
        return self.runs / task / f"{method}{'' if self.backend == 'cpu' else f'_{self.backend}'}_seed{seed}"


def run(name: str, method_name: str, seed: int, place: Place, scale: Scale) -> dict[str, Any]:
    """Clone, correct where the method asks for it, fine-tune, and judge before and after."""
    method, study = METHODS[method_name], STUDIES[name]
    task, folder = place.task(name, scale), place.folder(name, method_name, seed)
    path = place.runs / name / "demonstrations.hdf5"
    data = demonstrations(task, path, scale.demonstrations, action_noise=study.action_noise)
    start, seconds = imitated(name, data, method, seed, folder, place, scale)
    config = from_dict(
        FinetuneConfig,
        {
            "policy": str(start),
            "method": way_of(method_name, study, scale),
            "demonstrations": [str(data)] if method.off_policy else [],
            "output": str(folder / "finetune"),
            "task": asdict(task),
            "max_steps": scale.max_steps or study.max_steps,
            "num_envs": scale.num_envs or study.num_envs,
            "eval_episodes": scale.held_out,
            "test_episodes": scale.held_out,
            "seed": seed,
            "device": place.device,
            "loop": {
                "total_steps": scale.updates or method.updates or study.updates,
                "log_every": 1,
                "evaluate_every": scale.every,
                "checkpoint_every": scale.every,
                "tensorboard": False,
            },
        },
    )
    ready = folder / "ready_seconds"
    began = time.perf_counter()

    def told(update: int, metrics: Mapping[str, float]) -> None:
        if (
            update == 0
        ):  # making the worlds and judging the start come before the loop, whose clock says nothing of them
            ready.write_text(f"{time.perf_counter() - began:.1f}\n", encoding="utf-8")

    result = finetune(config, config.output, resume=True, on_evaluation=told)
    seconds += float(ready.read_text(encoding="utf-8")) if ready.exists() else 0.0
    curve = [row for row in read_metrics(config.output) if "eval_success" in row or "env_steps" in row]
    before = judged(start, task, folder / "before.json", place, scale)
    after = judged(result.policy, task, folder / "after.json", place, scale)
    home = corrections_folder(name, seed, place)
    cloned = judged(home / "clone" / "policy", task, home / "cloned.json", place, scale) if method.rounds else before
    demonstrated = demonstration_seconds(data)
    print(f"{before}\n{after}\n{compare(before, after)}", flush=True)
    return {
        "task": name,
        "method": method_name,
        "place": place.name,
        "seed": seed,
        "first_seed": REPORT_SEED,
        "dagger_episodes": EPISODES_PER_ROUND * method.rounds,
        "env_steps": result.env_steps,
        "minutes_before": round(seconds / 60.0, 2),
        "minutes": round((seconds + float(curve[-1]["time_s"])) / 60.0, 2),
        "demonstrated_s": demonstrated,
        "cloned": figures(cloned),
        "before": figures(before),
        "after": figures(after),
        "p_value": compare(before, after).p_value,
        "top_speed_share": moved(result.policy, name, task, scale),
        "curve": [
            [round(row["time_s"] / 60.0, 2), row["step"], row["eval_success"], row["eval_steps"]]
            for row in curve
            if "eval_success" in row
        ],
    }


def way_of(method_name: str, study: Study, scale: Scale) -> dict[str, Any]:
    """Return `method` of `robolearn finetune`."""
    method = METHODS[method_name]
    if method.off_policy:
        return method.way | {"algorithm": method.way["algorithm"] | scale.algorithm}
    return method.way | (study.ppo if method_name == "ppo" else {}) | scale.way


def moved(policy: Path, name: str, task: TaskConfig, scale: Scale) -> float | None:
    """Return the share of its top speed that a policy moves at, where a bound on that is known."""
    if name not in PACED:
        return None
    return round(top_speed_share(load_policy(policy), replace(task, backend="cpu"), scale.episodes), 3)


def imitated(
    name: str, data: Path, method: Method, seed: int, folder: Path, place: Place, scale: Scale
) -> tuple[Path, float]:
    """Return the folder of the policy that fine-tuning starts from, and the seconds that it took, as first made."""
    files, seconds = [data], 0.0
    if method.rounds:
        more, seconds = corrections(name, data, seed, place, scale)
        files += more[: method.rounds]
    config = cloning(method, files, seed, place, scale)
    return timed(folder / "clone", lambda home: train_bc(config, home, resume=True, label=f"{name} clone"), seconds)


def corrections(name: str, data: Path, seed: int, place: Place, scale: Scale) -> tuple[list[Path], float]:
    """Return the files of all rounds of DAgger with a label at every step, and the seconds that they took at first."""
    home, method = corrections_folder(name, seed, place), METHODS["dagger_ppo"]
    task = place.task(name, scale)
    config = cloning(method, [data], seed, place, scale)
    start, seconds = timed(home / "clone", lambda folder: train_bc(config, folder, resume=True))
    rounds = from_dict(
        DaggerConfig,
        {
            "policy": str(start),
            "dataset": [str(data)],
            "task": asdict(replace(task, backend="cpu", max_steps=scale.max_steps or 160)),
            "gate": {"name": "beta", "schedule": "linear", "start": 0.6},
            "from_scratch": True,
            "rounds": ROUNDS,
            "episodes_per_round": EPISODES_PER_ROUND,
            "num_envs": EPISODES_PER_ROUND,
            "eval_episodes": 0,
            "seed": DAGGER_SEED + 1000 * seed,
        },
    )
    rounds = replace(rounds, optimiser=config.optimiser, loop=config.loop)
    _, seconds = timed(home / "dagger", lambda folder: dagger(rounds, folder), seconds)
    return sorted((home / "dagger" / "rounds").glob("??/episodes.hdf5")), seconds


def corrections_folder(task: str, seed: int, place: Place) -> Path:
    return place.runs / task / f"corrections_seed{seed}"


def cloning(method: Method, files: Sequence[Path], seed: int, place: Place, scale: Scale) -> BCConfig:
    return from_dict(
        BCConfig,
        {
            "dataset": [str(file) for file in files],
            "target": "labels" if len(files) > 1 else "actions",
            "policy": method.policy,
            "optimiser": {"learning_rate": method.learning_rate, "weight_decay": 1e-4},
            "loop": {
                "total_steps": scale.clone_steps or method.clone_steps,
                "evaluate_every": 0,
                "tensorboard": False,
            },
            "seed": seed,
            **({} if place.backend == "cpu" else {"device": place.device}),
        },
    )


def timed(folder: Path, make_policy: Callable[[Path], object], seconds: float = 0.0) -> tuple[Path, float]:
    """Make the policy of a folder where there is none yet; returns it, and the seconds that it took besides others."""
    took = folder / "seconds"
    if not took.exists():
        began = time.perf_counter()
        make_policy(folder)
        took.write_text(f"{time.perf_counter() - began:.1f}\n", encoding="utf-8")
    return folder / "policy", seconds + float(took.read_text(encoding="utf-8"))


def demonstrations(task: TaskConfig, path: Path, episodes: int, *, action_noise: float = 0.0) -> Path:
    """Return the file that all policies of a task learn from, recorded once, by MuJoCo on the processor."""
    if not path.exists():
        partial = path.with_name("recording")
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted recording
        partial.mkdir(parents=True)
        expert = replace(task, backend="cpu", max_steps=None)
        output = str(partial / path.name)
        record(RecordConfig(task=expert, output=output, episodes=episodes, action_noise=action_noise))
        os.replace(output, path)
        shutil.rmtree(partial)
    return path


def demonstration_seconds(path: Path) -> float:
    """Return the median time to success of the demonstrations, which end with it."""
    with Dataset(path) as dataset:
        return float(np.median(dataset.lengths)) / dataset.control_hz


def judged(policy: Path, task: TaskConfig, path: Path, place: Place, scale: Scale) -> EvaluationResult:
    """Evaluate on the fresh seeds, once."""
    if not path.exists():
        seeds = range(REPORT_SEED, REPORT_SEED + scale.episodes)
        with make(task, min(scale.num_envs or 64, len(seeds)), device=task.physics_device(place.device)) as env:
            evaluate(load_policy(policy, place.device), env, seeds, name=f"{task.id} {path.stem}").save(path)
    return EvaluationResult.load(path)


def figures(result: EvaluationResult) -> dict[str, Any]:
    return {
        "successes": result.successes,
        "episodes": len(result.episodes),
        "seconds": result.median_time_to_success_s,
    }


def rows(outcomes: dict[str, dict[str, Any]]) -> list[Row]:
    """Return, for each task, method and place, success before and after and the time against the demonstrations'."""
    cells: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for _, outcome in sorted((key, outcome) for key, outcome in outcomes.items() if "method" in outcome):
        cells.setdefault((outcome["task"], outcome["method"], outcome.get("place", "")), []).append(outcome)
    order = {name: i for i, name in enumerate(STUDIES)}
    found: list[Row] = []
    for task, method, place in sorted(cells, key=lambda cell: (order[cell[0]], cell[1:])):
        runs = cells[task, method, place]
        case = f"{task}, {method} on {place}" if place else f"{task}, {method}"
        found += cell_rows(case, runs, outcomes.get(f"{task}/hurried"), outcomes.get(f"{task}/least"))
        found += minutes_rows(f"{task}, {method} on {place}", runs) if place else []
    return found


def minutes_rows(case: str, runs: Sequence[dict[str, Any]]) -> list[Row]:
    """Return the minutes, cloning and making worlds included, until an evaluation first solved as many as wanted."""
    times = [
        next(
            (run["minutes_before"] + minutes for minutes, _, success, _ in run["curve"] if success >= SUCCESS_GOAL),
            None,
        )
        for run in runs
    ]
    reached = [minutes for minutes in times if minutes is not None]
    if not reached:
        return []
    return [
        Row(
            case=f"{case}, from demonstrations to {SUCCESS_GOAL:.0%} of an evaluation",
            unit="minutes",
            ours=float(np.median(reached)),
            goal=CARD_MINUTES,
            better="lower",
            note=f"{len(reached)} of {len(runs)} runs came there: {', '.join(f'{m:.1f}' for m in reached)}",
        )
    ]


def cell_rows(
    case: str, runs: Sequence[dict[str, Any]], hurried: dict[str, Any] | None, least: dict[str, Any] | None
) -> list[Row]:
    """Return the rows of one task and method, over the seeds of training."""
    seeds = [run["seed"] for run in runs]
    steps, minutes = (float(np.mean([run[name] for run in runs])) for name in ("env_steps", "minutes"))
    dagger = f", {runs[0]['dagger_episodes']} corrected episodes" if runs[0]["dagger_episodes"] else ""
    rows: list[Row] = []
    goals = (SUCCESS_GOAL, TIME_GOAL) if runs[0]["method"] in HEADLINE else (None, None)
    stages: list[tuple[str, str, float | None]] = [("before", "before", None), ("after", "after", goals[0])]
    if dagger:
        stages.insert(0, ("cloned", "a Gaussian cloned from the demonstrations", None))
    for when, words, goal in stages:
        successes, episodes = (sum(run[when][name] for run in runs) for name in ("successes", "episodes"))
        by_seed = ", ".join(f"{run[when]['successes']}/{run[when]['episodes']}" for run in runs)
        note = f"by seed {by_seed}"
        if when == "after":
            note += f"; {steps / 1e6:.2f} M steps of practice, {minutes:.0f} minutes{dagger}"
            note += f"; largest p of the paired tests {max(run['p_value'] for run in runs):.2g}"
        rows.append(SuccessRow.of(f"{case}, {words}", successes, episodes, seeds, goal=goal, note=note))
    ratios = [run["after"]["seconds"] / run["demonstrated_s"] for run in runs if run["after"]["seconds"]]
    if ratios:
        times = ", ".join(f"{run['after']['seconds']:.2f}" for run in runs if run["after"]["seconds"])
        demonstrated = runs[0]["demonstrated_s"]
        note = f"{times} s against {demonstrated:.2f} s"
        if runs[0]["top_speed_share"] is not None:
            note += f", the tool at {np.mean([run['top_speed_share'] for run in runs]):.0%} of its top speed"
        if least is not None:
            note += f"; {least['seconds']:.2f} s ({least['seconds'] / demonstrated:.2f}) at that all the way"
        rows.append(
            Row(
                case=f"{case}, median time to success",
                unit="ratio to the demonstrations' median",
                ours=float(np.median(ratios)),
                floor=None if hurried is None else hurried["seconds"] / demonstrated,
                floor_name="" if hurried is None else "the expert at full pace, without waiting or noise",
                goal=goals[1],
                better="lower",
                note=note,
            )
        )
    return rows


if __name__ == "__main__":
    main()
