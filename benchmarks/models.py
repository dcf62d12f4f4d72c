"""What each choice in the arm tasks' models costs, and what it buys: the time of a control step, and accuracy.

    python -m benchmarks.models [--tasks Stack,PegInsert] [--episodes 200]

Every variant is stepped by plain MuJoCo through the same controls, those that the expert gave in the model as shipped,
and its processor time is compared with that model's in turns. Accuracy is how far the body that is handled lies from
where a fine reference (0.5 ms) has it at each control step, over the steps up to where the fingers have closed on it:
later a grasp that slips half a millimetre differently grows into another course, for any two models. What counts in the
end stands beside it: how many of so many fresh episodes the expert solves in the variant itself.
"""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import mujoco
import numpy as np

from benchmarks._report import Row, write
from robolearn.envs.experts import make_expert
from robolearn.envs.task_env import TaskEnv
from robolearn.evaluation.evaluate import evaluate
from robolearn.seeds import REPORT_SEED
from robolearn.sim.simulation import STATE_SPEC
from robolearn.tasks import registry
from robolearn.tasks.task import Task

REFERENCE_S = 0.0005
WORLDS, STEPS, GRASP_STEPS, ROUNDS = 16, 80, 30, 5
BODY = {"Lift": "cube", "PickPlace": "cube", "Stack": "cube", "PegInsert": "peg"}
Change = Callable[[mujoco.MjModel], None]


def _options(**values: float) -> Change:
    def change(model: mujoco.MjModel) -> None:
        for name, value in values.items():
            setattr(model.opt, name, value)

    return change


def _condim(value: int) -> Change:
    def change(model: mujoco.MjModel) -> None:
        model.geom_condim[:] = np.minimum(model.geom_condim, value)

    return change


VARIANTS: dict[str, Change] = {
    "time step 1.25 ms": _options(timestep=0.00125),
    "time step 5 ms": _options(timestep=0.005),
    "implicit integrator": _options(integrator=mujoco.mjtIntegrator.mjINT_IMPLICIT),
    "Euler": _options(integrator=mujoco.mjtIntegrator.mjINT_EULER),
    "pyramidal cones": _options(cone=mujoco.mjtCone.mjCONE_PYRAMIDAL),
    "impratio 1": _options(impratio=1.0),
    "conjugate gradients": _options(solver=mujoco.mjtSolver.mjSOL_CG),
    "10 iterations": _options(iterations=10, ls_iterations=10),
    "no torsional friction": _condim(3),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", default="Stack,PegInsert")
    parser.add_argument("--episodes", type=int, default=200)
    args = parser.parse_args()
    began = time.perf_counter()
    rows = [row for name in args.tasks.split(",") for row in task_rows(name, args.episodes)]
    write("models", rows, seconds=time.perf_counter() - began)


def task_rows(name: str, episodes: int) -> Iterator[Row]:
    shipped = changed(name, lambda model: None)
    starts, controls = demonstrated(shipped)
    reference = course(changed(name, _options(timestep=REFERENCE_S)), starts, controls)
    variants = {"as shipped": shipped} | {title: changed(name, change) for title, change in VARIANTS.items()}
    seconds: dict[str, list[float]] = {title: [] for title in variants}
    for _ in range(ROUNDS):
        for title, task in variants.items():
            seconds[title].append(cpu_seconds(task, starts, controls))
    base = np.array(seconds["as shipped"])
    for title, task in variants.items():
        away = np.linalg.norm(course(task, starts, controls) - reference, axis=-1)[:GRASP_STEPS] * 1000.0
        step = np.median(seconds[title]) / controls.shape[0] / WORLDS
        yield Row(
            case=f"{name}, {title}",
            unit="ratio of processor time to the model as shipped",
            ours=float(np.median(np.array(seconds[title]) / base)),
            better="lower",
            note=f"{step * 1e6:.0f} us for a control step; {np.mean(away):.2f} mm from the reference, 95% within "
            f"{np.quantile(away, 0.95):.2f}; expert {solved(task, episodes)}/{episodes}",
        )


def changed(name: str, change: Change) -> type[Task]:
    """Return the task with a model that was changed."""
    shipped: Any = registry.load(name)
    model = shipped().model
    change(model)
    return type(name, (shipped,), {"model": model})


def demonstrated(task: type[Task]) -> tuple[np.ndarray, np.ndarray]:
    """Return the physics states (W, S) at the start of episodes, and the controls (T, W, nu) that the expert gave."""
    controls: list[np.ndarray] = []
    with TaskEnv(task, WORLDS) as env:
        expert, seeds = make_expert("auto", env), range(REPORT_SEED, REPORT_SEED + WORLDS)
        obs = env.reset(seeds)
        expert.reset(seeds)
        starts = env.get_states()
        assert starts is not None
        ctrl = slice(*ctrl_place(env.task.model))
        for _ in range(STEPS):
            obs = env.step(expert.act(obs)).obs
            controls.append(np.asarray(env.get_states())[:, ctrl])
    return starts, np.stack(controls)


def ctrl_place(model: mujoco.MjModel) -> tuple[int, int]:
    """Return where the controls begin and end in a state row."""
    before = mujoco.mj_stateSize(model, STATE_SPEC & (int(mujoco.mjtState.mjSTATE_CTRL) - 1))
    return before, before + model.nu


def course(task: type[Task], starts: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """Return (T, W, 3): where the body is after every control step, in metres."""
    made = task()
    model, data = made.model, mujoco.MjData(made.model)
    body, size = model.body(BODY[made.name]).id, mujoco.mj_stateSize(model, STATE_SPEC)
    places = np.zeros((*controls.shape[:2], 3))
    for world, start in enumerate(starts):
        mujoco.mj_resetData(model, data)
        mujoco.mj_setState(model, data, start[:size], STATE_SPEC)
        for t, ctrl in enumerate(controls[:, world]):
            data.ctrl[:] = ctrl
            mujoco.mj_step(model, data, made.substeps)
            places[t, world] = data.xpos[body]
    return places


def cpu_seconds(task: type[Task], starts: np.ndarray, controls: np.ndarray) -> float:
    """Return the processor time of stepping through all controls."""
    began = time.thread_time()
    course(task, starts, controls)
    return time.thread_time() - began


def solved(task: type[Task], episodes: int) -> int:
    with TaskEnv(task, min(50, episodes)) as env:
        return evaluate(make_expert("auto", env), env, range(REPORT_SEED, REPORT_SEED + episodes)).successes


if __name__ == "__main__":
    main()
