"""`robolearn train`: dataset files into a policy, by cloning or by their rewards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from robolearn.configuration.cloning import TrainConfig
from robolearn.configuration.parts.offline import CQLConfig, IQLConfig
from robolearn.errors import hint
from robolearn.seeds import ROLLOUT_SEED

if TYPE_CHECKING:
    from robolearn.imitation.bc import MakeLearner, PolicyEvaluation
    from robolearn.policies.policy import Policy


CONFIG = TrainConfig


def run(config: TrainConfig) -> int:
    from robolearn.imitation.bc import train_bc

    run_dir = config.run_dir
    again = hint("train", "--config", run_dir / "config.yaml", "--resume")
    resolved = replace(config, output=str(run_dir), resume=False)
    with rollout_evaluation(config) as evaluate:
        result = train_bc(
            resolved,
            run_dir,
            task=config.task,
            learner=learner_of(config),
            resume=config.resume,
            evaluate=evaluate,
            resume_hint=again,
        )
    figures = "".join(f", {name} {value:.4g}" for name, value in result.metrics.items() if name != "score")
    print(f"trained {result.steps} steps{figures}: {result.policy}")
    print(f"next: {hint('eval', result.policy)}")
    return 0


def learner_of(config: TrainConfig) -> MakeLearner:
    """Return the maker of the algorithm that `config.method` names."""
    from robolearn.imitation.bc import cloning

    method = config.method
    if isinstance(method, IQLConfig):
        from robolearn.rl.offline.iql import learn_implicitly

        return lambda policy, bc, train, windows: learn_implicitly(policy, bc, method, train, windows)
    if isinstance(method, CQLConfig):
        from robolearn.rl.offline.cql import learn_conservatively

        return lambda policy, bc, train, windows: learn_conservatively(policy, bc, method, train, windows)
    return cloning


@contextmanager
def rollout_evaluation(config: TrainConfig) -> Iterator[PolicyEvaluation | None]:
    """Give a function that rolls a policy out in its task, or None where no rollouts are asked for."""
    if not config.rollouts:
        yield None
        return
    from robolearn.configuration.parts.task import TaskConfig
    from robolearn.datasets.dataset import Dataset
    from robolearn.envs.adapted import fitted
    from robolearn.envs.make import make
    from robolearn.evaluation.evaluate import evaluate

    with Dataset(config.dataset, reading=config.reading) as dataset:
        task = config.task or TaskConfig.from_env_args(dict(dataset.env_args))
        data = dataset.interface()
    if keys := config.policy.obs_keys:
        data = replace(data, observation_spec=data.observation_spec.select(keys))
    seeds = list(range(ROLLOUT_SEED, ROLLOUT_SEED + config.rollouts))
    with make(task, min(config.num_envs, config.rollouts)) as env:
        fitted(env, data)  # refused now, not at the first evaluation

        def roll_out(policy: Policy, step: int) -> dict[str, float]:
            result = evaluate(policy, env, seeds)
            return {"eval_success": result.success_rate, "score": result.success_rate}

        yield roll_out
