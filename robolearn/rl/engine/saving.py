"""The state of an algorithm as that of its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class Saved(Protocol):
    """A module, an optimiser, statistics: whatever has a state to go on from."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def states_of(parts: Mapping[str, Saved | None]) -> dict[str, Any]:
    """Return the state of every part by its name; a part that is switched off (None) has an empty one."""
    return {name: {} if part is None else part.state_dict() for name, part in parts.items()}


def load_states(parts: Mapping[str, Saved | None], states: Mapping[str, Any]) -> None:
    """Load what `states_of` returned. Raises KeyError where a part's state is missing."""
    for name, part in parts.items():
        if part is not None:
            part.load_state_dict(states[name])
