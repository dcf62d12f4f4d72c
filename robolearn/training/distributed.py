"""Several processes as one run: each computes the gradients of its share of the data, and all take the same step.

    torchrun --nproc_per_node 2 -m robolearn train --config ...      on processor cores (gloo) or GPUs (nccl)

Everything here is also right in a single process, where it does nothing. What is summed is a sum over processes of
local sums, so a run of several processes takes the steps that one process would take, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robolearn.errors import ConfigError

T = TypeVar("T")

SEED_STRIDE = 1_000_003
"""Between the seeds of two processes' generators."""


def rank() -> int:
    """Return the number of this process; 0 is the one that evaluates, logs and saves."""
    return dist.get_rank() if _active() else 0


def world_size() -> int:
    """Return the number of processes that share the run."""
    return dist.get_world_size() if _active() else 1


def is_main() -> bool:
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that torchrun started beside this one, where it did and nobody has joined them yet."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or _active():
        yield
        return
    # Its functions take the group there is at import as default: imported later, as torch's optimisers do, they
    # keep it and its threads alive, and one of these now and then aborts the process at exit (pytorch issue 190489).
    import torch.distributed.nn.functional

    if torch.cuda.is_available():
        torch.cuda.set_device(_local_rank())
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """Return the GPU of this process where `device` means any GPU."""
    if device.type != "cuda" or world_size() == 1:
        return device
    if _local_rank() >= torch.cuda.device_count():
        raise ConfigError(
            f"process {_local_rank()} of this machine has no GPU of its own, there are {torch.cuda.device_count()}; "
            "start as many processes as GPUs, or set device cpu"
        )
    return torch.device("cuda", _local_rank())


def share_of(count: int, name: str) -> int:
    """Return this process's part of `count` things. Raises ConfigError where they cannot be shared out evenly."""
    if count % world_size():
        raise ConfigError(f"{name} must be a multiple of the {world_size()} processes, received {count}")
    return count // world_size()


def own_seed(seed: int) -> int:
    """Return a seed of this process's own; that of the run in the first."""
    return seed + SEED_STRIDE * rank()


def sum_(tensor: Tensor) -> Tensor:
    """Sum over processes, in place."""
    if world_size() > 1:
        dist.all_reduce(tensor)
    return tensor


def mean(value: float) -> float:
    """Return the mean over processes."""
    return value if world_size() == 1 else float(sum_(torch.tensor(value, dtype=torch.float64))) / world_size()


def mean_and_std(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and std (with Bessel's correction) of all elements in all processes."""
    if world_size() == 1:
        return x.mean(), x.std()
    count = sum_(torch.tensor(float(x.numel()), device=x.device))
    average = sum_(x.sum()) / count
    return average, (sum_((x - average).square().sum()) / (count - 1.0)).sqrt()


@torch.no_grad()
def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Sum `.grad` over processes in one message. Where a gradient is missing it must be missing everywhere."""
    if world_size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = sum_(torch.cat([g.reshape(-1) for g in gradients]))
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


@torch.no_grad()
def broadcast_(*modules: nn.Module) -> None:
    """Give every process the first one's weights and buffers."""
    if world_size() == 1:
        return
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor.detach(), src=0)


def any_of(*flags: bool) -> list[bool]:
    """Return which flags are set in any process."""
    if world_size() == 1:
        return list(flags)
    return [bool(n) for n in sum_(torch.tensor(flags, dtype=torch.int64)).tolist()]


def gather(value: T) -> list[T]:
    """Return the plain values of all processes, in their order, in each of them."""
    if world_size() == 1:
        return [value]
    found: list[Any] = [None] * world_size()
    dist.all_gather_object(found, value)
    return found


def from_main(function: Callable[[], T]) -> T:
    """Call `function` in the first process, and return its plain result in all."""
    if world_size() == 1:
        return function()
    box = [function() if is_main() else None]
    dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[return-value]


def barrier() -> None:
    """Wait until every process is here."""
    any_of(False)


def _active() -> bool:
    return dist.is_available() and dist.is_initialized()


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))
