"""PPO and SAC on Warp's worlds: env-steps/s of collecting and learning together, time to 95% success, compiled updates.

    python -m benchmarks.rl_gpu                                                    # 4096 worlds on the GPU
    python -m benchmarks.rl_gpu --device cpu --worlds 4 --updates 1 --tasks Reach  # small, where there is none

Physics, observations, rewards, resets and networks all stay on the device. A task counts as learned once the policy's
mode solves 95% of `--episodes` episodes that it does not train on; that time includes compiling and the evaluations.
Compiled and eager updates take turns on the same batch.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch

from benchmarks._report import Row, write
from robolearn.configuration.parts.algorithms import PPOConfig, SACConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import RLConfig
from robolearn.envs.make import make
from robolearn.evaluation.evaluate import evaluate
from robolearn.rl.from_scratch import Learner, make_learner
from robolearn.seeds import REPORT_SEED

TOGETHER_GOAL, UPDATE_GOAL = 300_000.0, 3.0
LEARNED = 0.95
TURNS = 5
CUDA = torch.cuda.is_available()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if CUDA else "cpu")
    parser.add_argument("--tasks", default="Reach,Lift,PushT")
    parser.add_argument("--worlds", type=int, default=4096 if CUDA else 4)
    parser.add_argument("--sac-worlds", default="1,1024" if CUDA else "1", help="empty: learn tasks alone")
    parser.add_argument("--updates", type=int, default=50 if CUDA else 1, help="timed, of each case")
    parser.add_argument("--episodes", type=int, default=256 if CUDA else 2, help="of each evaluation")
    parser.add_argument("--minutes", type=float, default=3.0 if CUDA else 0.1, help="to learn a task at most")
    parser.add_argument("--rehearse", action="store_true", help="every part, tiny, with nothing compiled")
    args = parser.parse_args()
    began, rows = time.perf_counter(), []
    for task in args.tasks.split(","):
        rows += learning_rows(asked(ppo(task, args.worlds, args.device), args), args)
    if args.sac_worlds:
        for worlds in map(int, args.sac_worlds.split(",")):
            rows.append(together_row(asked(sac("Reach", worlds, args.device), args), args.updates))
        for config in (ppo("Reach", args.worlds, args.device), sac("Reach", 1, args.device)):
            rows.append(update_row(asked(config, args), args.updates))
    write("rl_gpu" if args.device.startswith("cuda") else "rl_warp_cpu", rows, seconds=time.perf_counter() - began)


def asked(config: RLConfig, args: argparse.Namespace) -> RLConfig:
    """Return the configuration, or a tiny one of the same kind to rehearse."""
    if not args.rehearse:
        return config
    few = {"num_steps": 4} if config.algorithm.name == "ppo" else {"random_steps": 8, "normalise_obs": False}
    algorithm = replace(config.algorithm, compile=False, **few)
    return replace(config, algorithm=algorithm, task=replace(config.task, max_steps=4))


def ppo(task: str, worlds: int, device: str) -> RLConfig:
    """Short rollouts of many worlds, four minibatches an epoch."""
    algorithm = PPOConfig(
        num_steps=16,
        epochs=4,
        batch_size=4 * worlds,
        normalise_obs=True,
        normalise_returns=True,
        target_kl=0.02,
        learning_rate=1e-3,
        compile=True,
    )
    return RLConfig(task=warp(task), algorithm=algorithm, num_envs=worlds, device=device)


def sac(task: str, worlds: int, device: str) -> RLConfig:
    """An update for each control step of a single world, 16 for each step of many."""
    algorithm = SACConfig(
        random_steps=max(1000, 4 * worlds) if device != "cpu" else 100,
        batch_size=256 if worlds == 1 else 4096,
        utd=1.0 if worlds == 1 else 16 / worlds,
        capacity=max(100_000, 100 * worlds),
        normalise_obs=True,
        compile=True,
    )
    return RLConfig(task=warp(task), algorithm=algorithm, num_envs=worlds, device=device)


def warp(task: str) -> TaskConfig:
    return TaskConfig(id=task, backend="warp", kwargs={"reward": "dense"})


def learning_rows(config: RLConfig, args: argparse.Namespace) -> list[Row]:
    """How fast PPO goes, and how soon it has learned the task."""
    rows = [together_row(config, args.updates)]
    began, success = time.perf_counter(), 0.0
    with learner_of(config) as learner, make(config.task, args.episodes, device=config.device) as judge:
        while True:  # once at least
            for _ in range(10 if CUDA else 1):
                learner.algorithm.update(learner.source.next())
            seeds = range(REPORT_SEED, REPORT_SEED + args.episodes)
            success = evaluate(learner.actor, judge, seeds).success_rate
            if success >= LEARNED or time.perf_counter() - began >= 60 * args.minutes:
                break
        seconds, steps = time.perf_counter() - began, learner.source.env_steps
    note = f"{success:.0%} after {steps} env-steps" + ("" if success >= LEARNED else ", where the time was over")
    print(f"{config.task.id}: {note}, {seconds:.0f} s", flush=True)
    case = f"PPO {config.task.id}, {config.num_envs} worlds, {config.device}: time to 95% success"
    return [*rows, Row(case=case, unit="s", ours=seconds, better="lower", note=note)]


def together_row(config: RLConfig, updates: int) -> Row:
    """Collecting and learning, after a warm-up in which everything is compiled."""
    with learner_of(config) as learner:
        repeat(lambda: learner.algorithm.update(learner.source.next()), 2, config.device)
        before = learner.source.env_steps
        seconds = repeat(lambda: learner.algorithm.update(learner.source.next()), updates, config.device)
        rate = (learner.source.env_steps - before) / seconds
        collecting = repeat(learner.source.next, updates, config.device)
    case = f"{config.algorithm.name.upper()} {config.task.id}, {config.num_envs} worlds, {config.device}"
    print(f"{case}: {rate:.0f} env-steps/s", flush=True)
    goal = TOGETHER_GOAL if config.task.id == "Reach" and config.num_envs >= 4096 else None
    note = f"collecting takes {collecting / seconds:.0%} of it"
    return Row(case=f"{case}: collecting and learning", unit="env-steps/s", ours=rate, goal=goal, note=note)


def update_row(config: RLConfig, updates: int) -> Row:
    """A compiled update against an eager one."""
    eager = replace(config, algorithm=replace(config.algorithm, compile=False))
    with learner_of(config) as fast, learner_of(eager) as slow:
        both = [partial(learner.algorithm.update, learner.source.next()) for learner in (fast, slow)]
        for update in both:
            repeat(update, 2, config.device)
        turns = [[repeat(update, updates, config.device) for update in both] for _ in range(TURNS)]
    ratio = statistics.median(slow / fast for fast, slow in turns)
    seconds = statistics.median(fast for fast, _ in turns) / updates
    case = f"{config.algorithm.name.upper()} {config.task.id}, {config.num_envs} worlds, {config.device}: update"
    print(f"{case}: {1e3 * seconds:.2f} ms, {ratio:.2f} times as fast as eager", flush=True)
    goal = UPDATE_GOAL if config.device.startswith("cuda") else None
    return Row(case=case, unit="times as fast as eager", ours=ratio, goal=goal, note=f"{1e3 * seconds:.2f} ms")


@contextmanager
def learner_of(config: RLConfig) -> Iterator[Learner]:
    torch.manual_seed(0)
    with make(config.task, config.num_envs, device=config.device) as env:
        yield make_learner(config, env, torch.device(config.device))


def repeat(function: Callable[[], object], times: int, device: str) -> float:
    """Seconds of `times` calls."""
    start = time.perf_counter()
    for _ in range(times):
        function()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
