"""An evaluation as one command: several policies, the same seeds, figures, comparison and report in a folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from robolearn.configuration.evaluation import EvalConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.tree import write_yaml
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.checks import ignores_seeds
from robolearn.envs.experts import make_expert
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import env_for
from robolearn.errors import PolicyError, printable
from robolearn.evaluation.compare import compare_in_turn
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.policy_task import task_of
from robolearn.evaluation.report import Stage, write_report
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult
from robolearn.evaluation.video import Film, film, film_task
from robolearn.policies.folder import load_policy, policy_folder
from robolearn.policies.policy import Policy
from robolearn.specs import Actor
from robolearn.training.progress import Progress
from robolearn.training.threads import fitting_threads


def run_evaluation(config: EvalConfig) -> list[str]:
    """Evaluate, write `<name>.json` for each policy and `report.html`, and return lines for the terminal.

    Raises, before anything is written, PolicyError where a policy cannot be run as asked, and ConfigError where the
    folder holds another evaluation.
    """
    folder, folders = config.folder, [policy_folder(path) for path in config.policies]
    policies = [load_policy(path) for path in folders]
    for path, policy in zip(folders, policies):
        if (config.exec_steps or 1) > policy.config.pred_steps:
            raise PolicyError(
                f"exec_steps {config.exec_steps} is more than {path} predicts ({policy.config.pred_steps}); take fewer"
            )
    task = task_of(folders[0], config.task) if folders else config.task
    assert task is not None
    config = replace(config, task=task, output=str(folder))
    check_same_inputs(config, folder / "config.yaml", output=folder)
    names = _names(folders)
    results: list[EvaluationResult] = []
    reference: EvaluationResult | None = None
    with make(task, min(config.num_envs, config.episodes)) as env:
        envs = [env_for(policy, env, path) for path, policy in zip(folders, policies)]
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(config, folder / "config.yaml")
        if unseeded := ignores_seeds(env, config.seed):
            print(f"note: {unseeded}", file=sys.stderr)
        for name, policy, own in zip(names, policies, envs):
            with fitting_threads(policy, rows=env.num_envs):
                results.append(_evaluate(_runner(policy, env, config), own, config, name, unseeded))
        if config.expert:
            reference = _evaluate(make_expert(config.expert, env), env, config, "demonstrator", unseeded)
    notes = [f"note: {r.name}: {note}" for r in (*results, reference) if r for note in r.notes if note != unseeded]
    if not results:
        return [str(reference), *notes]
    films = [_film(config, task, policy, folder / f"{name}.mp4") for name, policy in zip(names, policies)]
    stages = [Stage(name=name, result=r, film=f) for name, r, f in zip(names, results, films)]
    report = write_report(folder, stages, title=task.id.removeprefix("gym:"), reference=reference)
    shown = [*results, *([reference] if reference else []), *compare_in_turn(results)]
    return [*map(str, shown), *notes, f"report: {report}"]


def _names(folders: Sequence[Path]) -> list[str]:
    """Short and distinct: the folder's name, or the run's where that is just `policy`."""
    names = [f.parent.name if f.name == "policy" and f.parent.name else f.name for f in folders]
    names = [printable(name) for name in names]
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names, start=1)]


def _runner(policy: Policy, env: VectorEnv, config: EvalConfig) -> PolicyRunner:
    return PolicyRunner(
        policy,
        env.num_envs,
        deterministic=not config.sample,
        exec_steps=config.exec_steps,
        temporal_ensemble=config.temporal_ensemble,
    )


def _evaluate(actor: Actor, env: VectorEnv, config: EvalConfig, name: str, unseeded: str) -> EvaluationResult:
    """Evaluate and save; interrupted, what is finished is saved.

    Args:
        unseeded: how the environment ignores seeds, where it does.
    """
    path, finished = Path(config.output) / f"{name}.json", []
    with Progress(f"evaluate {name}", config.episodes, unit="episode") as progress:

        def on_episode(record: EpisodeRecord) -> None:
            finished.append(record)
            progress.update(len(finished))

        try:
            result = evaluate(
                actor,
                env,
                config.seeds,
                name=name,
                deterministic=not config.sample,
                record="trajectory",
                on_episode=on_episode,
            )
        except KeyboardInterrupt:
            part = EvaluationResult(
                name=name,
                env_args=env.env_args,
                control_hz=env.control_hz,
                deterministic=not config.sample,
                episodes=tuple(sorted(finished, key=lambda record: record.seed)),
            )
            print(f"\n{part} so far, in {part.save(path)}; the same command begins it anew", file=sys.stderr)
            raise
    if unseeded:
        result = replace(result, repeatable=False, notes=(unseeded, *result.notes))
    result.save(path)
    return result


def _film(config: EvalConfig, task: TaskConfig, policy: Policy, path: Path) -> Film | None:
    if not config.videos:
        return None
    with make(film_task(task), 1) as env:
        return film(_runner(policy, env, config), env_for(policy, env), config.seeds[: config.videos], path)
