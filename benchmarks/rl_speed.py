"""PPO and SAC on HalfCheetah-v5: env-steps/s of collecting and learning, beside Stable-Baselines3 and the floor.

    python -m benchmarks.rl_speed [--rounds 15] [--ppo-rollouts 2] [--sac-steps 200] [--case NAME ...]

Both sides have the same networks, batches and environments in the way each of them makes them by default: ours in their
native batched form, Stable-Baselines3's one after the other in the learner's process. Each contender has a process of
its own, so that it inherits no threads and no fragmented memory from another; they take turns in blocks of a second or
few, so that what else the machine does meets all of them. A ratio is the median of those within a round, with its
quartiles; that of processor time, all threads together, stands beside it.

The floors are arithmetic alone, in turns with the rest. PPO's: a rollout's physics by `mujoco.rollout` on all cores,
step by step, and every matrix product of its epochs (forward and backward, the actor's on one thread beside the
critic's on another), back to back on fixed tensors with preallocated results, in float32. SAC's: likewise every matrix
product of one update (targets, critics forward and backward, actor forward and backward, the critics' backward to their
input), once per environment step. The shares say how much of an update goes into sampling, advantages and statistics.

Overlap: SAC on a task whose steps take about as long as its updates (FetchReach in a worker process), collecting beside
learning against one after the other. Its ceiling is what would be if the longer of the two hid the other wholly.

Busy: PPO with 64 environments and SAC once more, beside a process that wants a core all the time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks._report import Row, quartiles, write
from benchmarks.vector_env import Bench
from robolearn.configuration.parts.algorithms import PPOConfig, SACConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import RLConfig
from robolearn.envs.make import make
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.engine.side_by_side import SideBySide
from robolearn.rl.from_scratch import Learner, make_learner
from robolearn.rl.networks import mlp
from robolearn.rl.returns import gae
from robolearn.rl.running_statistics import RunningMoments
from robolearn.sim.pool import default_threads
from robolearn.training.threads import fitting_threads, start_thread_pool

ID = "HalfCheetah-v5"
STEPS = 256
"""Of each environment in one of PPO's rollouts."""
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Block:
    """A contender's turn."""

    speed: float
    """Env-steps/s."""
    spent: float
    """Processor time of an env-step, seconds."""


Contender = Callable[[], Block]
"""Runs one block."""


@dataclass(frozen=True)
class Turns:
    """The blocks of contenders that took turns, by name."""

    blocks: dict[str, list[Block]]

    def speed(self, name: str) -> float:
        """Return the median of a contender's env-steps/s."""
        return float(np.median([block.speed for block in self.blocks[name]]))

    def ratio(self, name: str, other: str) -> float:
        """Return how many times as fast as another one a contender is: the median over the rounds."""
        return float(np.median(self._ratios(name, other)))

    def spread(self, name: str, other: str) -> str:
        """Return the ratio's quartiles, and the ratio of processor time, in words."""
        spent = np.median([theirs.spent / own.spent for own, theirs in zip(self.blocks[name], self.blocks[other])])
        return f"{quartiles(self._ratios(name, other), 'rounds')}; of processor time {spent:.2f}"

    def _ratios(self, name: str, other: str) -> list[float]:
        return [own.speed / theirs.speed for own, theirs in zip(self.blocks[name], self.blocks[other])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--ppo-rollouts", type=int, default=2, help="of 8 environments in each block")
    parser.add_argument("--sac-steps", type=int, default=200, help="of each block")
    parser.add_argument("--case", nargs="*", default=["ppo8", "ppo64", "sac", "shares", "overlap", "busy"])
    args = parser.parse_args()
    began, rows = time.perf_counter(), []
    if "ppo8" in args.case:
        rows += ppo_rows("PPO, 8 x 256 steps, batch 64, 10 epochs, 64x64", 8, 64, 3.0, args)
    if "ppo64" in args.case:
        rows += ppo_rows("PPO, 64 x 256 steps, batch 2048, 10 epochs, 64x64", 64, 2048, 3.0, args)
    if "sac" in args.case:
        rows += sac_rows(args)
    if "shares" in args.case:
        rows += share_rows()
    if "overlap" in args.case:
        rows.append(overlap_row(args))
    if "busy" in args.case:
        rows += busy_rows(args)
    write("rl_speed", rows, seconds=time.perf_counter() - began, speed=True)


def ppo_rows(case: str, num_envs: int, batch: int, goal: float, args: argparse.Namespace) -> Iterator[Row]:
    """With the same configuration on both sides, and with our default, which computes advantages before every epoch."""
    blocks = args.ppo_rollouts if num_envs == 8 else 1
    contenders: dict[str, Callable[[int, int, int], Contender]] = {
        "once": partial(our_ppo, recompute=False),
        "every epoch": partial(our_ppo, recompute=True),
        "sb3": sb3_ppo,
        "floor": ppo_floor,
    }
    makers = {name: partial(make, num_envs, batch, blocks) for name, make in contenders.items()}
    turns = take_turns(makers, args.rounds)
    for name in ("once", "every epoch"):
        speeds = (
            f"{turns.speed(name):.0f} against {turns.speed('sb3'):.0f}, floor {turns.speed('floor'):.0f} env-steps/s"
        )
        yield Row(
            case=f"{case}, advantages {name}",
            unit="ratio of env-steps/s to Stable-Baselines3's",
            ours=turns.ratio(name, "sb3"),
            peer=1.0,
            peer_name="Stable-Baselines3",
            floor=turns.ratio("floor", "sb3"),
            floor_name="physics and matrix products alone",
            goal=goal if name == "once" else None,
            note=f"{turns.spread(name, 'sb3')}; {speeds}",
        )


def our_ppo(num_envs: int, batch: int, blocks: int, *, recompute: bool) -> Contender:
    algorithm = PPOConfig(num_steps=STEPS, batch_size=batch, recompute_advantages=recompute, compile=True)
    learner, _ = our_learner(RLConfig(task=task(), algorithm=algorithm, num_envs=num_envs))

    def block() -> Block:
        with fitting_threads(learner.actor, rows=num_envs):
            update = partial(repeat, blocks, lambda: learner.algorithm.update(learner.source.next()))
            return timed(STEPS * num_envs * blocks, update)

    return block


def sb3_ppo(num_envs: int, batch: int, blocks: int) -> Contender:
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    env = make_vec_env(ID, n_envs=num_envs, seed=0)
    model = PPO("MlpPolicy", env, n_steps=STEPS, batch_size=batch, n_epochs=10, device="cpu", seed=0)
    steps = STEPS * num_envs * blocks
    return lambda: timed(steps, lambda: model.learn(steps, reset_num_timesteps=False))


def ppo_floor(num_envs: int, batch: int, blocks: int) -> Contender:
    physics, beside = Bench(num_envs, default_threads(), STEPS), SideBySide()
    sizes = [[17, 64, 64, outputs] for outputs in (6, 1)]
    actor, critic = (products_of_network(batch, widths) for widths in sizes)
    networks = [mlp(widths, "tanh") for widths in sizes]
    minibatches = 10 * STEPS * num_envs // batch

    def rollout() -> None:
        beside(lambda: repeat(minibatches, actor), lambda: repeat(minibatches, critic))
        physics.rollout()

    def block() -> Block:
        with fitting_threads(*networks, rows=batch, jobs=beside.jobs):
            return timed(STEPS * num_envs * blocks, partial(repeat, blocks, rollout))

    return block


def sac_rows(args: argparse.Namespace) -> list[Row]:
    makers = {
        "f32": partial(our_sac, args.sac_steps, bf16=False),
        "bf16": partial(our_sac, args.sac_steps, bf16=True),
        "sb3": partial(sb3_sac, args.sac_steps),
        "floor": partial(sac_floor, args.sac_steps),
    }
    turns = take_turns(makers, args.rounds)
    common: dict[str, Any] = {"peer_name": "Stable-Baselines3", "floor_name": "matrix products of an update in f32"}
    rows = []
    for name, floor_goal, peer_goal in (("f32", 0.7, 2.0), ("bf16", None, 2.5)):
        ours, theirs, floor = (turns.speed(contender) for contender in (name, "sb3", "floor"))
        speeds = f"{ours:.0f}, Stable-Baselines3 {theirs:.0f}, floor {floor:.0f} env-steps/s"
        case = f"SAC, 1 environment, batch 256, 2x256, {name}"
        note = f"{turns.spread(name, 'sb3')}; {speeds}"
        unit = "ratio of env-steps/s to Stable-Baselines3's"
        rows.append(
            Row(case=case, unit=unit, ours=turns.ratio(name, "sb3"), peer=1.0, goal=peer_goal, note=note, **common)
        )
        if floor_goal is not None:
            share, peer = turns.ratio(name, "floor"), turns.ratio("sb3", "floor")
            note = f"{turns.spread(name, 'floor')}; {speeds}"
            unit = "ratio of env-steps/s to the floor's"
            rows.append(
                Row(case=case, unit=unit, ours=share, peer=peer, floor=1.0, goal=floor_goal, note=note, **common)
            )
    return rows


def our_sac(steps: int, *, bf16: bool) -> Contender:
    config = SACConfig(random_steps=1000, capacity=100_000, compile=True, bf16=bf16)
    learner, _ = our_learner(RLConfig(task=task(), algorithm=config))

    def block() -> Block:
        with fitting_threads(*learner.networks, rows=learner.rows):
            return timed(steps, lambda: repeat(steps, lambda: learner.algorithm.update(learner.source.next())))

    return block


def sb3_sac(steps: int) -> Contender:
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", ID, learning_starts=1000, buffer_size=100_000, device="cpu", seed=0)
    model.learn(1000)  # random steps, which ours takes before its first block, too
    return lambda: timed(steps, lambda: model.learn(steps, reset_num_timesteps=False))


def sac_floor(steps: int) -> Contender:
    products = sac_products(256, 17, 6, 256)
    return lambda: timed(steps, lambda: repeat(steps, products))


def busy_rows(args: argparse.Namespace) -> list[Row]:
    """Beside a process that never rests; threads that wait for each other wait for a core, too."""
    cases: dict[str, dict[str, Callable[[], Contender]]] = {
        "PPO, 64 x 256 steps, batch 2048, 10 epochs, 64x64": {
            "ours": partial(our_ppo, 64, 2048, 1, recompute=False),
            "sb3": partial(sb3_ppo, 64, 2048, 1),
        },
        "SAC, 1 environment, batch 256, 2x256, f32": {
            "ours": partial(our_sac, args.sac_steps, bf16=False),
            "sb3": partial(sb3_sac, args.sac_steps),
        },
    }
    neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
    neighbour.start()
    rows = []
    for case, makers in cases.items():
        turns = take_turns(makers, args.rounds)
        speeds = f"{turns.speed('ours'):.0f} against {turns.speed('sb3'):.0f} env-steps/s"
        rows.append(
            Row(
                case=f"{case}, beside a busy process",
                unit="ratio of env-steps/s to Stable-Baselines3's",
                ours=turns.ratio("ours", "sb3"),
                peer=1.0,
                peer_name="Stable-Baselines3",
                goal=1.0,
                note=f"{turns.spread('ours', 'sb3')}; {speeds}",
            )
        )
    neighbour.kill()
    return rows


def spin() -> None:
    while True:
        pass


def share_rows() -> list[Row]:
    """Sampling, advantages and statistics as shares of the update that they serve."""
    ppo, close_ppo = our_learner(RLConfig(task=task(), algorithm=PPOConfig(num_steps=256, compile=True), num_envs=8))
    rollout: Any = ppo.source.next()
    ppo.algorithm.update(rollout)
    update = median_seconds(lambda: ppo.algorithm.update(rollout), 5)
    flags = (rollout.terminated, rollout.truncated)
    values = torch.randn_like(rollout.rewards)
    advantages = 10 * median_seconds(lambda: gae(rollout.rewards, values, values, rollout.discounts, *flags, 0.95), 50)
    moments, rows = RunningMoments((17,)), rollout.flat_obs()["state"][:, -1]
    statistic = median_seconds(lambda: moments.add(rows), 50)
    close_ppo()
    sac, close_sac = our_learner(
        RLConfig(task=task(), algorithm=SACConfig(random_steps=1000, capacity=1_000_000, compile=True))
    )
    batch = sac.source.next()
    sac.algorithm.update(batch)
    step = median_seconds(lambda: sac.algorithm.update(batch), 100)
    replay: Any = sac.source
    sampling = median_seconds(lambda: replay.replay.sample(256, replay.generator), 200)
    close_sac()
    figures = {
        "GAE (every epoch) in PPO's update": advantages / update,
        "observation statistics in PPO's update": statistic / update,
        "replay sampling in SAC's update": sampling / step,
    }
    return [
        Row(case=case, unit="ratio of the update's time", ours=share, goal=0.03, better="lower")
        for case, share in figures.items()
    ]


def overlap_row(args: argparse.Namespace) -> Row:
    """Collecting and learning at the same time."""
    algorithm = SACConfig(random_steps=1000, capacity=100_000, normalise_obs=True, compile=True)
    fetch = TaskConfig(id="gym:FetchReach-v4")
    in_turn, close = our_learner(RLConfig(task=fetch, algorithm=algorithm))
    beside, close_beside = our_learner(RLConfig(task=fetch, algorithm=replace(algorithm, overlap=True)))

    def both(learner: Learner) -> Contender:
        def step() -> None:
            learner.algorithm.update(learner.source.next())

        return lambda: timed(args.sac_steps, lambda: repeat(args.sac_steps, step))

    batch = in_turn.source.next()
    contenders: dict[str, Contender] = {
        "in turn": both(in_turn),
        "beside": both(beside),
        "collecting": lambda: timed(args.sac_steps, lambda: repeat(args.sac_steps, in_turn.source.next)),
        "updating": lambda: timed(
            args.sac_steps, lambda: repeat(args.sac_steps, lambda: in_turn.algorithm.update(batch))
        ),
    }
    in_turns(contenders, 1)  # warms up and compiles
    turns = in_turns(contenders, args.rounds)
    assert isinstance(beside.source, ReplayCollector)
    beside.source.settle()
    close()
    close_beside()
    alone = {name: turns.speed(name) for name in ("collecting", "updating")}
    return Row(
        case="SAC on FetchReach, overlap",
        unit="ratio of env-steps/s to collecting and learning in turn",
        ours=turns.ratio("beside", "in turn"),
        floor=turns.ratio(min(alone, key=lambda name: alone[name]), "in turn"),
        floor_name="the longer of the two alone",
        note=f"{turns.spread('beside', 'in turn')}; {turns.speed('beside'):.0f} against {turns.speed('in turn'):.0f} "
        f"env-steps/s; collecting alone {alone['collecting']:.0f}, updating alone {alone['updating']:.0f}",
    )


def task() -> TaskConfig:
    return TaskConfig(id=f"gym:{ID}")


def our_learner(config: RLConfig) -> tuple[Learner, Callable[[], None]]:
    torch.manual_seed(0)
    env = make(config.task, config.num_envs)
    start_thread_pool()  # as a run does
    return make_learner(config, env, torch.device("cpu")), env.close


def products_of_network(batch: int, sizes: list[int]) -> Callable[[], None]:
    """All matrix products of one gradient step of a network."""
    return multiply(forward(batch, sizes) + to_weights(batch, sizes) + to_inputs(batch, sizes))


def sac_products(batch: int, observation: int, action: int, hidden: int) -> Callable[[], None]:
    """All matrix products of one SAC update with two critics."""
    actor, critic = [observation, hidden, hidden, 2 * action], [observation + action, hidden, hidden, 1]
    shapes = forward(batch, actor) + 2 * forward(batch, critic)  # the targets
    shapes += 2 * (forward(batch, critic) + to_weights(batch, critic) + to_inputs(batch, critic))
    shapes += forward(batch, actor) + 2 * (forward(batch, critic) + to_inputs(batch, critic, down_to_the_input=True))
    shapes += to_weights(batch, actor) + to_inputs(batch, actor)
    return multiply(shapes)


def forward(batch: int, sizes: list[int]) -> list[Shape]:
    return [(batch, i, o) for i, o in itertools.pairwise(sizes)]


def to_weights(batch: int, sizes: list[int]) -> list[Shape]:
    return [(i, batch, o) for i, o in itertools.pairwise(sizes)]


def to_inputs(batch: int, sizes: list[int], *, down_to_the_input: bool = False) -> list[Shape]:
    layers = list(itertools.pairwise(sizes))
    return [(batch, o, i) for i, o in (layers if down_to_the_input else layers[1:])]


def multiply(shapes: list[Shape]) -> Callable[[], None]:
    """(m, k, n): products of (m, k) and (k, n)."""
    operands = [(torch.randn(m, k), torch.randn(k, n), torch.empty(m, n)) for m, k, n in shapes]

    def run() -> None:
        for a, b, out in operands:
            torch.mm(a, b, out=out)

    return run


def take_turns(makers: dict[str, Callable[[], Contender]], rounds: int) -> Turns:
    """Return the blocks of contenders after one of warming up (and compiling), each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with contextlib.ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for name, make in makers.items():
            pool = stack.enter_context(ProcessPoolExecutor(1, context, begin_own, (make,)))
            contenders[name] = lambda pool=pool: pool.submit(own_block).result()
            contenders[name]()
        return in_turns(contenders, rounds)


_own: list[Contender] = []
"""This process's."""


def begin_own(make: Callable[[], Contender]) -> None:
    _own.append(make())


def own_block() -> Block:
    return _own[0]()


def in_turns(contenders: dict[str, Contender], rounds: int) -> Turns:
    """Return the blocks of so many rounds, every second one of which goes the other way."""
    blocks: dict[str, list[Block]] = {name: [] for name in contenders}
    for i in range(rounds):
        for name in list(contenders)[:: 1 if i % 2 == 0 else -1]:
            blocks[name].append(contenders[name]())
    return Turns(blocks)


def timed(steps: int, run: Callable[[], Any]) -> Block:
    start, spent = time.perf_counter(), time.process_time()
    run()
    return Block(steps / (time.perf_counter() - start), (time.process_time() - spent) / steps)


def repeat(count: int, run: Callable[[], Any]) -> None:
    for _ in range(count):
        run()


def median_seconds(run: Callable[[], Any], count: int) -> float:
    run()
    return float(np.median([1.0 / timed(1, run).speed for _ in range(count)]))


if __name__ == "__main__":
    main()
