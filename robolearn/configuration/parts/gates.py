"""Configuration of gates: who decides when the corrector drives. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Union

from robolearn.configuration.parts.plugins import BaseGateConfig, gate_plugins
from robolearn.errors import ConfigError


def _check_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name} must lie in [0, 1], received {value}")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not value > 0:
            raise ConfigError(f"{name} must be positive, received {value}")


@dataclass(frozen=True, kw_only=True)
class BetaGateConfig(BaseGateConfig):
    """DAgger's mixture: a coin gives the expert the turn, and every state is labelled (Ross et al. 2011)."""

    module = "robolearn.imitation.gates.beta:BetaGate"
    name: Literal["beta"] = "beta"
    schedule: Literal["exponential", "linear", "constant"] = "exponential"
    """How the expert's share falls over the rounds."""
    start: float = 0.5
    """The expert's share in the first round."""
    decay: float = 0.5
    """Factor from round to round of the exponential schedule."""
    per: Literal["step", "episode"] = "step"
    """The coin is thrown at each step, or once for each episode."""

    def __post_init__(self) -> None:
        _check_share("start", self.start)
        _check_share("decay", self.decay)

    def beta(self, round: int, rounds: int) -> float:
        """Return the expert's share in round `round`, counted from 1, of `rounds`."""
        if self.schedule == "constant":
            return self.start
        if self.schedule == "exponential":
            return self.start * self.decay ** (round - 1)
        return self.start * (1 - (round - 1) / max(rounds - 1, 1))


@dataclass(frozen=True, kw_only=True)
class HumanGateConfig(BaseGateConfig):
    """A simulated human: takes over after a reaction time where the robot strays or gets stuck, hands back when all is
    well again. HG-DAgger (Kelly et al. 2019) measured without people; only what is corrected is labelled."""

    module = "robolearn.imitation.gates.human:SimulatedHuman"
    name: Literal["human"] = "human"
    reaction_s: float = 0.4
    """Seconds of trouble before the human has taken over, and of calm before the human has let go."""
    tube: float = 1.5
    """Distance from the demonstrated states that counts as straying, in units of the distance that 99% of demonstrated
    states keep from the other demonstrations."""
    stall_s: float = 2.0
    """Seconds without progress that count as being stuck."""
    least_s: float = 0.5
    """The shortest correction."""

    def __post_init__(self) -> None:
        _check_positive(tube=self.tube, stall_s=self.stall_s)
        if self.reaction_s < 0 or self.least_s < 0:
            raise ConfigError(f"times must not be negative, received {self.reaction_s} and {self.least_s}")


@dataclass(frozen=True, kw_only=True)
class EnsembleGateConfig(BaseGateConfig):
    """The robot asks where an ensemble disagrees about what to do (EnsembleDAgger, Menda et al. 2019)."""

    module = "robolearn.imitation.gates.ensemble:EnsembleGate"
    name: Literal["ensemble"] = "ensemble"
    budget: float = 0.2
    """Share of the steps that the expert is asked to drive; the threshold follows it."""
    release: float = 0.15
    """Mean difference of the policy's proposal from the expert's action at which the robot gets control back."""
    members: int = 5
    """Networks of the ensemble."""
    updates: int = 1500
    """Updates of the ensemble before each round."""

    def __post_init__(self) -> None:
        _check_share("budget", self.budget)
        _check_positive(release=self.release, updates=self.updates)
        if self.members < 2:
            raise ConfigError(f"an ensemble needs at least 2 members, received {self.members}")


@dataclass(frozen=True, kw_only=True)
class ThriftyGateConfig(BaseGateConfig):
    """The robot asks where a state is new or success has become unlikely, within a budget (ThriftyDAgger, Hoque et al.
    2021)."""

    module = "robolearn.imitation.gates.thrifty:ThriftyGate"
    name: Literal["thrifty"] = "thrifty"
    budget: float = 0.2
    """Share of the steps that the expert is asked to drive; both thresholds follow it."""
    release: float = 0.15
    """Mean difference of the policy's proposal from the expert's action at which the robot gets control back."""
    members: int = 5
    """Networks of the novelty ensemble."""
    updates: int = 1500
    """Updates of the ensemble and of the critic before each round."""
    gamma: float = 0.999
    """Discount of success in the critic, per step."""

    def __post_init__(self) -> None:
        _check_share("budget", self.budget)
        _check_positive(release=self.release, updates=self.updates)
        if self.members < 2 or not 0.0 < self.gamma < 1.0:
            raise ConfigError(f"need members >= 2 and 0 < gamma < 1, received {self.members} and {self.gamma}")


@dataclass(frozen=True, kw_only=True)
class LikelihoodGateConfig(BaseGateConfig):
    """The robot asks where its own policy spreads its bets: low likelihood of its own mode. Costs nothing, and needs a
    head with an exact likelihood."""

    module = "robolearn.imitation.gates.likelihood:LikelihoodGate"
    name: Literal["likelihood"] = "likelihood"
    budget: float = 0.2
    """Share of the steps that the expert is asked to drive; the threshold follows it."""
    release: float = 0.15
    """Mean difference of the policy's proposal from the expert's action at which the robot gets control back."""

    def __post_init__(self) -> None:
        _check_share("budget", self.budget)
        _check_positive(release=self.release)


GateConfig = BetaGateConfig | HumanGateConfig | EnsembleGateConfig | ThriftyGateConfig | LikelihoodGateConfig

if not TYPE_CHECKING:
    GateConfig = Union[(GateConfig, *gate_plugins())]
