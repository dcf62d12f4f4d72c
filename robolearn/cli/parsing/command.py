"""A verb or sub-verb, ready to be parsed and run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Command:
    prog: str
    """As it is called: `robolearn dataset info`."""
    config: type
    """Its configuration class."""
    run: Callable[[Any], int]
    """Takes the configuration, returns the exit code."""
    help: str
    """One line."""
