"""Watch for what no table of results shows: numbers of absurd size, episodes that end as they begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from robolearn.envs.interface import Step
from robolearn.errors import count

TIMES = 1e3
"""How many times the largest magnitude until then (at least one) makes a spike."""
AT_ONCE = 1e6
"""Magnitude that is a spike where nothing was seen before."""


class Episode(Protocol):
    """An episode in an environment, as the loop keeps it."""

    index: int
    seed: int
    steps: int


class Watch:
    """Looks at every step of a loop and notes what a person should hear of; it changes and refuses nothing."""

    def __init__(self) -> None:
        self._largest: dict[str, float] = {}
        self._spikes: dict[str, tuple[str, int]] = {}
        self.ended, self.ended_at_once = 0, 0

    @property
    def spikes(self) -> tuple[str, ...]:
        """One sentence for everything that was of absurd size."""
        return tuple(
            text + (f" ({count(number, 'such value')} in all)" if number > 1 else "")
            for text, number in self._spikes.values()
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for everything that was noticed."""
        found = [*self.spikes]
        if self.ended_at_once and 2 * self.ended_at_once >= self.ended:
            found.append(
                f"{self.ended_at_once} of {count(self.ended, 'episode')} ended at the first step: the environment "
                "calls the task solved, failed or over where it begins; look at its reset and at terminate_on_success"
            )
        return tuple(found)

    def look(self, step: Step, slots: Sequence[Episode], ended: Sequence[Episode]) -> None:
        """Look at one control step. Tensors on a GPU are left alone: it would stall the stream.

        Args:
            slots: the episodes that made the step.
            ended: those of them that end here.
        """
        self.ended += len(ended)
        self.ended_at_once += sum(slot.steps == 1 for slot in ended)
        if step.reward.device.type != "cpu":
            return
        self._measure("reward", step.reward, slots)
        for key, value in step.obs.items():
            if value.is_floating_point():
                self._measure(f"observation {key!r}", value, slots)

    def _measure(self, name: str, value: Tensor, slots: Sequence[Episode]) -> None:
        largest = float(value.abs().max()) if value.numel() else 0.0
        before = self._largest.get(name)
        limit = AT_ONCE if before is None else TIMES * max(1.0, before)
        if largest <= limit:
            self._largest[name] = max(before or 0.0, largest)
            return
        # Rows without an episode are stale or meaningless: only those that made the step count.
        for slot in slots:
            row = value[slot.index].flatten()
            place = int(row.abs().argmax())
            if (size := abs(float(row[place]))) > limit:
                entry = f" entry {place}" if len(row) > 1 else ""
                usual = "" if before is None else f", {size / max(1.0, before):.0e} times what was usual until then"
                text = (
                    f"{name}{entry} is {float(row[place]):g} after step {slot.steps} of "
                    f"the episode with seed {slot.seed}{usual}; such a value rules statistics and "
                    "losses, so mend the environment or leave the episode out"
                )
                first, number = self._spikes.get(name, (text, 0))
                self._spikes[name] = (first, number + 1)
