"""Env-steps/s of the CPU back end on HalfCheetah's model, beside raw MuJoCo, EnvPool and Gymnasium in one run.

    python -m benchmarks.vector_env [--envs 64] [--threads 2] [--steps 300] [--repeats 25]

Floor: `mujoco.rollout` over the same states and controls, one control step (5 substeps) per call, as a vector
environment must. Where whole trajectories may be handed over at once, `mujoco.rollout` needs no synchronisation
between steps; that rate is noted beside it. The contenders take turns; rates are medians over the turns, and ratios are
medians of the ratios within a turn, so that a busy machine troubles all of them alike.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium.envs.mujoco
import mujoco
import mujoco.rollout
import numpy as np
import torch

from benchmarks._report import Row, write
from robolearn.envs.make import make_task
from robolearn.sim.cpu import CpuSimulation
from robolearn.sim.simulation import Start
from robolearn.tasks import registry

SUBSTEPS = 5
MODEL = Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml"
FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=25)
    args = parser.parse_args()
    start = time.perf_counter()
    bench = Bench(args.envs, args.threads, args.steps)
    seconds = bench.measure(args.repeats)
    rows = comparison(seconds, args) + [task_row(name, args) for name in registry.own_names()]
    write("vector_env", rows, seconds=time.perf_counter() - start)


class Bench:
    """The same initial states and controls for every contender."""

    def __init__(self, num_envs: int, threads: int, steps: int):
        self.model = mujoco.MjModel.from_xml_path(str(MODEL))
        self.num_envs, self.threads, self.steps = num_envs, threads, steps
        rng = np.random.default_rng(0)
        self.qpos = self.model.qpos0 + rng.uniform(-0.1, 0.1, (num_envs, self.model.nq))
        self.controls = rng.uniform(-1, 1, (steps, num_envs, self.model.nu))
        self.states = np.zeros((num_envs, mujoco.mj_stateSize(self.model, FULL)))
        data = mujoco.MjData(self.model)
        for qpos, row in zip(self.qpos, self.states):
            data.qpos[:] = qpos
            mujoco.mj_getState(self.model, data, row, FULL)

    def measure(self, repeats: int) -> dict[str, list[float]]:
        """Seconds of every contender in every turn."""
        contenders: dict[str, Callable[[], float]] = {
            "ours": self.ours,
            "rollout": self.rollout,
            "trajectories": self.trajectories,
            "envpool": self.envpool,
            "gymnasium": self.gymnasium,
        }
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(repeats):
            for name, contender in contenders.items():
                seconds[name].append(contender())
        return seconds

    def ours(self) -> float:
        sim = CpuSimulation(self.model, self.num_envs, threads=self.threads)
        sim.reset(Start(qpos=torch.from_numpy(self.qpos)))
        controls = torch.from_numpy(self.controls)

        def run() -> None:
            for control in controls:
                sim.ctrl.copy_(control)
                sim.step(SUBSTEPS, sensors=False)

        return self._timed(run, sim.close)

    def rollout(self) -> float:
        pool = mujoco.rollout.Rollout(nthread=self.threads)
        datas = [mujoco.MjData(self.model) for _ in range(self.threads)]
        models, states = [self.model] * self.num_envs, self.states.copy()
        control = np.zeros((self.num_envs, SUBSTEPS, self.model.nu))
        out = np.zeros((self.num_envs, SUBSTEPS, states.shape[1]))

        def run() -> None:
            for k in range(self.steps):
                control[:] = self.controls[k][:, None]
                pool.rollout(models, datas, states, control, state=out, nstep=SUBSTEPS, skip_checks=True)
                states[:] = out[:, -1]

        return self._timed(run, pool.close)

    def trajectories(self) -> float:
        pool = mujoco.rollout.Rollout(nthread=self.threads)
        datas = [mujoco.MjData(self.model) for _ in range(self.threads)]
        models = [self.model] * self.num_envs
        control = np.ascontiguousarray(np.repeat(self.controls.transpose(1, 0, 2), SUBSTEPS, axis=1))
        out = np.zeros((self.num_envs, self.steps * SUBSTEPS, self.states.shape[1]))

        def run() -> None:
            nstep = self.steps * SUBSTEPS
            pool.rollout(models, datas, self.states, control, state=out, nstep=nstep, skip_checks=True)

        return self._timed(run, pool.close)

    def envpool(self) -> float:
        try:
            import envpool
        except ImportError:
            return float("nan")
        make: Any = envpool.make
        env = make("HalfCheetah-v5", env_type="gymnasium", num_envs=self.num_envs, num_threads=self.threads)
        env.reset()
        return self._timed(lambda: [env.step(control) for control in self.controls], env.close)

    def gymnasium(self) -> float:
        env = gymnasium.make_vec("HalfCheetah-v5", num_envs=self.num_envs, vectorization_mode="sync")
        env.reset(seed=0)
        share = max(1, self.steps // 10)  # slower by far, and as steady
        controls = self.controls[:share].astype(np.float32)
        return self._timed(lambda: [env.step(control) for control in controls], env.close) * self.steps / share

    def _timed(self, run: Callable[[], Any], close: Callable[[], Any]) -> float:
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
        close()
        return seconds


def comparison(seconds: dict[str, list[float]], args: argparse.Namespace) -> list[Row]:
    """Ours over the raw limit, ours over EnvPool, and everybody's rate."""
    case = f"HalfCheetah, {args.envs} envs, {args.threads} threads, {SUBSTEPS} substeps"
    rates = {name: args.envs * args.steps / statistics.median(s) for name, s in seconds.items()}
    ours = rates["ours"]

    def ratio(other: str) -> float:
        return statistics.median(theirs / own for theirs, own in zip(seconds[other], seconds["ours"]))

    unit, whole = "env-steps/s", "no synchronisation between steps, so no environment can react"
    return [
        Row(case=case, unit=unit, ours=ours, floor=rates["rollout"], floor_name="mujoco.rollout, step by step"),
        Row(
            case=case, unit=unit, ours=ours, floor=rates["trajectories"], floor_name="mujoco.rollout, whole", note=whole
        ),
        Row(case=case, unit=unit, ours=ours, peer=rates["envpool"], peer_name="EnvPool"),
        Row(case=case, unit=unit, ours=ours, peer=rates["gymnasium"], peer_name="Gymnasium SyncVectorEnv"),
        Row(case=f"{case}: of the raw limit, step by step", unit="ratio", ours=ratio("rollout"), goal=0.9),
        Row(case=f"{case}: against EnvPool", unit="ratio", ours=ratio("envpool"), goal=0.95),
    ]


def task_row(name: str, args: argparse.Namespace) -> Row:
    """Control steps/s of a whole task environment under its expert's actions, beside its physics alone."""
    env = make_task(name, args.envs, threads=args.threads)
    expert, obs = env.expert(), env.reset(range(args.envs))
    expert.reset(range(args.envs))
    actions = []
    for _ in range(40):
        actions.append(expert.act(obs))
        obs = env.step(actions[-1]).obs
    env.reset(range(args.envs))
    start = time.perf_counter()
    for action in actions:
        env.step(action)
    whole = args.envs * len(actions) / (time.perf_counter() - start)
    env.reset(range(args.envs))
    start = time.perf_counter()
    for _ in actions:
        env.simulation.step(env.task.substeps)
    physics = args.envs * len(actions) / (time.perf_counter() - start)
    env.close()
    floor = {"floor": physics, "floor_name": "its physics alone, at rest"}
    return Row(case=f"{name}, {args.envs} envs, {args.threads} threads", unit="env-steps/s", ours=whole, **floor)


if __name__ == "__main__":
    main()
