"""What a policy's picture costs: to draw, beside MuJoCo's renderer on the task's model as it is, and to learn from.

    python -m benchmarks.pictures [--rounds 30]

Pictures of 84 x 84 by the task's two cameras, of both in turns; then forward and backward passes of the shallow
encoder, beside those of ResNet-18, on as many threads as torch takes. Decoding and whole updates are measured by
`benchmarks.sampler` and `benchmarks.policy_train`.
Writes benchmarks/results/pictures.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Literal

import mujoco
import numpy as np
import torch

from benchmarks._report import Row, write
from robolearn.configuration.parts.policy import VisionConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.make import make
from robolearn.envs.task_env import TaskEnv
from robolearn.policies.vision import build_image_encoders
from robolearn.sim.pictures import Pictures
from robolearn.specs import ArraySpec

TASKS = ("Lift", "PickPlace", "Stack", "PegInsert", "PushT")
SIZE = (84, 84)
BATCH = 32
WARM_UP = 3
"""Pairs that are not counted: the first pictures build display lists."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    args = parser.parse_args()
    began = time.perf_counter()
    rows = [*(drawing(task, args.rounds) for task in TASKS), learning(args.rounds)]
    write("pictures", rows, seconds=time.perf_counter() - began, speed=True)


def drawing(name: str, rounds: int) -> Row:
    with make(TaskConfig(id=name), 1) as env:
        assert isinstance(env, TaskEnv)
        env.reset([0])
        model, data = env.simulation.world(0)
        ours = Pictures(model, *SIZE)
        theirs = mujoco.Renderer(model, *SIZE)
        cameras = env.task.cameras

        def draw_ours() -> None:
            for camera in cameras:
                ours.draw(model, data, camera)

        def draw_theirs() -> None:
            for camera in cameras:
                theirs.update_scene(data, camera)
                theirs.render()

        row = in_turns(f"{name}, drawn", draw_ours, draw_theirs, len(cameras), rounds, peer="mujoco.Renderer")
        ours.close()
        theirs.close()
    return row


def learning(rounds: int) -> Row:
    pictures = torch.randint(256, (BATCH, *SIZE, 3), dtype=torch.uint8)
    spec = ArraySpec(shape=(*SIZE, 3), dtype="uint8")

    def training(network: Literal["shallow", "resnet18"]) -> Callable[[], None]:
        encoder = build_image_encoders({"front": spec}, VisionConfig(network=network))["front"].train()
        return lambda: encoder(pictures).sum().backward()

    case = f"shallow encoder, forward and backward of {BATCH}"
    return in_turns(case, training("shallow"), training("resnet18"), BATCH, rounds, peer="ResNet-18")


def in_turns(
    case: str, ours: Callable[[], None], theirs: Callable[[], None], pictures: int, rounds: int, *, peer: str
) -> Row:
    """Return what a picture takes, the median of pairs of which each handles that many."""

    def seconds(work: Callable[[], None]) -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) / pictures

    times = [(seconds(ours), seconds(theirs)) for _ in range(rounds + WARM_UP)]
    found = np.array(times[WARM_UP:])
    mine, other = np.median(found, axis=0) * 1e3
    low, high = np.quantile(found[:, 1] / found[:, 0], [0.25, 0.75])
    return Row(
        case=f"{case}, {SIZE[0]} x {SIZE[1]}",
        unit="ms per picture",
        ours=float(mine),
        peer=float(other),
        peer_name=peer,
        better="lower",
        note=f"median of {rounds}; peer over ours {low:.1f} to {high:.1f} (quartiles of pairs)",
    )


if __name__ == "__main__":
    main()
