"""On-policy collection: L macro-steps of N environments under the current policy.

A chunking policy acts once per macro-step: it proposes Tp actions, Ta of them are executed, and to PPO this is one
action whose reward is discounted inside and whose successor is gamma^k away. With Ta=2, Tp=3:

    proposal     a0 a1 a2        a2 is marginalised out of the log-probability: it never reached the environment
    executed     x  x  .
    reward       r_t + gamma r_t+1          discount gamma^2
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robolearn.envs.interface import Observation
from robolearn.policies.chain_policy import ChainPolicy
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.macro_steps import EpisodeDriver, FinishedEpisode
from robolearn.rl.engine.compiling import compiled
from robolearn.training import distributed


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """L macro-steps of N environments, in the order of time."""

    obs: Observation
    """(L, N, To, ...) windows before each macro-step."""
    actions: Tensor
    """(L, N, Tp, A) raw samples, unclipped, as the ratio needs them; (L, N, K' + 1, Tp, A) of decisions in K' steps."""
    executed: Tensor
    """(L, N, Tp) bool, the actions that reached the environment."""
    log_probs: Tensor
    """(L, N), or (L, N, K'), of the executed part, under the policy that acted."""
    rewards: Tensor
    """(L, N) discounted inside the macro-step."""
    discounts: Tensor
    """(L, N) gamma^k."""
    terminated: Tensor
    """(L, N) bool."""
    truncated: Tensor
    """(L, N) bool."""
    last_obs: Observation
    """(N, To, ...) windows after the last macro-step, where episodes go on."""
    final_obs: Observation
    """(M, To, ...) true successors of the M truncated rows."""
    final_index: Tensor
    """(M,) int64 places t * N + n of those rows."""
    episodes: Sequence[FinishedEpisode] = ()

    @property
    def num_steps(self) -> int:
        """L."""
        return self.rewards.shape[0]

    @property
    def num_envs(self) -> int:
        """N."""
        return self.rewards.shape[1]

    @property
    def ended(self) -> Tensor:
        """(L, N) bool: steps of episodes that end within the rollout; those of its tails go on beyond."""
        done = (self.terminated | self.truncated).flip(0).cumsum(0).flip(0)
        return done > 0

    def flat_obs(self) -> Observation:
        """Return the observations as rows, (L*N, To, ...)."""
        return {k: v.flatten(0, 1) for k, v in self.obs.items()}

    def next_values(self, values: Tensor, last: Tensor, final: Tensor) -> Tensor:
        """Return the values of the true successors, (L, N).

        Args:
            values: (L, N) of `obs`.
            last: (N,) of `last_obs`.
            final: (M,) of `final_obs`.

        Where an episode terminated the entry is that of the next episode; GAE masks it.
        """
        following = torch.cat([values[1:], last[None]])
        following.view(-1)[self.final_index] = final
        return following


class RolloutCollector:
    """A source of the training loop: fills rollouts with the policy's own samples, without gradients."""

    def __init__(
        self,
        driver: EpisodeDriver,
        policy: Policy | ChainPolicy,
        num_steps: int,
        *,
        generator: torch.Generator | None = None,
        compile: bool = False,
    ) -> None:
        """
        Args:
            num_steps: L, macro-steps of each environment in a rollout.
            generator: of the policy's samples; None uses torch's global one.
            compile: decide in one compiled call, drawing from torch's global generator; for single actions.
        """
        self.driver, self.policy, self.num_steps, self.generator = driver, policy, num_steps, generator
        self.exec_steps = policy.config.exec_steps
        self.processes = distributed.world_size()
        single = compile and policy.config.pred_steps == 1 and isinstance(policy, Policy)
        self._decide_single = compiled(self._decide) if single else None

    @torch.no_grad()
    def next(self) -> Rollout:
        """Run L macro-steps in each environment; return them."""
        driver, n = self.driver, self.driver.num_envs
        store = _Store(self.num_steps, n)
        noise = BatchNoise(n, driver.device, self.generator)
        for t in range(self.num_steps):
            window = driver.window
            for key, value in window.items():
                store.put(t, f"obs/{key}", value)
            if self._decide_single is not None:
                actions, log_probs = self._decide_single(window)
                transition = driver.advance(actions)
                executed = transition.executed
            else:
                distribution = self.policy.distribution(window)
                actions = distribution.sample(noise)
                chunk = self.policy.chunk(actions) if isinstance(self.policy, ChainPolicy) else actions
                transition = driver.advance(chunk[:, : self.exec_steps])
                executed = torch.zeros(chunk.shape[:2], dtype=torch.bool, device=driver.device)
                executed[:, : self.exec_steps] = transition.executed
                log_probs = distribution.log_prob(actions, executed)
            store.put(t, "actions", actions)
            store.put(t, "executed", executed)
            store.put(t, "log_probs", log_probs)
            store.put(t, "rewards", transition.reward)
            store.put(t, "discounts", transition.discount)
            store.put(t, "terminated", transition.terminated)
            store.put(t, "truncated", transition.truncated)
            store.keep_final(t, transition.truncated, transition.next_obs)
            driver.restart(transition.done)
        return store.rollout(driver.window, driver.take_finished())

    def _decide(self, window: Observation) -> tuple[Tensor, Tensor]:
        """Return single actions (N, 1, A) and their log-probabilities (N,)."""
        some = next(iter(window.values()))
        assert isinstance(self.policy, Policy)
        distribution = self.policy.distribution(window)
        actions = distribution.sample(BatchNoise(len(some), some.device))
        return actions, distribution.log_prob(actions)

    @property
    def env_steps(self) -> int:
        """Control steps of all processes, which collect in step."""
        return self.driver.control_steps * self.processes

    @property
    def saw_reward(self) -> bool:
        """Return whether any episode of practice has had a reward."""
        return self.driver.saw_reward

    def describe(self, batch: Rollout) -> str:
        """Return a rollout's largest reward, its environment, and the largest observation, for error messages."""
        where = int(batch.rewards.abs().nan_to_num(torch.inf).argmax())
        largest = max(float(v.float().abs().nan_to_num(torch.inf).max()) for v in batch.obs.values())
        return (
            f"Its largest reward is {batch.rewards.flatten()[where].item():g} in environment "
            f"{where % batch.num_envs}, its largest observation {largest:g}"
        )

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {"driver": self.driver.state_dict()}
        if self.generator is not None:
            state["generator"] = self.generator.get_state()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.driver.load_state_dict(state["driver"])
        if self.generator is not None:
            self.generator.set_state(state["generator"])


class _Store:
    """Preallocates (L, N, ...) tensors on first sight of each field."""

    def __init__(self, num_steps: int, num_envs: int) -> None:
        self.num_steps, self.num_envs = num_steps, num_envs
        self.fields: dict[str, Tensor] = {}
        self.rows: dict[str, tuple[Tensor, ...]] = {}  # views, made once: an index costs more than a small row's copy
        self.final: list[Observation] = []
        self.index: list[Tensor] = []

    def put(self, t: int, name: str, value: Tensor) -> None:
        if name not in self.rows:
            self.fields[name] = value.new_empty(self.num_steps, *value.shape)
            self.rows[name] = self.fields[name].unbind()
        self.rows[name][t].copy_(value)

    def keep_final(self, t: int, truncated: Tensor, successors: Observation) -> None:
        if truncated.any():
            rows = truncated.nonzero()[:, 0]
            self.final.append({k: v[rows] for k, v in successors.items()})
            self.index.append(t * self.num_envs + rows)

    def rollout(self, last: Observation, episodes: Sequence[FinishedEpisode]) -> Rollout:
        obs = {k: self.fields.pop(f"obs/{k}") for k in last}
        return Rollout(
            obs=obs,
            **self.fields,
            last_obs={k: v.clone() for k, v in last.items()},
            final_obs={k: torch.cat([f[k] for f in self.final]) if self.final else v[:0] for k, v in last.items()},
            final_index=torch.cat(self.index) if self.index else torch.zeros(0, dtype=torch.int64),
            episodes=tuple(episodes),
        )
