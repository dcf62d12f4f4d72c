"""An evaluation as one command: several policies, the same seeds, figures, comparison and report in a folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from robolearn.configuration.evaluation import EvalConfig
from robolearn.configuration.task import TaskConfig
from robolearn.configuration.tree import write_yaml
from robolearn.envs.experts import make_expert
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.evaluation.compare import compare_in_turn
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.policy_task import task_of
from robolearn.evaluation.report import Stage, write_report
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult
from robolearn.evaluation.video import Film, film, film_task
from robolearn.policies.folder import CONFIG_FILE, load_policy
from robolearn.policies.policy import Policy
from robolearn.specs import Actor
from robolearn.training.progress import Progress


def run_evaluation(config: EvalConfig) -> list[str]:
    """Evaluate, write `<name>.json` for each policy and `report.html`, and return lines for the terminal."""
    folder, folders = Path(config.output), [policy_folder(path) for path in config.policies]
    policies = [load_policy(path) for path in folders]
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(config, folder / "config.yaml")
    task = task_of(folders[0], config.task) if folders else config.task
    assert task is not None
    names = _names(folders)
    results: list[EvaluationResult] = []
    reference: EvaluationResult | None = None
    with make(task, min(config.num_envs, config.episodes)) as env:
        for name, policy in zip(names, policies):
            results.append(_evaluate(policy, env, config, name))
        if config.expert:
            reference = _evaluate(make_expert(config.expert, env), env, config, "demonstrator")
    if not results:
        return [str(reference)]
    films = [_film(config, task, policy, folder / f"{name}.mp4") for name, policy in zip(names, policies)]
    stages = [Stage(name=name, result=r, film=f) for name, r, f in zip(names, results, films)]
    report = write_report(folder, stages, title=task.id.removeprefix("gym:"), reference=reference)
    shown = [*results, *([reference] if reference else []), *compare_in_turn(results)]
    return [*map(str, shown), f"report: {report}"]


def policy_folder(path: str) -> Path:
    """The policy folder that `path` names: itself, or `policy` inside a run folder."""
    folder = Path(path)
    inner = folder / "policy"
    return inner if (inner / CONFIG_FILE).exists() else folder


def _names(folders: Sequence[Path]) -> list[str]:
    """Short and distinct: the folder's name, or the run's where that is just `policy`."""
    names = [f.parent.name if f.name == "policy" and f.parent.name else f.name for f in folders]
    return [n if names.count(n) == 1 else f"{n}_{i}" for i, n in enumerate(names, start=1)]


def _evaluate(actor: Policy | Actor, env: VectorEnv, config: EvalConfig, name: str) -> EvaluationResult:
    """Evaluate and save; interrupted, what is finished is saved."""
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
            print(f"\n{part} so far, in {part.save(path)}; to go on, run the same again", file=sys.stderr)
            raise
    result.save(path)
    return result


def _film(config: EvalConfig, task: TaskConfig, policy: Policy, path: Path) -> Film | None:
    if not config.videos:
        return None
    with make(film_task(task), 1) as env:
        return film(policy, env, config.seeds[: config.videos], path)
