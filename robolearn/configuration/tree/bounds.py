"""Bounds of configuration values: a slip of the keyboard is told before hours are spent on it.

The upper bounds are far beyond anything sensible on one machine and say nothing about what is wise.
"""

from __future__ import annotations

from typing import Any

from robolearn.errors import ConfigError

MAX_SEED = 2**31 - 1
"""So that a first seed plus episodes stays below 2^32, where NumPy's legacy generators end (`numpy.random.seed`)."""
MAX_BATCH = 2**24
"""Rows of a batch."""
MAX_ENVS = 2**16
"""Environments side by side."""
MAX_EPISODES = 10**7
MAX_STEPS = 10**12
"""Control steps or updates of a run."""
MAX_CHUNK = 10**4
"""Steps that a policy sees or predicts at once."""
MAX_UNITS = 2**14
"""Units of a layer."""


def check_range(config: Any, *names: str, low: float, high: float | None = None) -> None:
    """Raise ConfigError where a field of `config` lies outside [low, high]; fields that are None are left out."""
    for name in names:
        value = getattr(config, name)
        if value is None:
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if not number >= low:
                expected = "not be negative" if low == 0 else f"be at least {low}"
                raise ConfigError(f"{name} must {expected}, received {number}")
            if high is not None and number > high:
                raise ConfigError(f"{name} must be at most {high}, received {number}")
