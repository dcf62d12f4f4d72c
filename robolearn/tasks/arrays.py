"""The same arithmetic by numpy on a CPU and by torch on a GPU.

A control step does some hundred operations on arrays of a few kilobytes, so what it costs is the calls; numpy's take a
third of torch's time (0.3 against 1.3 microseconds for an addition, 0.2 against 1.6 for a slice), and after a
millisecond of physics, which drives everything else out of the caches, the first one takes 18 against 69. So
a task turns its tensors into `light` arrays, which share their memory, calculates by what numpy and torch name alike
(`namespace`), and returns a `tensor`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

Array = Any
"""A numpy array or a torch tensor; the two of a calculation are of one kind."""


def light(values: torch.Tensor) -> Array:
    """Return the tensor's memory as a numpy array where it is on the CPU, and the tensor itself elsewhere."""
    return values.numpy() if values.device.type == "cpu" else values


def tensor(values: Array) -> torch.Tensor:
    """Return the tensor that shares its memory with a light array."""
    return torch.from_numpy(values) if isinstance(values, np.ndarray) else values


def constant(values: Any, device: torch.device) -> Array:
    """Return float32 numbers as a light array on `device`."""
    return light(torch.as_tensor(np.asarray(values, np.float32), device=device))


def namespace(values: Array) -> Any:
    """Return the module, numpy or torch, that calculates with `values`."""
    return np if isinstance(values, np.ndarray) else torch


def floats(values: Array) -> Array:
    """Return the values as float32."""
    return values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()


def columns(values: Sequence[Array]) -> Array:
    """Return (N, n) of n arrays (N,)."""
    # np.stack takes four times as long as np.array.
    return np.array(values).T if isinstance(values[0], np.ndarray) else torch.stack(tuple(values), -1)


def joined(*parts: Array) -> Array:
    """Return (N, sum of dims): arrays (N, dim) side by side."""
    return namespace(parts[0]).concatenate(parts, -1)


def length(vectors: Array) -> Array:
    """Return the norms (N, 1) of (N, D) vectors."""
    return namespace(vectors).sqrt((vectors * vectors).sum(-1))[:, None]


def closeness(distances: Array) -> Array:
    """Return 1 - tanh(5 d): one where there, a tenth at 30 cm."""
    return 1.0 - namespace(distances).tanh(5.0 * distances)


def shortened(vectors: Array, most: float) -> Array:
    """Return (N, D) vectors with those longer than `most` cut to that length."""
    return vectors * (most / (length(vectors) + 1e-9)).clip(None, 1.0)
