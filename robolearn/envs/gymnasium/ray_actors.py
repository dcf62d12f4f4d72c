"""Environments on other machines, through Ray (https://docs.ray.io): for tasks whose steps are slow beside a network.

Each actor holds a few environments and rows of its own; a command carries what it reads and brings back what it wrote.
A cluster that is there already (RAY_ADDRESS, or `ray.init` by the caller) is joined, else this machine is one.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.host import Command, Host, Rows
from robolearn.errors import TaskError

READS: dict[str, tuple[str, ...]] = {"reset": ("seeds",), "step": ("actions",), "set_states": ("states",)}
"""Rows that each command reads besides the mask."""
WRITES = ("reward", "terminated", "truncated", "success", "score")


class RemoteHost:
    """The inside of an actor: `Host` over rows of its own."""

    def __init__(self, env_args: dict[str, Any], count: int) -> None:
        self._host = Host(TaskConfig.from_env_args(env_args), 0, count)
        self._facts = self._host.describe()
        layout = Rows.layout(count, self._facts)
        self._rows = Rows.over(layout, bytearray(Rows.size(layout)))
        self._host.bind(self._rows)

    def describe(self) -> dict[str, Any]:
        return self._facts

    def node(self) -> str:
        """Return the machine that this actor lives on."""
        import ray  # type: ignore[import-not-found]

        return ray.get_runtime_context().get_node_id()

    def run(
        self, command: Command, reads: dict[str, np.ndarray], track_states: bool
    ) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Carry out a command; returns faults, observations and the other arrays written."""
        rows = self._rows
        rows.track_states[0] = track_states
        for name, value in reads.items():
            getattr(rows, name)[:] = value
        faults = self._host.run(command)
        written = {name: getattr(rows, name) for name in (*WRITES, *(("states",) if track_states else ()))}
        return faults, rows.obs, written

    def render(self, index: int) -> np.ndarray:
        return self._host.render(index)


class RayWorkers:
    """`count` actors with their share of the environments each, spread over the machines of the cluster.

    Raises TaskError where Ray is missing, an environment cannot be made, or a machine is lost.
    """

    def __init__(self, task: TaskConfig, num_envs: int, count: int) -> None:
        self._ray = ray = _ray()
        if not ray.is_initialized():
            ray.init(log_to_driver=False, include_dashboard=False)
        ends = np.linspace(0, num_envs, count + 1).astype(int).tolist()
        self._task, self._bounds = task, list(itertools.pairwise(ends))
        options = {
            "num_cpus": 1,
            "scheduling_strategy": "SPREAD",
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": "1"}},
        }
        actor = ray.remote(**options)(RemoteHost)
        self._actors = [actor.remote(task.env_args(), last - first) for first, last in self._bounds]
        try:
            self.facts: dict[str, Any] = self._get([a.describe.remote() for a in self._actors], "be made")[0]
        except BaseException:
            self.close()
            raise
        layout = Rows.layout(num_envs, self.facts)
        self.rows = Rows.over(layout, bytearray(Rows.size(layout)))

    def settle(self) -> None:
        """Do nothing: nobody but `run` writes the rows."""

    def run(self, command: Command) -> list[dict[str, Any]]:
        rows, track = self.rows, bool(self.rows.track_states[0])
        names = ("mask", *READS.get(command, ()))
        busy = [(a, slice(*bounds)) for a, bounds in zip(self._actors, self._bounds) if rows.mask[slice(*bounds)].any()]
        calls = [a.run.remote(command, {name: getattr(rows, name)[mine] for name in names}, track) for a, mine in busy]
        faults: list[dict[str, Any]] = []
        for (_, mine), (found, obs, written) in zip(busy, self._get(calls, command)):
            for key, value in obs.items():
                rows.obs[key][mine] = value
            for name, value in written.items():
                getattr(rows, name)[mine] = value
            faults += [fault | {"index": fault["index"] + mine.start} for fault in found]
        return faults

    def render(self, index: int) -> np.ndarray:
        number = next(i for i, (first, last) in enumerate(self._bounds) if first <= index < last)
        call = self._actors[number].render.remote(index - self._bounds[number][0])
        return self._get([call], "render")[0].copy()

    def nodes(self) -> list[str]:
        """Return the machine of each actor."""
        return self._get([a.node.remote() for a in self._actors], "answer")

    def close(self) -> None:
        if self._ray.is_initialized():
            for actor in self._actors:
                self._ray.kill(actor)

    def _get(self, calls: list[Any], what: str) -> list[Any]:
        errors = self._ray.exceptions
        try:
            return self._ray.get(calls)
        except errors.RayActorError as error:
            raise TaskError(
                f"a Ray worker of {self._task.id} was lost while it was to {what} ({str(error).splitlines()[0]}); "
                "look at that machine, or run with worker_kind='process'"
            ) from None
        except errors.RayTaskError as error:
            raise TaskError(f"{self._task.id} failed to {what} in a Ray worker: {error}") from None


def _ray() -> Any:
    try:
        import ray  # type: ignore[import-not-found]
    except ImportError:
        raise TaskError("worker_kind 'ray' needs Ray: pip install robolearn[ray]") from None
    return ray
