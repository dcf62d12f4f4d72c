"""Recorded episodes as transitions of a replay: what off-policy learning draws beside its own experience.

A policy that executes Ta actions at a time learns from macro-steps. Every step of an episode begins one, so that
nothing recorded is left out: Ta chains through the episode, one behind the other. T = 5 steps and Ta = 2:

    step          0    1    2    3    4    (5, reached)
    chain 0      [a0   a1] [a2   a3] [a4]                the last one ends after fewer steps
    chain 1           [a1   a2] [a3   a4]
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.configuration.parts.reading import Reading
from robolearn.contract import Interface
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import VectorEnv
from robolearn.errors import DatasetError
from robolearn.imitation.agreement import check_same_actions, check_same_rate
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION
from robolearn.rl.collecting.macro_steps import RewardSource, Transition
from robolearn.rl.collecting.replay_buffer import Replay
from robolearn.specs import Observation
from robolearn.training import distributed

ROLLED_TOGETHER = 64
"""Episodes that the base policy is asked about side by side."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The form that a learner wants its transitions in."""

    obs_keys: tuple[str, ...]
    obs_steps: int = 1
    """To."""
    pred_steps: int = 1
    """Tp, steps of a stored chunk."""
    exec_steps: int = 1
    """Ta, steps of a macro-step."""
    gamma: float = 0.99
    n_step: int = 1

    @classmethod
    def of(cls, policy: Policy, *, gamma: float, n_step: int) -> Shape:
        """Return the form of a policy's own experience."""
        config = policy.config
        return cls(
            obs_keys=tuple(policy.observation_spec),
            obs_steps=config.obs_steps,
            pred_steps=config.pred_steps,
            exec_steps=config.exec_steps,
            gamma=gamma,
            n_step=n_step,
        )


@dataclass(frozen=True, kw_only=True)
class RecordedEpisode:
    """An episode as reinforcement learning sees it."""

    obs: Observation
    """(T+1, ...) per key, the one reached last included."""
    actions: Tensor
    """(T, A) float32 in [-1, 1]."""
    rewards: Tensor
    """(T,) float32."""
    terminated: bool
    """Whether the last step ended the task; if not, it was cut there."""
    corrected: Tensor | None = None
    """(T,) bool, the steps that somebody made in place of a policy; None where no policy drove."""
    seed: int | None = None
    """Of the policy's draws; None where no policy drove."""

    def __len__(self) -> int:
        return len(self.actions)


def read_episodes(dataset: Dataset, keys: Sequence[str], reward: RewardSource) -> list[RecordedEpisode]:
    """Return all episodes with their rewards.

    Args:
        reward: "success" gives one at the last step of an episode that succeeded, which ends it, and else zero; "env"
            takes what was recorded, or what the reading of a file without rewards assumes.

    Raises DatasetError where no reward is anywhere.
    """
    episodes = [read_episode(dataset, i, keys, reward) for i in range(len(dataset))]
    if not any(bool(episode.rewards.any()) for episode in episodes):
        raise no_reward(dataset, reward)
    return episodes


def reward_notes(dataset: Dataset, reward: RewardSource) -> list[str]:
    """Return where the rewards come from, for people."""
    solved = sum(info.success for info in dataset.info)
    if reward == "success":
        return [f"demonstrations: 1 at the last step of {solved} of {len(dataset)} episodes, the successes, else 0"]
    return []  # those that a file lacks are among what is assumed of it


def no_reward(dataset: Dataset, reward: RewardSource) -> DatasetError:
    """Return the error of demonstrations without any reward."""
    files = ", ".join(str(path) for path in dataset.paths)
    silent = dataset.assumptions.about("success")
    if silent:
        why, remedy = f"do not say which of them succeeded ({silent[0]})", "Where all did, say so: --success true"
    elif reward == "success" or not any(info.success for info in dataset.info):
        why, remedy = "are failures only", "Record some that succeed, or leave the file out"
    else:
        why, remedy = "have no reward at any step", "Take rewards from their success: --reward success"
    return DatasetError(
        f"the {len(dataset)} episodes of {files} {why}, so that they show no reward to learn from. {remedy}"
    )


def base_actions(base: Policy, episodes: Sequence[RecordedEpisode]) -> list[Tensor]:
    """Return what a policy proposes on the way of each episode, (T+1, A): its runner is shown what was seen.

    Where it drove, its plans are drawn as they were then, anew after every step that somebody made in its place.
    """
    found: list[Tensor] = []
    for start in range(0, len(episodes), ROLLED_TOGETHER):
        together = episodes[start : start + ROLLED_TOGETHER]
        runner = PolicyRunner(base, len(together))
        runner.reset([i if e.seed is None else e.seed for i, e in enumerate(together, start)])
        longest = max(map(len, together))
        proposed = []
        for t in range(longest + 1):
            rows = [min(t, len(episode)) for episode in together]
            if t:
                runner.replan(torch.tensor([_was_corrected(episode, row - 1) for episode, row in zip(together, rows)]))
            obs = {
                key: torch.stack([episode.obs[key][row] for episode, row in zip(together, rows)])
                for key in base.observation_spec
            }
            proposed.append(runner.act(obs).cpu())
        every = torch.stack(proposed, 1)  # (episodes, longest + 1, A)
        found += [every[i, : len(episode) + 1] for i, episode in enumerate(together)]
    return found


def with_base_actions(base: Policy, episodes: Sequence[RecordedEpisode]) -> list[RecordedEpisode]:
    """Return the episodes with the base's action among what is seen."""
    return [
        replace(episode, obs=episode.obs | {BASE_ACTION: proposed})
        for episode, proposed in zip(episodes, base_actions(base, episodes))
    ]


def replay_of(episodes: Sequence[RecordedEpisode], shape: Shape, device: torch.device | str = "cpu") -> Replay:
    """Return a replay that holds every macro-step of the episodes, and nothing else."""
    steps = [step for episode in episodes for step in macro_steps(episode, shape, device)]
    window, actions, _ = steps[0]
    replay = Replay(len(steps), window, actions, n_step=shape.n_step, device=device)
    for step in steps:
        replay.add(*step)
    return replay


def macro_steps(
    episode: RecordedEpisode, shape: Shape, device: torch.device | str = "cpu"
) -> Iterator[tuple[Observation, Tensor, Transition]]:
    """Yield windows (1, To, ...), chunks (1, Tp, A) and transitions of all chains through an episode, in order."""
    T, Ta = len(episode), shape.exec_steps
    for t in macro_starts(T, Ta):
        taken = min(Ta, T - t)
        rewards = episode.rewards[t : t + taken]
        # sum_i gamma^i r_i over the executed steps, and gamma^k beyond them
        powers = shape.gamma ** torch.arange(taken + 1, dtype=torch.float64)
        ended = t + taken == T
        executed = torch.arange(Ta) < taken
        instead = None
        if episode.corrected is not None:
            instead = torch.full((1, Ta, episode.actions.shape[1]), torch.nan)
            rows = t + episode.corrected[t : t + taken].nonzero()[:, 0]
            instead[0, rows - t] = episode.actions[rows]
            instead = instead.to(device)
        transition = Transition(
            reward=(powers[:-1] * rewards).sum()[None].float().to(device),
            discount=powers[-1:].float().to(device),
            executed=executed[None].to(device),
            terminated=torch.tensor([ended and episode.terminated], device=device),
            truncated=torch.tensor([ended and not episode.terminated], device=device),
            next_obs=_window(episode, t + taken, shape, device),
            instead=instead,
        )
        chunk = episode.actions[[min(t + i, T - 1) for i in range(shape.pred_steps)]]  # (Tp, A)
        yield _window(episode, t, shape, device), chunk[None].to(device), transition


def macro_starts(length: int, exec_steps: int) -> Iterator[int]:
    """Yield the steps at which macro-steps of an episode begin, chain by chain: every step once."""
    for chain in range(min(exec_steps, length)):
        yield from range(chain, length, exec_steps)


def returns_to_go(episode: RecordedEpisode, gamma: float) -> Tensor:
    """Return sum_i gamma^i r_t+i from each step t on, (T,) float32, as far as it was recorded."""
    returns, following = torch.zeros(len(episode), dtype=torch.float64), 0.0
    for t in reversed(range(len(episode))):
        returns[t] = following = float(episode.rewards[t]) + gamma * following
    return returns.float()


class Source(Protocol):
    """A verb's configuration that names demonstrations."""

    @property
    def demonstrations(self) -> tuple[str, ...]: ...
    @property
    def reading(self) -> Reading: ...
    @property
    def reward(self) -> RewardSource: ...


def open_demonstrations(
    source: Source, env: VectorEnv, needs: Interface, shape: Shape, *, base: Policy | None = None, device: torch.device
) -> Replay | None:
    """Return the files that a configuration names as `load_demonstrations` does, None where it names none.

    Says on standard error what was assumed of them and where their rewards come from. Raises DatasetError also where
    they were not recorded at the rate of `env`, in which practice goes on.
    """
    if not source.demonstrations:
        return None
    with Dataset(source.demonstrations, reading=source.reading) as dataset:
        if distributed.rank() == 0:
            for line in (*dataset.assumptions, *reward_notes(dataset, source.reward)):
                print(f"note: {line}", file=sys.stderr, flush=True)
        check_same_rate(dataset, env)
        return load_demonstrations(dataset, needs, shape, reward=source.reward, base=base, device=device)


def load_demonstrations(
    dataset: Dataset,
    needs: Interface,
    shape: Shape,
    *,
    reward: RewardSource,
    base: Policy | None = None,
    device: torch.device | str = "cpu",
) -> Replay:
    """Return the macro-steps of a data set as a replay.

    Args:
        needs: what the learner sees and does, in whose units the actions must be.
        base: the policy whose action the learner is shown, `BASE_ACTION`; None where it is shown none.

    Raises PolicyError where the data is not for this learner, and DatasetError where it shows no reward.
    """
    check_same_actions(needs, dataset)
    keys = tuple(needs.observation_spec) if base is not None else shape.obs_keys
    episodes = read_episodes(dataset, keys, reward)
    return replay_of(episodes if base is None else with_base_actions(base, episodes), shape, device)


def read_episode(dataset: Dataset, index: int, keys: Sequence[str], reward: RewardSource) -> RecordedEpisode:
    """Return one episode with its rewards; `reward` as for `read_episodes`."""
    episode = dataset.read(index, keys)
    rewards, terminated = episode.rewards, bool(episode.terminated[-1])
    if reward == "success":
        terminated = episode.info.success
        rewards = np.zeros_like(rewards)
        rewards[-1] = float(terminated)
    return RecordedEpisode(
        obs={key: torch.as_tensor(np.concatenate([v, episode.final_obs[key][None]])) for key, v in episode.obs.items()},
        actions=torch.as_tensor(episode.actions),
        rewards=torch.as_tensor(rewards),
        terminated=terminated,
    )


def _was_corrected(episode: RecordedEpisode, step: int) -> bool:
    return episode.corrected is not None and bool(episode.corrected[step])


def _window(episode: RecordedEpisode, t: int, shape: Shape, device: torch.device | str) -> Observation:
    """Return the window (1, To, ...) that ends at step t; the first observation repeats."""
    rows = [max(t - shape.obs_steps + 1 + i, 0) for i in range(shape.obs_steps)]
    return {key: episode.obs[key][rows][None].to(device) for key in shape.obs_keys}
