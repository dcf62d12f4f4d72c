"""Training episodes of fine-tuning, whatever the way, and the replay of the ways that learn off-policy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.datasets.dataset import Dataset
from robolearn.envs.interface import VectorEnv
from robolearn.errors import PolicyError
from robolearn.imitation.corrector import make_corrector
from robolearn.imitation.gates.build import make_gate
from robolearn.imitation.gates.gate import Gate
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.corrected_env import CorrectedEnv, CorrectionsFile
from robolearn.rl.collecting.demonstrations import Shape, open_demonstrations
from robolearn.rl.collecting.macro_steps import EpisodeDriver
from robolearn.rl.collecting.recorded_practice import RecordedPractice
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.collecting.shared_seeds import SharedSeeds
from robolearn.rl.collecting.shown_windows import ShownWindows
from robolearn.rl.critic_check import CriticCheck
from robolearn.rl.learner import Learner, Reporting
from robolearn.rl.sac import SAC
from robolearn.rl.td3 import TD3
from robolearn.training import distributed


@dataclass(frozen=True, kw_only=True)
class Practice:
    """Where a policy practises, and who else may have a hand in it."""

    env: VectorEnv
    """In the policy's units (`robolearn.episodes.actor.env_for`)."""
    corrections: CorrectedEnv | None = None
    """`env`, or the environment within it, in which a corrector may take over; None where nobody may."""
    recording: Path | None = None
    """The file in which a person's session records what they practise beside; None where there is none."""


def practice_driver(
    config: FinetuneConfig, practice: Practice, policy: Policy, *, gamma: float, device: torch.device
) -> EpisodeDriver:
    """Return a driver of training episodes that keeps the windows which the policy sees."""
    return EpisodeDriver(
        practice.env,
        seeds=SharedSeeds(config.practice_seeds.start, len(config.practice_seeds)),
        gamma=gamma,
        obs_keys=tuple(policy.observation_spec),
        obs_steps=policy.config.obs_steps,
        reward=config.reward,
        largest_obs=math.inf,  # the policy's normalisers know the magnitudes
        corrections=practice.corrections,
        device=device,
    )


def corrected_env(config: FinetuneConfig, policy: Policy, env: VectorEnv, folder: Path) -> CorrectedEnv:
    """Return `env` with the corrector of `config`, who takes over where a simulated human would.

    Args:
        folder: of the run; its file of corrections is opened with the first step.

    Raises TaskError where there is no such expert or the gate's observations are missing, DatasetError where the
    demonstrations do not suffice to judge by.
    """
    corrector = config.corrector
    assert corrector is not None
    expert, gate = make_corrector(corrector.expert, env), simulated_human(config, policy, env)
    with Dataset(config.demonstrations, reading=config.reading) as shown:
        task = shown.task
    rank = f"_{distributed.rank()}" if distributed.world_size() > 1 else ""
    file = CorrectionsFile(
        folder / f"corrections{rank}.hdf5",
        env,
        task=task,
        describe={"source": "rl", "operator": f"expert:{corrector.expert}", "device": "script"},
        success_ends=config.reward == "success",
        every=corrector.record == "all",
    )
    return CorrectedEnv(env, expert, gate, None if corrector.record == "none" else file)


def simulated_human(config: FinetuneConfig, policy: Policy, env: VectorEnv) -> Gate:
    """Return the simulated human of `config`, who has seen the demonstrations.

    Raises DatasetError where they do not suffice to judge by.
    """
    assert config.corrector is not None
    gate = make_gate(
        config.corrector.gate,
        control_hz=env.control_hz,
        num_envs=env.num_envs,
        seed=config.seed,
        round=1,
        rounds=1,
        reading=config.reading,
    )
    gate.prepare(policy, [Path(file) for file in config.demonstrations], 1)
    return gate


def check_uncorrected(policy: Policy, method: str) -> None:
    """Raise PolicyError where the policy is a base that is corrected or steered: it has no one network to train."""
    if policy.learning_part is not policy:
        raise PolicyError(
            f"method {method} trains a policy's own network, and this one is a frozen policy and what was learned "
            f"beside it ({policy.kind}); method residual or residual_ppo corrects it further"
        )


def shown_windows(
    config: FinetuneConfig, policy: Policy, *, weight: float, device: torch.device
) -> ShownWindows | None:
    """Return the windows of the demonstrations, for a cloning loss; None where none are named, or nothing weighs them.

    Raises DatasetError where a file cannot be read, PolicyError where it is not for this policy.
    """
    if not config.demonstrations or not weight:
        return None
    return ShownWindows.read(
        config.demonstrations, policy, weight=weight, reading=config.reading, place=config.policy, device=device
    )


def off_policy_learner(
    config: FinetuneConfig,
    algorithm: Any,
    learner: SAC | TD3,
    *,
    actor: Policy,
    practice: Practice,
    base: Policy | None = None,
    stored: Policy | None = None,
) -> Learner:
    """Return a learner that practises, and goes back to the demonstrations, where there are any.

    Args:
        algorithm: of the training loop: `learner`, or what guides it.
        actor: what is evaluated and exported.
        base: the policy whose action the environment shows; None where it shows none.
        stored: the policy whose windows and chunks the replay holds; None takes the learner's own.

    Raises PolicyError or DatasetError where the demonstrations are not for this policy, or show no reward.
    """
    network, method = stored or learner.policy, learner.config
    needs = actor.interface(f"the policy {config.policy}")
    shape = Shape.of(network, gamma=method.gamma, n_step=method.n_step)
    driver = practice_driver(config, practice, network, gamma=method.gamma, device=learner.device)
    recorded = None
    if practice.recording is not None:
        recorded = RecordedPractice(
            practice.recording, needs, shape, reward=config.reward, base=base, device=learner.device
        )
    source = ReplayCollector(
        driver,
        learner,
        method,
        exec_steps=network.config.exec_steps,
        seed=config.seed,
        demonstrations=open_demonstrations(config, practice.env, needs, shape, base=base, device=learner.device),
        first_actions="policy",
        recorded=recorded,
    )
    check = CriticCheck.of(learner.critic, network, method, config.reward)
    return Learner(
        algorithm=Reporting(algorithm, source),
        source=source,
        actor=actor,
        networks=(network, learner.critic),
        rows=method.batch_size,
        critic_check=check,
    )
