"""The contract of a file, a policy and an environment: what is seen, what is done, and in which units.

Actions of files and policies lie in [-1, 1] of *their* limits. Between two sets of limits they are mapped through
physical units: 0.5 of a policy whose limits are -1 and 1 is 0.25 of an environment whose limits are -2 and 2.

    policy or file                         environment
    low -1  high 1     0.5 is 0.5 rad      0.25 is 0.5 rad     low -2  high 2

What cannot be mapped without loss is refused, with both sides in words: `reconcile` is the one judge, asked before
training goes on from a policy, before evaluation, DAgger, fine-tuning and replay.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robolearn.errors import PolicyError
from robolearn.picture_layout import is_depth
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

if TYPE_CHECKING:
    import torch

TOLERANCE = 1e-5
"""Of a range: limits that differ by less are one, for they went through float32 and text."""


@dataclass(frozen=True, kw_only=True)
class Interface:
    """One side of the contract: its observations and actions."""

    name: str
    """As messages call it: "the policy runs/a", "the task Lift"."""
    observation_spec: ObservationSpec
    """What a policy needs, or an environment or a file offers."""
    action_spec: ActionSpec


@dataclass(frozen=True, eq=False)
class ActionMap:
    """Actions in [-1, 1] of one side as those of the other: y = scale x + offset, per dimension."""

    scale: np.ndarray
    """(A,) float32."""
    offset: np.ndarray
    """(A,) float32."""

    @property
    def is_identity(self) -> bool:
        return bool((self.scale == 1.0).all() and (self.offset == 0.0).all())

    def __call__(self, actions: torch.Tensor) -> torch.Tensor:
        """(..., A) of the first side, clipped to [-1, 1] -> (..., A) of the second."""
        if self.is_identity:
            return actions
        scale, offset = (actions.new_tensor(value.tolist()) for value in (self.scale, self.offset))
        return actions.clamp(-1.0, 1.0) * scale + offset

    def inverse(self, actions: torch.Tensor) -> torch.Tensor:
        """(..., A) of the second side -> (..., A) of the first, beyond [-1, 1] where that cannot ask for as much."""
        if self.is_identity:
            return actions
        scale, offset = (actions.new_tensor(value.tolist()) for value in (self.scale, self.offset))
        return (actions - offset) / scale


def reconcile(needs: Interface, offers: Interface) -> ActionMap:
    """Return how actions of `needs` (a policy, a file) become those of `offers` (an environment, a file).

    Raises PolicyError naming what is seen and not offered, of another shape or kind, or done and not taken.
    """
    check_observations(needs, offers)
    return reconcile_actions(needs, offers)


def check_observations(needs: Interface, offers: Interface) -> None:
    """Raise PolicyError where a key that `needs` sees is missing, or has another shape or dtype."""
    offered = offers.observation_spec
    for key, spec in needs.observation_spec.items():
        if key not in offered:
            raise PolicyError(
                f"{needs.name} sees {key!r}; {offers.name} offers {', '.join(map(repr, offered))}. "
                f"{_rename_hint(key, needs.observation_spec, offered)}"
            )
        there = offered[key]
        if there.shape != spec.shape or there.is_image != spec.is_image:
            raise PolicyError(
                f"{needs.name} sees {key!r} as {spec.dtype} {spec.shape}; {offers.name} offers {there.dtype} "
                f"{there.shape} under that name. {_shape_hint(spec, there)}"
            )


def reconcile_actions(needs: Interface, offers: Interface) -> ActionMap:
    """Return the map between two sets of limits. Raises PolicyError where sizes or names differ, or reach lacks."""
    ours, theirs = needs.action_spec, offers.action_spec
    if ours.discrete != theirs.discrete:
        raise PolicyError(f"{needs.name} {_manner(ours)}, {offers.name} {_manner(theirs)}; they are not for each other")
    if ours.size != theirs.size:
        raise PolicyError(
            f"{needs.name} has {ours.size} actions ({', '.join(ours.names)}), {offers.name} takes {theirs.size} "
            f"({', '.join(theirs.names)}); they are not for each other"
        )
    if ours.named and theirs.named and ours.names != theirs.names:
        raise PolicyError(
            f"the actions of {needs.name} are {', '.join(ours.names)}, those of {offers.name} are "
            f"{', '.join(theirs.names)}: other quantities, or another order"
        )
    low, high, their_low, their_high = (
        np.asarray(limits, np.float64) for limits in (ours.low, ours.high, theirs.low, theirs.high)
    )
    slack = TOLERANCE * np.maximum(their_high - their_low, high - low)
    same = (np.abs(low - their_low) <= slack) & (np.abs(high - their_high) <= slack)
    beyond = ~same & ((low < their_low - slack) | (high > their_high + slack))
    if beyond.any():
        i = int(beyond.argmax())
        raise PolicyError(
            f"{needs.name} acts in other units: its {ours.names[i]} reaches from {low[i]:g} to {high[i]:g}, "
            f"{offers.name} executes {their_low[i]:g} to {their_high[i]:g}. Where the units are the same, convert the "
            "demonstrations to these limits (robolearn dataset convert, --limits) and train on that; where they are "
            "not (degrees and radians, say), scale them first, or wrap the environment"
        )
    # x -> physical: low + (x + 1)(high - low)/2;  physical -> y: 2 (p - low')/(high' - low') - 1
    scale = (high - low) / (their_high - their_low)
    offset = 2.0 * (0.5 * (low + high) - their_low) / (their_high - their_low) - 1.0
    return ActionMap(
        np.where(same, 1.0, scale).astype(np.float32),
        np.where(same, 0.0, offset).astype(np.float32),
    )


def _shape_hint(ours: ArraySpec, theirs: ArraySpec) -> str:
    if is_depth(ours) != is_depth(theirs):
        return "Where one is the depth that the other has scaled to 8 bits, say by what: --task.depth_range NEAR FAR"
    return "Bring both to one shape, or name the right key: --task.rename"


def _manner(spec: ActionSpec) -> str:
    return f"has {spec.size} discrete actions" if spec.discrete else f"has {spec.size} actions of any size in limits"


def _rename_hint(key: str, needed: Mapping[str, object], offered: Mapping[str, object]) -> str:
    free = [name for name in offered if name not in needed]
    if not free:
        return "It was made for another task"
    close = difflib.get_close_matches(key, free, n=1, cutoff=0.3)
    name = close[0] if close else free[0]
    return f"Where one of these is the same under another name, say so: --task.rename '{{{name}: {key}}}'"
