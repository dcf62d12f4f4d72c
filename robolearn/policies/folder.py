"""Saved policies: a folder with `config.yaml`, `policy.safetensors` and `card.md`. Loading runs no code from it.

A policy with a correction is the folder of the correction, with the folder of the policy that it corrects inside, and a
steered one that of the steering, with its base inside:

    policy/config.yaml  policy.safetensors  card.md  base/config.yaml  base/policy.safetensors  base/card.md
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.configuration.tree import from_dict, read_yaml, to_dict, unknown_key
from robolearn.errors import ConfigError, PolicyError, TaskError, printable
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.policies.residual import Correction, ResidualPolicy
from robolearn.policies.steered import SteeredPolicy, Steering
from robolearn.specs import ActionSpec, ObservationSpec
from robolearn.storage import absence, atomic_folder

FORMAT = "robolearn-policy"
VERSION = 1
RUN_PARTS = ("checkpoints", "metrics.jsonl", "rounds")
"""What tells the folder of a run."""
BESIDE = {"base": (Correction, ResidualPolicy), "steers": (Steering, SteeredPolicy)}
"""What is learned beside a base, and the policy of both; by the key of `config.yaml` that names the base's folder."""
KEYS = ("format", "version", "policy", "observation_spec", "action_spec", "env_args", "weights", *BESIDE)
"""Of `config.yaml`."""
CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, BASE_FOLDER = "config.yaml", "policy.safetensors", "card.md", "base"


@dataclass(frozen=True, kw_only=True)
class PolicyCard:
    """Facts to know before using a policy; each section maps a name to a value."""

    task: Mapping[str, Any] = field(default_factory=dict)
    """Purpose of the policy."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """Data that it learned from."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Algorithm and settings of its training."""
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    """Its results, and the seeds they were measured on."""

    def markdown(self, policy: Policy) -> str:
        config = policy.config
        keys = ", ".join(f"{key} {list(spec.shape)}" for key, spec in policy.observation_spec.items())
        makeup = {
            "head": config.head.name,
            "backbone": config.backbone.name,
            "parameters": f"{sum(p.numel() for p in policy.parameters()):,}",
            "sees": f"{config.obs_steps} step(s) of {keys}",
            "predicts": f"{config.pred_steps} step(s) of {policy.action_spec.size} actions",
            "executes": f"{config.exec_steps} step(s)",
        }
        sections = {"Task": self.task, "Policy": makeup, "Data": self.data, "Training": self.training}
        lines = [f"# Policy: {policy.kind}", ""]
        for title, section in (sections | {"Evaluation": self.evaluation}).items():
            body = [f"- {name}: {value}" for name, value in section.items()] or ["- not stated"]
            lines += [f"## {title}", *body, ""]
        lines += ["## Use", "```python", "from robolearn.policies.folder import load_policy"]
        lines += ["from robolearn.deploy.runner import PolicyRunner", ""]
        lines += ['runner = PolicyRunner(load_policy("this/folder"), num_envs=1)', "```", ""]
        return "\n".join(lines)


def save_policy(
    policy: Policy, folder: str | Path, card: str | PolicyCard = "", *, env_args: Mapping[str, Any] | None = None
) -> None:
    """Write (or replace) the folder at once; a crash leaves the old one. Raises PolicyError on non-finite weights.

    Args:
        env_args: the task the policy is for, as data set files name it, so that it can be evaluated without naming it.
    """
    for part in (policy.planner, *policy.corrections):
        _check_finite(part.state_dict(), "the policy")
    with atomic_folder(folder) as fresh:
        _write(policy, fresh, card, dict(env_args or {}))


def _write(policy: Policy, folder: Path, card: str | PolicyCard, env_args: dict[str, Any]) -> None:
    """Write the files of a policy into an empty folder."""
    networks = policy.learning_part
    weights = save({name: value.detach().cpu().contiguous().clone() for name, value in networks.state_dict().items()})
    description = {
        "format": FORMAT,
        "version": VERSION,
        "policy": to_dict(networks.config),
        "observation_spec": networks.observation_spec.to_dict(),
        "action_spec": networks.action_spec.to_dict(),
        "env_args": env_args,
        "weights": checksum(weights),
    }
    if isinstance(policy, ResidualPolicy | SteeredPolicy):
        key = next(key for key, (_, both) in BESIDE.items() if isinstance(policy, both))
        description[key] = BASE_FOLDER
        (folder / BASE_FOLDER).mkdir()
        _write(policy.base, folder / BASE_FOLDER, "", env_args)
    (folder / CONFIG_FILE).write_text(yaml.safe_dump(description, sort_keys=False), encoding="utf-8")
    (folder / WEIGHTS_FILE).write_bytes(weights)
    text = card.markdown(policy) if isinstance(card, PolicyCard) else card
    (folder / CARD_FILE).write_text(printable(text or PolicyCard().markdown(policy)), encoding="utf-8")


def load_policy(folder: str | Path, device: torch.device | str = "cpu") -> Policy:
    """Return the policy saved in `folder`, or in `policy` of a run folder, in evaluation mode.

    Raises PolicyError naming whatever does not fit.
    """
    folder = policy_folder(folder)
    description = read_description(folder)
    key = next((key for key in BESIDE if key in description), None)
    base = None if key is None else _load_base(folder, key, description[key])
    try:
        networks = build_policy(
            from_dict(PolicyConfig, description["policy"]),
            ObservationSpec.from_dict(description["observation_spec"]),
            ActionSpec.from_dict(description["action_spec"]),
        )
        policy = networks if key is None else BESIDE[key][0](networks)
    except (ConfigError, TaskError, PolicyError) as error:
        raise PolicyError(f"{folder / CONFIG_FILE}: {error}") from None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyError(f"{folder / CONFIG_FILE} does not describe a policy: {error!r}") from None
    except (RuntimeError, MemoryError) as error:
        raise PolicyError(f"{folder / CONFIG_FILE} describes a policy that cannot be built: {error}") from None
    try:
        content = _inside(folder, WEIGHTS_FILE).read_bytes()
        if (found := checksum(content)) != description["weights"]:
            raise PolicyError(
                f"{folder / WEIGHTS_FILE} is not what was saved (its checksum is {found}, {CONFIG_FILE} says "
                f"{description['weights']}): bytes have changed, or it belongs to another policy. Copy the folder again"
            )
        state = load(content)
    except (SafetensorError, OSError, ValueError) as error:
        raise PolicyError(f"{folder / WEIGHTS_FILE} is damaged or not safetensors: {error}") from None
    _load_weights(policy, state, folder / WEIGHTS_FILE)
    if key is not None:
        policy = BESIDE[key][1](base, policy)
    return policy.to(device).eval()


def _load_base(folder: Path, key: str, named: object) -> Policy:
    """Return the policy that the one in `folder` corrects or steers, whose folder is `named` under `key`."""
    base = folder / BASE_FOLDER
    if named != BASE_FOLDER or not base.resolve().is_relative_to(folder.resolve()):
        raise PolicyError(
            f"{folder / CONFIG_FILE}: {key} must be {BASE_FOLDER!r}, a folder within, received {named!r} "
            f"({base.resolve()}); copy the policy that is corrected or steered into {base}"
        )
    return load_policy(base)


def checksum(content: bytes) -> str:
    """Return what tells weights apart: BLAKE2b of the file, 128 bits in hexadecimal."""
    return blake2b(content, digest_size=16).hexdigest()


def policy_checksum(folder: str | Path) -> str:
    """Return what tells saved policies apart: of their configurations, which hold the checksums of the weights."""
    found = sorted(policy_folder(folder).rglob(CONFIG_FILE))  # the base that a policy corrects has one, too
    return checksum(b"".join(path.read_bytes() for path in found))


def policy_env_args(folder: str | Path) -> dict[str, Any]:
    """The task that a saved policy is for, as data set files name it; empty where it was not said."""
    return dict(read_description(policy_folder(folder)).get("env_args") or {})


def policy_folder(path: str | Path) -> Path:
    """Return the policy folder that `path` names: itself, or `policy` inside a run folder.

    Raises PolicyError where it is neither, or a run that has not come to a policy yet.
    """
    folder = Path(path)
    if folder.is_file():
        raise PolicyError(
            f"{folder} is a file; a saved policy is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}. "
            "Pickled checkpoints (.pt, .pth, .ckpt, .pkl) are never loaded, because loading one can run any code"
        )
    if not folder.is_dir():
        raise PolicyError(f"there is no policy folder {folder}: it {absence(folder)}")
    if (folder / "policy" / CONFIG_FILE).exists():
        return folder / "policy"
    started = [name for name in RUN_PARTS if (folder / name).exists()]
    if started and not (folder / WEIGHTS_FILE).exists():
        raise PolicyError(
            f"{folder} is the folder of an unfinished run (it has {', '.join(started)}, but no policy yet); go on with "
            "it (train, finetune and rl with --resume, dagger as before), or name the run that it started from"
        )
    return folder


def read_description(folder: str | Path) -> dict[str, Any]:
    """`config.yaml` of a policy folder as plain values, its format and version checked."""
    path = _inside(Path(folder), CONFIG_FILE)
    try:
        description = read_yaml(path)
    except ConfigError as error:
        raise PolicyError(str(error)) from None
    if description.get("format") != FORMAT:
        raise PolicyError(
            f"{path} is not a saved policy: expected format {FORMAT!r}, received {description.get('format')!r}"
        )
    if description.get("version") != VERSION:
        raise PolicyError(
            f"{path} has version {description.get('version')!r}, this robolearn reads {VERSION}; update robolearn"
        )
    unknown = [str(key) for key in description if key not in KEYS]
    if unknown:
        raise PolicyError(f"{path}: {unknown_key(unknown[0], KEYS, '')}; what it would mean is not known, so remove it")
    missing = {"policy", "observation_spec", "action_spec", "weights"} - set(description)
    if missing:
        raise PolicyError(f"{path} lacks {sorted(missing)}; save the policy again")
    return description


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        raise PolicyError(f"{folder} is not a saved policy: {name} is missing: it {absence(path)}")
    if not path.resolve().is_relative_to(folder.resolve()):
        raise PolicyError(f"{path} links to {path.resolve()}, outside the policy folder; copy the file into the folder")
    return path


def _load_weights(policy: Policy, state: Mapping[str, Tensor], place: Path) -> None:
    expected = policy.state_dict()
    faults = [f"missing {sorted(set(expected) - set(state))}"] if set(expected) - set(state) else []
    faults += [f"unknown {sorted(set(state) - set(expected))}"] if set(state) - set(expected) else []
    for name in sorted(set(expected) & set(state)):
        wanted, found = expected[name], state[name]
        if wanted.shape != found.shape or wanted.dtype != found.dtype:
            faults.append(
                f"{name} is {found.dtype} {tuple(found.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
            )
    if faults:
        raise PolicyError(f"the weights in {place} do not fit the policy's configuration: {'; '.join(faults)}")
    _check_finite(state, str(place))
    policy.load_state_dict(dict(state))


def _check_finite(state: Mapping[str, Tensor], place: str) -> None:
    bad = [name for name, value in state.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise PolicyError(f"weights in {place} are not finite: {', '.join(bad)}; go back to an earlier checkpoint")
