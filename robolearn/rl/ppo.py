"""Proximal policy optimisation (Schulman et al. 2017) of any policy with an exact likelihood.

    rollout -> values -> advantages (GAE) -> minibatches: ratio, surrogate, value error -> clipped Adam steps

The ratio is between densities of the raw, unclipped samples, and the policy stays in evaluation mode (no dropout), so
that it is one on the first minibatch of every update.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robolearn.configuration.algorithms import PPOConfig
from robolearn.envs.interface import Observation
from robolearn.errors import PolicyError, TrainingError
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.rl.engine.adam import FlatAdam
from robolearn.rl.engine.compiled import Gradients, compiled
from robolearn.rl.returns import gae
from robolearn.rl.rollout_collector import Rollout
from robolearn.rl.running_statistics import ObservationStatistics, ReturnScale
from robolearn.training import distributed
from robolearn.training.threads import Pair, fitting_threads

UNROLLED = 4
"""Minibatches in one graph, at most: a small network's step is short beside the call of a graph, but every further
minibatch in it costs as much time to compile again."""
EVAL_ROWS = 4096
"""Rows evaluated at once outside the gradient steps, a bound on memory."""


class Minibatch(NamedTuple):
    """B rows of a rollout."""

    obs: Observation
    """(B, To, ...)."""
    actions: Tensor
    """(B, Tp, A)."""
    executed: Tensor
    """(B, Tp)."""
    log_probs: Tensor
    """(B,) under the policy that acted."""
    prior_log_probs: Tensor
    """(B,) under the policy that training started from."""
    advantages: Tensor
    """(B,)."""
    values: Tensor
    """(B,) before the update."""
    returns: Tensor
    """(B,) what the critic is drawn to."""

    def map(self, function: Any) -> Minibatch:
        """Apply a function to every tensor."""
        return Minibatch({k: function(v) for k, v in self.obs.items()}, *map(function, self[1:]))


class ActorLoss(nn.Module):
    """The surrogate with its penalties."""

    kl_coef: Tensor

    def __init__(self, policy: Policy, config: PPOConfig, generator: torch.Generator | None) -> None:
        """
        Args:
            generator: of the samples of an entropy bonus; None uses torch's global one.
        """
        super().__init__()
        self.policy, self.config, self.generator = policy, config, generator
        self.register_buffer("kl_coef", torch.ones((), device=next(policy.parameters()).device))

    def forward(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, and metrics (detached)."""
        config = self.config
        distribution = self.policy.distribution(batch.obs)
        log_probs = distribution.log_prob(batch.actions, batch.executed)
        log_ratio = log_probs - batch.log_probs
        ratio = log_ratio.exp()
        kl = (ratio - 1.0 - log_ratio).mean()  # low-variance, non-negative (Schulman 2020)
        if config.surrogate == "clip":
            clipped = ratio.clamp(1.0 - config.clip, 1.0 + config.clip)
            loss = -torch.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()
        else:
            loss = -(ratio * batch.advantages).mean() + self.kl_coef * kl
        metrics = {"kl": kl.detach(), "ratio": ratio.detach().mean(), "policy_loss": loss.detach()}
        metrics["clip_fraction"] = ((ratio.detach() - 1.0).abs() > config.clip).float().mean()
        if config.prior_coef:
            # On samples of the policy itself, half the squared log-ratio has the gradient of KL(policy || prior).
            distance = 0.5 * (log_probs - batch.prior_log_probs).square().mean()
            loss = loss + config.prior_coef * distance
            metrics["prior_kl"] = distance.detach()
        if config.entropy_coef:
            noise = BatchNoise(len(log_probs), log_probs.device, self.generator)
            entropy = distribution.entropy(noise).mean()
            loss = loss - config.entropy_coef * entropy
            metrics["entropy"] = entropy.detach()
        return loss, metrics


class CriticLoss(nn.Module):
    """Half the mean squared error of the values, each at most as good as its clipped version where asked."""

    def __init__(self, critic: nn.Module, config: PPOConfig) -> None:
        super().__init__()
        self.critic, self.config = critic, config

    def forward(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Scalar loss, and metrics (detached)."""
        values = self.critic(batch.obs)
        error = (values - batch.returns).square()
        if self.config.value_clip is not None:
            moved = (values - batch.values).clamp(-self.config.value_clip, self.config.value_clip)
            error = torch.maximum(error, (batch.values + moved - batch.returns).square())
        loss = 0.5 * error.mean()
        return loss, {"value_loss": loss.detach()}


class PPO:
    """Updates a policy and its critic from rollouts; an algorithm of the common training loop.

    Where several processes train together, each has environments of its own, and `batch_size` counts the rows of all:
    gradients, advantages and statistics are those of one process with all the environments.
    """

    def __init__(
        self,
        policy: Policy,
        critic: nn.Module,
        config: PPOConfig,
        *,
        total_updates: int | None = None,
        seed: int = 0,
    ) -> None:
        """
        Args:
            critic: (B, To, ...) observation windows -> (B,) values.
            total_updates: how many updates the run has, for `anneal`.
        """
        if not policy.exact_likelihood:
            raise PolicyError(
                f"PPO needs the log-probability of actions, which the head {policy.config.head.name!r} does not have; "
                "train the policy with a gaussian, mixture or autoregressive head"
            )
        self.policy, self.critic, self.config = policy.eval(), critic.eval(), config
        self.batch_size = distributed.share_of(config.batch_size, "batch_size")
        distributed.broadcast_(policy, critic)
        self.prior = copy.deepcopy(policy).requires_grad_(False) if config.prior_coef else None
        self.device = next(policy.parameters()).device
        self.generator = torch.Generator(self.device).manual_seed(distributed.own_seed(seed))
        # A compiled update draws from torch's global generator: graphs do not take others.
        self.actor_loss = ActorLoss(policy, config, None if config.compile else self.generator)
        critic_rate = config.critic_learning_rate or config.learning_rate
        self.actor_adam, self.critic_adam = (
            FlatAdam(
                [p for p in network.parameters() if p.requires_grad],
                learning_rate=rate,
                eps=1e-5,
                max_grad_norm=config.max_grad_norm,
            )
            for network, rate in ((policy, config.learning_rate), (critic, critic_rate))
        )
        self._actor_gradients = Gradients(self.actor_loss, self.actor_adam)
        self._critic_gradients = Gradients(CriticLoss(critic, config), self.critic_adam)
        make = compiled if config.compile else (lambda method: method)
        self._actor_steps, self._critic_steps = make(self._eager_actor_steps), make(self._eager_critic_steps)
        self._evaluate = make(self._eager_evaluate)
        # Graphs run without the interpreter lock. Several processes must reduce gradients in one order.
        self.pair = Pair(enabled=config.compile and self.device.type == "cpu" and distributed.world_size() == 1)
        self.return_scale = ReturnScale(config.gamma) if config.normalise_returns else None
        self.statistics = ObservationStatistics(policy, critic) if config.normalise_obs else None
        self.total_updates, self.updates, self.env_steps = total_updates, 0, 0
        self.step_scale = 1.0

    def update(self, batch: Rollout) -> dict[str, float]:
        """Improve on a rollout that the current policy collected; returns metrics."""
        rows = self.batch_size or len(batch.log_probs.flatten())
        with fitting_threads(self.policy, self.critic, rows=rows, jobs=self.pair.jobs):
            return self._update(batch)

    def _update(self, rollout: Rollout) -> dict[str, float]:
        config = self.config
        if self.statistics is not None and self.updates == 0:
            # The first rollout only sets the scales, so that the policy is the same function while it learns from one.
            return self._end_update(rollout, {})
        self._set_step_sizes()
        rewards = rollout.rewards if self.return_scale is None else self.return_scale.apply(rollout)
        train_actor = self.updates >= config.critic_warmup
        records: list[dict[str, Tensor]] = []
        fixed = self._fixed_rows(rollout)
        rows: Minibatch | None = None
        for _ in range(config.epochs):
            if rows is None or config.recompute_advantages:
                rows = self._with_targets(fixed, rollout, rewards, rows)
            epoch = self._epoch(list(self._parts(rows)), train_actor)
            records += epoch
            self._check(epoch)
            if (
                train_actor
                and config.surrogate == "clip"
                and config.target_kl
                and distributed.mean(_mean(epoch, "kl")) > config.target_kl
            ):
                break
        metrics = {name: _mean(records, name) for name in records[0]}
        assert rows is not None
        residual = (rows.returns - rows.values).var() / rows.returns.var().clamp_min(1e-12)
        metrics["explained_variance"] = 1.0 - residual.item()
        return self._end_update(rollout, metrics)

    def state_dict(self) -> dict[str, Any]:
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "prior": self.prior.state_dict() if self.prior is not None else {},
            "actor_adam": self.actor_adam.state_dict(),
            "critic_adam": self.critic_adam.state_dict(),
            "return_scale": self.return_scale.state_dict() if self.return_scale is not None else {},
            "statistics": self.statistics.state_dict() if self.statistics is not None else {},
            "updates": self.updates,
            "env_steps": self.env_steps,
            "kl_coef": self.actor_loss.kl_coef.clone(),
            "step_scale": self.step_scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        if self.prior is not None:
            self.prior.load_state_dict(state["prior"])
        self.actor_adam.load_state_dict(state["actor_adam"])
        self.critic_adam.load_state_dict(state["critic_adam"])
        if self.return_scale is not None:
            self.return_scale.load_state_dict(state["return_scale"])
        if self.statistics is not None:
            self.statistics.load_state_dict(state["statistics"])
        self.updates, self.env_steps = int(state["updates"]), int(state["env_steps"])
        self.actor_loss.kl_coef.copy_(state["kl_coef"])
        self.step_scale = float(state["step_scale"])

    def rank_state_dict(self) -> dict[str, Any]:
        scale = {} if self.return_scale is None else self.return_scale.rank_state_dict()
        return {"generator": self.generator.get_state(), "return_scale": scale}

    def load_rank_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        if self.return_scale is not None:
            self.return_scale.load_rank_state_dict(state["return_scale"])

    def _epoch(self, parts: list[tuple[Minibatch, int]], train_actor: bool) -> list[dict[str, Tensor]]:
        """Gradient steps of both networks, which share no parameters and so need not wait for each other."""
        actor = [self._actor_steps] if train_actor else []
        critic = [self._critic_steps] if self.config.baseline == "critic" else []

        def walk(steps: list[Callable[[Minibatch, int], dict[str, Tensor]]]) -> list[dict[str, Tensor]]:
            return [step(part, count) for step in steps for part, count in parts]

        actor_records, critic_records = self.pair(lambda: walk(actor), lambda: walk(critic))
        return [a | c for a, c in itertools.zip_longest(actor_records, critic_records, fillvalue={})]

    def _eager_actor_steps(self, rows: Minibatch, count: int) -> dict[str, Tensor]:
        """One gradient step from each of `count` minibatches; metrics (count,)."""

        def step(batch: Minibatch) -> dict[str, Tensor]:
            gradients, metrics = self._actor_gradients(batch)
            return metrics | {"grad_norm": self.actor_adam.step(gradients)}

        return _each(step, rows, count)

    def _eager_critic_steps(self, rows: Minibatch, count: int) -> dict[str, Tensor]:
        """Likewise of the critic."""

        def step(batch: Minibatch) -> dict[str, Tensor]:
            gradients, metrics = self._critic_gradients(batch)
            self.critic_adam.step(gradients)
            return metrics

        return _each(step, rows, count)

    @torch.no_grad()
    def _fixed_rows(self, rollout: Rollout) -> Minibatch:
        """The rollout as rows; targets are still empty."""
        obs, actions, executed = rollout.flat_obs(), rollout.actions.flatten(0, 1), rollout.executed.flatten(0, 1)
        log_probs = rollout.log_probs.flatten()
        prior = log_probs
        if self.prior is not None:
            pieces = zip(_pieces(obs), actions.split(EVAL_ROWS), executed.split(EVAL_ROWS))
            prior = torch.cat([self.prior.distribution(o).log_prob(a, e) for o, a, e in pieces])
        empty = log_probs.new_empty(0)
        return Minibatch(obs, actions, executed, log_probs, prior, empty, empty, empty)

    @torch.no_grad()
    def _with_targets(self, fixed: Minibatch, rollout: Rollout, rewards: Tensor, before: Minibatch | None) -> Minibatch:
        """Rows with values, returns and advantages under the current critic; `values` stay those before the update."""
        values, next_values = self._values(rollout)
        flags = (rollout.terminated, rollout.truncated)
        advantages = gae(rewards, values, next_values, rollout.discounts, *flags, self.config.gae_lambda)
        returns = advantages + values
        if self.config.baseline == "mean" or self.config.normalise_advantages:
            mean, std = distributed.mean_and_std(advantages)
            advantages = (advantages - mean) / (std + 1e-8 if self.config.normalise_advantages else 1.0)
        return fixed._replace(
            advantages=advantages.flatten(),
            returns=returns.flatten(),
            values=values.flatten() if before is None else before.values,
        )

    def _values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """(L, N) values of the observations and of their true successors; zeros without a learned baseline."""
        if self.config.baseline != "critic":
            return torch.zeros_like(rollout.rewards), torch.zeros_like(rollout.rewards)
        pieces = list(_pieces(rollout.flat_obs()))
        half = (len(pieces) + 1) // 2

        def evaluate(pieces: list[Observation]) -> list[Tensor]:
            return [self._evaluate(piece) for piece in pieces]

        parts = itertools.chain(*self.pair(lambda: evaluate(pieces[:half]), lambda: evaluate(pieces[half:])))
        values = torch.cat(list(parts)).view_as(rollout.rewards)
        ends = {k: torch.cat([v, rollout.final_obs[k]]) for k, v in rollout.last_obs.items()}
        # Their number varies, and a graph is for one number of rows.
        last, final = self._eager_evaluate(ends).tensor_split([rollout.num_envs])
        return values, rollout.next_values(values, last, final)

    def _eager_evaluate(self, obs: Observation) -> Tensor:
        return self.critic(obs)

    def _parts(self, rows: Minibatch) -> Iterator[tuple[Minibatch, int]]:
        """All rows once, in random order, a few minibatches at a time and how many; a last short one by itself.

        They are gathered for the whole epoch, so that a part is a view.
        """
        count = len(rows.log_probs)
        order = torch.randperm(count, generator=self.generator, device=self.device)
        size = min(self.batch_size or count, count)
        together = max(n for n in range(1, UNROLLED + 1) if count // size % n == 0)
        parts = rows.map(lambda field: field.index_select(0, order).split(size * together))
        keys = parts.obs.keys()
        for obs, rest in zip(zip(*parts.obs.values()), zip(*parts[1:])):
            yield Minibatch(dict(zip(keys, obs)), *rest), max(1, len(rest[0]) // size)

    def _set_step_sizes(self) -> None:
        config, left = self.config, 1.0
        if config.anneal and self.total_updates is not None:
            left = max(0.0, 1.0 - self.updates / self.total_updates)
        self.actor_adam.learning_rate.fill_(left * self.step_scale * config.learning_rate)
        self.critic_adam.learning_rate.fill_(left * (config.critic_learning_rate or config.learning_rate))

    def _follow_kl(self, kl: float) -> dict[str, float]:
        """Let the weight of the penalty and the step size answer to the KL of an update; metrics."""
        config, metrics = self.config, {}
        if config.surrogate == "kl" and config.target_kl:
            self.actor_loss.kl_coef *= 2.0 ** _beyond(kl, config.target_kl)
            metrics["kl_coef"] = self.actor_loss.kl_coef.item()
        if config.step_kl:
            self.step_scale = min(1.0, self.step_scale * 1.5 ** -_beyond(kl, config.step_kl))
            metrics["step_scale"] = self.step_scale
        return metrics

    def _end_update(self, rollout: Rollout, metrics: dict[str, float]) -> dict[str, float]:
        if "kl" in metrics:
            metrics |= self._follow_kl(distributed.mean(metrics["kl"]))
        if self.statistics is not None:
            self.statistics.observe(rollout.flat_obs())
        self.updates += 1
        self.env_steps += int(distributed.sum_(rollout.executed.sum()))
        metrics["env_steps"] = self.env_steps
        if rollout.episodes:
            count = len(rollout.episodes)
            metrics["return"] = sum(e.ret for e in rollout.episodes) / count
            metrics["episode_length"] = sum(e.length for e in rollout.episodes) / count
            metrics["success"] = sum(e.success for e in rollout.episodes) / count
        return metrics

    def _check(self, records: list[dict[str, Tensor]]) -> None:
        for name in records[0].keys() & {"policy_loss", "value_loss"}:
            values = torch.cat([record[name] for record in records])
            if not values.isfinite().all():
                raise TrainingError(
                    f"PPO's {name} is not finite in update {self.updates}; the last checkpoint is kept. "
                    "Lower learning_rate or clip, and look for extreme rewards or observations"
                )


def _each(step: Callable[[Minibatch], dict[str, Tensor]], rows: Minibatch, count: int) -> dict[str, Tensor]:
    """`step` on each of `count` equal parts; its metrics, stacked."""
    size = len(rows.log_probs) // count
    records = [step(rows.map(lambda field, i=i: field[i * size : (i + 1) * size])) for i in range(count)]
    return {name: torch.stack([record[name] for record in records]) for name in records[0]}


def _mean(records: list[dict[str, Tensor]], name: str) -> float:
    return torch.cat([record[name] for record in records]).mean().item()


def _beyond(kl: float, target: float) -> int:
    """1 well above the target, -1 well below, 0 near it (the bounds of Schulman et al. 2017, section 4)."""
    return int(kl > 1.5 * target) - int(kl < target / 1.5)


def _pieces(obs: Observation) -> Iterator[Observation]:
    """Parts of at most EVAL_ROWS rows."""
    splits = {k: v.split(EVAL_ROWS) for k, v in obs.items()}
    for parts in zip(*splits.values()):
        yield dict(zip(splits, parts))
