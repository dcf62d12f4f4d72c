"""Every random number generator at once: seeding, saving, restoring."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  third-party environments still draw from it
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """Return the state of all generators as plain values and tensors."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)  # noqa: NPY002
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (str(name), [int(k) for k in keys], int(position), int(has_gauss), float(gauss)),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Set all generators to what `rng_state` returned; devices' are left alone where their number has changed."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    name, numpy_keys, *rest = state["numpy"]
    np.random.set_state((name, np.asarray(numpy_keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    devices = state.get("cuda", [])
    if torch.cuda.is_available() and len(devices) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([device.cpu() for device in devices])


@contextmanager
def untouched_rng(seed: int | None = None) -> Iterator[None]:
    """Leave the generators as they were, whatever is drawn inside (after seeding with `seed`, where given)."""
    before = rng_state()
    try:
        if seed is not None:
            seed_everything(seed)
        yield
    finally:
        set_rng_state(before)
