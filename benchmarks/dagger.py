"""DAgger measured: each way of correcting against cloning from more demonstrations at equal labels from the expert.

    python -m benchmarks.dagger [--tasks Stack,PegInsert] [--variants always,thrifty] [--seeds 3] [--workers 1]

A run is one task, variant and training seed, in a folder of its own under runs/dagger; half-done runs go on. What every
finished one found is kept in benchmarks/results/raw/dagger.json and not run again (take it out there to have it run
anew). Tables and figures are made of finished runs only:

    benchmarks/results/dagger.json         success of every variant on 200 episodes that nothing else has seen
    benchmarks/results/dagger_claims.json  labels, budgets, permutation tests, growth of the distance from the expert
    benchmarks/results/dagger.png, dagger_claims.png

    always      DAgger: every state is labelled, a coin gives the expert the turn
    human       HG-DAgger: a simulated human takes over and hands back
    ensemble, thrifty, likelihood          the robot asks, within a budget
    relabelling                            the policy drives alone; a person labels what it did, for the human's time
    live relabelling                       the same, labelled while it drives, a reaction time late
    cloning                                the demonstrations that all variants begin with
    cloning with always' labels            more demonstrations: at least as many labelled steps as `always` has
    cloning with corrections' labels       as many as the variant that labels corrections only and has the most
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._report import Row, SuccessRow, load_runs, save_runs, write
from benchmarks.dagger_figures import draw_drift, draw_success
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree import from_dict
from robolearn.datasets.dataset import Dataset
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.statistics import PairedCounts, mcnemar
from robolearn.imitation.bc import train_bc
from robolearn.imitation.dagger import dagger
from robolearn.imitation.dagger_report import write_dagger_report
from robolearn.policies.folder import load_policy
from robolearn.seeds import CORRECTING, RECORDING, REPORT_SEED
from robolearn.tasks.arm.peg_insert import PegInsert
from robolearn.tasks.arm.stack import Stack

RUNS = Path("runs/dagger")
EPISODES = 200
"""Of the evaluation of every policy."""
MOST_SEEDS = 4
"""Training seeds that have demonstrations and rounds of their own; the last one is for tuning, never for the tables."""
CONTROL_HZ = 20.0
SUCCESS_GOAL = 0.95
"""Of DAgger with a label everywhere, and of the robots that ask for two fifths of its labels."""

CLONES = {
    "with always' labels": ("always",),
    "with corrections' labels": ("human", "ensemble", "thrifty", "likelihood"),
}
"""Cloning baselines, and the variants whose labelled steps they must at least have."""
ASKING = ("ensemble", "thrifty", "likelihood")
RELABELLING = ("relabelling", "live relabelling")
DRAWN = ("always", "human")
"""Variants whose distance from the expert's states is drawn."""
GATES: dict[str, dict[str, Any]] = {
    "always": {"name": "beta", "schedule": "linear", "start": 0.6},
    "human": {"name": "human"},
    **{name: {"name": name, "budget": 0.3} for name in ASKING},
    **{name: {"name": "beta", "start": 0.0} for name in RELABELLING},
}


@dataclass(frozen=True, kw_only=True)
class Study:
    """A task, and how policies are trained and corrected on it."""

    task: dict[str, Any]
    policy: dict[str, Any]
    demonstrations: int = 20
    variants: tuple[str, ...] = (*GATES,)
    late_expert: str = ""
    """Whose labels come late, for live relabelling."""
    max_steps: int
    """Of an episode of a round: a policy that is stuck shows nothing new. Evaluations take the task's own."""
    rounds: int = 10
    episodes: int = 40
    """Of each round."""
    updates: int = 3500
    """Of a round's training, from scratch on all data so far; cloning from more has twice as many."""
    learning_rate: float = 3e-3
    measured: int = 20
    """Episodes that every round's policy is measured on, for the figures."""
    num_envs: int = 40
    gates: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What is different of a gate on this task."""


NETWORK = {"name": "mlp", "hidden_sizes": [128, 128, 128], "layer_norm": True}
POLICY = {
    "obs_ranges": {"proprio": [0, 14]},  # without velocities and torques, which clones copy instead of looking
    "obs_clip": 5.0,
    "backbone": NETWORK,
    "head": {"name": "gaussian", "squash": False},
}
STUDIES = {
    "Stack": Study(
        task={"id": "Stack"},
        max_steps=160,
        policy=POLICY,
        late_expert="benchmarks.dagger:LateStackExpert",
    ),
    "PegInsert": Study(
        task={"id": "PegInsert"}, max_steps=160, policy=POLICY, late_expert="benchmarks.dagger:LatePegExpert"
    ),
    "peg-insert-side-v3": Study(
        task={"id": "gym:Meta-World/MT1", "kwargs": {"env_name": "peg-insert-side-v3"}, "max_steps": 200},
        max_steps=200,
        policy={"backbone": NETWORK, "head": {"name": "gaussian", "squash": False}},
        demonstrations=10,
        variants=("always", "thrifty"),
        rounds=5,
        episodes=20,
        num_envs=10,
    ),
}


class LateExpert:
    """Gives labels as a person who watches does: what was right a reaction time ago."""

    task: type[Stack] | type[PegInsert]

    def __init__(self) -> None:
        self._spec = self.task().action_spec
        self._expert = self.task().expert(1)
        self._seen: deque[dict[str, torch.Tensor]] = deque(maxlen=1 + round(HumanGateConfig().reaction_s * CONTROL_HZ))
        self._episode = 0

    def reset(self) -> None:
        self._episode += 1
        self._expert.reset([self._episode])
        self._seen.clear()

    def __call__(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        self._seen.append({key: torch.from_numpy(value.copy())[None] for key, value in obs.items()})
        return self._spec.to_physical(self._expert.act(self._seen[0])[0].numpy())


class LateStackExpert(LateExpert):
    task = Stack


class LatePegExpert(LateExpert):
    task = PegInsert


# ---- runs


@dataclass(frozen=True)
class Job:
    """One run."""

    task: str
    variant: str
    seed: int
    runs: Path
    labels: int = 0
    """Of relabelling and of cloning from more: labelled steps that it is to have at least."""
    episode_steps: float = 0.0
    """Of relabelling: length of an episode."""

    @property
    def key(self) -> str:
        return f"{self.task}/{self.variant}/{self.seed}"

    @property
    def study(self) -> Study:
        return STUDIES[self.task]

    @property
    def home(self) -> Path:
        """The folder that all runs of a task and seed share."""
        return self.runs / self.task / f"seed_{self.seed}"

    @property
    def folder(self) -> Path:
        return self.home / self.variant.replace(" ", "_").replace("'", "")

    @property
    def demonstrations(self) -> Path:
        return self.home / "demonstrations.hdf5"

    @property
    def config(self) -> TaskConfig:
        return from_dict(TaskConfig, self.study.task)


def run(job: Job) -> dict[str, Any]:
    """Do one run, or what is left of it; returns what it found."""
    began = time.perf_counter()
    torch.set_num_threads(1)
    if job.variant.startswith("cloning"):
        policy, found = clone(job), {}
    else:
        policy, found = correct(job)
    with make(job.config, job.study.num_envs) as env:
        result = evaluate(load_policy(policy), env, range(REPORT_SEED, REPORT_SEED + EPISODES), name=job.key)
    print(f"{result} ({time.perf_counter() - began:.0f} s)", flush=True)
    return {
        "task": job.task,
        "variant": job.variant,
        "seed": job.seed,
        "solved": "".join(str(int(episode.success)) for episode in result.episodes),
        "seconds": round(time.perf_counter() - began, 1),
        **({"labelled": steps_of(data_of(job)), "rounds": []} | found),
    }


def data_of(job: Job) -> list[Path]:
    """Return the demonstrations that a run begins with."""
    more = job.folder / "more.hdf5"
    return [job.demonstrations, *([more] if more.exists() else [])]


def steps_of(files: Iterable[Path]) -> int:
    with Dataset([str(path) for path in files]) as dataset:
        return sum(dataset.lengths)


def clone(job: Job) -> Path:
    """Record (other episodes for each seed) and clone; a finished run is read."""
    first = RECORDING.start + job.seed * len(RECORDING) // MOST_SEEDS
    demonstrate(job, job.demonstrations, job.study.demonstrations, first)
    if job.labels:
        with Dataset(str(job.demonstrations)) as dataset:
            missing = job.labels - sum(dataset.lengths)
            count = max(1, math.ceil(1.05 * missing / np.mean(dataset.lengths)))  # lengths of the others are not known
        demonstrate(job, job.folder / "more.hdf5", count, first + 500)
    config = from_dict(
        BCConfig,
        {
            "dataset": [str(path) for path in data_of(job)],
            "policy": job.study.policy,
            "optimiser": {"learning_rate": job.study.learning_rate},
            "loop": quiet((2 if job.labels else 1) * job.study.updates),
            "seed": job.seed,
        },
    )
    return train_bc(config, job.folder / "train", resume=True, label=job.key).policy


def demonstrate(job: Job, path: Path, count: int, seed: int) -> None:
    if path.exists():
        return
    partial = path.parent / "recording"
    shutil.rmtree(partial, ignore_errors=True)  # of an interrupted recording
    partial.mkdir(parents=True)
    record(RecordConfig(task=job.config, output=str(partial / path.name), episodes=count, seed=seed, num_envs=10))
    os.replace(partial / path.name, path)
    shutil.rmtree(partial)


def correct(job: Job) -> tuple[Path, dict[str, Any]]:
    """Run DAgger; returns the policy and what was counted round by round."""
    study, live = job.study, job.variant == "live relabelling"
    episodes = study.episodes
    if job.variant in RELABELLING:
        episodes = math.ceil(job.labels / study.rounds / job.episode_steps)
    config = from_dict(
        DaggerConfig,
        {
            "policy": str(job.home / "cloning" / "train" / "policy"),
            "dataset": [str(job.demonstrations)],
            "task": {**study.task, "max_steps": study.max_steps},
            "from_scratch": True,
            "expert": study.late_expert if live else "auto",
            "gate": {**GATES[job.variant], **study.gates.get(job.variant, {})},
            "rounds": study.rounds,
            "episodes_per_round": episodes,
            "eval_episodes": study.measured,
            "optimiser": {"learning_rate": study.learning_rate},
            "loop": quiet(study.updates),
            "seed": CORRECTING.start + job.seed * len(CORRECTING) // MOST_SEEDS,
            "num_envs": min(study.num_envs, episodes),
        },
    )
    policy = dagger(config, job.folder)
    write_dagger_report(job.folder)
    facts = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))
    kept = ("steps", "expert_steps", "labelled_steps", "takeovers", "successes", "episodes")
    rounds = [{name: row[name] for name in kept} for row in facts["rounds"]]
    for row, alone in zip(rounds, list(facts["alone"].values())[1:]):
        row["alone"] = alone["success_rate"]
    labelled = steps_of([job.demonstrations]) + sum(row["labelled_steps"] for row in rounds)
    drawn = sorted(job.folder.glob("rounds/??/drift.json")) if job.variant in DRAWN else []
    drifts = [json.loads(path.read_text(encoding="utf-8")) for path in drawn]
    for drift in drifts:
        drift["mean_distance"] = [round(value, 3) for value in drift["mean_distance"]]
    return policy, {"labelled": labelled, "rounds": rounds, "drift": drifts}


def quiet(steps: int) -> dict[str, Any]:
    return {"total_steps": steps, "evaluate_every": 0, "checkpoint_every": 0, "tensorboard": False}


# ---- order of the runs

Outcomes = dict[str, dict[str, Any]]


def stages(
    tasks: list[str], variants: list[str], seeds: list[int], runs: Path
) -> Iterator[Callable[[Outcomes], list[Job]]]:
    """Yield what makes the jobs of each stage from what the stages before have found, seed after seed."""
    for seed in seeds:
        yield lambda _, seed=seed: [Job(task, "cloning", seed, runs) for task in tasks]
        yield lambda _, seed=seed: [
            Job(task, variant, seed, runs)
            for variant in GATES
            if variant in variants and variant not in RELABELLING
            for task in tasks
            if variant in STUDIES[task].variants
        ]
        yield lambda found, seed=seed: [
            *(job for task in tasks for job in baselines(task, seed, runs, found)),
            *(job for task in tasks for job in relabelled(task, seed, runs, found, variants)),
        ]


def baselines(task: str, seed: int, runs: Path, found: Outcomes) -> Iterator[Job]:
    """Yield cloning from more demonstrations, where what it is to be compared with is there."""
    for name, against in CLONES.items():
        labels = [found[key]["labelled"] for variant in against if (key := f"{task}/{variant}/{seed}") in found]
        if labels:
            yield Job(task, f"cloning {name}", seed, runs, labels=max(labels))


def relabelled(task: str, seed: int, runs: Path, found: Outcomes, variants: list[str]) -> Iterator[Job]:
    """Yield relabelling for as long as the simulated human corrected."""
    human = found.get(f"{task}/human/{seed}")
    if human is None:
        return
    labels, steps, episodes = (
        sum(row[name] for row in human["rounds"]) for name in ("labelled_steps", "steps", "episodes")
    )
    for variant in RELABELLING:
        if variant in variants and variant in STUDIES[task].variants:
            yield Job(task, variant, seed, runs, labels=labels, episode_steps=steps / episodes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default=",".join(STUDIES))
    parser.add_argument("--variants", default=",".join(GATES), help="beside cloning, which is always run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first_seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1, help="runs side by side, one thread each; 0 only reports")
    parser.add_argument("--runs", type=Path, default=RUNS)
    args = parser.parse_args()
    tasks, variants = args.tasks.split(","), args.variants.split(",")
    for given, known in ((tasks, STUDIES), (variants, GATES)):
        if unknown := [name for name in given if name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    began = time.perf_counter()
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    if args.workers:
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            for jobs in stages(tasks, variants, seeds, args.runs):
                found = load_runs("dagger")
                left = [job for job in jobs(found) if job.key not in found]
                running = {pool.submit(run, job): job.key for job in left}
                for done in as_completed(running):
                    save_runs("dagger", {running[done]: done.result()})
    report(load_runs("dagger"), time.perf_counter() - began)


# ---- what came of it


@dataclass(frozen=True)
class Cell:
    """The runs of one task and variant, in the order of their training seeds."""

    task: str
    variant: str
    runs: tuple[dict[str, Any], ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run["seed"] for run in self.runs)

    @property
    def solved(self) -> list[bool]:
        return [mark == "1" for run in self.runs for mark in run["solved"]]

    def mean(self, name: str) -> float:
        """Return the mean over the runs of what is counted in all rounds together, or of the run itself."""
        return float(
            np.mean([run[name] if name in run else sum(row[name] for row in run["rounds"]) for run in self.runs])
        )

    @property
    def expert_share(self) -> float:
        return self.mean("expert_steps") / self.mean("steps")


Cells = dict[tuple[str, str], Cell]


def cells(outcomes: Outcomes) -> Cells:
    """Return the finished runs by task and variant, tasks and variants in the order of this file."""
    variants = ["cloning", *(f"cloning {name}" for name in CLONES), *GATES]
    found: Cells = {}
    for task in STUDIES:
        for variant in variants:
            runs = [run for run in outcomes.values() if (run["task"], run["variant"]) == (task, variant)]
            runs = sorted((run for run in runs if run["seed"] < MOST_SEEDS - 1), key=lambda run: run["seed"])
            if runs:
                found[task, variant] = Cell(task, variant, tuple(runs))
    return found


def report(outcomes: Outcomes, seconds: float) -> None:
    found = cells(outcomes)
    rows = [success_row(cell) for cell in found.values()]
    claims = [row for task in STUDIES for row in claim_rows(task, found)]
    folder = write("dagger", rows, seconds=seconds).parent
    write("dagger_claims", claims, seconds=seconds)
    draw_success(found, folder / "dagger.png")
    draw_drift(found, DRAWN, folder / "dagger_claims.png")


def success_row(cell: Cell) -> SuccessRow:
    each = ", ".join(f"{run['solved'].count('1')}/{len(run['solved'])}" for run in cell.runs)
    note = f"{cell.mean('labelled'):,.0f} labelled steps; by training seed {each}"
    if cell.variant in GATES and GATES[cell.variant]["name"] != "beta":
        note += f"; the expert drove {100 * cell.expert_share:.0f}% of the steps"
    solved = cell.solved
    goal = SUCCESS_GOAL if cell.variant == "always" else None
    return SuccessRow.of(f"{cell.task}, {cell.variant}", sum(solved), len(solved), cell.seeds, goal=goal, note=note)


def claim_rows(task: str, found: Cells) -> Iterator[Row]:
    """Yield what issue and reader ask of a task's runs."""
    for name, against in CLONES.items():
        for variant in against:
            yield from beats(task, variant, f"cloning {name}", found)
    always = found.get((task, "always"))
    for variant in ("human", *ASKING):
        cell = found.get((task, variant))
        if cell is None:
            continue
        if always is not None:
            yield from against_always(cell, always)
        if variant in ASKING:
            yield budget_row(cell)
    for variant in RELABELLING:
        yield from beats(task, "human", variant, found)
    for variant in DRAWN:
        yield from growth_rows(task, variant, found)


def beats(task: str, variant: str, other: str, found: Cells) -> Iterator[Row]:
    """Yield whether a variant solves more than another: a permutation test of pairs.

    Whether an episode's two outcomes are exchanged is a coin's toss if both are equally good; over all tosses that is
    the exact McNemar test. Pairs have training seed and episode in common.
    """
    cell, peer = in_common(found.get((task, variant)), found.get((task, other)))
    if cell is None or peer is None:
        return
    ours, theirs = cell.solved, peer.solved
    p_value = mcnemar(PairedCounts.of(theirs, ours))
    labels = f"{cell.mean('labelled'):,.0f} labelled steps against {peer.mean('labelled'):,.0f}"
    yield Row(
        case=f"{task}, {variant} against {other}",
        unit="success rate's difference",
        ours=float(np.mean(ours) - np.mean(theirs)),
        # A goal of a difference above zero that is no chance: with p >= .05 no difference is enough.
        goal=0.0 if p_value < 0.05 else 1.0,
        note=f"permutation test p = {p_value:.2g}; {labels}; training seeds {', '.join(map(str, cell.seeds))}",
    )


def in_common(first: Cell | None, second: Cell | None) -> tuple[Cell, Cell] | tuple[None, None]:
    """Return two cells with the training seeds that both have finished."""
    if first is None or second is None:
        return None, None
    seeds = set(first.seeds) & set(second.seeds)
    first, second = (replace(c, runs=tuple(run for run in c.runs if run["seed"] in seeds)) for c in (first, second))
    return (first, second) if seeds else (None, None)


def against_always(cell: Cell, always: Cell) -> Iterator[Row]:
    """Yield what a variant needs of the expert beside labelling everything, and whether it gets as far."""
    ours, theirs = in_common(cell, always)
    if ours is None or theirs is None:
        return
    few = cell.variant in ("thrifty", "ensemble")
    steps = [c.mean("labelled_steps") for c in (ours, theirs)]
    rates = [float(np.mean(c.solved)) for c in (ours, theirs)]
    yield Row(
        case=f"{cell.task}, {cell.variant}: steps of the expert in all rounds",
        unit="ratio to always'",
        ours=steps[0] / steps[1],
        goal=0.4 if few else None,
        better="lower",
        note=f"{steps[0]:,.0f} against {steps[1]:,.0f}",
    )
    yield Row(
        case=f"{cell.task}, {cell.variant}: success beside always'",
        unit="success rate",
        ours=rates[0],
        goal=SUCCESS_GOAL if few else None,
        note=f"always-label {100 * rates[1]:.1f}%",
    )


def budget_row(cell: Cell) -> Row:
    budget = {**GATES[cell.variant], **STUDIES[cell.task].gates.get(cell.variant, {})}["budget"]
    each = ", ".join(
        f"{sum(r['expert_steps'] for r in run['rounds']) / sum(r['steps'] for r in run['rounds']):.3f}"
        for run in cell.runs
    )
    return Row(
        case=f"{cell.task}, {cell.variant}: the budget",
        unit="share's deviation from the budget",
        ours=abs(cell.expert_share / budget - 1.0),
        goal=0.2,
        better="lower",
        note=f"budget {budget:g}; the expert drove, by training seed, {each} of the steps",
    )


def growth_rows(task: str, variant: str, found: Cells) -> Iterator[Row]:
    """Yield how fast the summed distance from the expert's states grows: cloned, and after the last round."""
    cell = found.get((task, variant))
    if cell is None:
        return
    for name, place in (("cloned", 0), ("after the last round", -1)):
        exponents = [run["drift"][place]["exponent"] for run in cell.runs]
        within = [run["drift"][place]["within"][-1] for run in cell.runs]
        if None not in exponents:
            yield Row(
                case=f"{task}, {variant}, {name}: growth of the summed distance from the expert's states",
                unit="exponent",
                ours=float(np.mean(exponents)),
                better="lower",
                note=f"{100 * np.mean(within):.0f}% of the episodes never left them; by training seed "
                + ", ".join(f"{exponent:.2f}" for exponent in exponents),
            )


if __name__ == "__main__":
    main()
