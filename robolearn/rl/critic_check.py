"""The honest critic: what the critics promise of an episode's first action, against what the episode then returned.

    predicted    Q_i(s_0, a_0), one critic, and the least of as many as the targets take
    realised     sum_t gamma^t r_t

One line of `critic.jsonl` in the run's folder for each evaluation; `robolearn plot critic RUN` shows them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robolearn.configuration.parts.algorithms import OffPolicyConfig
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import Observation, VectorEnv
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.macro_steps import RewardSource
from robolearn.rl.networks import QEnsemble
from robolearn.training.critic_record import CRITIC_FILE, is_critic_value
from robolearn.training.metrics import keep_rows


class WatchedRunner:
    """A policy's runner whose first action of each episode is shown to the critics."""

    def __init__(self, policy: Policy, num_envs: int, critic: QEnsemble, obs_steps: int) -> None:
        self.runner, self.critic, self.obs_steps = PolicyRunner(policy, num_envs), critic, obs_steps
        self.values: dict[int, Tensor] = {}
        """(M,) predictions by seed."""
        self._begun: dict[int, int] = {}

    def reset(self, seeds: Sequence[int], mask: Tensor | None = None) -> None:
        rows = range(self.runner.num_envs) if mask is None else mask.nonzero()[:, 0].tolist()
        self._begun |= dict(zip(rows, seeds))
        self.runner.reset(seeds, mask)

    @torch.no_grad()
    def act(self, obs: Observation) -> Tensor:
        actions = self.runner.act(obs)
        for row, seed in self._begun.items():
            window = {
                key: value[row : row + 1, -self.obs_steps :] for key, value in self.runner.window.items()
            }  # (1, To, ...)
            rest = self.runner.plan(row) if not self.runner.corrections else actions[:0]
            chunk = torch.cat([actions[row : row + 1], rest])[None]  # (1, Tp, A)
            was_training = self.critic.training
            self.critic.eval()
            self.values[seed] = self.critic(window, chunk)[:, 0].cpu()  # (M,)
            self.critic.train(was_training)
        self._begun.clear()
        return actions


@dataclass(frozen=True, kw_only=True)
class CriticCheck:
    """Evaluates a policy and its critics together."""

    critic: QEnsemble
    obs_steps: int
    """To of the critics; a correction's see less than the policy that it corrects."""
    subset: int
    """Critics whose least value is a target."""
    gamma: float
    reward: RewardSource
    """Which reward the critics learn."""

    @classmethod
    def of(cls, critic: QEnsemble, network: Policy, config: OffPolicyConfig, reward: RewardSource) -> CriticCheck:
        """Return the check of critics of what `network`, the policy that learns, does."""
        return cls(
            critic=critic,
            obs_steps=network.config.obs_steps,
            subset=config.critic.subset,
            gamma=config.gamma,
            reward=reward,
        )

    def evaluate(self, policy: Policy, env: VectorEnv, seeds: Sequence[int]) -> tuple[EvaluationResult, CriticReport]:
        """Return the policy's episodes, the same as without critics, and what the critics had said of them.

        Args:
            env: in the policy's units.
        """
        watched = WatchedRunner(policy, env.num_envs, self.critic, self.obs_steps)
        record = "trajectory" if self.reward == "env" else "none"
        result = evaluate(watched, env, seeds, record=record, record_limit=len(seeds))
        values = torch.stack([watched.values[episode.seed] for episode in result.episodes])  # (episodes, M)
        return result, CriticReport(
            one=values[:, 0].tolist(),
            least=least_of_random_subset(values, self.subset).tolist(),
            realised=[self._realised(episode, env.control_hz) for episode in result.episodes],
        )

    def _realised(self, episode: EpisodeRecord, control_hz: float) -> float:
        """Return sum_t gamma^t r_t of an episode."""
        if self.reward == "success":  # one at the step of success, which ends the episode
            reached = episode.time_to_success_s
            return 0.0 if reached is None else self.gamma ** (round(reached * control_hz) - 1)
        assert episode.trajectory is not None
        rewards = episode.trajectory.rewards.astype(np.float64)
        return float((rewards * self.gamma ** np.arange(len(rewards))).sum())


@dataclass(frozen=True, kw_only=True)
class CriticReport:
    """Predicted and realised discounted returns, one entry an episode."""

    one: list[float]
    """By the first critic."""
    least: list[float]
    """By the least of a random subset of the critics, its expectation over subsets: what targets are made of."""
    realised: list[float]

    def metrics(self) -> dict[str, float]:
        """Return mean predicted minus mean realised returns, of one critic and of the least of several."""
        one, least, realised = (sum(values) / len(values) for values in (self.one, self.least, self.realised))
        return {"critic_return": realised, "critic_error_one": one - realised, "critic_error_least": least - realised}

    def append_to(self, run_dir: Path, step: int) -> None:
        """Write a line to the run's `critic.jsonl`."""
        with (run_dir / CRITIC_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **vars(self)}) + "\n")


def drop_beyond(run_dir: Path, step: int) -> None:
    """Drop what a run wrote to its `critic.jsonl` after `step`, the one that it goes on from."""
    if (run_dir / CRITIC_FILE).exists():
        keep_rows(run_dir / CRITIC_FILE, step, is_critic_value)


def least_of_random_subset(values: Tensor, subset: int) -> Tensor:
    """Return the expected least value of `subset` random members, (..., M) -> (...)."""
    members = values.shape[-1]
    # The i-th smallest is the least of a subset where all others are drawn from the M-1-i that are larger.
    weights = [math.comb(members - 1 - i, subset - 1) / math.comb(members, subset) for i in range(members)]
    return values.sort(-1).values @ values.new_tensor(weights)
