"""A ring of transitions of N environments, in host memory, device memory or a file, sampled without Python loops.

Observations are stored once. Row t+1 is the successor of row t, except where an episode ended: there the true final
observation waits in a queue of its own, so nothing is doubled (images!) and no successor is another episode's begin:

    row            0     1     2     3     4    (C = 5 rows in the ring, N columns)
    obs            s0    s1    s2    s0'   s1'
    ended                      x                successor of row 2: its final observation, from the queue
    head                             ^          row 3 is written next; row 4 is the oldest and the last to be read
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from robolearn.envs.interface import Observation
from robolearn.errors import TrainingError
from robolearn.rl.collecting.macro_steps import Transition


class ReplayBatch(NamedTuple):
    """B transitions over n steps."""

    obs: Observation
    """(B, To, ...)."""
    actions: Tensor
    """(B, Tp, A), or (B, 1) int64 for discrete actions."""
    rewards: Tensor
    """(B,) discounted over the n steps."""
    discounts: Tensor
    """(B,) weight of the value of `next_obs`: gamma to the steps taken, zero where the task ended."""
    next_obs: Observation
    """(B, To, ...) true successors."""

    def map(self, function: Any) -> ReplayBatch:
        """Apply a function to every tensor."""
        obs, next_obs = ({k: function(v) for k, v in o.items()} for o in (self.obs, self.next_obs))
        return ReplayBatch(obs, function(self.actions), function(self.rewards), function(self.discounts), next_obs)


def joined(first: ReplayBatch, second: ReplayBatch) -> ReplayBatch:
    """Return the rows of both batches as one, those of `first` before the others."""
    obs = {key: torch.cat([value, second.obs[key]]) for key, value in first.obs.items()}
    next_obs = {key: torch.cat([value, second.next_obs[key]]) for key, value in first.next_obs.items()}
    actions, rewards, discounts = (torch.cat(pair) for pair in zip(first[1:4], second[1:4]))
    return ReplayBatch(obs, actions, rewards, discounts, next_obs)


@dataclass(frozen=True)
class Share:
    """Transitions of a replay that may be drawn."""

    replay: Replay
    ages: Tensor | None = None
    """(K,) int64, as `Replay.gather` takes them; None means all."""

    def __len__(self) -> int:
        return len(self.replay) if self.ages is None else len(self.ages)

    def gather(self, index: Tensor) -> ReplayBatch:
        """Return the transitions at places (B,) of the share."""
        return self.replay.gather(index if self.ages is None else self.ages[index])


def sample_as_one(shares: Sequence[Share], rows: int, generator: torch.Generator) -> ReplayBatch:
    """Draw `rows` transitions, uniformly with replacement, as if all shares were one buffer; those of the first share
    come first. At least one share must hold something."""
    shares = [share for share in shares if len(share)]
    sizes = torch.tensor([len(share) for share in shares])
    drawn = torch.randint(int(sizes.sum()), (rows,), generator=generator, device=generator.device)
    if len(shares) == 1:
        return shares[0].gather(drawn)
    ends = sizes.cumsum(0).tolist()
    parts = [
        share.gather(drawn[(drawn >= end - len(share)) & (drawn < end)] - (end - len(share)))
        for share, end in zip(shares, ends)
    ]
    return functools.reduce(joined, parts)


@dataclass(frozen=True)
class Field:
    """One array of the ring: trailing shape and dtype."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    def bytes(self, rows: int) -> int:
        return rows * int(torch.Size(self.shape).numel()) * self.dtype.itemsize


class Replay:
    """Stores transitions of N environments in step and samples n-step batches.

    Raises TrainingError where the buffer would not fit into the memory that is free.
    """

    def __init__(
        self,
        capacity: int,
        window: Observation,
        actions: Tensor,
        *,
        n_step: int = 1,
        device: torch.device | str = "cpu",
        directory: str | Path | None = None,
    ) -> None:
        """
        Args:
            capacity: transitions to keep, over all environments.
            window: (N, To, ...) observation windows as they will come, for shapes and dtypes.
            actions: (N, ...) likewise.
            n_step: n of the returns; fewer steps where an episode ends or the newest row is reached.
            directory: keep the arrays in files there, mapped into memory; None keeps them on `device`.
        """
        self.num_envs = len(actions)
        self.rows = max(2, -(-capacity // self.num_envs) + 1)  # one row for the successor of the newest transition
        self.n_step, self.device = n_step, torch.device(device)
        self.directory = None if directory is None else Path(directory)
        self.fields = {f"obs/{k}": Field(tuple(v.shape[1:]), v.dtype) for k, v in window.items()}
        self.fields |= {
            "actions": Field(tuple(actions.shape[1:]), actions.dtype),
            "rewards": Field((), torch.float32),
            "discounts": Field((), torch.float32),
            "final": Field((), torch.int64),
        }
        self._check_memory()
        self.arrays = {name: self._allocate(name, field) for name, field in self.fields.items()}
        self.arrays["final"].fill_(-1)
        # The same memory as (rows * N, ...), made once: a batch would otherwise make these views six times.
        self.flat = {name: array.flatten(0, 1) for name, array in self.arrays.items()}
        self.obs_names = [name for name in self.fields if name.startswith("obs/")]
        self.head = self.size = self.oldest = 0
        self._corrected = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.finals = {name: self._empty(self.fields[name], 1) for name in self.obs_names}
        self.finals_written = self.finals_freed = 0

    def __len__(self) -> int:
        """Transitions that can be sampled."""
        return self.size * self.num_envs

    def add(self, window: Observation, actions: Tensor, transition: Transition) -> None:
        """Store one macro-step of all environments.

        Args:
            window: (N, To, ...) before it; `transition.next_obs` must not have been overwritten by a restart yet.
        """
        row, following = self.head, (self.head + 1) % self.rows
        self._free(row)
        self._free(following)
        for name in self.obs_names:
            self._row(name, row).copy_(window[name[4:]])
            self._row(name, following).copy_(transition.next_obs[name[4:]])
        self._row("actions", row).copy_(actions)
        self._row("rewards", row).copy_(transition.reward)
        self._row("discounts", row).copy_(transition.discount * ~transition.terminated)
        final = self._row("final", row)
        final.fill_(-1)
        ended = transition.done.nonzero()[:, 0]
        if len(ended):
            final[ended.to(final.device)] = self._queue(ended, transition.next_obs).to(final.device)
        if (corrected := transition.corrected) is not None:
            number = self.oldest + len(self)
            self._corrected = torch.cat([self._corrected, number + corrected.nonzero()[:, 0].to(self.device)])
        self.oldest += self.num_envs if self.size == self.rows - 1 else 0
        self.head, self.size = following, min(self.size + 1, self.rows - 1)

    def corrected(self) -> Tensor:
        """Return the ages (K,) of the transitions in which a corrector acted, as `gather` takes them."""
        if len(self._corrected):  # otherwise a GPU would be waited for at every batch
            self._corrected = self._corrected[self._corrected >= self.oldest]
        return self._corrected - self.oldest

    def sample(self, batch_size: int, generator: torch.Generator | None = None) -> ReplayBatch:
        """Draw `batch_size` transitions, uniformly with replacement."""
        drawn = torch.randint(len(self), (batch_size,), generator=generator, device=self.device)
        return self.gather(drawn)

    def gather(self, index: Tensor) -> ReplayBatch:
        """Return the transitions of ages `index` (B,): 0 is the oldest row's first environment, len - 1 the newest
        row's last."""
        place = self._place(index)
        rewards, discounts, last = self._look_ahead(index, place)
        final = self._take("final", last)
        ended, slots = final >= 0, final % len(next(iter(self.finals.values())))
        following = (last + self.num_envs) % (self.rows * self.num_envs)
        obs, next_obs = {}, {}
        for name in self.obs_names:
            obs[name[4:]] = self._take(name, place)
            plain, true = self._take(name, following), self.finals[name].index_select(0, slots)
            next_obs[name[4:]] = torch.where(ended.view(-1, *[1] * (plain.ndim - 1)), true, plain)
        return ReplayBatch(obs, self._take("actions", place), rewards, discounts, next_obs)

    def state_dict(self) -> dict[str, Any]:
        """Return the filled part of everything, oldest rows first; of a replay in files a view, to be saved before the
        next transition is added."""
        return {
            "arrays": {name: [self._part(name, rows) for rows in self._filled()] for name in self.arrays},
            "finals": {name: value[self._live() % len(value)] for name, value in self.finals.items()},
            "size": self.size,
            "corrected": self.corrected(),
            "finals_written": self.finals_written,
            "finals_freed": self.finals_freed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load a state, whatever the ring's position was; raise TrainingError where it holds too much."""
        size = int(state["size"])
        if size > self.rows - 1:
            raise TrainingError(f"the saved replay holds {size} rows, this one {self.rows - 1}; keep its capacity")
        self.arrays["final"].fill_(-1)
        for name, array in self.arrays.items():
            first = 0
            for part in state["arrays"][name]:
                array[first : first + len(part)].copy_(part)
                first += len(part)
        self.size = self.head = size
        self.oldest, self._corrected = 0, state["corrected"].to(self.device)
        self.finals_written, self.finals_freed = int(state["finals_written"]), int(state["finals_freed"])
        self._make_room(len(self._live()), {name: value.to(self.device) for name, value in state["finals"].items()})

    def _filled(self) -> list[range]:
        """Return the rows that hold something, the successor of the newest transition included, oldest first."""
        oldest = (self.head - self.size) % self.rows
        if oldest <= self.head:
            return [range(oldest, self.head + 1)]
        return [range(oldest, self.rows), range(self.head + 1)]

    def _part(self, name: str, rows: range) -> Tensor:
        """Return a copy of some rows; of a file, only mapped, since it may be larger than memory."""
        array = self.arrays[name]
        if self.directory is None:
            return array[rows.start : rows.stop].clone()
        shape, row = (len(rows), *array.shape[1:]), array[0].numel() * array.element_size()
        kind = np.dtype(str(array.dtype).removeprefix("torch."))
        return torch.from_numpy(np.memmap(self._file(name), kind, "r+", rows.start * row, shape))

    def _place(self, index: Tensor) -> Tensor:
        """Return the places in the flat arrays for ages (B,)."""
        return (index + (self.head - self.size) * self.num_envs) % (self.rows * self.num_envs)

    def _take(self, name: str, place: Tensor) -> Tensor:
        return self.flat[name].index_select(0, place)

    def _look_ahead(self, index: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return n-step reward, discount and the place of the last step taken, (B,) each; loops over n, not over
        transitions."""
        rewards, discounts = self._take("rewards", place), self._take("discounts", place)
        for _ in range(self.n_step - 1):
            following = index + self.num_envs
            going = (self._take("final", place) < 0) & (following < len(self))
            index = torch.where(going, following, index)
            place = self._place(index)
            rewards = torch.where(going, rewards + discounts * self._take("rewards", place), rewards)
            discounts = torch.where(going, discounts * self._take("discounts", place), discounts)
        return rewards, discounts, place

    def _queue(self, ended: Tensor, obs: Observation) -> Tensor:
        """Put final observations into the queue; return their numbers, which only grow."""
        count, live = len(ended), self._live()
        if len(live) + count > len(next(iter(self.finals.values()))):
            self._make_room(len(live) + count, {name: old[live % len(old)] for name, old in self.finals.items()})
        numbers = torch.arange(self.finals_written, self.finals_written + count, device=self.device)
        for name, queue in self.finals.items():
            queue[numbers % len(queue)] = obs[name[4:]][ended].to(queue.device)
        self.finals_written += count
        return numbers

    def _live(self) -> Tensor:
        """Return the numbers of the final observations that a row may ask for."""
        return torch.arange(self.finals_freed, self.finals_written, device=self.device)

    def _make_room(self, count: int, live: dict[str, Tensor]) -> None:
        """Make queues for `count` final observations and as many more, and put those that are live into them."""
        room = 2 * count if count else 1
        self.finals = {name: self._empty(self.fields[name], room) for name in self.obs_names}
        for name, queue in self.finals.items():
            queue[self._live() % room] = live[name]

    def _free(self, row: int) -> None:
        """Forget the final observations of a row that is about to be written over: always the oldest in the queue."""
        if self.size == self.rows - 1:
            newest = int(self._row("final", row).max())
            self.finals_freed = max(self.finals_freed, newest + 1)
            self._row("final", row).fill_(-1)

    def _row(self, name: str, row: int) -> Tensor:
        return self.arrays[name][row]

    def _empty(self, field: Field, rows: int) -> Tensor:
        return torch.zeros(rows, *field.shape, dtype=field.dtype, device=self.device)

    def _allocate(self, name: str, field: Field) -> Tensor:
        """Return zeros (rows, N, ...), in memory or a mapped file, which is sparse until it is written."""
        shape = (self.rows, self.num_envs, *field.shape)
        if self.directory is None:
            return torch.zeros(shape, dtype=field.dtype, device=self.device)
        self.directory.mkdir(parents=True, exist_ok=True)
        size = int(torch.Size(shape).numel())
        return torch.from_file(str(self._file(name)), shared=True, size=size, dtype=field.dtype).view(shape)

    def _file(self, name: str) -> Path:
        assert self.directory is not None
        return self.directory / f"{name.replace('/', '_')}.bin"

    def _check_memory(self) -> None:
        need = sum(field.bytes(self.rows * self.num_envs) for field in self.fields.values())
        free = _free_bytes(self.device, self.directory)
        if need > free:
            raise TrainingError(
                f"a replay buffer of {self.rows * self.num_envs} transitions takes {need / 2**30:.1f} GiB, "
                f"{free / 2**30:.1f} GiB are free; lower the capacity"
                + ("" if self.directory else ", or keep it in files (replay_directory)")
            )


def _free_bytes(device: torch.device, directory: Path | None) -> int:
    if directory is not None:
        place = next(p for p in (directory.absolute(), *directory.absolute().parents) if p.exists())
        disk = os.statvfs(place)
        own = sum(file.stat().st_blocks * 512 for file in directory.glob("*.bin"))  # of the run that goes on
        return disk.f_bavail * disk.f_frsize + own
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(_host_bytes(), container_bytes(Path("/sys/fs/cgroup")))


def _host_bytes() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def container_bytes(group: Path) -> int:
    """Return what a container's limit leaves (control groups, version 2), whatever the host has.

    File caches count as free, for they can be given up. Where there is no limit, more than any host has.
    """
    try:
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:
        return sys.maxsize
    return sys.maxsize if limit == "max" else int(limit) - int(used) + int(stat["inactive_file"])
