"""Bases of the configurations of backbones, heads and gates, and those that installed packages add; free of torch.

A package's configuration module is loaded while `robolearn.configuration.parts.policy` (or `gates`) is: it imports this
one, not that one, and no torch, so that the command line starts fast.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Literal, Protocol, Self, TypeVar

from robolearn.errors import ConfigError

PLUGINS = "robolearn.policies"
"""Entry-point group: `head.NAME` loads a class of `BaseHeadConfig`, `backbone.NAME` one of `NetworkConfig`."""

GATES = "robolearn.gates"
"""Entry-point group: each name loads a class of `BaseGateConfig`."""

T = TypeVar("T")


class PolicySettings(Protocol):
    """The part of a policy's configuration that a head may have to agree with (`PolicyConfig` says what each is)."""

    @property
    def obs_steps(self) -> int: ...
    @property
    def pred_steps(self) -> int: ...
    @property
    def exec_steps(self) -> int: ...
    @property
    def action_normalisation(self) -> str: ...


class NetworkConfig:
    """Base of the configurations of backbones and heads.

    A configuration is a frozen, keyword-only dataclass with a field `name: Literal["NAME"] = "NAME"`.
    """

    module = ""
    """`package.module:Class`, the torch module that this configures; imported when a policy is built."""
    sees_tokens = False
    """Whether this is a backbone for several tokens a step, (B, To, N, E), as `vision.tokens` makes them."""


class BaseHeadConfig(NetworkConfig):
    """Base of the configurations of heads: states what a head asks of the rest of a policy. By default nothing."""

    discrete = False
    """Whether the head chooses among discrete actions instead of stating quantities."""

    def check(self, policy: PolicySettings) -> None:
        """Raise ConfigError where this head cannot work in `policy`."""

    def with_floor(self, min_std: float) -> Self:
        """Return the configuration of a head with the same weights and standard deviations of at least `min_std`.

        That is this configuration itself where they are so already, or where the head has no such bound.
        """
        return self


class BaseGateConfig:
    """Base of the configurations of DAgger's gates: who decides when the corrector drives.

    A configuration is a frozen, keyword-only dataclass with a field `name: Literal["NAME"] = "NAME"`.
    """

    module = ""
    """`package.module:Class`, the gate that this configures; imported when one is made, and built as
    `Class(config, setting)` with a `robolearn.imitation.gates.gate.Setting`."""


def plugins(kind: Literal["head", "backbone"]) -> tuple[type[NetworkConfig], ...]:
    """Return the configuration classes of heads or backbones that installed packages add.

    Raises ConfigError where one does not load or does not derive from the base of its kind.
    """
    return _load_all(PLUGINS, f"{kind}.", BaseHeadConfig if kind == "head" else NetworkConfig)


def gate_plugins() -> tuple[type[BaseGateConfig], ...]:
    """Return the configuration classes of gates that installed packages add; raises as `plugins` does."""
    return _load_all(GATES, "", BaseGateConfig)


def _load_all(group: str, prefix: str, base: type[T]) -> tuple[type[T], ...]:
    found = (point for point in entry_points(group=group) if point.name.startswith(prefix))
    return tuple(_load(point, base) for point in sorted(found, key=lambda point: point.name))


def _load(point: EntryPoint, base: type[T]) -> type[T]:
    try:
        loaded = point.load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"{point.name} is registered as {point.value}, which does not load: {error}; "
            "repair the package that registers it, or uninstall it"
        ) from None
    if not (isinstance(loaded, type) and issubclass(loaded, base)):
        raise ConfigError(f"{point.name} is registered as {point.value}, which does not derive from {base.__name__}")
    return loaded
