"""Check that demonstrations, a policy and the environment that it is corrected in agree, before anything is done."""

from __future__ import annotations

from robolearn.contract import Interface, check_observations, reconcile
from robolearn.datasets.dataset import Dataset
from robolearn.envs.adapted import interface_of
from robolearn.envs.interface import VectorEnv
from robolearn.episodes.actor import env_for
from robolearn.errors import DatasetError, PolicyError
from robolearn.policies.policy import Policy
from robolearn.specs import ActionSpec


def env_for_rounds(policy: Policy, env: VectorEnv, dataset: Dataset, place: object) -> VectorEnv:
    """Return `env` as policy and demonstrations know it, so that what is collected there can be read with them.

    Args:
        dataset: the demonstrations, with which the rounds are aggregated.
        place: the policy's folder, for messages.

    Raises PolicyError or DatasetError, before anything is collected, where policy, demonstrations and environment do
    not agree in names, shapes, limits or control rate.
    """
    check_init_policy(policy, dataset, place)
    data, offers = dataset.interface(), interface_of(env)
    check_observations(data, offers)
    if extra := [key for key in offers.observation_spec if key not in data.observation_spec]:
        kept = [key for key in offers.observation_spec if key in data.observation_spec]
        own = getattr(env, "names", {})
        keys = ",".join({new: old for old, new in own.items()}.get(key, key) for key in kept)
        raise DatasetError(
            f"{offers.name} also shows {', '.join(map(repr, extra))}, which {data.name} does not hold; episodes of one "
            f"kind only can be learned from together. Leave it out: --task.obs_keys {keys}"
        )
    check_same_rate(dataset, env)
    return env_for(policy, env, place)


def check_init_policy(policy: Policy, dataset: Dataset, place: object) -> None:
    """Raise PolicyError where the data does not hold what the policy sees, or its actions are in other limits."""
    check_same_actions(policy.interface(f"the policy {place}"), dataset)


def check_same_rate(dataset: Dataset, env: VectorEnv) -> None:
    """Raise DatasetError where a step of the data is not a step of the environment."""
    if abs(env.control_hz - dataset.control_hz) > 1e-6 * dataset.control_hz:
        data, offers = dataset.interface(), interface_of(env)
        raise DatasetError(
            f"{offers.name} runs at {env.control_hz:g} Hz, {data.name} was recorded at {dataset.control_hz:g} Hz; "
            "record demonstrations at the rate that the policy is to act at"
        )


def check_same_actions(needs: Interface, dataset: Dataset) -> None:
    """Raise PolicyError where the data does not hold what `needs` sees, or its actions are in other limits."""
    offers = dataset.interface()
    if not reconcile(needs, offers).is_identity:
        raise PolicyError(
            f"{needs.name} acts within {_limits(needs.action_spec)}, {offers.name} was recorded within "
            f"{_limits(offers.action_spec)}: the same numbers mean other actions. Convert the data to the policy's "
            "limits (robolearn dataset convert, --limits), or train a new policy on it"
        )


def _limits(spec: ActionSpec) -> str:
    return ", ".join(f"{low:g} to {high:g}" for low, high in zip(spec.low, spec.high))
