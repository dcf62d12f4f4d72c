"""Workers that run single environments: in this process, in threads, or in processes over one shared block of memory.

Tasks that have a native form need none of these (`robolearn.envs.gymnasium.native`).

A step costs one short message per worker and no copies: observations, rewards, flags and actions of all N
environments lie in one `Rows`, whose memory the workers map as well. Workers end when the socket to their parent
closes, so none outlives it, however it dies. They are started as fresh interpreters, not forked: forking a process that
holds threads or a GL or CUDA context is undefined, and re-importing the caller's main module, as `multiprocessing`
does, breaks plain scripts.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Protocol

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.host import MAX_PACKET, Command, Host, Rows
from robolearn.envs.gymnasium.mujoco_rules import why_not_native
from robolearn.errors import TaskError

_START = """
import json, sys
job = json.loads(sys.argv[1])
sys.path[:] = job["path"]
from robolearn.envs.gymnasium.host import serve
serve(job)
"""


class Workers(Protocol):
    """N environments behind one set of rows."""

    facts: dict[str, Any]
    rows: Rows

    def settle(self) -> None:
        """Wait until nobody works on the rows: to be called before they are written, for Ctrl-C may have come between
        a command and its answer."""
        ...

    def run(self, command: Command) -> list[dict[str, Any]]:
        """Carry out a command for the environments in `rows.mask`; returns the faults."""
        ...

    def render(self, index: int) -> np.ndarray: ...

    def close(self) -> None: ...


class LocalWorkers:
    """All environments in this process, in one loop or in `count` threads."""

    def __init__(self, task: TaskConfig, num_envs: int, count: int) -> None:
        bounds = _split(num_envs, count)
        self._hosts = [Host(task, first, last) for first, last in bounds]
        self._pool = ThreadPoolExecutor(count, "robolearn-env") if count > 1 else None
        self._owner = [host for host, (first, last) in zip(self._hosts, bounds) for _ in range(first, last)]
        self.facts = self._hosts[0].describe()
        layout = Rows.layout(num_envs, self.facts)
        self.rows = Rows.over(layout, bytearray(Rows.size(layout)))
        for host in self._hosts:
            host.bind(self.rows)
        self._running: list[Future[list[dict[str, Any]]]] = []

    def settle(self) -> None:
        wait(self._running)

    def run(self, command: Command) -> list[dict[str, Any]]:
        if self._pool is None:
            return self._hosts[0].run(command)
        self._running = []
        for host in self._hosts:
            self._running.append(self._pool.submit(host.run, command))
        return [fault for future in self._running for fault in future.result()]

    def render(self, index: int) -> np.ndarray:
        return self._owner[index].render(index)

    def unwrapped(self, index: int) -> Any:
        """The environment below all wrappers."""
        return self._owner[index].unwrapped(index)

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
        for host in self._hosts:
            host.close()


class ProcessWorkers:
    """`count` worker processes with their share of the environments each."""

    def __init__(self, task: TaskConfig, num_envs: int, count: int) -> None:
        self._task, self._bounds = task, _split(num_envs, count)
        self._block = _shared_file()
        self._workers: list[_Worker] = []
        self._finalizer = weakref.finalize(self, _end, self._workers, self._block)
        try:
            for first, last in self._bounds:
                self._workers.append(_Worker(task, first, last, self._block))
            replies = [worker.answer() for worker in self._workers]
            for worker, reply in zip(self._workers, replies):
                if "error" in reply:
                    raise fault_error(task, reply | {"index": worker.first, "command": "be made"})
        except BaseException:
            self._finalizer()
            raise
        self.facts: dict[str, Any] = replies[0]
        layout = Rows.layout(num_envs, self.facts)
        os.ftruncate(self._block, Rows.size(layout))
        self.rows = Rows.over(layout, mmap.mmap(self._block, Rows.size(layout)))
        for worker in self._workers:
            worker.ask(["map", num_envs, self.facts])
        for worker in self._workers:
            worker.answer()

    def settle(self) -> None:
        for worker in self._workers:
            worker.settle()

    def run(self, command: Command) -> list[dict[str, Any]]:
        busy = [w for w in self._workers if self.rows.mask[w.first : w.last].any()]
        for worker in busy:
            worker.ask([command])
        return [fault for worker in busy for fault in worker.answer()["faults"]]

    def render(self, index: int) -> np.ndarray:
        worker = next(w for w in self._workers if w.first <= index < w.last)
        worker.ask(["render", index])
        reply = worker.answer()
        if "error" in reply:
            raise fault_error(self._task, reply | {"index": index, "command": "render"})
        return worker.picture(reply["shape"])

    def close(self) -> None:
        self._finalizer()


class _Worker:
    """The parent's side of one worker process.

    Every message is one packet and carries a number that its answer repeats, so that an answer lost to Ctrl-C is never
    taken for that of the next command.
    """

    def __init__(self, task: TaskConfig, first: int, last: int, block: int) -> None:
        self.first, self.last, self._task = first, last, task
        self._number, self._settled = 0, True
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._picture = _shared_file()
        fds = {"socket": theirs.fileno(), "block": block, "picture": self._picture}
        job = {"path": sys.path, "task": task.env_args(), "rows": [first, last], **fds}
        try:
            text = json.dumps(job)
        except (TypeError, ValueError) as error:
            raise TaskError(
                f"{task.id}: kwargs for worker processes must be plain values ({error}), received {task.kwargs}; "
                "use worker_kind='thread' or 'sync'"
            ) from None
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, text],
            pass_fds=tuple(fds.values()),
            stdin=subprocess.DEVNULL,
            process_group=0,  # Ctrl-C in a terminal goes to the parent's group: it is the parent's to handle
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # the workers are the parallelism
        )
        theirs.close()

    def ask(self, message: list[Any]) -> None:
        self._settled = False
        self._number += 1
        try:
            self._socket.send(json.dumps([self._number, *message]).encode())
        except OSError:
            raise self._died() from None

    def answer(self) -> dict[str, Any]:
        """Return the answer to the last question; those to earlier ones, given up at an interrupt, are passed over."""
        while True:
            try:
                packet = self._socket.recv(MAX_PACKET)
            except OSError:
                packet = b""
            if not packet:
                raise self._died()
            number, reply = json.loads(packet)
            if number == self._number:
                self._settled = True
                return reply

    def settle(self) -> None:
        if not self._settled:
            self.ask(["ping"])
            self.answer()

    def picture(self, shape: Sequence[int]) -> np.ndarray:
        """Read the (H, W, 3) picture that the worker last wrote."""
        data = os.pread(self._picture, int(np.prod(shape)), 0)
        return np.frombuffer(data, np.uint8).reshape(shape).copy()

    def hang_up(self) -> None:
        self._socket.close()

    def end(self) -> None:
        """Wait for the process to end after `hang_up`, or end it."""
        os.close(self._picture)
        try:
            self.process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _died(self) -> TaskError:
        self._settled = True  # the dead write nothing
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=2.0)
        code = self.process.returncode
        how = f"exit code {code}" if code is None or code >= 0 else f"signal {signal.Signals(-code).name}"
        return TaskError(
            f"the worker of environments {self.first} to {self.last - 1} of {self._task.id} died ({how}), "
            f"kwargs {self._task.kwargs}; its last words, if any, are on standard error. Running with "
            "worker_kind='sync' shows the fault in this process"
        )


def make_workers(task: TaskConfig, num_envs: int) -> Workers:
    """Start the workers that `task` asks for; a single environment needs none unless one is asked for.

    Outside of Linux, which lacks what worker processes stand on, threads take their place.
    """
    if task.worker_kind == "native" or (task.worker_kind == "auto" and why_not_native(task) is None):
        from robolearn.envs.gymnasium.native import NativeWorkers

        return NativeWorkers(task, num_envs)
    if task.worker_kind == "vector":
        from robolearn.envs.gymnasium.vector import VectorWorkers

        return VectorWorkers(task, num_envs)
    if task.worker_kind == "ray":
        from robolearn.envs.gymnasium.ray_actors import RayWorkers

        return RayWorkers(task, num_envs, min(num_envs, task.workers or num_envs))
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if task.worker_kind == "sync" or (num_envs == 1 and task.workers is None):
        return LocalWorkers(task, num_envs, 1)
    kind = LocalWorkers if task.worker_kind == "thread" or sys.platform != "linux" else ProcessWorkers
    return kind(task, num_envs, min(num_envs, task.workers or cores))


def fault_error(task: TaskConfig, fault: Mapping[str, Any]) -> TaskError:
    """Return the exception for a fault that a worker reported."""
    if not fault["traceback"]:
        return TaskError(fault["error"])
    return TaskError(
        f"environment {fault['index']} of {task.id} failed to {fault['command']}: {fault['error']} "
        f"(kwargs {task.kwargs})\n{fault['traceback'].rstrip()}"
    )


def _split(num_envs: int, count: int) -> list[tuple[int, int]]:
    bounds = np.linspace(0, num_envs, count + 1).astype(int).tolist()
    return list(itertools.pairwise(bounds))


def _shared_file() -> int:
    """Open a file without a name: nothing to clean up, and no limit of /dev/shm to run into."""
    return os.memfd_create("robolearn-envs")


def _end(workers: list[_Worker], block: int) -> None:
    for worker in workers:
        worker.hang_up()
    for worker in workers:
        worker.end()
    os.close(block)
