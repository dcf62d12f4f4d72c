"""Training from scratch: an environment, an algorithm, and the common loop around them.

run/config.yaml  metrics.jsonl  tensorboard/  checkpoints/{latest,best}/  policy/

Under torchrun the processes share out the environments, the replay and each batch, and the first one evaluates and
writes: `torchrun --nproc_per_node 2 -m robolearn rl --config ...`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

from robolearn.configuration.parts.algorithms import DQNConfig, PPOConfig, SACConfig
from robolearn.configuration.rl import RLConfig
from robolearn.envs.interface import VectorEnv, discrete_actions
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.evaluation.evaluate import evaluate
from robolearn.policies.build import build_policy
from robolearn.policies.folder import PolicyCard
from robolearn.rl.collecting.demonstrations import Shape, open_demonstrations
from robolearn.rl.collecting.macro_steps import EpisodeDriver
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.collecting.rollout_collector import RolloutCollector
from robolearn.rl.collecting.sanity import LARGEST, no_reward
from robolearn.rl.collecting.shared_seeds import SharedSeeds
from robolearn.rl.critic_check import CriticCheck, drop_beyond
from robolearn.rl.dqn import DQN
from robolearn.rl.learner import Learner, Reporting
from robolearn.rl.networks import QEnsemble, ValueNetwork, orthogonal_start
from robolearn.rl.ppo import PPO
from robolearn.rl.reward.classified_env import make_judged
from robolearn.rl.running_statistics import ObservationStatistics
from robolearn.rl.sac import SAC
from robolearn.rl.td3 import TD3
from robolearn.seeds import RL_EVAL_SEED, run_seeds
from robolearn.specs import ActionSpec
from robolearn.training import distributed
from robolearn.training.loop import RunState, steps_made
from robolearn.training.run import card_figures, open_run


@dataclass(frozen=True, kw_only=True)
class RLResult:
    """Outcome of training from scratch."""

    run_dir: Path
    policy: Path
    """The exported policy folder."""
    updates: int
    env_steps: int
    metrics: dict[str, float]
    """Of the last evaluation."""
    note: str = ""
    """Why nothing was learned, where no reward was ever seen."""


def train_rl(config: RLConfig, *, resume: bool = False, resume_hint: str = "train again with resume") -> RLResult:
    """Train as `config` says, in `config.run_dir`; resumes bit for bit where the environment is deterministic."""
    label = f"rl {config.algorithm.name}"
    with open_run(config, config.run_dir, resume=resume, label=label, resume_hint=resume_hint) as run:
        num_envs = distributed.share_of(config.num_envs, "num_envs")
        physics = config.task.physics_device(run.device)
        env = make_judged(config.task, num_envs, config.reward_from, device=physics, networks=run.device)
        run.resources.enter_context(env)
        run.seed()
        learner = make_learner(config, env, run.device)
        run.fit_threads(*learner.networks, rows=learner.rows)
        judge: VectorEnv | None = None
        if config.eval_episodes and distributed.is_main():
            side_by_side = min(config.eval_episodes, max(8, num_envs))
            judge = run.resources.enter_context(make(config.task, side_by_side, device=physics))
        run.resources.callback(learner.close)
        evaluate = (lambda step: evaluation(config, learner, judge, run.folder, step)) if config.eval_episodes else None
        run.begin()
        if distributed.is_main():
            drop_beyond(run.folder, steps_made(run.folder))
        state = run.train(learner.algorithm, learner.source, evaluate=evaluate)
        (rewarded,) = distributed.any_of(learner.source.saw_reward)
        note = "" if rewarded else no_reward(learner.source.env_steps, config.reward)
        run.export(learner.actor, _card(config, learner, state, note), env_args=config.task.env_args())
    return RLResult(
        run_dir=run.folder,
        policy=run.policy,
        note=note,
        updates=state.step,
        env_steps=learner.source.env_steps,
        metrics=dict(state.evaluation),
    )


def make_learner(config: RLConfig, env: VectorEnv, device: torch.device) -> Learner:
    """Return the algorithm and its source; raises TaskError where the actions are not of the kind it needs."""
    algorithm = config.algorithm
    discrete = discrete_actions(env)
    if isinstance(algorithm, DQNConfig):
        return _make_dqn(config, env, discrete, device)
    if discrete is not None:
        raise TaskError(
            f"{config.task.id} has {discrete} discrete actions, {algorithm.name} needs continuous ones; "
            "use algorithm dqn, or another task"
        )
    policy = build_policy(config.actor, env.observation_spec, env.action_spec).to(device)
    driver = make_driver(config, env, policy.config.obs_steps, tuple(policy.observation_spec), device)
    if isinstance(algorithm, PPOConfig):
        orthogonal_start(policy)
        critic = ValueNetwork.beside(policy, config.critic).to(device)
        total = config.loop.total_steps
        ppo = PPO(policy, critic, algorithm, total_updates=total, seed=config.seed)
        generator = torch.Generator(device).manual_seed(distributed.own_seed(config.seed))
        source = RolloutCollector(driver, policy, algorithm.num_steps, generator=generator, compile=algorithm.compile)
        # PPO's updates have threads of their own: what the loop itself computes is one step of the environments.
        return Learner(algorithm=ppo, source=source, actor=policy, networks=(policy,), rows=env.num_envs)
    critic = QEnsemble.beside(policy, algorithm.critic).to(device)
    learner: SAC | TD3
    if isinstance(algorithm, SACConfig):
        learner = SAC(policy, critic, algorithm, seed=config.seed)
    else:
        learner = TD3(policy, critic, algorithm, seed=config.seed)
    shape = Shape.of(policy, gamma=algorithm.gamma, n_step=algorithm.n_step)
    demonstrations = open_demonstrations(
        config, env, policy.interface(f"the task {config.task.id}"), shape, device=device
    )
    replay = ReplayCollector(
        driver,
        learner,
        algorithm,
        exec_steps=policy.config.exec_steps,
        seed=config.seed,
        statistics=ObservationStatistics(*learner.networks) if algorithm.normalise_obs else None,
        demonstrations=demonstrations,
    )
    check = CriticCheck.of(critic, policy, algorithm, config.reward)
    return Learner(
        algorithm=Reporting(learner, replay),
        source=replay,
        actor=policy,
        networks=(policy, critic),
        rows=algorithm.batch_size,
        critic_check=check,
    )


def make_driver(
    config: RLConfig, env: VectorEnv, obs_steps: int, obs_keys: tuple[str, ...], device: torch.device
) -> EpisodeDriver:
    """Return a driver of episodes on seeds of this run's own."""
    own = run_seeds(config.seed)
    seeds = SharedSeeds(own.start, len(own))
    return EpisodeDriver(
        env,
        seeds=seeds,
        gamma=config.algorithm.gamma,
        obs_keys=obs_keys,
        obs_steps=obs_steps,
        reward=config.reward,
        largest_obs=math.inf if config.algorithm.normalise_obs else LARGEST,
        device=device,
    )


def evaluation(config: RLConfig, learner: Learner, env: VectorEnv | None, run_dir: Path, step: int) -> dict[str, float]:
    """Evaluate the policy's mode on the fixed evaluation seeds; the score is the mean return, or the rate of success
    where that is the reward.

    Critics of actions are asked about the episodes, and what they say is appended to a file in `run_dir`. Most
    Gymnasium tasks know no success: a rate of 0 is reported of those only that were told what success is.
    """
    assert env is not None, "only the first process evaluates"
    seeds, honest = list(range(RL_EVAL_SEED, RL_EVAL_SEED + config.eval_episodes)), {}
    if learner.critic_check is None:
        result = evaluate(learner.actor, env, seeds)
    else:
        result, report = learner.critic_check.evaluate(learner.actor, env, seeds)
        report.append_to(run_dir, step)
        honest = report.metrics()
    task = config.task
    told = task.gym_id is None or task.success_key is not None or task.success_threshold is not None
    return {
        "eval_return": result.mean_return,
        **({"eval_success": result.success_rate} if told or result.success_rate else {}),
        "eval_length": result.mean_steps,
        "env_steps": learner.source.env_steps,
        **honest,
        "score": result.mean_return if config.reward == "env" else result.success_rate,
    }


def _make_dqn(config: RLConfig, env: VectorEnv, discrete: int | None, device: torch.device) -> Learner:
    algorithm = config.algorithm
    assert isinstance(algorithm, DQNConfig)
    if discrete is None:
        raise TaskError(f"{config.task.id} has continuous actions, DQN needs discrete ones; use algorithm sac or ppo")
    policy = build_policy(config.actor, env.observation_spec, ActionSpec.choices(discrete)).to(device)
    dqn = DQN(policy, algorithm, seed=config.seed)
    driver = make_driver(config, env, policy.config.obs_steps, tuple(policy.observation_spec), device)
    statistics = ObservationStatistics(*dqn.networks) if algorithm.normalise_obs else None
    source = ReplayCollector(driver, dqn, algorithm, seed=config.seed, statistics=statistics)
    return Learner(
        algorithm=Reporting(dqn, source), source=source, actor=policy, networks=(policy,), rows=algorithm.batch_size
    )


def _card(config: RLConfig, learner: Learner, state: RunState, note: str) -> PolicyCard:
    return PolicyCard(
        task={"task": config.task.id, **config.task.kwargs},
        data={"episodes": "its own", "steps": learner.source.env_steps},
        training={
            "algorithm": config.algorithm.name.upper(),
            "updates": state.step,
            "seed": config.seed,
            **({"note": note} if note else {}),
        },
        evaluation=card_figures(state.evaluation),
    )
