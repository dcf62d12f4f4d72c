"""Workers: the same numbers whatever their kind and count, and clear words when one fails."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.gymnasium.workers import ProcessWorkers
from robolearn.errors import TaskError
from tests.envs import toy
from tests.waiting import wait_until

KINDS = [("sync", None), ("thread", 2), ("process", 1), ("process", 3)]


def env_of(task_id: str, num_envs: int, **options) -> GymVectorEnv:
    return GymVectorEnv(TaskConfig(id=task_id, **options), num_envs)


def worker_pids(env: GymVectorEnv) -> list[int]:
    assert isinstance(env._workers, ProcessWorkers)
    return [worker.process.pid for worker in env._workers._workers]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


@pytest.mark.parametrize("task_id", [toy.POINT_REACH, "gym:HalfCheetah-v5"])
def test_every_kind_and_number_of_workers_gives_the_same_bits(task_id: str) -> None:
    runs = []
    for kind, count in KINDS:
        with env_of(task_id, 4, worker_kind=kind, workers=count, max_steps=12) as env:
            rng = torch.Generator().manual_seed(0)
            env.reset([1, 2, 3, 4])
            numbers = []
            for t in range(20):
                if t == 7:
                    env.reset([9, 8], torch.tensor([False, True, True, False]))
                step = env.step(torch.rand(4, env.action_spec.size, generator=rng) * 2 - 1, torch.arange(4) != t % 5)
                numbers += [*step.obs.values(), step.reward, step.terminated, step.truncated, step.success]
            states = env.get_states()
            numbers += [] if states is None else [torch.from_numpy(states)]
            runs.append(numbers)
    for run in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(run, runs[0], strict=True))


@pytest.mark.parametrize(("kind", "count"), KINDS)
def test_an_exception_names_environment_and_cause_and_the_others_go_on(kind: str, count: int | None) -> None:
    kwargs = {"fault": "raise", "at": 2, "seed": 5}
    with env_of(toy.FAULTY, 3, kwargs=kwargs, worker_kind=kind, workers=count) as env:
        env.reset([4, 5, 6])
        env.step(torch.zeros(3, 1))
        with pytest.raises(
            TaskError, match=r"environment 1 .*RuntimeError: the gripper fell off(.|\n)*toy.py"
        ) as caught:
            env.step(torch.zeros(3, 1))
        assert "'fault': 'raise'" in str(caught.value)
        rest = torch.tensor([True, False, True])
        assert env.step(torch.zeros(3, 1), rest).obs["state"][:, 1].tolist() == [3.0, 1.0, 3.0]
        with pytest.raises(TaskError, match="environment 1 was stepped before"):
            env.step(torch.zeros(3, 1))
        env.reset([7], ~rest)
        assert env.step(torch.zeros(3, 1)).obs["state"][:, 1].tolist() == [4.0, 1.0, 4.0]


def test_many_faults_at_once_are_reported_by_the_first() -> None:
    kwargs = {"fault": "raise", "at": 1, "seed": 5}
    with env_of(toy.FAULTY, 40, kwargs=kwargs, workers=1) as env:
        env.reset([5] * 40)
        with pytest.raises(TaskError, match=r"environment 0 .*RuntimeError"):
            env.step(torch.zeros(40, 1))
        env.reset([6] * 40)
        assert env.step(torch.zeros(40, 1)).obs["state"][:, 1].tolist() == [1.0] * 40


def test_a_worker_that_dies_is_named_with_its_environments_and_exit_code() -> None:
    with env_of(toy.FAULTY, 4, kwargs={"fault": "exit", "at": 1, "seed": 3}, workers=2) as env:
        env.reset([0, 1, 2, 3])
        with pytest.raises(TaskError, match=r"environments 2 to 3 .*exit code 17.*'fault': 'exit'"):
            env.step(torch.zeros(4, 1))
        with pytest.raises(TaskError, match="environments 2 to 3"):
            env.step(torch.zeros(4, 1))
        healthy = torch.tensor([True, True, False, False])
        assert env.step(torch.zeros(4, 1), healthy).obs["state"][:2, 1].tolist() == [3.0, 3.0]


def test_a_killed_worker_is_named_with_its_signal() -> None:
    with env_of(toy.COUNTER, 2, workers=2) as env:
        env.reset([0, 1])
        os.kill(worker_pids(env)[1], signal.SIGKILL)
        with pytest.raises(TaskError, match=r"environments 1 to 1 .*SIGKILL"):
            env.step(torch.zeros(2, 1))


def test_closing_ends_the_workers_and_so_does_forgetting_the_environment() -> None:
    env = env_of(toy.COUNTER, 2, workers=2)
    pids = worker_pids(env)
    assert all(map(alive, pids))
    env.close()
    env.close()
    wait_until(lambda: not any(map(alive, pids)))
    env = env_of(toy.COUNTER, 2, workers=2)
    pids = worker_pids(env)
    del env
    wait_until(lambda: not any(map(alive, pids)))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_workers_die_with_their_parent(tmp_path: Path, number: int) -> None:
    script = textwrap.dedent(f"""
        import time
        from robolearn.envs.make import make
        from tests.envs.gymnasium.test_workers import worker_pids
        from robolearn.configuration.parts.task import TaskConfig
        env = make(TaskConfig(id={toy.COUNTER!r}, workers=2), 2)
        print(*worker_pids(env), flush=True)
        time.sleep(60)
    """)
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert all(map(alive, pids))
    parent.send_signal(number)
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not any(map(alive, pids)))


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text(
        "from robolearn.envs.make import make\n"
        "from robolearn.configuration.parts.task import TaskConfig\n"
        "env = make(TaskConfig(id='gym:Pendulum-v1', workers=2), 2)\n"
        "print('made', env.reset([0, 1])['state'].shape[0])\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert done.stdout == "made 2\n"
    assert done.stderr == ""


def test_ctrl_c_reaches_the_parent_alone_and_leaves_the_environments_usable(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import torch
        from robolearn.envs.make import make
        from robolearn.configuration.parts.task import TaskConfig
        env = make(TaskConfig(id={toy.COUNTER!r}, workers=2), 4)
        for _ in range(20):
            try:
                print("going", flush=True)  # from here on it may come at any instant, and comes once
                while True:
                    env.reset([0, 1, 2, 3])
                    for _ in range(9):
                        env.step(torch.zeros(4, 1))
            except KeyboardInterrupt:
                pass
        env.reset([4, 5, 6, 7])
        print(env.step(torch.ones(4, 1)).obs["state"].tolist())
        env.close()
    """)
    with (tmp_path / "errors").open("w") as errors:
        command = [sys.executable, "-c", script]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, process_group=0)
    assert process.stdout is not None
    with process.stdout as out:
        for _ in range(20):
            assert out.readline() == "going\n"
            time.sleep(random.uniform(0.0, 0.03))
            os.killpg(process.pid, signal.SIGINT)
        assert out.read() == f"{[[seed, 1.0, 1.0] for seed in (4.0, 5.0, 6.0, 7.0)]}\n"
    assert process.wait(timeout=90) == 0
    assert (tmp_path / "errors").read_text() == ""


@pytest.mark.parametrize("workers", [None, 2])
def test_a_failing_constructor_says_why(workers: int | None) -> None:
    with pytest.raises(TaskError, match=r"could not be made with kwargs \{'sped': 3\}.*sped"):
        env_of(toy.COUNTER, 2, kwargs={"sped": 3}, workers=workers)


def test_kwargs_that_cannot_travel_are_refused_with_a_way_out() -> None:
    with pytest.raises(TaskError, match=r"plain values.*worker_kind='thread' or 'sync'"):
        env_of(toy.COUNTER, 2, kwargs={"end": np.array([1, 2])})


def test_pictures_come_from_worker_processes_too() -> None:
    with env_of(toy.POINT_REACH, 3, workers=2) as env, env_of(toy.POINT_REACH, 3, worker_kind="sync") as local:
        env.reset([0, 1, 2])
        local.reset([0, 1, 2])
        for index in range(3):
            np.testing.assert_array_equal(env.render(index), local.render(index))
    with env_of(toy.COUNTER, 2, workers=2) as env:
        env.reset([0, 1])
        with pytest.raises(TaskError, match="no pictures"):
            env.render()
        env.step(torch.zeros(2, 1))
