"""Fine-tuning: the very policy that was cloned and corrected goes on learning by practice, from success.

policy folder -> judged -> practice in the task, one of the ways in `robolearn.rl.ways` -> judged again -> policy folder

Under torchrun the processes share out the environments, and the first one evaluates and writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.parts.ways import (
    ChainPPOConfig,
    ResidualConfig,
    ResidualPPOConfig,
    SACTuningConfig,
    SteeringConfig,
)
from robolearn.episodes.actor import env_for
from robolearn.errors import ConfigError
from robolearn.evaluation.compare import Comparison
from robolearn.evaluation.policy_task import task_of
from robolearn.policies.folder import PolicyCard, load_policy, policy_folder
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.sanity import no_reward
from robolearn.rl.critic_check import drop_beyond
from robolearn.rl.judge import Judge, got_worse
from robolearn.rl.learner import Learner
from robolearn.rl.person.beside import Attended, PersonBeside
from robolearn.rl.reward.classified_env import make_judged
from robolearn.rl.ways import chain_ppo, ppo, residual, residual_ppo, sac, steering
from robolearn.rl.ways.practice import Practice, corrected_env
from robolearn.training import distributed
from robolearn.training.loop import RunState, steps_made
from robolearn.training.run import Run, card_figures, open_run


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
    test: Comparison | None = None
    """The fine-tuned policy against the start on fresh seeds; None where no such test was made."""
    kept_start: bool = False
    """Whether the exported policy is the one that training started from."""
    note: str = ""
    """Why it is, or what is amiss with the exported one; empty where all is well."""


@dataclass(frozen=True, kw_only=True)
class _Verdict:
    """What was exported, and why."""

    figures: dict[str, float]
    """Evaluation of the exported policy; empty where there was none."""
    test: Comparison | None
    kept_start: bool
    note: str


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
        on_evaluation: told of each evaluation on held-out seeds, update 0 (before training) included.
    """
    task = task_of(config.policy, config.task)
    with open_run(config, run_dir, resume=resume, label="finetune", resume_hint=resume_hint) as run:
        _spare_the_start(config, run)
        policy = load_policy(config.policy, run.device)
        practised = replace(task, max_steps=config.max_steps or task.max_steps)
        num_envs = distributed.share_of(config.num_envs, "num_envs")
        physics = task.physics_device(run.device)
        person = None
        if config.corrector is not None and config.corrector.device:
            person = PersonBeside(config, practised, run.folder / "corrections.hdf5", resume_hint=resume_hint)
            run.resources.callback(person.close)
        made = make_judged(practised, num_envs, config.reward_from, device=physics, networks=run.device)
        run.resources.enter_context(made)
        env = env_for(policy, made, config.policy)
        practice = Practice(env=env, recording=None if person is None else person.path)
        if config.corrector is not None and person is None:
            corrected = corrected_env(config, policy, env, run.folder)
            run.resources.callback(corrected.close)
            practice = Practice(env=corrected, corrections=corrected)
        run.seed()
        learner = prepare(config, policy, practice, run.device)
        tuned = learner.actor
        judge = Judge(config, task, run.device, run.folder, on_evaluation)
        run.resources.callback(judge.close)
        run.resources.callback(learner.close)
        if person is not None:
            person.ready()
        run.begin()
        if person is not None:
            person.begin(tuned, resume=resume)
            learner = replace(learner, algorithm=Attended(learner.algorithm, person))
        if distributed.is_main():
            drop_beyond(run.folder, steps_made(run.folder))
        start = distributed.from_main(lambda: judge.start(load_policy(config.policy, run.device), resume=resume))
        run.fit_threads(*learner.networks, rows=learner.rows)
        evaluate = (lambda step: judge(tuned, step, learner.critic_check)) if config.eval_episodes else None
        state = run.train(learner.algorithm, learner.source, evaluate=evaluate)
        if person is not None:
            person.close("the learner has made all its updates")
        (rewarded,) = distributed.any_of(learner.source.saw_reward)
        note = "" if rewarded else no_reward(learner.source.env_steps, config.reward)
        beside = "" if person is None else person.summary()
        verdict = distributed.from_main(
            lambda: _export(run, config, task, learner, tuned, judge, start, state, note, beside)
        )
    return FinetuneResult(
        policy=run.policy,
        updates=state.step,
        env_steps=learner.source.env_steps,
        start=start,
        best=verdict.figures,
        test=verdict.test,
        kept_start=verdict.kept_start,
        note=verdict.note,
    )


def prepare(config: FinetuneConfig, policy: Policy, practice: Practice, device: torch.device) -> Learner:
    """Return the learner of the way that `config.method` names; it may train `policy` itself."""
    method = config.method
    if isinstance(method, ChainPPOConfig):
        return chain_ppo.prepare(config, method, policy, practice, device)
    if isinstance(method, ResidualConfig):
        return residual.prepare(config, method, policy, practice, device)
    if isinstance(method, ResidualPPOConfig):
        return residual_ppo.prepare(config, method, policy, practice, device)
    if isinstance(method, SteeringConfig):
        return steering.prepare(config, method, policy, practice, device)
    if isinstance(method, SACTuningConfig):
        return sac.prepare(config, method, policy, practice, device)
    return ppo.prepare(config, method, policy, practice, device)


def _spare_the_start(config: FinetuneConfig, run: Run) -> None:
    """Raise ConfigError where the exported policy would be written over the one that training starts from."""
    start = policy_folder(config.policy)
    if run.policy.exists() and run.policy.samefile(start):
        raise ConfigError(
            f"output {run.folder} is where the policy to start from lies ({start}); it is never written over: "
            "name another output"
        )


def _export(
    run: Run,
    config: FinetuneConfig,
    task: TaskConfig,
    learner: Learner,
    tuned: Policy,
    judge: Judge,
    start: Mapping[str, float],
    state: RunState,
    note: str,
    beside: str,
) -> _Verdict:
    """Export the policy that `config.export` asks for, or the one that training started from where that is better.

    Args:
        tuned: the learner's policy, which its algorithm brings back to the best checkpoint.
        note: why nothing was learned, where no reward was seen.
        beside: what a person's session brought; empty where there was none.
    """
    original, test = load_policy(config.policy, run.device), None
    best = config.export == "best"
    if not note and best and state.best_score is not None and state.best_score < start["score"]:
        note = f"the policy got worse: no evaluation came up to that of the start ({start['eval_success']:.0%} solved)"
    policy, figures, update, origin = tuned, dict(state.evaluation), state.step, "the last update"
    keep_start = bool(note)
    if not keep_start:
        if best:
            saved = run.best()
            assert saved is not None, "an evaluation with a score leaves a checkpoint"
            learner.algorithm.load_state_dict(saved["algorithm"])
            figures, update, origin = dict(saved["loop"]["evaluation"]), state.best_step, "the best evaluation"
        test = judge.test(original, policy)
        if got_worse(test):
            note, keep_start = f"the policy got worse: {test}", best
    if keep_start:
        policy, figures, update, origin = (
            original,
            dict(start),
            0,
            "not fine-tuned: the policy that training began with",
        )
    card = PolicyCard(
        task={"task": task.id, **task.kwargs},
        data={
            "episodes": f"its own, seeds from {config.first_seed}",
            **({"at the device": beside} if beside else {}),
            "reward": config.reward_from or config.reward,
        },
        training={
            "algorithm": config.method.name.upper(),
            "started from": config.policy,
            "update": f"{update} of {config.loop.total_steps} ({origin})",
            "learning rate": f"{config.method.learning_rate:g}",
            "seed": config.seed,
            **({"note": note} if note else {}),
        },
        evaluation=card_figures(figures) | ({"test": str(test)} if test else {}),
    )
    run.export(policy, card, env_args=task.env_args())
    return _Verdict(figures=figures, test=test, kept_start=keep_start, note=note)
