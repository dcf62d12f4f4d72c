"""The inside of a worker: a few environments, working on rows of arrays shared with the caller. Free of torch."""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import socket
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.single import SingleEnv
from robolearn.errors import RobolearnError

Command = Literal["reset", "step", "get_states", "set_states"]
MAX_PACKET = 1 << 16
MAX_TRACEBACK = 4000
"""Characters, so that a description of a fault fits into a packet."""

Layout = Mapping[str, tuple[tuple[int, ...], str]]


@dataclass(frozen=True)
class Rows:
    """The arrays that environments and caller share; row i belongs to environment i."""

    obs: dict[str, np.ndarray]
    """(N, ...) per key."""
    actions: np.ndarray
    """(N, A) float32 physical values, or (N, 1) int64 where actions are discrete."""
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray
    score: np.ndarray
    """(N,) float32, NaN where `info` has none."""
    mask: np.ndarray
    """(N,) bool: the environments that the command is for."""
    seeds: np.ndarray
    """(N,) int64, read by "reset"."""
    states: np.ndarray
    """(N, S) float64, S = 0 where there are none."""
    track_states: np.ndarray
    """(1,) bool: write `states` after every reset and step, because somebody reads them."""

    @staticmethod
    def layout(num_envs: int, facts: Mapping[str, Any]) -> Layout:
        """Return names, shapes and dtypes of all arrays, from what an environment says of itself."""
        discrete = facts["action"] is None
        action_size = 1 if discrete else len(facts["action"]["low"])
        arrays: dict[str, tuple[tuple[int, ...], str]] = {
            f"obs/{key}": ((num_envs, *shape), dtype) for key, (shape, dtype) in facts["observation"].items()
        }
        arrays["actions"] = ((num_envs, action_size), "int64" if discrete else "float32")
        arrays["states"] = ((num_envs, facts["state_size"] or 0), "float64")
        arrays |= dict.fromkeys(("reward", "score"), ((num_envs,), "float32"))
        arrays |= {"seeds": ((num_envs,), "int64"), "track_states": ((1,), "bool")}
        return arrays | dict.fromkeys(("terminated", "truncated", "success", "mask"), ((num_envs,), "bool"))

    @staticmethod
    def size(layout: Layout) -> int:
        """Return the bytes that all arrays take, each on its own cache line."""
        return sum(_aligned(shape, dtype) for shape, dtype in layout.values())

    @classmethod
    def over(cls, layout: Layout, buffer: Any) -> Rows:
        """Return views into a buffer of `size(layout)` bytes."""
        arrays, offset = {}, 0
        for name, (shape, dtype) in layout.items():
            arrays[name] = np.ndarray(tuple(shape), dtype, buffer, offset)
            offset += _aligned(shape, dtype)
        obs = {name.removeprefix("obs/"): arrays.pop(name) for name in list(arrays) if name.startswith("obs/")}
        return cls(obs=obs, **arrays)


class Host:
    """Runs the environments [first, last) of N against their rows; the same code in every kind of worker."""

    def __init__(self, task: TaskConfig, first: int, last: int) -> None:
        self._first = first
        self._envs = [SingleEnv(task) for _ in range(first, last)]
        self._rows: Rows | None = None

    def describe(self) -> dict[str, Any]:
        return self._envs[0].describe()

    def bind(self, rows: Rows) -> None:
        self._rows = rows

    def run(self, command: Command) -> list[dict[str, Any]]:
        """Carry out a command for the masked rows.

        What went wrong comes back as one entry per environment, the first in full and of the others the index.
        """
        rows = self._rows
        faults: list[dict[str, Any]] = []
        assert rows is not None
        for index, env in enumerate(self._envs, self._first):
            if rows.mask[index]:
                try:
                    self._run(env, index, command, rows)
                except (Exception, SystemExit) as error:  # whatever third-party code raises, the others go on
                    env.done = True
                    details = {} if faults else describe_error(error)
                    faults.append({"index": index, "command": command} | details)
        return faults

    def unwrapped(self, index: int) -> Any:
        """The environment below all wrappers."""
        return self._envs[index - self._first].unwrapped

    def render(self, index: int) -> np.ndarray:
        return self._envs[index - self._first].render()

    def close(self) -> None:
        for env in self._envs:
            env.close()

    @staticmethod
    def _run(env: SingleEnv, index: int, command: Command, rows: Rows) -> None:
        obs = {key: value[index] for key, value in rows.obs.items()}
        if command == "step":
            if env.done:  # ended and not reset: the row stays as it was
                rows.reward[index] = 0.0
                return
            end = env.step(rows.actions[index], obs)
            rows.reward[index], rows.terminated[index], rows.truncated[index], rows.success[index] = end
            rows.score[index] = env.score
        elif command != "get_states":
            if command == "reset":
                env.reset(int(rows.seeds[index]), obs)
            else:
                env.set_state(rows.states[index].copy(), obs)
            rows.reward[index] = 0.0
            rows.terminated[index] = rows.truncated[index] = rows.success[index] = False
        if rows.track_states[0]:
            rows.states[index] = env.get_state()


def serve(job: dict[str, Any]) -> None:
    """Answer questions until the parent hangs up; the main function of a worker process."""
    line = socket.socket(fileno=job["socket"])

    def reply(number: int, message: dict[str, Any]) -> None:
        packet = json.dumps([number, message]).encode()
        assert len(packet) < MAX_PACKET, "an answer that does not fit into a packet"
        line.send(packet)

    try:
        host = Host(TaskConfig.from_env_args(job["task"]), *job["rows"])
        reply(0, host.describe())
    except Exception as error:
        reply(0, describe_error(error))
        return
    with contextlib.suppress(ConnectionError):
        while packet := line.recv(MAX_PACKET):
            number, command, *args = json.loads(packet)
            reply(number, _obey(host, command, args, job))
    host.close()


def _obey(host: Host, command: str, args: list[Any], job: dict[str, Any]) -> dict[str, Any]:
    if command == "ping":
        return {}
    if command == "map":
        layout = Rows.layout(*args)
        host.bind(Rows.over(layout, mmap.mmap(job["block"], Rows.size(layout))))
        return {}
    if command == "render":
        try:
            picture = host.render(args[0])
        except Exception as error:
            return describe_error(error)
        os.pwrite(job["picture"], picture.tobytes(), 0)
        return {"shape": picture.shape}
    return {"faults": host.run(command)}  # type: ignore[arg-type]


def describe_error(error: BaseException) -> dict[str, Any]:
    """Return an exception as plain values; the traceback only where it is not one of our own messages."""
    ours = isinstance(error, RobolearnError)
    return {
        "error": (str(error) if ours else f"{type(error).__name__}: {error}")[:MAX_TRACEBACK],
        "traceback": "" if ours else "".join(traceback.format_exception(error))[-MAX_TRACEBACK:],
    }


def _aligned(shape: Sequence[int], dtype: str) -> int:
    return -(-int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize // 64) * 64
