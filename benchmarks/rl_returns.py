"""Returns of PPO and SAC from scratch beside Stable-Baselines3: same versions, tasks, seeds, steps and settings.

    python -m benchmarks.rl_returns [--algorithm ppo sac] [--task HalfCheetah-v5 ...] [--seeds 3] [--side ours sb3]
                                    [--until 300000]

A day's work, so it may be cut into pieces: Ctrl-C (or SIGTERM) ends it, the same command goes on from the last
checkpoints, and `--until` lets SAC, whose course does not depend on its length, go only so far this time. What there
is so far of every curve is kept in benchmarks/results/raw/rl_returns.json and drawn in rl_returns.png beside the table.
Two processes, one for each side, may work side by side.

Both sides are evaluated on the same ten episode seeds with the mode of the policy. PPO, which anneals its step size, is
compared at the end, SAC at every 100,000 steps that both sides have reached; ours multiplies in bfloat16, for which
Stable-Baselines3 has no setting, so the table also shows what that costs. Both PPOs normalise observations and
returns and start from the same standard deviation, ours: half of the way from the middle of an action to its limit
(Stable-Baselines3's own is 1 in the task's units, whatever the limits). Ours has what Stable-Baselines3 does not offer:
advantages computed anew before every epoch, a mean within the limits of the actions, and a step size that falls while
updates move the policy too far (`step_kl`, chosen on training seeds 21 and 22).
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator
from scipy import stats

from benchmarks._report import Row, load_runs, save_runs, write
from robolearn.configuration.parts.algorithms import PPOConfig, SACConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import RLConfig
from robolearn.evaluation.curves import Curve as Line, Group, draw_groups
from robolearn.rl.from_scratch import train_rl
from robolearn.training.metrics import read_metrics

NAME = "rl_returns"
EVAL_SEEDS = range(10)
TASKS = {
    "ppo": ("HalfCheetah-v5", "Hopper-v5", "Walker2d-v5", "Ant-v5", "InvertedPendulum-v5", "Reacher-v5", "Pusher-v5"),
    "sac": ("HalfCheetah-v5", "Hopper-v5"),
}
GOALS = {("ppo", "HalfCheetah-v5"): 5784.0, ("sac", "HalfCheetah-v5"): 11_000.0}
"""Published returns at 1M steps (Tianshou's benchmark for PPO; our own goal for SAC)."""

RANDOM_STEPS = 10_000
"""Before SAC learns."""
EVALUATE_EVERY = {"ppo": 50_000, "sac": 10_000}
"""Steps between evaluations."""
LAST = 5
"""PPO's evaluations whose mean is told beside the last: Hopper's returns differ by hundreds from one to the next."""
MARK = 100_000
"""Steps between SAC's comparisons."""

Curve = dict[str, list[float]]
Keep = Callable[[Curve], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", nargs="*", default=["ppo", "sac"], choices=["ppo", "sac"])
    parser.add_argument("--task", nargs="*", help="Gymnasium ids; none takes the algorithm's list")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--side", nargs="*", default=["ours", "sb3"], choices=["ours", "sb3"])
    parser.add_argument("--env-steps", type=int, default=1_000_000)
    parser.add_argument("--until", type=int, default=1_000_000_000)
    parser.add_argument("--runs", type=Path, default=Path("runs/returns"))
    args = parser.parse_args()
    began = time.perf_counter()
    cases = [(a, task) for a in args.algorithm for task in args.task or TASKS[a]]
    every = list(dict.fromkeys([*((a, task) for a, tasks in TASKS.items() for task in tasks), *cases]))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        for seed, (algorithm, task), side in itertools.product(range(args.seeds), cases, args.side):
            key = f"{side}/{algorithm}/{task}/{args.env_steps}/{seed}"
            end = min(args.until, args.env_steps) if algorithm == "sac" else args.env_steps
            if not reached(load_runs(NAME).get(key), end):
                run = our_run if side == "ours" else sb3_run
                folder = args.runs / f"{side}_{algorithm}_{task}_{args.env_steps}_{seed}"
                run(algorithm, task, seed, end, folder, lambda c, key=key: save_runs(NAME, {key: c}))
    curves = load_runs(NAME)
    found = [row for case in every for row in rows(curves, *case, args.env_steps)]
    if not found:
        print("nothing to compare yet: no run of both sides has got far enough")
        return
    picture = draw(curves, every, args.env_steps)
    picture.savefig(write(NAME, found, seconds=time.perf_counter() - began).with_suffix(".png"), dpi=90)


def our_config(algorithm: str, task: str, seed: int, env_steps: int, folder: Path) -> RLConfig:
    common: dict[str, Any] = {
        "task": TaskConfig(id=f"gym:{task}"),
        "seed": seed,
        "env_steps": env_steps,
        "evaluate_every": EVALUATE_EVERY[algorithm],
        "eval_episodes": len(EVAL_SEEDS),
        "tensorboard": False,
        "output": str(folder),
    }
    if algorithm == "ppo":
        settings = PPOConfig(anneal=True, step_kl=0.015, normalise_obs=True, normalise_returns=True, compile=True)
        return RLConfig(algorithm=settings, num_envs=8, **common)
    return RLConfig(algorithm=SACConfig(random_steps=RANDOM_STEPS, compile=True, bf16=True), **common)


def our_run(algorithm: str, task: str, seed: int, env_steps: int, folder: Path, keep: Keep) -> None:
    config = our_config(algorithm, task, seed, env_steps, folder)
    try:
        train_rl(config, resume=True)
    finally:
        evaluations = [row for row in read_metrics(config.output) if "eval_return" in row]
        if evaluations:
            steps, returns = ([row[name] for row in evaluations] for name in ("env_steps", "eval_return"))
            keep({"env_steps": steps, "returns": returns})


def sb3_run(algorithm: str, task: str, seed: int, env_steps: int, folder: Path, keep: Keep) -> None:
    """SAC goes on where it was at its last evaluation; PPO takes minutes and begins anew."""
    from stable_baselines3 import PPO, SAC
    from stable_baselines3.common.env_util import make_vec_env
    from stable_baselines3.common.vec_env import VecNormalize

    curve: Curve = {"env_steps": [], "returns": []}
    if algorithm == "ppo":
        env: Any = VecNormalize(make_vec_env(task, n_envs=8, seed=seed), gamma=0.99)
        settings: dict[str, Any] = {"n_steps": 256, "batch_size": 64, "n_epochs": 10, "seed": seed, "device": "cpu"}
        settings["policy_kwargs"] = {"log_std_init": math.log(0.5 * float(env.action_space.high.max()))}
        model: Any = PPO("MlpPolicy", env, learning_rate=lambda left: 3e-4 * left, **settings)
    elif (folder / "curve.json").exists():
        env, model = None, SAC.load(folder / "model.zip", env=gymnasium.make(task), device="cpu")
        model.load_replay_buffer(folder / "replay.pkl")
        curve = json.loads((folder / "curve.json").read_text(encoding="utf-8"))
    else:
        env, model = None, SAC("MlpPolicy", task, learning_starts=RANDOM_STEPS, seed=seed, device="cpu")

    def act(obs: np.ndarray) -> np.ndarray:
        return model.predict(obs if env is None else env.normalize_obs(obs), deterministic=True)[0]

    first = RANDOM_STEPS if algorithm == "sac" else 0

    def evaluate(local: dict[str, Any], _: dict[str, Any]) -> bool:
        due = first + EVALUATE_EVERY[algorithm] * (1 + len(curve["returns"]))
        if model.num_timesteps >= min(env_steps, due):
            curve["env_steps"].append(model.num_timesteps)
            curve["returns"].append(mean_return(task, act, EVAL_SEEDS))
            if algorithm == "sac":
                model.save(folder / "model.zip")
                model.save_replay_buffer(folder / "replay.pkl")
                (folder / "curve.json").write_text(json.dumps(curve), encoding="utf-8")
            keep(curve)
        return True

    model.learn(env_steps - model.num_timesteps, callback=evaluate, reset_num_timesteps=model.num_timesteps == 0)


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


def reached(curve: Curve | None, env_steps: int) -> bool:
    """Whether the last evaluation lies there; PPO's last update may end a little before."""
    return curve is not None and bool(curve["returns"]) and curve["env_steps"][-1] >= 0.99 * env_steps


def rows(curves: dict[str, Curve], algorithm: str, task: str, env_steps: int) -> Iterator[Row]:
    """At the end of PPO, at every mark of SAC: over the training seeds of which both sides have got so far, or, where
    there is a published figure to compare with, those of ours alone."""
    runs = {side: f"{side}/{algorithm}/{task}/{env_steps}/" for side in ("ours", "sb3")}
    for mark in [env_steps] if algorithm == "ppo" else range(MARK, env_steps + 1, MARK):
        ours, theirs = (
            {k.removeprefix(p) for k in curves if k.startswith(p) and reached(curves[k], mark)} for p in runs.values()
        )
        published = GOALS.get((algorithm, task)) if mark >= 1_000_000 else None
        seeds = sorted(ours & theirs or (ours if published else ()), key=int)
        if not seeds:
            continue
        sides = list(runs) if ours & theirs else ["ours"]
        finals = {side: np.array([at(curves[runs[side] + seed], mark) for seed in seeds]) for side in sides}
        means = {side: float(found.mean()) for side, found in finals.items()}
        by_seed = "; ".join(f"{side} {', '.join(map(short, found))}" for side, found in finals.items())
        note = f"training seeds {', '.join(seeds)}: {by_seed}{difference(*finals.values())}"
        if algorithm == "ppo":
            lately = {side: [curves[runs[side] + seed]["returns"][-LAST:] for seed in seeds] for side in sides}
            means_lately = (f"{side} {short(float(np.mean(returns)))}" for side, returns in lately.items())
            note += f"; last {LAST} evaluations {', '.join(means_lately)}"
        yield Row(
            case=f"{algorithm.upper()} {task}, {mark:,} steps",
            unit="mean return",
            ours=means["ours"],
            peer=means.get("sb3"),
            peer_name="Stable-Baselines3" if "sb3" in means else "",
            goal=max(x for x in (means.get("sb3"), published) if x is not None),
            note=note,
        )


def difference(ours: np.ndarray, theirs: np.ndarray | None = None) -> str:
    """What so few training seeds tell: the interval of the difference in the mean (Welch 1947)."""
    if theirs is None or len(ours) < 2 or not np.ptp([*ours, *theirs]):
        return ""
    low, high = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)
    return f"; difference {short(low)} to {short(high)} (95%)"


def short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def at(curve: Curve, mark: int) -> float:
    """The return after so many steps, linear between evaluations."""
    return float(np.interp(mark, curve["env_steps"], curve["returns"]))


def draw(curves: dict[str, Curve], cases: Sequence[tuple[str, str]], env_steps: int) -> Figure:
    """A panel for every algorithm and task of which there is a curve."""
    panels: list[tuple[str, list[Group]]] = []
    for algorithm, task in cases:
        groups = []
        for side, name in (("ours", "robolearn"), ("sb3", "Stable-Baselines3")):
            prefix = f"{side}/{algorithm}/{task}/{env_steps}/"
            runs = {key: c for key, c in curves.items() if key.startswith(prefix) and len(c["returns"]) > 1}
            lines = [Line(Path(k), np.array(c["env_steps"]), np.array(c["returns"])) for k, c in runs.items()]
            if algorithm == "ppo":
                groups += [Group(name, tuple(lines))] if lines else []
            else:  # runs of different lengths, so each by itself
                groups += [Group(f"{name}, seed {line.run.name}", (line,)) for line in lines]
        panels += [(f"{algorithm.upper()} {task}", groups)] if groups else []
    rows = -(-len(panels) // 3)
    figure = Figure(figsize=(12.0, 3.0 * rows), layout="constrained")
    grid = list(figure.subplots(rows, 3, squeeze=False).flat)
    for axes, (title, groups) in zip(grid, panels):
        draw_groups(axes, groups, bootstraps=500)
        axes.set_title(title)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.legend(frameon=False, fontsize="small")
    for axes in grid[len(panels) :]:
        axes.axis("off")
    figure.supxlabel("environment steps")
    figure.supylabel(
        "mean return of ten evaluation episodes: interquartile mean over seeds, 95% interval (SAC: by seed)"
    )
    return figure


if __name__ == "__main__":
    main()
