"""AdroitHandDoor, from a person's demonstrations and success alone: cloned, and practised further.

    python -m benchmarks.adroit door-v0_demos.pickle [--seeds 3]

A hand of 28 joints opens a door. The file is of DAPG (Rajeswaran et al. 2018; dapg/demonstrations in the repository
aravindr93/hand_dapg): 25 episodes by a person in a glove. Their actions are executed anew from their first states in
gymnasium-robotics' AdroitHandDoorSparse-v1, whose physics is not that of 2018: what is learned from is what happens
there, and most of these episodes leave the door less far open than is asked. Half-done runs go on; finished ones are
kept in benchmarks/results/raw/adroit.json and not run again. Writes benchmarks/results/adroit.json.

A cloned Gaussian is practised by PPO with a cloning loss that fades (as DAPG's).
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import gymnasium_robotics
import h5py
import numpy as np

from benchmarks._report import Row, SuccessRow, load_runs, save_runs, write
from benchmarks.finetune import figures
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict
from robolearn.envs.make import make
from robolearn.evaluation.compare import compare
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.rl.finetune import finetune
from robolearn.seeds import REPORT_SEED
from robolearn.training.metrics import read_metrics

RUNS = Path("runs/adroit")
TASK = "AdroitHandDoorSparse-v1"
EPISODES, HELD_OUT = 500, 50
"""Fresh seeds of the report, and of the evaluations that pick a policy."""
GOAL = 0.9
READING: dict[str, Any] = {"control_hz": 100}
"""What the file leaves unsaid."""


WORLDS, UPDATES = 64, 120
POLICY: dict[str, Any] = {
    "obs_clip": 5.0,
    "backbone": {"name": "mlp", "hidden_sizes": [256, 256], "activation": "tanh"},
    "head": {"name": "gaussian", "squash": False},
}
PPO: dict[str, Any] = {
    "name": "ppo",
    "num_steps": 256,  # an episode is of 200 steps at most
    "batch_size": 4096,
    "learning_rate": 3e-5,
    "min_std": 0.01,  # a jitter of the arm by 0.05 lets go of the handle: no practice would see a reward
    "clip": 0.1,
    "target_kl": 0.01,
    "step_kl": 0.01,
    "gamma": 0.995,
    "critic_warmup": 4,
    "cloning_coef": 0.1,
    "prior_decay": 0.98,
    "compile": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demonstrations", type=Path)
    parser.add_argument("--seeds", type=int, default=1)
    args = parser.parse_args()
    if not args.demonstrations.is_file():
        parser.error(f"no file {args.demonstrations}; it is dapg/demonstrations/door-v0_demos.pickle of hand_dapg")
    began, outcomes = time.perf_counter(), load_runs("adroit")
    data = RUNS / "demonstrations.hdf5"
    if not (data.exists() and "demonstrations" in outcomes):
        opened = replayed(args.demonstrations, data)
        outcomes = save_runs(
            "adroit", outcomes | {"demonstrations": {"successes": sum(opened), "episodes": len(opened)}}
        )
    for seed in range(args.seeds):
        if f"ppo/{seed}" not in outcomes:
            outcomes = save_runs("adroit", outcomes | {f"ppo/{seed}": run(data, seed)})
    write("adroit", rows(outcomes), seconds=time.perf_counter() - began)


class _Arrays(pickle.Unpickler):
    """Reads arrays, and nothing else: a pickle can hold code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in {
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "scalar"),
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
        }:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not of a file of arrays")


def replayed(source: Path, path: Path) -> list[bool]:
    """Execute the actions of a file of DAPG anew, write what happens in robomimic's layout; returns who succeeded."""
    with source.open("rb") as file:
        episodes = _Arrays(file, encoding="latin1").load()
    gym.register_envs(gymnasium_robotics)
    env = gym.make(TASK, max_episode_steps=max(len(episode["actions"]) for episode in episodes))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, opened = path.with_suffix(".partial"), []
    with h5py.File(partial, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": TASK, "type": 2, "env_kwargs": {}})
        for index, episode in enumerate(episodes):
            obs, _ = env.reset(options={"initial_state_dict": episode["init_state_dict"]})
            observed, executed, rewards = [], [], []
            for action in np.clip(episode["actions"], -1.0, 1.0).astype(np.float32):
                observed.append(obs)
                executed.append(action)
                obs, _, _, _, info = env.step(action)
                rewards.append(float(info["success"]))
                if info["success"]:
                    break
            group = data.create_group(f"demo_{index}")
            group.attrs["num_samples"] = len(executed)
            group["obs/state"] = np.asarray(observed, np.float32)
            group["next_obs/state"] = np.asarray([*observed[1:], obs], np.float32)
            group["actions"], group["rewards"] = np.stack(executed), np.asarray(rewards)
            group["dones"] = np.asarray(rewards, np.uint8)
            opened.append(bool(rewards[-1]))
    os.replace(partial, path)
    return opened


def run(data: Path, seed: int) -> dict[str, Any]:
    """Clone, practise, and judge before and after."""
    folder = RUNS / f"ppo_seed{seed}"
    loop = {"total_steps": 5000, "evaluate_every": 0, "tensorboard": False}
    cloning = {"dataset": [str(data)], "policy": POLICY, "loop": loop, "seed": seed}
    home = folder / "clone"
    clone = train_bc(from_dict(BCConfig, cloning | READING), home, resume=home.exists(), label="clone").policy
    practice = {
        "policy": str(clone),
        "method": PPO,
        "output": str(folder / "finetune"),
        "task": {"id": f"gym:{TASK}"},
        "num_envs": WORLDS,
        "demonstrations": [str(data)],
        **READING,
        "eval_episodes": HELD_OUT,
        "test_episodes": HELD_OUT,
        "seed": seed,
        "loop": {
            "total_steps": UPDATES,
            "log_every": 1,
            "evaluate_every": UPDATES // 12,
            "checkpoint_every": UPDATES // 12,
            "tensorboard": False,
        },
    }
    config = from_dict(FinetuneConfig, practice)
    result = finetune(config, config.output, resume=True)
    curve = [row for row in read_metrics(config.output) if "eval_success" in row]
    before, after = judged(clone), judged(result.policy)
    comparison = compare(before, after)
    print(f"{before}\n{after}\n{comparison}", flush=True)
    return {
        "before": figures(before),
        "after": figures(after),
        "p_value": comparison.p_value,
        "first_seed": REPORT_SEED,
        "env_steps": result.env_steps,
        "minutes": round(float(curve[-1]["time_s"]) / 60.0, 1),
        "curve": [[row["step"], row["eval_success"], row["eval_steps"]] for row in curve],
    }


def judged(policy: Path) -> EvaluationResult:
    with make(TaskConfig(id=f"gym:{TASK}"), 32) as env:
        return evaluate(load_policy(policy), env, range(REPORT_SEED, REPORT_SEED + EPISODES), name=policy.parent.name)


def rows(outcomes: dict[str, dict[str, Any]]) -> list[Row]:
    """Return success of the demonstrations, and before and after practice."""
    shown, found = outcomes["demonstrations"], list[Row]()
    case = "door, a person's actions executed anew"
    found.append(SuccessRow.of(case, shown["successes"], shown["episodes"], []))
    runs = {int(key.split("/")[1]): run for key, run in sorted(outcomes.items()) if key.startswith("ppo/")}
    for when in ("before", "after") if runs else ():
        successes, episodes = (sum(run[when][of] for run in runs.values()) for of in ("successes", "episodes"))
        note = "by seed " + ", ".join(f"{run[when]['successes']}/{run[when]['episodes']}" for run in runs.values())
        if when == "after":
            steps, minutes = (np.mean([run[of] for run in runs.values()]) for of in ("env_steps", "minutes"))
            note += f"; {steps / 1e6:.2f} M steps of practice, {minutes:.0f} minutes"
            note += f"; largest p of the paired tests {max(run['p_value'] for run in runs.values()):.2g}"
            times = [run[side]["seconds"] for run in runs.values() for side in ("before", "after")]
            note += f"; median time to success {np.median(times[1::2]):.2f} s, cloned {np.median(times[::2]):.2f} s"
        case = f"door, ppo, {'cloned' if when == 'before' else 'practised'}"
        goal = GOAL if when == "after" else None
        found.append(SuccessRow.of(case, successes, episodes, list(runs), goal=goal, note=note))
    return found


if __name__ == "__main__":
    main()
