"""Waiting for what another thread or process does, however slow the machine."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE_S = 90.0


def wait_until(
    condition: Callable[[], Any], explain: Callable[[], object] = lambda: "", seconds: float = PATIENCE_S
) -> None:
    """Return once the condition holds; fail, with the explanation, where it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {explain()}"
        time.sleep(0.01)
