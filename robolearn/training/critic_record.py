"""What a run writes down of its critics at each evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robolearn.errors import ConfigError
from robolearn.training.metrics import read_rows

CRITIC_FILE = "critic.jsonl"
"""In a run's folder, one line for each evaluation: `step`, and lists `one`, `least` and `realised` over episodes."""


def read_critic(run: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's `critic.jsonl`, in order of their steps.

    Raises ConfigError where there is none, and TrainingError where a line is damaged.
    """
    path = run / CRITIC_FILE
    rows = read_rows(path, is_critic_value)
    if not rows:
        raise ConfigError(
            f"{run} has no {CRITIC_FILE}: either it learns no values of actions (ppo), or it has not been evaluated yet"
        )
    return rows


def is_critic_value(value: object) -> bool:
    """Return whether a value may stand in a line of `critic.jsonl`: the step, or returns of episodes."""
    return type(value) is int or (isinstance(value, list) and all(type(number) in (int, float) for number in value))
