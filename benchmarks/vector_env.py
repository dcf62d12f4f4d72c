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
from collections import deque
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import gymnasium
import gymnasium.envs.mujoco
import mujoco
import mujoco.rollout
import numpy as np
import torch

from benchmarks._report import Row, quartiles, write
from robolearn.envs.make import make_task
from robolearn.sim.cpu import CpuSimulation
from robolearn.sim.pool import WorkerPool
from robolearn.sim.simulation import STATE_SPEC, Start
from robolearn.tasks import registry

SUBSTEPS = 5
TASK_ENVS = (8, 32, 64)
TASK_STEPS, BLOCK = 100, 10
MODEL = Path(gymnasium.envs.mujoco.__file__).parent / "assets" / "half_cheetah.xml"
FULL = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--tasks", nargs="*", default=registry.own_names())
    parser.add_argument("--task_repeats", type=int, default=5)
    args = parser.parse_args()
    start = time.perf_counter()
    bench = Bench(args.envs, args.threads, args.steps)
    seconds = bench.measure(args.repeats)
    rows = comparison(seconds, args)
    for name in args.tasks:
        for num_envs in TASK_ENVS:
            rows += task_rows(name, num_envs, args.threads, args.task_repeats)
    write("vector_env", rows, seconds=time.perf_counter() - start, speed=True)


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


class TaskBench:
    """One task under its expert's actions, beside C MuJoCo alone: the same substeps from the same states under the same
    controls, on as many threads of the same pool, with nothing read and no sensors evaluated afterwards."""

    def __init__(self, name: str, num_envs: int, threads: int):
        self.env = make_task(name, num_envs, workers=threads)
        model, self.substeps = self.env.task.model, self.env.task.substeps
        self.datas = [mujoco.MjData(model) for _ in range(num_envs)]
        self.pool = WorkerPool(threads)
        chunk = max(1, min(16, num_envs // (2 * threads)))
        self.worlds = [range(num_envs)[i : i + chunk] for i in range(0, num_envs, chunk)]
        self.blocks = list(self._record(num_envs))

    def _record(self, num_envs: int) -> Iterator[tuple[np.ndarray, list[torch.Tensor], list[np.ndarray]]]:
        """Yield (states, actions, controls) of each block of steps, from one episode of the expert in every world."""
        expert, obs = self.env.expert(), self.env.reset(range(num_envs))
        expert.reset(range(num_envs))
        for _ in range(TASK_STEPS // BLOCK):
            states, actions, controls = self.env.get_states(), [], []
            for _ in range(BLOCK):
                actions.append(expert.act(obs))
                obs = self.env.step(actions[-1]).obs
                controls.append(self.env.simulation.ctrl.numpy().copy())
            yield states, actions, controls

    def measure(self, repeats: int) -> tuple[np.ndarray, np.ndarray]:
        """Return seconds (pairs, 2) of ours and raw, as passed and as spent by the processor; the two take turns."""
        wall, processor = [], []
        for k in range(repeats):
            for states, actions, controls in self.blocks:
                runs = [self.ours(states, actions), self.raw(states, controls)]
                pair = [_clocked(run) for run in (runs if k % 2 else reversed(runs))]
                pair = pair if k % 2 else pair[::-1]
                wall.append([seconds for seconds, _ in pair])
                processor.append([seconds for _, seconds in pair])
        return np.array(wall), np.array(processor)

    def ours(self, states: np.ndarray, actions: list[torch.Tensor]) -> Iterator[None]:
        self.env.set_states(states)
        yield
        for action in actions:
            self.env.step(action)

    def raw(self, states: np.ndarray, controls: list[np.ndarray]) -> Iterator[None]:
        model, size = self.env.task.model, mujoco.mj_stateSize(self.env.task.model, STATE_SPEC)
        for data, state in zip(self.datas, states):
            mujoco.mj_setState(model, data, state[:size], STATE_SPEC)
        yield
        for control in controls:

            def advance(worlds: range, control: np.ndarray = control) -> None:
                for i in worlds:
                    self.datas[i].ctrl[:] = control[i]
                deque(
                    map(mujoco.mj_step, repeat(model), self.datas[worlds.start : worlds.stop], repeat(self.substeps)), 0
                )

            self.pool.run(advance, self.worlds)

    def close(self) -> None:
        self.pool.close()
        self.env.close()


def _clocked(run: Iterator[None]) -> tuple[float, float]:
    """Return the seconds, passed and of the processor, that a run takes after its first pause."""
    next(run)
    start, spent = time.perf_counter(), time.process_time()
    for _ in run:
        pass
    return time.perf_counter() - start, time.process_time() - spent


def task_rows(name: str, num_envs: int, threads: int, repeats: int) -> list[Row]:
    """Control steps/s of a whole task environment, and their ratio to those of its physics alone."""
    bench = TaskBench(name, num_envs, threads)
    wall, processor = bench.measure(repeats)
    bench.close()
    case = f"{name}, {num_envs} envs, {threads} threads"
    ours, raw = num_envs * BLOCK / np.median(wall, axis=0)
    shares = wall[:, 1] / wall[:, 0]
    spent = np.median(processor[:, 1] / processor[:, 0])
    note = f"{quartiles(shares, 'pairs of blocks')}; of processor time {spent:.2f}"
    return [
        Row(case=case, unit="env-steps/s", ours=ours, floor=raw, floor_name="mj_step of the same substeps"),
        Row(case=f"{case}: of its physics", unit="ratio", ours=float(np.median(shares)), goal=0.8, note=note),
    ]


if __name__ == "__main__":
    main()
