"""Fine-tuning: the very policy that was cloned and corrected goes on learning, by PPO, from success.

policy folder -> rollouts in the task -> PPO (critic first, then both, held near the start) -> policy folder

Under torchrun the processes share out the environments, and the first one evaluates and writes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.rl import FinetuneConfig
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import env_for
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.policy_task import task_of
from robolearn.policies.build import build_policy
from robolearn.policies.folder import PolicyCard, load_policy
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.macro_steps import EpisodeDriver
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.collecting.sanity import no_reward
from robolearn.rl.collecting.shared_seeds import SharedSeeds
from robolearn.rl.networks import ValueNetwork
from robolearn.rl.ppo import PPO
from robolearn.storage import write_json
from robolearn.training import distributed
from robolearn.training.loop import RunState
from robolearn.training.run import Run, card_figures, open_run
from robolearn.training.seeding import untouched_rng

START_FILE = "start.json"
"""Evaluation before any update, so that a resumed run need not make it again."""


@dataclass(frozen=True, kw_only=True)
class FinetuneResult:
    """Outcome of fine-tuning."""

    policy: Path
    """The exported policy folder."""
    updates: int
    env_steps: int
    """Control steps practised."""
    start: dict[str, float]
    """Evaluation of the policy that training started from; empty without evaluation."""
    best: dict[str, float]
    """Evaluation of the exported policy, where it is the best one."""
    note: str = ""
    """Why the exported policy is the one that training started from, where no reward was ever seen."""


def finetune(
    config: FinetuneConfig,
    run_dir: str | Path,
    *,
    resume: bool = False,
    on_evaluation: Callable[[int, Mapping[str, float]], None] = lambda update, metrics: None,
    resume_hint: str = "fine-tune again with resume",
) -> FinetuneResult:
    """Improve the policy in `config.policy` and export it to `run_dir/policy`.

    Args:
        resume: go on where an earlier run in `run_dir` stopped; starts one where there is none.
        on_evaluation: told of each evaluation on training seeds, update 0 (before training) included.
    """
    task = task_of(config.policy, config.task)
    with open_run(config, run_dir, resume=resume, label="finetune", resume_hint=resume_hint) as run:
        policy = with_min_std(load_policy(config.policy, run.device), config.min_std)
        practice = replace(task, max_steps=config.max_steps or task.max_steps)
        num_envs = distributed.share_of(config.num_envs, "num_envs")
        made = run.resources.enter_context(make(practice, num_envs, device=task.physics_device(run.device)))
        env = env_for(policy, made, config.policy)
        judge = _Judge(config, task, run.device, on_evaluation)
        run.resources.callback(judge.close)
        run.begin()
        start = distributed.from_main(lambda: judge.start(policy, run.folder))
        run.seed()
        run.fit_threads(policy, rows=num_envs)
        critic = ValueNetwork.beside(policy, config.critic).to(run.device)
        algorithm = PPO(policy, critic, config.ppo, total_updates=config.loop.total_steps, seed=config.seed)
        source = make_collector(env, policy, config)
        evaluate = (lambda step: judge(policy, step)) if config.eval_episodes else None
        state = run.train(algorithm, source, evaluate=evaluate)
        seen = bool(distributed.sum_(torch.tensor(float(source.driver.saw_reward), device=run.device)))
        note = "" if seen else no_reward(source.env_steps, config.reward)
        best = distributed.from_main(lambda: _export(run, config, task, policy, start, state, note))
    return FinetuneResult(
        policy=run.policy,
        updates=state.step,
        env_steps=source.env_steps,
        start=start,
        best=best,
        note=note,
    )


def make_collector(env: VectorEnv, policy: Policy, config: FinetuneConfig) -> RolloutCollector:
    """Return the source of rollouts: training seeds only, the policy's own windows and chunks."""
    driver = EpisodeDriver(
        env,
        seeds=SharedSeeds(config.first_seed, config.num_seeds - config.eval_episodes),
        gamma=config.ppo.gamma,
        obs_keys=tuple(policy.observation_spec),
        obs_steps=policy.config.obs_steps,
        reward=config.reward,
        largest_obs=math.inf,  # the policy's normalisers know the magnitudes
        device=next(policy.parameters()).device,
    )
    generator = torch.Generator(driver.device).manual_seed(distributed.own_seed(config.seed))
    return RolloutCollector(driver, policy, config.ppo.num_steps, generator=generator, compile=config.ppo.compile)


def with_min_std(policy: Policy, min_std: float | None) -> Policy:
    """Return the policy with the same weights and a head whose deviations are at least `min_std`, where it can."""
    head = policy.config.head if min_std is None else policy.config.head.with_floor(min_std)
    if head == policy.config.head:
        return policy
    floored = replace(policy.config, head=head)
    result = build_policy(floored, policy.observation_spec, policy.action_spec)
    result.load_state_dict(policy.state_dict())
    return result.to(next(policy.parameters()).device).eval()


class _Judge:
    """Evaluates on the held-out training seeds; the environments are made at the first use and kept."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskConfig,
        device: torch.device,
        told: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        self.config, self.task, self.device, self.told = config, task, device, told
        self.env: VectorEnv | None = None

    def __call__(self, policy: Policy, update: int) -> dict[str, float]:
        """Return success rate, mean steps, and a score in which a faster success breaks ties."""
        if self.env is None:
            side_by_side = min(self.config.num_envs, self.config.eval_episodes)
            self.env = make(self.task, side_by_side, device=self.task.physics_device(self.device))
        with untouched_rng():
            result = evaluate(policy, self.env, list(self.config.eval_seeds))
        success, steps = result.success_rate, result.mean_steps
        worth = success if self.config.reward == "success" else result.mean_return
        metrics = {"eval_success": success, "eval_steps": steps, "eval_return": result.mean_return}
        self.told(update, metrics)
        return metrics | {"score": worth - 0.01 * steps / self.env.max_steps}

    def start(self, policy: Policy, run_dir: Path) -> dict[str, float]:
        """Return the metrics before any update, remembered in the run folder."""
        path = run_dir / START_FILE
        if not self.config.eval_episodes:
            return {}
        if path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        metrics = self(policy, 0)
        write_json(path, metrics)
        return metrics

    def close(self) -> None:
        if self.env is not None:
            self.env.close()


def _export(
    run: Run,
    config: FinetuneConfig,
    task: TaskConfig,
    policy: Policy,
    start: Mapping[str, float],
    state: RunState,
    note: str,
) -> dict[str, float]:
    """Export the policy that `config.export` asks for; returns its evaluation, empty where there was none.

    Args:
        note: why nothing was learned, where no reward was seen: then the policy is exported that training started from.
    """
    figures: dict[str, float] = dict(state.evaluation)
    update, origin = state.step, "the last update"
    if note:
        policy, figures, update = load_policy(config.policy), dict(start), 0
        origin = "not fine-tuned: the weights that training started from"
    elif config.export == "best" and state.best_score is not None:
        if state.best_score < start["score"]:
            original = load_policy(config.policy)
            policy, figures, update, origin = original, dict(start), 0, "no update was better"
        else:
            saved = run.best()
            assert saved is not None, "an evaluation with a score leaves a checkpoint"
            policy.load_state_dict(saved["algorithm"]["policy"])
            figures, update, origin = dict(saved["loop"]["evaluation"]), state.best_step, "the best evaluation"
    card = PolicyCard(
        task={"task": task.id, **task.kwargs},
        data={"episodes": f"its own, seeds from {config.first_seed}", "reward": config.reward},
        training={
            "algorithm": "PPO",
            "started from": config.policy,
            "update": f"{update} of {config.loop.total_steps} ({origin})",
            "learning rate": f"{config.ppo.learning_rate:g}",
            "seed": config.seed,
            **({"note": note} if note else {}),
        },
        evaluation=card_figures(figures),
    )
    run.export(policy, card, env_args=task.env_args())
    return figures
