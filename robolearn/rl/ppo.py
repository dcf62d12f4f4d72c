"""Proximal policy optimisation (Schulman et al. 2017) of any policy with an exact likelihood.

    rollout -> values -> advantages (GAE) -> minibatches: ratio, surrogate, value error -> clipped Adam steps

The ratio is between densities of the raw, unclipped samples, and the policy stays in evaluation mode (no dropout), so
that it is one on the first minibatch of every update.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import PPOConfig
from robolearn.envs.interface import Observation
from robolearn.errors import PolicyError, TrainingError
from robolearn.policies.chain_policy import ChainPolicy
from robolearn.policies.distributions import ActionDistribution
from robolearn.policies.noise import BatchNoise
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.macro_steps import episode_metrics
from robolearn.rl.collecting.rollout_collector import Rollout
from robolearn.rl.collecting.shown_windows import Shown, ShownWindows
from robolearn.rl.engine.compiling import compiled
from robolearn.rl.engine.loss_optimiser import LossOptimiser, trainable
from robolearn.rl.engine.minibatches import shuffled_minibatches, split_observation
from robolearn.rl.engine.saving import load_states, states_of
from robolearn.rl.engine.side_by_side import SideBySide
from robolearn.rl.returns import gae
from robolearn.rl.running_statistics import ObservationStatistics, ReturnScale
from robolearn.training import distributed
from robolearn.training.threads import fitting_threads

EVAL_ROWS = 4096
"""Rows evaluated at once outside the gradient steps, a bound on memory."""


class Minibatch(NamedTuple):
    """B rows of a rollout."""

    obs: Observation
    """(B, To, ...)."""
    actions: Tensor
    """(B, Tp, A), or the (B, K' + 1, Tp, A) states of decisions in K' steps."""
    executed: Tensor
    """(B, Tp) bool."""
    log_probs: Tensor
    """(B,) under the policy that acted, pi_old; (B, K') of decisions in K' steps."""
    prior_log_probs: Tensor
    """As `log_probs`, under the policy that training started from, pi_0."""
    advantages: Tensor
    """(B,) A."""
    values: Tensor
    """(B,) V_old, before the update."""
    returns: Tensor
    """(B,) R, the critic's regression targets."""
    shown: Shown | None = None
    """B windows of demonstrations, where there is a cloning loss."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Minibatch:
        """Apply a function to every tensor."""
        shown = None if self.shown is None else self.shown.map(function)
        tensors: tuple[Tensor, ...] = self[1:-1]
        return Minibatch({k: function(v) for k, v in self.obs.items()}, *map(function, tensors), shown=shown)

    def split(self, size: int) -> list[Minibatch]:
        """Cut into parts of `size` rows, the last one shorter where they do not come out even; parts are views."""
        shown = repeat(None) if self.shown is None else self.shown.split(size)
        parts = zip(split_observation(self.obs, size), *(field.split(size) for field in self[1:-1]), shown)
        return [Minibatch(*fields) for fields in parts]


class ActorLoss(nn.Module):
    """The surrogate objective with its penalties, negated."""

    kl_coef: Tensor
    prior_coef: Tensor
    cloning_coef: Tensor

    def __init__(self, policy: Policy | ChainPolicy, config: PPOConfig, generator: torch.Generator | None) -> None:
        """
        Args:
            generator: of the samples of an entropy bonus; None uses torch's global one.
        """
        super().__init__()
        self.policy, self.config, self.generator = policy, config, generator
        device = next(policy.parameters()).device
        self.register_buffer("kl_coef", torch.ones((), device=device))
        self.register_buffer("prior_coef", torch.full((), config.prior_coef, device=device))
        self.register_buffer("cloning_coef", torch.zeros((), device=device))
        self.clip: Any = config.clip
        """One number, or a tensor (K',)."""

    def credit(self, advantages: Tensor) -> Tensor:
        """Return what of the advantages (B,) each log-probability answers for: all of it."""
        return advantages

    def forward(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss, and metrics (detached scalars)."""
        config = self.config
        distribution = self.policy.distribution(batch.obs)
        log_probs = distribution.log_prob(batch.actions, batch.executed)  # (B,) log pi(a|s), or (B, K')
        advantages = self.credit(batch.advantages)
        log_ratio = log_probs - batch.log_probs
        ratio = log_ratio.exp()  # r = pi(a|s) / pi_old(a|s)
        kl = (ratio - 1.0 - log_ratio).mean()  # KL(pi_old || pi) ~ E[r - 1 - log r], never negative (Schulman 2020)
        if config.surrogate == "clip":
            clipped = ratio.clamp(1.0 - self.clip, 1.0 + self.clip)
            loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()  # -E[min(r A, clip(r) A)]
        else:
            loss = -(ratio * advantages).mean() + self.kl_coef * kl  # -E[r A] + beta KL
        metrics = {"kl": kl.detach(), "ratio": ratio.detach().mean(), "policy_loss": loss.detach()}
        metrics["clip_fraction"] = ((ratio.detach() - 1.0).abs() > self.clip).float().mean()
        if config.prior_coef:
            # On samples of the policy itself, half the squared log-ratio has the gradient of KL(pi || pi_0).
            distance = 0.5 * (log_probs - batch.prior_log_probs).square().mean()  # E[(log pi - log pi_0)^2] / 2
            loss = loss + self.prior_coef * distance
            metrics["prior_kl"] = distance.detach()
        if batch.shown is not None:
            cloning = cloning_loss(self.policy, batch.shown)
            loss = loss + self.cloning_coef * cloning
            metrics["cloning_loss"] = cloning.detach()
        if config.entropy_coef and isinstance(distribution, ActionDistribution):
            noise = BatchNoise(len(log_probs), log_probs.device, self.generator)
            entropy = distribution.entropy(noise).mean()  # E[H(pi(.|s))]
            loss = loss - config.entropy_coef * entropy
            metrics["entropy"] = entropy.detach()
        return loss, metrics


def cloning_loss(policy: Policy | ChainPolicy, shown: Shown) -> Tensor:
    """Return the head's own loss, a scalar, of imitating demonstrations: with a density, -E[log pi(a|s)] per step."""
    cloned = policy.policy if isinstance(policy, ChainPolicy) else policy
    actions = cloned.action_normaliser.normalise(shown.actions)
    return cloned.head.loss(cloned.features(shown.obs), actions, shown.valid)[0].mean()


class CriticLoss(nn.Module):
    """Half the mean squared error of the values, each at most as good as its clipped version where asked."""

    def __init__(self, critic: nn.Module, config: PPOConfig) -> None:
        super().__init__()
        self.critic, self.config = critic, config

    def forward(self, batch: Minibatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the scalar loss, and metrics (detached scalars)."""
        values = self.critic(batch.obs)  # (B,) V(s)
        error = (values - batch.returns).square()  # (V - R)^2
        if (limit := self.config.value_clip) is not None:
            clipped = batch.values + (values - batch.values).clamp(-limit, limit)
            error = torch.maximum(
                error, (clipped - batch.returns).square()
            )  # max of it and (V_old + clip(V - V_old) - R)^2
        loss = 0.5 * error.mean()
        return loss, {"value_loss": loss.detach()}


class PPO:
    """Updates a policy and its critic from rollouts; an algorithm of the common training loop.

    Where several processes train together, each has environments of its own, and `batch_size` counts the rows of all:
    gradients, advantages and statistics are those of one process with all the environments.
    """

    def __init__(
        self,
        policy: Policy | ChainPolicy,
        critic: nn.Module,
        config: PPOConfig,
        *,
        total_updates: int | None = None,
        seed: int = 0,
        shown: ShownWindows | None = None,
    ) -> None:
        """
        Args:
            critic: (B, To, ...) observation windows -> (B,) values.
            total_updates: how many updates the run has, for `anneal`.
            shown: demonstrations that a cloning loss goes back to.

        Raises PolicyError where the policy has no exact likelihood.
        """
        check_exact_likelihood(policy)
        self.policy, self.critic, self.config = policy.eval(), critic.eval(), config
        self.batch_size = distributed.share_of(config.batch_size, "batch_size")
        distributed.broadcast_(policy, critic)
        self.prior = copy.deepcopy(policy).requires_grad_(False) if config.prior_coef else None
        self.device = next(policy.parameters()).device
        self.generator = torch.Generator(self.device).manual_seed(distributed.own_seed(seed))
        # A compiled update draws from torch's global generator: graphs do not take others.
        self.actor_loss = self._make_actor_loss(None if config.compile else self.generator)
        engine: dict[str, Any] = {"eps": 1e-5, "max_grad_norm": config.max_grad_norm, "compile": config.compile}
        self.critic_learning_rate = config.critic_learning_rate or config.learning_rate
        self.actor_optimiser = LossOptimiser(
            self.actor_loss, trainable(policy), learning_rate=config.learning_rate, **engine
        )
        self.critic_optimiser = LossOptimiser(
            CriticLoss(critic, config),
            trainable(critic),
            learning_rate=self.critic_learning_rate,
            norm_name=None,
            **engine,
        )
        self._evaluate = compiled(self._eager_evaluate) if config.compile else self._eager_evaluate
        # Compiled steps of one process run beside each other; several processes must reduce gradients in one order.
        alone = distributed.world_size() == 1
        self.side_by_side = SideBySide(enabled=config.compile and self.device.type == "cpu" and alone)
        self.return_scale = ReturnScale(config.gamma) if config.normalise_returns else None
        self.statistics = ObservationStatistics(policy, critic) if config.normalise_obs else None
        self.shown, self.total_updates, self.updates, self.env_steps = shown, total_updates, 0, 0
        self.step_scale = 1.0

    def _make_actor_loss(self, generator: torch.Generator | None) -> ActorLoss:
        return ActorLoss(self.policy, self.config, generator)

    def update(self, batch: Rollout) -> dict[str, float]:
        """Improve on a rollout that the current policy collected; return metrics."""
        config, size = self.config, self.batch_size or batch.rewards.numel()
        with fitting_threads(self.policy, self.critic, rows=size, jobs=self.side_by_side.jobs):
            if self.statistics is not None and self.updates == 0:
                # The first rollout only sets the scales: the policy stays one function while it learns from a rollout.
                return self._finish(batch, {})
            self._set_step_sizes()
            rewards = batch.rewards if self.return_scale is None else self.return_scale.apply(batch)
            trains_actor, trains_critic = self.updates >= config.critic_warmup, config.baseline == "critic"
            rows, epochs = self._rows(batch), []
            for epoch in range(config.epochs):
                if epoch == 0 or config.recompute_advantages:
                    rows = self._with_targets(rows, batch, rewards)
                if self.shown is not None and trains_actor:
                    rows = rows._replace(shown=self.shown.draw(len(rows.log_probs), self.generator))
                minibatches = shuffled_minibatches(rows, len(rows.log_probs), size, self.generator)
                # The networks share no parameters, so neither waits for the other.
                actor, critic = self.side_by_side(
                    partial(self.actor_optimiser.steps, minibatches) if trains_actor else dict,
                    partial(self.critic_optimiser.steps, minibatches) if trains_critic else dict,
                )
                epochs.append(actor | critic)
                self._check_finite(epochs[-1])
                if trains_actor and self._moved_enough(epochs[-1]["kl"]):
                    break
            metrics = {name: torch.cat([e[name] for e in epochs]).mean().item() for name in epochs[0]}
            residual = (rows.returns - rows.values).var() / rows.returns.var().clamp_min(1e-12)
            metrics["explained_variance"] = 1.0 - residual.item()  # 1 - Var[R - V_old] / Var[R]
            return self._finish(batch, metrics)

    def state_dict(self) -> dict[str, Any]:
        return {
            **states_of(self._parts()),
            "updates": self.updates,
            "env_steps": self.env_steps,
            "kl_coef": self.actor_loss.kl_coef.clone(),
            "step_scale": self.step_scale,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load_states(self._parts(), state)
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

    def _parts(self) -> dict[str, Any]:
        names = ("policy", "critic", "prior", "actor_optimiser", "critic_optimiser", "return_scale", "statistics")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def _rows(self, rollout: Rollout) -> Minibatch:
        """Return the L * N rows of a rollout; advantages, values and returns are still empty."""
        obs, actions, executed = rollout.flat_obs(), rollout.actions.flatten(0, 1), rollout.executed.flatten(0, 1)
        log_probs = rollout.log_probs.flatten(0, 1)
        prior = log_probs
        if self.prior is not None:
            pieces = zip(split_observation(obs, EVAL_ROWS), actions.split(EVAL_ROWS), executed.split(EVAL_ROWS))
            prior = torch.cat([self.prior.distribution(o).log_prob(a, e) for o, a, e in pieces])
        empty = log_probs.new_empty(0)
        return Minibatch(obs, actions, executed, log_probs, prior, empty, empty, empty)

    @torch.no_grad()
    def _with_targets(self, rows: Minibatch, rollout: Rollout, rewards: Tensor) -> Minibatch:
        """Return the rows with advantages and returns under the current critic; values stay those of the first time.

        Args:
            rewards: (L, N), scaled where that is asked for.
        """
        config = self.config
        if config.baseline != "critic":
            self._check_ended(rollout)
        values, next_values = self._values(rollout)  # (L, N) each
        ends = (rollout.terminated, rollout.truncated)
        advantages = gae(rewards, values, next_values, rollout.discounts, *ends, config.gae_lambda)
        returns = advantages + values  # R = A + V
        if config.baseline == "mean" or config.normalise_advantages:
            # Without a critic the returns of episodes that the rollout cuts off are not known: they have no say.
            known = advantages if config.baseline == "critic" else advantages[rollout.ended]
            mean, std = distributed.mean_and_std(known)
            mean = torch.zeros_like(mean) if config.baseline == "none" else mean
            advantages = (advantages - mean) / (std + 1e-8 if config.normalise_advantages else 1.0)
        if config.baseline != "critic":
            advantages = torch.where(rollout.ended, advantages, 0.0)
        return rows._replace(
            advantages=advantages.flatten(),
            returns=returns.flatten(),
            values=rows.values if len(rows.values) else values.flatten(),
        )

    def _values(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return (L, N) values of the observations and of their true successors; zeros without a learned baseline."""
        if self.config.baseline != "critic":
            return torch.zeros_like(rollout.rewards), torch.zeros_like(rollout.rewards)
        pieces = self.side_by_side.map(self._evaluate, split_observation(rollout.flat_obs(), EVAL_ROWS))
        values = torch.cat(pieces).view_as(rollout.rewards)
        ends = {k: torch.cat([v, rollout.final_obs[k]]) for k, v in rollout.last_obs.items()}  # (N + M, To, ...)
        # Their number varies, and a graph is for one number of rows.
        last, final = self._eager_evaluate(ends).tensor_split([rollout.num_envs])
        return values, rollout.next_values(values, last, final)

    def _eager_evaluate(self, obs: Observation) -> Tensor:
        return self.critic(obs)

    def _moved_enough(self, kl: Tensor) -> bool:
        """Tell whether the KLs (steps,) of an epoch end an update of the clipped surrogate."""
        config = self.config
        if config.surrogate != "clip" or not config.target_kl:
            return False
        return distributed.mean(kl.mean().item()) > config.target_kl

    def _set_step_sizes(self) -> None:
        config, left = self.config, 1.0
        if config.anneal and self.total_updates is not None:
            left = max(0.0, 1.0 - self.updates / self.total_updates)
        hold = config.prior_decay**self.updates
        self.actor_loss.prior_coef.fill_(hold * config.prior_coef)
        self.actor_loss.cloning_coef.fill_(hold * (self.shown.weight if self.shown else 0.0))
        self.actor_optimiser.adam.learning_rate.fill_(left * self.step_scale * config.learning_rate)
        self.critic_optimiser.adam.learning_rate.fill_(left * self.critic_learning_rate)

    def _follow_kl(self, kl: float) -> dict[str, float]:
        """Let the weight of the penalty and the step size answer to the KL of an update; return both as metrics."""
        config, metrics = self.config, {}
        if config.surrogate == "kl" and config.target_kl:
            self.actor_loss.kl_coef *= 2.0 ** _beyond(kl, config.target_kl)  # beta doubles or halves
            metrics["kl_coef"] = self.actor_loss.kl_coef.item()
        if config.step_kl:
            self.step_scale = min(1.0, self.step_scale * 1.5 ** -_beyond(kl, config.step_kl))
            metrics["step_scale"] = self.step_scale
        return metrics

    def _finish(self, rollout: Rollout, metrics: dict[str, float]) -> dict[str, float]:
        """Adapt to the KL, learn the observations' statistics and count; return the metrics with those of episodes."""
        if "kl" in metrics:
            metrics |= self._follow_kl(distributed.mean(metrics["kl"]))
        if self.statistics is not None:
            self.statistics.observe(rollout.flat_obs())
        self.updates += 1
        self.env_steps += int(distributed.sum_(rollout.executed.sum()))
        return metrics | {"env_steps": self.env_steps} | episode_metrics(rollout.episodes)

    def _check_ended(self, rollout: Rollout) -> None:
        """Raise TrainingError where no episode ended: without a critic only whole returns say anything."""
        if int(distributed.sum_(rollout.ended.sum())) < 2:
            raise TrainingError(
                f"no episode ended within a rollout of {rollout.num_steps} steps, and with baseline "
                f"{self.config.baseline} only the returns of episodes that end there are known; raise num_steps, "
                "shorten the episodes (task.max_steps), or use baseline critic"
            )

    def _check_finite(self, metrics: dict[str, Tensor]) -> None:
        """Raise TrainingError where a loss is not finite."""
        for name in metrics.keys() & {"policy_loss", "value_loss"}:
            if not metrics[name].isfinite().all():
                raise TrainingError(
                    f"PPO's {name} is not finite in update {self.updates}; the last checkpoint is kept. "
                    "Lower learning_rate or clip, and look for extreme rewards or observations"
                )


def _beyond(kl: float, target: float) -> int:
    """Return 1 well above the target, -1 well below, 0 near it (the bounds of Schulman et al. 2017, section 4)."""
    return int(kl > 1.5 * target) - int(kl < target / 1.5)


def check_exact_likelihood(policy: Policy | ChainPolicy) -> None:
    """Raise PolicyError where the density of actions is not known, which PPO's ratio is made of."""
    if isinstance(policy, Policy) and not policy.exact_likelihood:
        raise PolicyError(
            f"PPO needs the exact log-probability of actions, which a policy of {policy.kind} does not have; take a "
            "gaussian, mixture or autoregressive head, or fine-tune a cloned policy by a way that does without "
            "(finetune --method residual, for diffusion and flow --method chain_ppo or steering)"
        )
