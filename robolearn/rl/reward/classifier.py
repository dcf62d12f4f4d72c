"""A success classifier and its folder: `reward.yaml`, `reward.safetensors`, `card.md`. Loading runs no code from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import CriticConfig
from robolearn.configuration.parts.policy import DeterministicHeadConfig, PolicyConfig, VisionConfig
from robolearn.configuration.tree import from_dict, read_yaml, to_dict
from robolearn.envs.interface import Observation
from robolearn.errors import ConfigError, PolicyError, RobolearnError
from robolearn.policies.build import Statistics, build_policy
from robolearn.rl.networks import ValueNetwork
from robolearn.specs import ActionSpec, ObservationSpec
from robolearn.storage import atomic_folder

FOLDER, CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "reward", "reward.yaml", "reward.safetensors", "card.md"
FORMAT, VERSION = "robolearn-reward", 1


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """What is needed to build a classifier again, and how to use it."""

    network: CriticConfig
    """Layers behind the encoders."""
    vision: VisionConfig
    """Encoder of pictures."""
    threshold: float
    """Probability from which a state is called solved."""
    hold_steps: int
    """Steps in a row at which a state must be called solved before it counts."""


class SuccessClassifier(nn.Module):
    """Gives the probability that a state is solved."""

    def __init__(self, config: ClassifierConfig, spec: ObservationSpec, statistics: Statistics | None = None) -> None:
        """
        Args:
            spec: of the observation keys that it sees.
            statistics: of the training data, for the normalisers.
        """
        super().__init__()
        self.config, self.observation_spec = config, spec
        seeing = PolicyConfig(obs_keys=tuple(spec), vision=config.vision, head=DeterministicHeadConfig())
        # The encoders are those of policies, built as theirs are; the rest of this policy is not used.
        self.network = ValueNetwork.beside(
            build_policy(seeing, spec, ActionSpec(low=(-1.0,), high=(1.0,)), statistics), config.network
        )

    def forward(self, obs: Observation) -> Tensor:
        """Return the log-odds (B,) that states (B, ...) are solved."""
        return self.network({key: obs[key][:, None] for key in self.observation_spec})

    @torch.no_grad()
    def probability(self, obs: Observation) -> Tensor:
        """Return the probability (B,) that states (B, ...) are solved."""
        return self(obs).sigmoid()


def save_classifier(classifier: SuccessClassifier, folder: Path, card: str) -> None:
    """Write (or replace) the folder at once."""
    with atomic_folder(folder) as fresh:
        description = {
            "format": FORMAT,
            "version": VERSION,
            "classifier": to_dict(classifier.config),
            "observation_spec": classifier.observation_spec.to_dict(),
        }
        (fresh / CONFIG_FILE).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
        save_file({k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}, fresh / WEIGHTS_FILE)
        (fresh / CARD_FILE).write_text(card, encoding="utf-8")


def load_classifier(folder: str | Path, device: torch.device | str = "cpu") -> SuccessClassifier:
    """Return the classifier saved in `folder`, or in `reward` of a run folder, in evaluation mode.

    Raises PolicyError naming whatever does not fit.
    """
    place = Path(folder) / FOLDER if (Path(folder) / FOLDER / CONFIG_FILE).exists() else Path(folder)
    path = place / CONFIG_FILE
    if not path.is_file():
        raise PolicyError(
            f"{folder} holds no success classifier ({CONFIG_FILE} is missing); train one: robolearn reward train FILES "
            f"--output {folder}"
        )
    try:
        description: Mapping[str, Any] = read_yaml(path)
        if (description.get("format"), description.get("version")) != (FORMAT, VERSION):
            raise PolicyError(f"expected format {FORMAT!r} version {VERSION}, received {description.get('format')!r}")
        config = from_dict(ClassifierConfig, description["classifier"])
        classifier = SuccessClassifier(config, ObservationSpec.from_dict(description["observation_spec"]))
        classifier.load_state_dict(load_file(place / WEIGHTS_FILE))
    except (ConfigError, RobolearnError) as error:
        raise PolicyError(f"{path}: {error}") from None
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, SafetensorError) as error:
        raise PolicyError(f"{place} does not hold a whole success classifier: {error!r}; train it again") from None
    return classifier.to(device).eval()
