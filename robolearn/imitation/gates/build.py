"""Make a gate from its configuration; the gate's module is imported only when one is made."""

from __future__ import annotations

from importlib import import_module

from robolearn.configuration.parts.plugins import BaseGateConfig
from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.errors import ConfigError
from robolearn.imitation.gates.gate import Gate, Setting

MEMBERS = ("mode", "labels_everything", "prepare", "reset", "judge", "told")


def make_gate(
    config: BaseGateConfig,
    *,
    control_hz: float,
    num_envs: int,
    seed: int,
    round: int,
    rounds: int,
    reading: Reading = NOTHING,
) -> Gate:
    """Return the gate of one round.

    Args:
        round: counted from 1, of `rounds`.
        seed: of whatever the gate trains.
        reading: how the demonstrations' files are read.

    Raises ConfigError where the configuration names no gate, or one that does not import or is none.
    """
    if not (control_hz > 0 and num_envs >= 1 and 1 <= round <= rounds):
        raise ConfigError(
            f"a gate needs control_hz > 0, num_envs >= 1 and 1 <= round <= rounds, "
            f"received {control_hz}, {num_envs}, {round} and {rounds}"
        )
    module, _, name = config.module.partition(":")
    kind = type(config).__name__
    if not (module and name):
        raise ConfigError(f"{kind} names no gate to make; give it a class attribute `module` = 'package.module:Class'")
    try:
        made = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{kind} names the gate {config.module!r}, which does not import: {error}") from error
    setting = Setting(control_hz=control_hz, num_envs=num_envs, seed=seed, round=round, rounds=rounds, reading=reading)
    gate = made(config, setting)
    missing = [member for member in MEMBERS if not hasattr(gate, member)]
    if missing:
        raise ConfigError(f"the gate {config.module!r} lacks {missing}; derive it from gates.gate.BaseGate")
    return gate
