"""Build a policy from its configuration.

A head or a backbone is a configuration class (`robolearn.configuration.parts.policy`), which names the module it
configures, and that module. Our own stand in the unions there; a package of its own adds some by entry points
(`robolearn.configuration.parts.plugins`). Modules are imported only when a policy needs
them: diffusion's schedules take long to load.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

import numpy as np
from torch import nn

from robolearn.configuration.parts.plugins import NetworkConfig
from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.errors import PolicyError
from robolearn.policies.encoders import LowDimEncoder, ObservationEncoder, TokenEncoder
from robolearn.policies.normaliser import Normaliser
from robolearn.policies.policy import Policy
from robolearn.policies.vision import build_image_encoders
from robolearn.specs import ActionSpec, ArraySpec, ObservationSpec

Statistics = Mapping[str, Mapping[str, np.ndarray]]
"""Per observation key, and under "actions" for the action: arrays `mean`, `std`, `min`, `max`, `q01`, `q99`."""


def build_policy(
    config: PolicyConfig,
    observation_spec: ObservationSpec,
    action_spec: ActionSpec,
    statistics: Statistics | None = None,
) -> Policy:
    """Return a freshly initialised policy; its `config.obs_keys` name the keys it sees.

    Args:
        observation_spec: what the data or the task offers; the policy takes `config.obs_keys` of it, or all.
        statistics: of the training data, for the normalisers; None leaves observations and actions as they are.

    Raises PolicyError where the configuration does not fit the specs or the statistics.
    """
    keys = config.obs_keys or tuple(observation_spec)
    missing = [key for key in keys if key not in observation_spec]
    if missing:
        raise PolicyError(f"policy.obs_keys names {missing}, but the observation has {list(observation_spec)}")
    if wrong := [key for key in config.obs_ranges if key not in keys or observation_spec[key].is_image]:
        raise PolicyError(f"policy.obs_ranges names {wrong}, which the policy does not see as numbers; it sees {keys}")
    if config.head.discrete != action_spec.discrete:
        does = "chooses one of several discrete actions" if config.head.discrete else "says how much of each action"
        there = "discrete actions to choose from" if action_spec.discrete else "quantities to decide on"
        raise PolicyError(
            f"policy.head {config.head.name} {does}, and here are {action_spec.size} {there}; take another head"
        )
    config = replace(config, obs_keys=keys)
    spec = observation_spec.select(keys)
    images = build_image_encoders({key: value for key, value in spec.items() if value.is_image}, config.vision)
    encoders = {
        key: images[key] if key in images else build_encoder(key, spec[key], config, statistics) for key in keys
    }
    tokens = config.vision.tokens and images
    encoder = TokenEncoder(encoders, config.vision.features) if tokens else ObservationEncoder(encoders)
    backbone = _construct(config.backbone, obs_steps=config.obs_steps, input_size=encoder.output_size)
    head = _construct(
        config.head,
        feature_size=backbone.output_size,
        pred_steps=config.pred_steps,
        action_size=action_spec.size,
    )
    action_statistics = _statistics_of("actions", action_spec.size, statistics, config.action_normalisation)
    return Policy(
        config=config,
        observation_spec=spec,
        action_spec=action_spec,
        encoder=encoder,
        backbone=backbone,
        head=head,
        action_normaliser=Normaliser.fit(action_statistics, action_spec.size, config.action_normalisation),
    )


def build_encoder(key: str, spec: ArraySpec, config: PolicyConfig, statistics: Statistics | None) -> nn.Module:
    """Return the encoder of one observation key that is not an image."""
    if np.dtype(spec.dtype).kind not in "fiub":
        raise PolicyError(f"observation {key!r} has dtype {spec.dtype}; a policy needs numbers")
    method = config.obs_normalisation
    first, last = config.obs_ranges.get(key, (0, spec.size))
    if last > spec.size:
        raise PolicyError(f"policy.obs_ranges takes {key!r} up to {last}, but it has {spec.size} dimensions")
    normaliser = Normaliser.fit(_statistics_of(key, spec.size, statistics, method), spec.size, method)
    return LowDimEncoder(normaliser, seen=slice(first, last), clip=config.obs_clip, fine=config.obs_fine)


def _statistics_of(key: str, size: int, statistics: Statistics | None, method: str) -> Mapping[str, np.ndarray] | None:
    """Return flat arrays (size,) for one key; None where nothing is normalised."""
    if statistics is None or method == "none":
        return None
    if key not in statistics:
        raise PolicyError(f"there are no statistics of {key!r} to normalise it by; the data has {sorted(statistics)}")
    flat = {name: np.asarray(value, np.float64).reshape(-1) for name, value in statistics[key].items()}
    wrong = {name: value.size for name, value in flat.items() if value.size != size}
    if wrong:
        raise PolicyError(f"{key!r} has {size} dimensions, but its statistics have {wrong}")
    return flat


def _construct(config: NetworkConfig, **arguments: Any) -> Any:
    """Import the module that `config` describes, and make one."""
    if not config.module:
        raise PolicyError(
            f"{type(config).__name__} names no module to build; give it a class attribute `module` = 'package:Class'"
        )
    module, _, name = config.module.partition(":")
    return getattr(import_module(module), name)(config, **arguments)
