"""Env-steps/s of the Warp back end against the number of worlds, beside the raw step of the same model in the same run.

    python -m benchmarks.gpu_sim                                   # 1k to 16k worlds on the GPU
    python -m benchmarks.gpu_sim --device cpu --worlds 4 --steps 5 --tasks Lift     # small, where there is none

Raw: `mujoco_warp.step` as often as a control step has physics steps, and one `mujoco_warp.forward` for the sensors, on
the same model, states and controls; on a GPU captured as one CUDA graph. Nothing of ours runs in it. The whole
environment adds the watch over divergence, the action mapping, observation, reward, success, and the resets.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import mujoco
import mujoco_warp
import torch
import warp

from benchmarks._report import Row, write
from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.tasks import registry

GOAL = 0.7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--worlds", default="1024,2048,4096,8192,16384" if torch.cuda.is_available() else "16")
    parser.add_argument("--tasks", default=",".join(registry.own_names()))
    parser.add_argument("--steps", type=int, default=100 if torch.cuda.is_available() else 10)
    args = parser.parse_args()
    start = time.perf_counter()
    rows = [
        measure(name, int(worlds), args.device, args.steps)
        for name in args.tasks.split(",")
        for worlds in args.worlds.split(",")
    ]
    write("gpu_sim" if args.device.startswith("cuda") else "warp_cpu_sim", rows, seconds=time.perf_counter() - start)


def measure(name: str, worlds: int, device: str, steps: int) -> Row:
    """One row: a task at a number of worlds."""
    env: TaskEnv = make_task(name, worlds, backend="warp", device=device)
    expert, obs = env.expert(), env.reset(range(worlds))
    expert.reset(range(worlds))
    # Elapsed times of a run under way, so that episodes end at their usual rate while we measure.
    states = env.get_states()
    states[:, -2] = torch.randint(0, env.max_steps, (worlds,)).double().numpy()
    obs = env.set_states(states)

    def whole() -> None:
        nonlocal obs
        step = env.step(actions)
        obs = env.reset(mask=step.done) if step.done.any() else step.obs

    actions = expert.act(obs)
    raw = bare_physics(env)
    for warm_up in (whole, raw):
        warm_up()
    floor = worlds / _seconds_per_call(raw, steps, device)
    ours = worlds / _seconds_per_call(whole, steps, device)
    env.close()
    print(f"{name}, {worlds} worlds: {ours:.0f} env-steps/s, {ours / floor:.2f} of the raw rate", flush=True)
    return Row(
        case=f"{name}, {worlds} worlds, {device}",
        unit="env-steps/s",
        ours=ours,
        floor=floor,
        floor_name="mujoco_warp steps and forward of the same model",
        goal=GOAL * floor,
        note=f"{ours * env.task.substeps:.0f} physics steps/s",
    )


def bare_physics(env: TaskEnv) -> Callable[[], None]:
    """A control step's physics by MuJoCo Warp alone, from the present states of `env`."""
    device, substeps = warp.get_device(str(env.device)), env.task.substeps
    with warp.ScopedDevice(device):
        model, start = mujoco_warp.put_model(env.task.model), mujoco.MjData(env.task.model)
        mujoco.mj_forward(env.task.model, start)
        room = {"nconmax": env.task.warp_contacts, "njmax": env.task.warp_constraints}
        data = mujoco_warp.put_data(env.task.model, start, nworld=env.num_envs, **room)
        for name in ("qpos", "qvel", "ctrl", "mocap_pos", "mocap_quat"):
            warp.to_torch(getattr(data, name)).copy_(getattr(env.simulation, name))

    def physics() -> None:
        with warp.ScopedDevice(device):
            for _ in range(substeps):
                mujoco_warp.step(model, data)
            mujoco_warp.forward(model, data)

    if not device.is_cuda:
        return physics
    physics()  # kernels are compiled outside of the capture
    with warp.ScopedDevice(device), warp.ScopedCapture() as capture:
        physics()
    return lambda: warp.capture_launch(capture.graph)


def _seconds_per_call(function: Callable[[], None], calls: int, device: str) -> float:
    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize()

    wait()
    start = time.perf_counter()
    for _ in range(calls):
        function()
    wait()
    return (time.perf_counter() - start) / calls


if __name__ == "__main__":
    main()
