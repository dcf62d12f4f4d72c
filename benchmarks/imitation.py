"""Every policy on the same demonstrations and seeds: success with Wilson's interval, per task and demonstrations.

    python -m benchmarks.imitation [--tasks Fork] [--policies mixture,flow] [--seeds 3]

A cell is one task, policy and number of demonstrations; each of its training seeds is a run of its own under
runs/imitation. Half-trained runs go on; the outcome of every finished one is kept in
benchmarks/results/raw/imitation.json and not run again (take it out there to have it run anew), so that the table can
grow over days and machines.
Writes benchmarks/results/imitation.json and imitation_sides.json from all outcomes.

A row counts the last weights. Its note gives the mean and the best of the last checkpoints, too, on the same seeds, as
publications do; the best of several is that much too good.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import Row, SuccessRow, load_runs, save_runs, write
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree import from_dict
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.seeds import REPORT_SEED
from robolearn.training.metrics import read_metrics

RUNS = Path("runs/imitation")
"""Of the evaluation; demonstrations have the seeds from 0 on."""
EPISODES = 100
"""Of each evaluation."""
CHECKPOINTS = 5
"""That are evaluated: the last of ten."""

POLICIES: dict[str, dict[str, Any]] = {
    "l2": {"head": {"name": "deterministic"}},
    "gaussian": {"head": {"name": "gaussian", "squash": False}},
    "mixture": {"head": {"name": "mixture"}},
    "autoregressive": {
        "head": {
            "name": "autoregressive",
            "width": 64,
            "num_layers": 2,
            "num_bins": 16,
            "min_scale": 0.05,
            "dropout": 0.1,
            "context_noise": 0.1,
        },
    },
    "diffusion": {
        "head": {"name": "diffusion", "inference_steps": 25, "eta": 1.0},
        "action_normalisation": "min_max",
    },
    "flow": {"head": {"name": "flow"}, "action_normalisation": "min_max"},
    "act": {
        "head": {"name": "act", "width": 128, "num_heads": 4, "encoder_layers": 2, "decoder_layers": 2},
        "pred_steps": 20,
    },
}
FEWER_ROWS = {"act": 32}
"""Of a batch: each row of ACT's is a sequence of a chunk's length, of which its authors take 8 (Zhao et al. 2023)."""
Cell = tuple[str, int, str]
"""Task, number of demonstrations, policy."""
GOALS = {
    ("Stack", 200): 0.95,
    ("PegInsert", 200): 0.9,
    ("PushT", 200): 0.64,
    ("Lift from pixels", 100): 0.95,
    ("PickPlace from pixels", 100): 0.8,
}
"""Success that is asked of the best policy; PushT's is what Diffusion Policy reaches (Chi et al. 2023)."""
MODAL = ("mixture", "autoregressive", "diffusion", "flow")
"""Policies that can hold several ways of doing a thing."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A task and how policies are trained on it."""

    task: dict[str, Any]
    demonstrations: tuple[int, ...]
    action_noise: float = 0.0
    disturbances: float = 0.0
    """Of the recording, in a second; the labels are then what is cloned."""
    disturbing: dict[str, Any] = field(default_factory=dict)
    """How, where not as usual."""
    policies: tuple[str, ...] = tuple(POLICIES)
    policy: dict[str, Any] = field(default_factory=dict)
    own: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is different for one of the policies."""
    steps: int = 10_000
    batch_size: int = 256
    learning_rate: float = 5e-4


STATE_CHUNKS = {
    "obs_steps": 1,
    "pred_steps": 8,
    "exec_steps": 4,
    "backbone": {"name": "mlp", "hidden_sizes": [256, 256]},
}
NORMALISED = {"name": "mlp", "hidden_sizes": [256, 256, 256], "layer_norm": True}
PRECISE = {
    **STATE_CHUNKS,
    "obs_ranges": {"proprio": [0, 14]},  # velocities and torques tell what was done last, which clones would copy
    "obs_clip": 5.0,
    "obs_fine": 0.01,  # millimetres decide, in positions that span half a metre
    "backbone": NORMALISED,
}
PIXELS: dict[str, dict[str, list[int]]] = {
    "Lift": {"proprio": [0, 14]},
    "PickPlace": {"proprio": [0, 14], "goal": [0, 3]},  # which of the bins; the rest says where the cube is
}
"""Tasks that are cloned from pictures, and what else is seen: ranges of observations."""
METAWORLD = ("pick-place-v3", "peg-insert-side-v3", "assembly-v3", "door-open-v3")
STUDIES: dict[str, Study] = {
    "Fork": Study(
        task={"id": "Fork"},
        demonstrations=(20, 50, 100, 200),
        policy={**STATE_CHUNKS, "pred_steps": 16, "exec_steps": 8},
    ),
    **{
        name: Study(task={"id": name}, demonstrations=(20, 50, 200), policy=STATE_CHUNKS)
        for name in ("Reach", "Lift", "PickPlace")
    },
    "PegInsert": Study(
        task={"id": "PegInsert"},
        demonstrations=(20, 50, 200),
        disturbances=1.0,  # small ones as often as large; a peg that is let go of is lost
        disturbing={"disturbance_speed": [0.05, 1.0], "undisturbed": ["grip"]},
        policy=PRECISE,
        steps=12_000,
        learning_rate=1e-3,
    ),
    "Stack": Study(
        task={"id": "Stack"},
        demonstrations=(20, 50, 200),
        disturbances=0.25,  # without, nobody shows the way back from beside the cube
        policy=PRECISE,
        steps=12_000,
        learning_rate=1e-3,
    ),
    "PushT": Study(
        task={"id": "PushT"},
        demonstrations=(20, 50, 200),
        disturbances=0.25,  # without, policies that once push the T away never bring it back
        # The puck's velocity and its command's lead tell what was done last.
        policy={
            **STATE_CHUNKS,
            "obs_ranges": {"proprio": [0, 2]},
            "obs_fine": 0.01,
            "backbone": NORMALISED,
        },
        own={name: {"pred_steps": 16} for name in ("diffusion", "flow")},
        steps=24_000,
        learning_rate=1e-3,
    ),
    **{
        name: Study(
            task={"id": "gym:Meta-World/MT1", "kwargs": {"env_name": name}},
            demonstrations=(50,),
            action_noise=0.1,
            policy=STATE_CHUNKS,
        )
        for name in METAWORLD
    },
    "FetchPickAndPlace": Study(
        task={"id": "gym:FetchPickAndPlace-v4"},
        demonstrations=(50, 100),
        action_noise=0.1,
        policy={**STATE_CHUNKS, "exec_steps": 2},  # one action moves the gripper by up to 5 cm
    ),
    **{
        f"{name} from pixels": Study(
            task={"id": name, "kwargs": {"cameras": ["front", "wrist"]}},
            demonstrations=(100,),
            disturbances=0.25,
            policies=("mixture", "flow"),
            policy={
                **STATE_CHUNKS,
                "obs_keys": ["front", "wrist", *seen],
                "obs_ranges": seen,
                "obs_clip": 5.0,
                "backbone": NORMALISED,
                "vision": {"network": "shallow"},
            },
            steps=6_000 if name == "Lift" else 10_000,
            batch_size=64,
            learning_rate=1e-3,
        )
        for name, seen in PIXELS.items()
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="Fork")
    parser.add_argument("--policies", default="", help="comma-separated; empty for all of the task's")
    parser.add_argument("--demonstrations", type=int, default=0, help="0 for all of the task's numbers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--num_envs", type=int, default=50)
    parser.add_argument("--runs", type=Path, default=RUNS)
    args = parser.parse_args()
    for given, known in ((args.tasks, STUDIES), (args.policies, POLICIES)):
        if unknown := [name for name in given.split(",") if name and name not in known]:
            parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
    began, outcomes = time.perf_counter(), load_runs("imitation")
    for name in args.tasks.split(","):
        study = STUDIES[name]
        for count in [args.demonstrations] if args.demonstrations else study.demonstrations:
            data = demonstrations(name, study, count, args.runs)
            for policy in args.policies.split(",") if args.policies else study.policies:
                for seed in range(args.seeds):
                    key = f"{name}/{count}/{policy}/{seed}"
                    if key not in outcomes:
                        outcomes[key] = run(name, study, data, policy, count, seed, args)
                        outcomes = save_runs("imitation", outcomes)
    found, seconds = cells(outcomes), time.perf_counter() - began
    write("imitation", [success_row(*key, found[key]) for key in found], seconds=seconds)
    sides = [side_row(*key, found[key]) for key in found if key[0] == "Fork" and key[2] in MODAL]
    if sides:
        write("imitation_sides", sides, seconds=seconds)


def demonstrations(name: str, study: Study, count: int, runs: Path) -> Path:
    """The file that all policies of a cell learn from, recorded once."""
    path = runs / folder_name(name) / f"demonstrations_{count}.hdf5"
    if not path.exists():
        partial = path.with_name("recording")
        shutil.rmtree(partial, ignore_errors=True)  # of an interrupted recording
        partial.mkdir(parents=True)
        output = partial / path.name
        how = {"action_noise": study.action_noise, "disturbances": study.disturbances, **study.disturbing}
        record(from_dict(RecordConfig, {"task": study.task, "output": str(output), "episodes": count, **how}))
        os.replace(output, path)
        shutil.rmtree(partial)
    return path


def folder_name(study: str) -> str:
    return study.replace(" ", "_")


def run(
    name: str, study: Study, data: Path, policy: str, count: int, seed: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Train and evaluate one seed."""
    folder = args.runs / folder_name(name) / f"{policy}_{count}_seed{seed}"
    config = from_dict(
        BCConfig,
        {
            "dataset": [str(data)],
            "target": "labels" if study.disturbances else "actions",
            "policy": {**study.policy, **POLICIES[policy], **study.own.get(policy, {})},
            "batch_size": FEWER_ROWS.get(policy, study.batch_size),
            "optimiser": {"learning_rate": study.learning_rate, "warmup_steps": 200, "max_grad_norm": 1.0},
            "loop": {"total_steps": study.steps, "tensorboard": False, "evaluate_every": study.steps // 10},
            "seed": seed,
        },
    )
    began, judging = time.perf_counter(), 0.0
    with make(from_dict(TaskConfig, study.task), args.num_envs) as env:

        def judged(trained: Policy) -> EvaluationResult:
            ensembled = PolicyRunner(trained, env.num_envs, temporal_ensemble=0.01) if policy == "act" else None
            return evaluate(
                ensembled or trained,
                env,
                range(REPORT_SEED, REPORT_SEED + EPISODES),
                name=f"{name} {policy}",
                deterministic=policy not in MODAL,
                record="trajectory" if name == "Fork" else "none",
                record_limit=EPISODES,
            )

        def checkpoint(trained: Policy, step: int) -> dict[str, float]:
            nonlocal judging
            if not study.steps * (10 - CHECKPOINTS) // 10 < step < study.steps:
                return {}
            started = time.perf_counter()
            successes = judged(trained).successes
            judging += time.perf_counter() - started
            return {"successes": successes}

        result = train_bc(config, folder, resume=folder.exists(), evaluate=checkpoint, label=f"{name} {policy} {seed}")
        trained = time.perf_counter() - began - judging
        found = judged(load_policy(result.policy))
    checkpoints = [int(row["successes"]) for row in read_metrics(folder) if "successes" in row]
    print(f"seed {seed}: {found} (trained in {trained:.0f} s)", flush=True)
    return {
        "task": name,
        "policy": policy,
        "demonstrations": count,
        "seed": seed,
        "steps": config.loop.total_steps,
        "disturbances": study.disturbances,
        "first_seed": REPORT_SEED,
        "successes": found.successes,
        "checkpoints": [*checkpoints, found.successes],
        "episodes": len(found.episodes),
        "score": found.mean_score,
        "left": left_turns(found) if name == "Fork" else None,
        "train_seconds": round(trained, 1),
    }


def left_turns(result: EvaluationResult) -> int:
    """Solved episodes of Fork that passed the wall on its positive side."""
    left = 0
    for episode in result.episodes:
        if episode.success and episode.trajectory is not None:
            to_wall = np.asarray(episode.trajectory.obs["object"])[:, 2:4]  # wall minus puck
            left += int(to_wall[np.abs(to_wall[:, 0]).argmin(), 1] < 0)
    return left


def cells(outcomes: dict[str, dict[str, Any]]) -> dict[Cell, list[dict[str, Any]]]:
    """Outcomes of all training seeds by task, demonstrations and policy, in the order of the tables."""
    found: dict[Cell, list[dict[str, Any]]] = {}
    for _, outcome in sorted(outcomes.items()):
        found.setdefault((outcome["task"], outcome["demonstrations"], outcome["policy"]), []).append(outcome)
    order = list(POLICIES)
    return {key: found[key] for key in sorted(found, key=lambda k: (k[0], k[1], order.index(k[2])))}


def success_row(task: str, count: int, policy: str, outcomes: list[dict[str, Any]]) -> SuccessRow:
    successes, episodes = (sum(o[name] for o in outcomes) for name in ("successes", "episodes"))
    note = "by training seed: " + ", ".join(f"{o['successes']}/{o['episodes']}" for o in outcomes)
    if all("checkpoints" in o for o in outcomes):
        mean = np.mean([np.mean(o["checkpoints"]) for o in outcomes])
        best = np.mean([max(o["checkpoints"]) for o in outcomes])
        note += f"; the last {CHECKPOINTS} checkpoints' mean {mean:.1f} and best {best:.1f} of {EPISODES}"
    if outcomes[0].get("disturbances"):
        note += "; with disturbances"
    if scores := [o["score"] for o in outcomes if o.get("score") is not None]:
        note += f"; mean largest score {np.mean(scores):.3f}"
    return SuccessRow.of(
        f"{task}, {count} demonstrations, {policy}",
        successes,
        episodes,
        [o["seed"] for o in outcomes],
        goal=0.98 if task == "Fork" and policy in MODAL else GOALS.get((task, count)),
        note=note,
    )


def side_row(task: str, count: int, policy: str, outcomes: list[dict[str, Any]]) -> Row:
    """Whether both ways round the wall are taken."""
    left = sum(o["left"] for o in outcomes) / max(sum(o["successes"] for o in outcomes), 1)
    return Row(
        case=f"{task}, {count} demonstrations, {policy}",
        unit="share of solved episodes that took the rarer side",
        ours=min(left, 1 - left),
        goal=0.3,
        note=f"{left:.0%} by the left",
    )


if __name__ == "__main__":
    main()
