"""What a policy's picture costs where the processor draws, beside MuJoCo's renderer on the task's model as it is.

    python -m benchmarks.pictures [--rounds 30]

Pictures of 84 x 84 by the task's two cameras, of both in turns; what training makes of them (decoding, in memory or
streamed) is measured by `benchmarks.sampler` and `benchmarks.policy_train`.
Writes benchmarks/results/pictures.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import mujoco
import numpy as np

from benchmarks._report import Row, write
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.envs.task_env import TaskEnv
from robolearn.sim.pictures import Pictures

TASKS = ("Lift", "PickPlace", "Stack", "PegInsert", "PushT")
SIZE = (84, 84)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    began = time.perf_counter()
    write("pictures", [measure(task, args.rounds) for task in TASKS], seconds=time.perf_counter() - began)


def measure(name: str, rounds: int) -> Row:
    with make(TaskConfig(id=name), 1) as env:
        assert isinstance(env, TaskEnv)
        env.reset([0])
        model, data = env.simulation.world(0)
        ours = Pictures(model, *SIZE)
        theirs = mujoco.Renderer(model, *SIZE)

        def plain(camera: str) -> np.ndarray:
            theirs.update_scene(data, camera)
            return theirs.render()

        cameras = env.task.cameras
        times = [
            [seconds(lambda c: ours.draw(model, data, c), cameras), seconds(plain, cameras)] for _ in range(rounds + 3)
        ]
        found = np.array(times[3:])  # the first ones build display lists
        ours.close()
        theirs.close()
    mine, peer = np.median(found, axis=0) * 1e3
    low, high = np.quantile(found[:, 1] / found[:, 0], [0.25, 0.75])
    return Row(
        case=f"{name}, {SIZE[0]} x {SIZE[1]}",
        unit="ms per picture",
        ours=float(mine),
        peer=float(peer),
        peer_name="mujoco.Renderer",
        better="lower",
        note=f"median of {rounds}; peer over ours {low:.1f} to {high:.1f} (quartiles of pairs)",
    )


def seconds(draw: Callable[[str], object], cameras: tuple[str, ...]) -> float:
    """Return what a picture takes, the mean over the cameras."""
    began = time.perf_counter()
    for camera in cameras:
        draw(camera)
    return (time.perf_counter() - began) / len(cameras)


if __name__ == "__main__":
    main()
