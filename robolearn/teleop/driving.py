"""Deciding the action in a session with a person: the operator alone, or a policy that the operator corrects.

A takeover drops what is left of the policy's chunk. While the operator drives, the policy proposes afresh at every
step, so that the proposals in the file answer the state at hand and it goes on with a fresh plan after the release.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch

from robolearn.configuration.parts.session import CorrectionConfig
from robolearn.deploy.runner import PolicyRunner
from robolearn.episodes.actor import Decision, Driver
from robolearn.specs import ActionMode, EventKind, Observation

SHOWN = 16
"""Steps of the policy's plan that a page is told of."""


class SessionDriver(Driver, Protocol):
    """A driver that a session tells, before each step, what its operator does.

    `hear` comes first and settles whether the step is the operator's; where it is, `action` is set; then `decide`.
    """

    corrects: ClassVar[bool]
    """Whether there is a policy to take over from."""
    config: CorrectionConfig
    """How control changes hands."""
    by_hand: bool
    """The next step is the operator's."""
    action: np.ndarray
    """(A,) float32 in [-1, 1], what the operator does in the next step; to be set where `by_hand`."""

    def hear(self, *, moving: bool) -> None:
        """Hear once before each step whether the operator moves the device."""
        ...

    def question(self, obs: Observation) -> str:
        """Return why the robot asks before this step, instead of making it; empty where it does not ask."""
        ...

    def decline(self) -> None:
        """Hear that the robot is to go on by itself."""
        ...

    def prepare(self, obs: Observation) -> None:
        """Compute, while there is time before the next step, what will be needed then and depends on nobody's hand."""
        ...

    def rewind(self, step: int, *, by_hand: bool) -> None:
        """Hear that the episode was taken back to before its step `step`, from which on the operator drives.

        Args:
            by_hand: the operator made the step before.
        """
        ...

    def meanings(self) -> dict[str, Callable[[], None]]:
        """Return what buttons do now, beside the session's own."""
        ...

    def begin(self) -> dict[str, Any]:
        """Hear that the episode begins, and return what else the file says of it (`EpisodeInfo`)."""
        ...

    def status(self) -> dict[str, Any]:
        """Return what a page shows, as plain values: `driver` (policy or operator) and `plan`, the policy's intended
        next actions (T, A)."""
        ...


class Operator:
    """The operator does everything."""

    corrects: ClassVar[bool] = False
    config = CorrectionConfig()

    def __init__(self, size: int) -> None:
        self.by_hand, self.action = True, np.zeros(size, np.float32)
        self._modes = torch.full((1,), int(ActionMode.DEMONSTRATION), dtype=torch.int8)

    def reset(self, *, seeds: Sequence[int], mask: torch.Tensor) -> None:
        self.action = np.zeros_like(self.action)

    def decide(self, obs: Observation) -> Decision:
        return Decision(actions=torch.from_numpy(self.action.copy())[None], modes=self._modes)

    def hear(self, *, moving: bool) -> None:
        """Nothing depends on it."""

    def question(self, obs: Observation) -> str:
        return ""

    def decline(self) -> None:
        """Nobody asked."""

    def prepare(self, obs: Observation) -> None:
        """There is nothing to compute."""

    def rewind(self, step: int, *, by_hand: bool) -> None:
        """The operator drives anyway."""

    def meanings(self) -> dict[str, Callable[[], None]]:
        return {}

    def begin(self) -> dict[str, Any]:
        return {}

    def status(self) -> dict[str, Any]:
        return {"driver": "operator", "plan": []}


class Asker(Protocol):
    """Judges where the robot needs help, in a session whose operator then takes over or not."""

    def reset(self, seed: int) -> None:
        """Begin an episode."""
        ...

    def judge(
        self, obs: Observation, window: Observation, proposal: torch.Tensor, action: torch.Tensor | None
    ) -> tuple[float, str]:
        """Return how much help seems to be needed, and why the robot asks for it; empty where it does not.

        Called once for each step.

        Args:
            obs: (1, ...) per key.
            window: (1, To, ...) per key, the policy's own view.
            proposal: (1, A), what the policy would do.
            action: (1, A), what the operator does; None where the policy drives.
        """
        ...

    def made(self, *, by_hand: bool) -> None:
        """Hear that the step that was judged last is made, and by whom."""
        ...

    def rewind(self, step: int) -> None:
        """Forget the episode's steps from `step` on."""
        ...

    def finish(self) -> None:
        """Hear that there are no more episodes."""
        ...


class CorrectedPolicy:
    """A policy drives; the operator takes over and hands back (HG-DAgger, Kelly et al. 2019).

    A takeover is the button, or the first motion after rest, so that a stick that is still held after the release does
    not take over again. The release is the button, or rest for as long as the configuration says.

    With an asker the robot also asks. A question that is declined is not asked again before there was a step without.
    """

    corrects: ClassVar[bool] = True

    def __init__(
        self, policy: PolicyRunner, config: CorrectionConfig, *, rate: float, asker: Asker | None = None
    ) -> None:
        """
        Args:
            policy: runs one environment.
            rate: steps per second of the operator's time, Hz.
            asker: judges where the robot asks; None never asks.
        """
        self.policy, self.config, self.asker = policy, config, asker
        self._seed = 0
        self.by_hand, self.action = False, np.zeros(policy.policy.action_spec.size, np.float32)
        self._rest_steps = max(1, round(config.rest_s * rate)) if config.rest_s else 0
        self._begin()

    def reset(self, *, seeds: Sequence[int], mask: torch.Tensor) -> None:
        self._seed = int(seeds[0])
        self.policy.reset(seeds, mask)
        if self.asker is not None:
            self.asker.reset(self._seed)
        self.action = np.zeros_like(self.action)
        self._begin()

    def hear(self, *, moving: bool) -> None:
        if self.by_hand:
            self._still = 0 if moving or not self._drove else self._still + 1
            if self._rest_steps and self._still >= self._rest_steps:
                self._hand_over("policy", "rest")
        elif moving and self._rested and self.config.by_motion:
            self._hand_over("operator", "motion")
        self._rested = not moving

    def question(self, obs: Observation) -> str:
        if self.asker is None or self.by_hand:
            return ""
        _, reason = self._judge(self.asker, obs)
        self._declined &= bool(reason)
        return "" if self._declined else reason

    def decline(self) -> None:
        self._declined = True

    def prepare(self, obs: Observation) -> None:
        self._propose(obs)  # a takeover at the next step is not to wait for it

    def rewind(self, step: int, *, by_hand: bool) -> None:
        self.policy.reset([self._seed])  # its history is of what was taken back
        if self.asker is not None:
            self.asker.rewind(step)
        self._begin()
        self._drove = by_hand
        self._hand_over("operator", "rewind")

    def decide(self, obs: Observation) -> Decision:
        proposals, score = self._propose(obs), None
        if self.asker is not None:
            score = torch.tensor([self._judge(self.asker, obs)[0]], dtype=torch.float32)
            self.asker.made(by_hand=self.by_hand)
        self._proposals = self._judged = None
        self._plan = self._plan[1:]  # its first action is the one of this step
        events: tuple[tuple[int, EventKind, str], ...] = ()
        if self.by_hand != self._drove:
            events = ((0, "takeover" if self.by_hand else "release", self._reason),)
        self._drove = self.by_hand
        own = torch.from_numpy(self.action.copy())[None]
        return Decision(
            actions=own if self.by_hand else proposals,
            modes=torch.tensor([ActionMode.INTERVENTION if self.by_hand else ActionMode.POLICY], dtype=torch.int8),
            policy_actions=proposals,
            expert_actions=own if self.by_hand else torch.full_like(proposals, torch.nan),
            gate=score,
            events=events,
        )

    def meanings(self) -> dict[str, Callable[[], None]]:
        if self.by_hand:
            return {"release": lambda: self._hand_over("policy", "button")}
        return {"takeover": lambda: self._hand_over("operator", "button")}

    def begin(self) -> dict[str, Any]:
        return {}

    def status(self) -> dict[str, Any]:
        plan = np.where(np.isfinite(self._plan), self._plan, 0.0)
        return {"driver": "operator" if self.by_hand else "policy", "plan": plan.round(3).tolist()}

    def _propose(self, obs: Observation) -> torch.Tensor:
        """Return (1, A), asking the policy once for each step."""
        if self._proposals is None:
            if self._drove:
                self.policy.replan()
            self._proposals = self.policy.act(obs).cpu()
            self._plan = torch.cat((self._proposals, self.policy.plan(0).cpu()))[:SHOWN].numpy()
        return self._proposals

    def _judge(self, asker: Asker, obs: Observation) -> tuple[float, str]:
        """Return the score and why the robot asks, judging once for each step."""
        if self._judged is None:
            own = torch.from_numpy(self.action.copy())[None] if self.by_hand else None
            self._judged = asker.judge(obs, self.policy.window, self._propose(obs), own)
        return self._judged

    def _begin(self) -> None:
        self.by_hand = self._drove = self._rested = self._declined = False
        self._proposals: torch.Tensor | None = None
        self._judged: tuple[float, str] | None = None
        self._reason, self._still = "", 0
        self._plan = np.zeros((0, len(self.action)))

    def _hand_over(self, to: Literal["operator", "policy"], reason: str) -> None:
        self.by_hand, self._reason, self._still = to == "operator", reason, 0
