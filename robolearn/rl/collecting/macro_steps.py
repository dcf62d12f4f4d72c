"""Driving N environments through training episodes: observation windows, chunks, seeds, resets and statistics.

On-policy and off-policy collection share this; nothing here knows about losses.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from robolearn.envs.interface import Observation, VectorEnv
from robolearn.errors import TrainingError
from robolearn.rl.collecting.corrected_env import CorrectedEnv
from robolearn.rl.collecting.sanity import LARGEST, check_observation

RewardSource = Literal["env", "success"]


@dataclass
class SeedStream:
    """Episode seeds first, first+1, ..., first+count-1, first, ...: training never leaves its own range."""

    first: int
    count: int
    drawn: int = 0

    def take(self, n: int) -> list[int]:
        """Return the next `n` seeds."""
        seeds = [self.first + (self.drawn + i) % self.count for i in range(n)]
        self.drawn += n
        return seeds


@dataclass(frozen=True)
class FinishedEpisode:
    """Outcome of a training episode."""

    seed: int
    ret: float
    """Undiscounted sum of the training reward."""
    length: int
    """Control steps."""
    success: bool


def episode_metrics(episodes: Sequence[FinishedEpisode]) -> dict[str, float]:
    """Return the mean return, length and success of episodes; nothing where none ended."""
    if not episodes:
        return {}
    return {
        "return": sum(e.ret for e in episodes) / len(episodes),
        "episode_length": sum(e.length for e in episodes) / len(episodes),
        "success": sum(e.success for e in episodes) / len(episodes),
    }


@dataclass(frozen=True)
class Transition:
    """One macro-step of N environments: up to Ta actions each, fewer where the episode ended."""

    reward: Tensor
    """(N,) sum of gamma^i r_i over the executed actions."""
    discount: Tensor
    """(N,) gamma^k, k the number of executed actions."""
    executed: Tensor
    """(N, Ta) bool."""
    terminated: Tensor
    """(N,) bool."""
    truncated: Tensor
    """(N,) bool."""
    next_obs: Observation
    """(N, To, ...) windows of the true successors. May share memory with the environment: copy before `restart`."""
    instead: Tensor | None = None
    """(N, Ta, A), what a corrector did instead of the actions, NaN where nobody did; None where nobody may."""

    @property
    def done(self) -> Tensor:
        """(N,) bool."""
        return self.terminated | self.truncated

    @property
    def corrected(self) -> Tensor | None:
        """(N,) bool, whether a corrector did any of it; None where nobody may."""
        return None if self.instead is None else self.instead.isfinite().flatten(1).any(1)

    def done_of(self, actions: Tensor) -> Tensor:
        """Return chunks (N, Tp, A) as they came to be executed: a corrector's actions where there are any."""
        if self.instead is None:
            return actions
        executed = self.instead.shape[1]
        return torch.cat(
            [torch.where(self.instead.isnan(), actions[:, :executed], self.instead), actions[:, executed:]], 1
        )


class EpisodeDriver:
    """Steps N environments by chunks of actions and begins their next episodes.

        transition = driver.advance(actions)     # true successors, whatever ended
        ...                                      # store them
        driver.restart(transition.done)          # driver.window now begins new episodes where done

    The state needed to resume is small: since a seed fixes an episode, the running episodes are brought back by
    replaying their actions, in any environment that is deterministic.
    """

    def __init__(
        self,
        env: VectorEnv,
        *,
        seeds: SeedStream,
        gamma: float,
        obs_keys: tuple[str, ...] = (),
        obs_steps: int = 1,
        reward: RewardSource = "env",
        largest_obs: float = LARGEST,
        corrections: CorrectedEnv | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            obs_keys: keys to keep (what the learner reads); empty means all.
            obs_steps: To; windows repeat the first observation at an episode's begin.
            reward: the environment's own, or one where the task is solved (which then ends the episode) and else zero.
            largest_obs: magnitude beyond which an observation is refused; infinity where they are normalised.
            corrections: `env`, or the environment within it, in which a corrector may take over.
            device: where windows and transitions live.
        """
        self.corrections = corrections
        self.env, self.seeds, self.gamma, self.reward_source = env, seeds, gamma, reward
        self.obs_keys = obs_keys or tuple(env.observation_spec)
        self.obs_steps, self.largest_obs, self.device = obs_steps, largest_obs, torch.device(device)
        self.finished: list[FinishedEpisode] = []
        self.control_steps = 0
        self.rewarded = 0
        """Finished episodes whose return was not zero."""
        self.trace: deque[Tensor] = deque(maxlen=env.max_steps)
        n = env.num_envs
        self.episode_seeds = seeds.take(n)
        self.returns = torch.zeros(n, device=self.device)
        self.lengths = torch.zeros(n, dtype=torch.int64, device=self.device)
        self.solved = torch.zeros(n, dtype=torch.bool, device=self.device)
        self._executed_once = torch.ones(n, 1, dtype=torch.bool, device=self.device)
        self._discount_once = torch.full((n,), gamma, device=self.device)
        self.window = self._begin(env.reset(seeds=self.episode_seeds), None)

    @property
    def num_envs(self) -> int:
        return self.env.num_envs

    def advance(self, actions: Tensor) -> Transition:
        """Execute chunks (N, Ta, A) of raw actions; they are clipped to [-1, 1] on their way to the environment.

        Discrete actions are (N, 1) int64.
        """
        if actions.shape[1] == 1:
            return self._advance_once(actions)
        n, chunk = actions.shape[:2]
        running = torch.ones(n, dtype=torch.bool, device=self.device)
        terminated, truncated = torch.zeros_like(running), torch.zeros_like(running)
        executed = torch.zeros(n, chunk, dtype=torch.bool, device=self.device)
        reward, discount = torch.zeros(n, device=self.device), torch.ones(n, device=self.device)
        instead = None if self.corrections is None else torch.full_like(actions, torch.nan)
        for i in range(chunk):
            step_reward, ended, cut = self._step(actions[:, i], running)
            reward = torch.where(running, reward + discount * step_reward, reward)
            discount = torch.where(running, discount * self.gamma, discount)
            executed[:, i] = running
            if instead is not None:
                instead[:, i] = self._instead(running)
            terminated |= running & ended
            truncated |= running & cut
            running = running & ~(ended | cut)
            if not running.any():
                break
        return Transition(reward, discount, executed, terminated, truncated, self.window, instead)

    def restart(self, done: Tensor) -> None:
        """Report the episodes that ended and begin the next ones there; done: (N,) bool."""
        if not done.any():
            return
        indices = done.nonzero()[:, 0].tolist()
        fresh = self.seeds.take(len(indices))
        # All at once: each number by itself would wait for a GPU.
        outcomes = zip(self.returns[done].tolist(), self.lengths[done].tolist(), self.solved[done].tolist())
        for i, seed, (ret, length, success) in zip(indices, fresh, outcomes):
            self.rewarded += ret != 0.0
            self.finished.append(FinishedEpisode(self.episode_seeds[i], ret, length, success))
            self.episode_seeds[i] = seed
        self.returns[done], self.lengths[done], self.solved[done] = 0.0, 0, False
        first = self._begin(self.env.reset(seeds=fresh, mask=done.to(self.env.device)), done)
        self.window = self._where(done, first, self.window)

    @property
    def saw_reward(self) -> bool:
        """Return whether any episode, finished or running, has had a reward; nothing is learned without."""
        return self.rewarded > 0 or bool((self.returns != 0.0).any())

    def take_finished(self) -> list[FinishedEpisode]:
        """Return the episodes that ended since the last call."""
        finished, self.finished = self.finished, []
        return finished

    def state_dict(self) -> dict[str, Any]:
        trace = torch.stack(tuple(self.trace)) if self.trace else torch.zeros(0, self.num_envs, 0)
        longest = int(self.lengths.max())
        return {
            "seeds_drawn": self.seeds.drawn,
            "episode_seeds": torch.tensor(self.episode_seeds),
            "lengths": self.lengths.clone(),
            "actions": trace[len(trace) - longest :].clone(),
            "control_steps": self.control_steps,
            "rewarded": self.rewarded,
            "finished": [astuple(episode) for episode in self.finished],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Bring the running episodes back by replaying their actions from their seeds."""
        self.seeds.drawn, self.control_steps = int(state["seeds_drawn"]), int(state["control_steps"])
        self.episode_seeds = state["episode_seeds"].tolist()
        lengths, actions = state["lengths"].to(self.device), state["actions"].to(self.device)
        self.trace.clear()
        self.finished = [FinishedEpisode(*episode) for episode in state["finished"]]
        self.returns.zero_()
        self.solved.zero_()
        self.lengths.zero_()
        self.window = self._begin(self.env.reset(seeds=self.episode_seeds), None)
        control_steps, self.rewarded = self.control_steps, int(state["rewarded"])
        # Episodes are aligned at their present: the youngest joins the replay last, begun anew since not every
        # environment can hold still until then.
        for i, row in enumerate(actions):
            if i:
                self._rejoin(lengths == len(actions) - i)
            self._step(row, lengths >= len(actions) - i)
        self._rejoin(lengths == 0)
        self.control_steps = control_steps

    def _rejoin(self, mask: Tensor) -> None:
        """Begin the present episodes of these environments once more."""
        if mask.any():
            seeds = [self.episode_seeds[i] for i in mask.nonzero()[:, 0].tolist()]
            first = self._begin(self.env.reset(seeds=seeds, mask=mask.to(self.env.device)), mask)
            self.window = self._where(mask, first, self.window)

    def _advance_once(self, actions: Tensor) -> Transition:
        """Do as `advance` for Ta = 1, without the masks."""
        reward, ended, cut = self._step(actions[:, 0], None)
        instead = None if self.corrections is None else self._instead(self._executed_once[:, 0])[:, None]
        return Transition(reward, self._discount_once, self._executed_once, ended, cut, self.window, instead)

    def _instead(self, running: Tensor) -> Tensor:
        """Return (N, A), what a corrector did in the last step; NaN where nobody did, or nothing was done."""
        assert self.corrections is not None
        corrected = self.corrections.corrected.to(self.device) & running
        return torch.where(corrected[:, None], self.corrections.executed.to(self.device), torch.nan)

    def _step(self, actions: Tensor, running: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Take one control step of the running environments and move the window; return (N,) reward, terminated,
        truncated.

        Args:
            actions: (N, A), or (N,) of discrete ones.
            running: (N,) bool; None means all.
        """
        clipped = actions.clamp(-1.0, 1.0) if actions.is_floating_point() else actions
        self.trace.append(clipped)
        mask = None if running is None or bool(running.all()) else running
        env_mask = None if mask is None else mask.to(self.env.device)
        step = self.env.step(clipped.to(self.env.device), env_mask)
        success, terminated = step.success.to(self.device), step.terminated.to(self.device)
        if self.reward_source == "success":
            reward, terminated = success.float(), terminated | success
        else:
            reward = step.reward.to(self.device)
        self._check_reward(reward, mask)
        pushed = self._push(step.obs)
        if mask is None:
            self.window = pushed
            self.returns += reward
            self.lengths += 1
            self.solved |= success
            self.control_steps += len(actions)
        else:
            self.window = self._where(mask, pushed, self.window)
            self.returns += torch.where(mask, reward, 0.0)
            self.lengths += mask
            self.solved |= success & mask
            self.control_steps += int(mask.sum())
        self._check_observation(step.obs, mask)
        return reward, terminated, step.truncated.to(self.device) & ~terminated

    def _check_observation(self, obs: Observation, mask: Tensor | None) -> None:
        rows = {"seeds": self.episode_seeds, "steps": self.lengths, "mask": mask}
        check_observation(obs, self.obs_keys, **rows, largest=self.largest_obs)

    def _check_reward(self, reward: Tensor, mask: Tensor | None) -> None:
        if reward.device.type != "cpu" or math.isfinite(reward.sum().item()):
            return  # on a GPU this would stall the stream at every step; the update's own check finds it there
        bad = ~reward.isfinite() if mask is None else mask & ~reward.isfinite()
        if bad.any():
            i = int(bad.nonzero()[0, 0])
            raise TrainingError(
                f"the reward of environment {i} is {reward[i].item()} at step {int(self.lengths[i])} of the episode "
                f"with seed {self.episode_seeds[i]}; rewards must be finite, mend the task's reward"
            )

    def _begin(self, obs: Observation, mask: Tensor | None) -> Observation:
        """Return windows (N, To, ...) that repeat the first observations (N, ...), which are new in the masked rows."""
        self._check_observation(obs, mask)
        to = self.obs_steps
        return {k: obs[k].to(self.device)[:, None].repeat_interleave(to, 1) for k in self.obs_keys}

    def _push(self, obs: Observation) -> Observation:
        """Return the windows (N, To, ...) with these observations (N, ...) behind the others, the oldest dropped."""
        new = {k: obs[k].to(self.device)[:, None] for k in self.obs_keys}
        if self.obs_steps == 1:
            return new
        return {k: torch.cat([self.window[k][:, 1:], new[k]], 1) for k in self.obs_keys}

    @staticmethod
    def _where(mask: Tensor, yes: Observation, no: Observation) -> Observation:
        return {k: torch.where(mask.view(-1, *[1] * (v.ndim - 1)), v, no[k]) for k, v in yes.items()}
