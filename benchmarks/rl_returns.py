"""Returns of PPO and SAC from scratch beside Stable-Baselines3: same versions, tasks, seeds, steps and settings.

    python -m benchmarks.rl_returns [--algorithm ppo sac] [--task HalfCheetah-v5 ...] [--seeds 3] [--env-steps 1000000]

Resumable: every finished curve is kept in benchmarks/results/raw/rl_returns.json and not run again, and our own runs go
on from their checkpoints. Both sides are evaluated on the same ten episode seeds with the mode of the policy; a curve's
figure is its last evaluation. Both PPOs normalise observations and returns, anneal the step size and start from our
standard deviation of 0.5 (Stable-Baselines3's own is 1); ours also recomputes its advantages before every epoch, as it
does by default, which Stable-Baselines3 does not offer.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from benchmarks._report import Row, load_runs, save_runs, write
from robolearn.envs.config import TaskConfig
from robolearn.rl.config import PPOConfig, SACConfig
from robolearn.rl.train import train_rl
from robolearn.rl.train_config import RLConfig
from robolearn.training.metrics import read_metrics

EVAL_SEEDS = range(10)
TASKS = {
    "ppo": ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "InvertedPendulum-v5", "Reacher-v5", "Pusher-v5"),
    "sac": ("HalfCheetah-v5", "Hopper-v5"),
}
GOALS = {("ppo", "HalfCheetah-v5"): 5784.0, ("sac", "HalfCheetah-v5"): 11_000.0}
"""Published returns at 1M steps (Tianshou's benchmark for PPO; the issue's own goal for SAC)."""

Curve = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", nargs="*", default=["ppo", "sac"], choices=["ppo", "sac"])
    parser.add_argument("--task", nargs="*", help="Gymnasium ids; none takes the algorithm's list")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--env-steps", type=int, default=1_000_000)
    parser.add_argument("--runs", type=Path, default=Path("runs/returns"))
    args = parser.parse_args()
    began, curves = time.perf_counter(), load_runs("rl_returns")
    cases = [(a, task) for a in args.algorithm for task in args.task or TASKS[a]]
    for seed in range(args.seeds):
        for algorithm, task in cases:
            for side, run in (("ours", our_curve), ("sb3", sb3_curve)):
                key = f"{side}/{algorithm}/{task}/{args.env_steps}/{seed}"
                if key not in curves:
                    curves[key] = run(algorithm, task, seed, args.env_steps, args.runs)
                    curves = save_runs("rl_returns", curves)
    rows = [row(curves, algorithm, task, args.env_steps) for algorithm, task in cases]
    write("rl_returns", rows, seconds=time.perf_counter() - began)


def our_config(algorithm: str, task: str, seed: int, env_steps: int, runs: Path) -> RLConfig:
    common: dict[str, Any] = {
        "task": TaskConfig(id=f"gym:{task}"),
        "seed": seed,
        "env_steps": env_steps,
        "evaluate_every": env_steps // 20,
        "eval_episodes": len(EVAL_SEEDS),
        "tensorboard": False,
        "output": str(runs / f"{algorithm}_{task}_{env_steps}_{seed}"),
    }
    if algorithm == "ppo":
        settings = PPOConfig(anneal=True, normalise_obs=True, normalise_returns=True, compile=True)
        return RLConfig(algorithm=settings, num_envs=8, **common)
    return RLConfig(algorithm=SACConfig(random_steps=10_000, compile=True), **common)


def our_curve(algorithm: str, task: str, seed: int, env_steps: int, runs: Path) -> Curve:
    config = our_config(algorithm, task, seed, env_steps, runs)
    train_rl(config, resume=True)
    rows = [row for row in read_metrics(config.output) if "eval_return" in row]
    return {"env_steps": [row["env_steps"] for row in rows], "returns": [row["eval_return"] for row in rows]}


def sb3_curve(algorithm: str, task: str, seed: int, env_steps: int, runs: Path) -> Curve:
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    if algorithm == "ppo":
        env: Any = VecNormalize(make_vec_env(task, n_envs=8, seed=seed), gamma=0.99)
        settings: dict[str, Any] = {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "seed": seed, "device": "cpu"}
        settings["policy_kwargs"] = {"log_std_init": math.log(0.5)}
        model: Any = PPO("MlpPolicy", env, learning_rate=lambda left: 3e-4 * left, **settings)
    else:
        env = None
        model = SAC("MlpPolicy", task, learning_starts=10_000, seed=seed, device="cpu")

    def act(obs: np.ndarray) -> np.ndarray:
        return model.predict(obs if env is None else env.normalize_obs(obs), deterministic=True)[0]

    curve: Curve = {"env_steps": [], "returns": []}
    callback = _Evaluations(task, env_steps // 20, act, curve)
    model.learn(env_steps, callback=callback.callback)
    return curve


class _Evaluations:
    """Evaluates Stable-Baselines3's model every so many steps, on our seeds."""

    def __init__(self, task: str, every: int, act: Callable[[np.ndarray], np.ndarray], curve: Curve) -> None:
        self.task, self.every, self.act, self.curve = task, every, act, curve

    def callback(self, local: dict[str, Any], _: dict[str, Any]) -> bool:
        steps = local["self"].num_timesteps
        if steps >= self.every * (len(self.curve["returns"]) + 1):
            self.curve["env_steps"].append(steps)
            self.curve["returns"].append(mean_return(self.task, self.act, EVAL_SEEDS))
        return True


def mean_return(task: str, act: Callable[[np.ndarray], np.ndarray], seeds: Sequence[int]) -> float:
    """Over one episode per seed."""
    returns = []
    with gymnasium.make(task) as env:
        for seed in seeds:
            obs, total, ended = env.reset(seed=seed)[0], 0.0, False
            while not ended:
                obs, reward, terminated, truncated, _ = env.step(act(obs))
                total, ended = total + float(reward), terminated or truncated
            returns.append(total)
    return float(np.mean(returns))


def row(curves: dict[str, Curve], algorithm: str, task: str, env_steps: int) -> Row:
    """Over the training seeds that both sides have finished."""
    runs = {side: f"{side}/{algorithm}/{task}/{env_steps}/" for side in ("ours", "sb3")}
    common = set.intersection(*({k.removeprefix(p) for k in curves if k.startswith(p)} for p in runs.values()))
    seeds = sorted(common, key=int)
    finals = {side: np.array([curves[p + seed]["returns"][-1] for seed in seeds]) for side, p in runs.items()}
    ours, theirs = finals["ours"].mean(), finals["sb3"].mean()
    published = GOALS.get((algorithm, task), -np.inf) if env_steps >= 1_000_000 else -np.inf
    by_seed = "; ".join(f"{side} {', '.join(f'{x:.4g}' for x in found)}" for side, found in finals.items())
    return Row(
        case=f"{algorithm.upper()} {task}, {env_steps:,} steps",
        unit="mean return of the last evaluation",
        ours=float(ours),
        peer=float(theirs),
        peer_name="Stable-Baselines3",
        goal=float(max(theirs, published)),
        note=f"by training seed: {by_seed}",
    )


if __name__ == "__main__":
    main()
