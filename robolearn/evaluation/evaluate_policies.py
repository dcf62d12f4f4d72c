"""An evaluation as one command: several policies, the same seeds, figures, comparison and report in a folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
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
from robolearn.errors import ConfigError, PolicyError, hint, printable
from robolearn.evaluation.compare import compare_in_turn
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.policy_task import task_of
from robolearn.evaluation.report import REPORT, Stage, write_report
from robolearn.evaluation.results import EvaluationResult
from robolearn.evaluation.video import Film, film, film_task
from robolearn.policies.folder import load_policy, policy_checksum, policy_folder
from robolearn.policies.policy import Policy
from robolearn.specs import Actor
from robolearn.training.progress import Progress
from robolearn.training.threads import fitting_threads

DEMONSTRATOR = "demonstrator"
TAKEN = frozenset({DEMONSTRATOR, Path(REPORT).stem})
"""Names of other files of an evaluation's folder, which no policy goes by."""


def run_evaluation(config: EvalConfig) -> list[str]:
    """Evaluate, write `<name>.json` for each policy and `report.html`, and return lines for the terminal.

    With `resume`, what the folder holds of the same evaluation is not run again: policies that were finished, and of
    the one under way the episodes that were kept.

    Raises, before anything is written, PolicyError where a policy cannot be run as asked, and ConfigError where the
    folder holds another evaluation, or one of policies that have changed since.
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
    resume, config = config.resume, replace(config, task=task, output=str(folder), resume=False)
    check_same_inputs(config, folder / "config.yaml", output=folder)
    names = _names(folders)
    checksums = dict(zip(names, map(policy_checksum, folders))) | ({DEMONSTRATOR: ""} if config.expert else {})
    parts = _parts(folder, checksums) if resume and (folder / "config.yaml").exists() else {}
    results: list[EvaluationResult] = []
    reference: EvaluationResult | None = None
    with make(task, min(config.num_envs, config.episodes)) as env:
        envs = [env_for(policy, env, path) for path, policy in zip(folders, policies)]
        folder.mkdir(parents=True, exist_ok=True)
        for name in checksums.keys() - parts.keys():  # a later `resume` would take them for parts of this evaluation
            for suffix in (".json", ".npz"):
                (folder / f"{name}{suffix}").unlink(missing_ok=True)
        write_yaml(config, folder / "config.yaml")
        if unseeded := ignores_seeds(env, config.seed):
            print(f"note: {unseeded}", file=sys.stderr)

        def measured(name: str, actor: Actor, own: VectorEnv) -> EvaluationResult:
            return _evaluate(actor, own, config, name, policy=checksums[name], unseeded=unseeded, part=parts.get(name))

        for name, policy, own in zip(names, policies, envs):
            with fitting_threads(policy, rows=env.num_envs):
                results.append(measured(name, _runner(policy, env, config), own))
        if config.expert:
            reference = measured(DEMONSTRATOR, make_expert(config.expert, env), env)
    notes = [f"note: {r.name}: {note}" for r in (*results, reference) if r for note in r.notes if note != unseeded]
    if not results:
        return [str(reference), *notes]
    films = [_film(config, task, policy, folder / f"{name}.mp4") for name, policy in zip(names, policies)]
    stages = [Stage(name=name, result=r, film=f) for name, r, f in zip(names, results, films)]
    report = write_report(folder, stages, title=task.id.removeprefix("gym:"), reference=reference)
    shown = [*results, *([reference] if reference else []), *compare_in_turn(results)]
    return [*map(str, shown), *notes, f"report: {report}"]


def _names(folders: Sequence[Path]) -> list[str]:
    """Return names of files, all different: the folder's, or the run's where that is just `policy`."""
    paths = [Path(os.path.abspath(folder)) for folder in folders]  # `.` and `..` have names, too
    names = [printable((path.name == "policy" and path.parent.name) or path.name) for path in paths]
    taken, distinct = {*names, *TAKEN}, []
    for number, name in enumerate(names, start=1):
        if name in TAKEN or names.count(name) > 1:
            name = next(fresh for i in count(number) if (fresh := f"{name}_{i}") not in taken)
            taken.add(name)
        distinct.append(name)
    return distinct


def _parts(folder: Path, checksums: Mapping[str, str]) -> dict[str, EvaluationResult]:
    """Return what a folder holds of an evaluation of policies with these checksums, by name.

    Raises ConfigError where one of them has changed since.
    """
    found = {name: EvaluationResult.load(path) for name in checksums if (path := folder / f"{name}.json").exists()}
    for name, part in found.items():
        if part.policy != checksums[name]:
            raise ConfigError(
                f"the policy {name} has changed since {folder / name}.json was made from it (its checksum was "
                f"{part.policy!r}, now {checksums[name]!r}); evaluate anew, without --resume, or name another output"
            )
    return found


def _runner(policy: Policy, env: VectorEnv, config: EvalConfig) -> PolicyRunner:
    return PolicyRunner(
        policy,
        env.num_envs,
        deterministic=not config.sample,
        exec_steps=config.exec_steps,
        temporal_ensemble=config.temporal_ensemble,
    )


def _evaluate(
    actor: Actor,
    env: VectorEnv,
    config: EvalConfig,
    name: str,
    *,
    policy: str,
    unseeded: str,
    part: EvaluationResult | None,
) -> EvaluationResult:
    """Evaluate and save, what is finished meanwhile as well.

    Args:
        policy: checksum of the policy that acts, if one does.
        unseeded: how the environment ignores seeds, where it does.
        part: what was saved before.
    """
    if part is not None and unseeded and part.seeds != tuple(config.seeds):
        part = None  # long episodes were cut off and would be drawn anew: what is left would be short ones too often
    path, saved = Path(config.output) / f"{name}.json", part
    done = len(part.episodes) if part else 0

    def save(result: EvaluationResult) -> EvaluationResult:
        nonlocal saved
        saved = replace(result, policy=policy)
        if unseeded:
            saved = replace(saved, repeatable=False, notes=tuple(dict.fromkeys((unseeded, *saved.notes))))
        saved.save(path)
        return saved

    try:
        with Progress(f"evaluate {name}", config.episodes, unit="episode", start=done) as progress:
            result = evaluate(
                actor,
                env,
                config.seeds,
                name=name,
                deterministic=not config.sample,
                record="trajectory",
                on_episode=lambda _: progress.update(progress.done + 1),
                keep=save,
                part=part,
            )
        return save(result)
    except KeyboardInterrupt:
        again = hint("eval", "--config", path.with_name("config.yaml"), "--resume")
        found = f"{saved} so far, in {path}" if saved else f"{name}: nothing so far"
        print(f"\n{found}; to go on: {again}", file=sys.stderr)
        raise


def _film(config: EvalConfig, task: TaskConfig, policy: Policy, path: Path) -> Film | None:
    if not config.videos:
        return None
    with make(film_task(task), 1) as env:
        return film(_runner(policy, env, config), env_for(policy, env), config.seeds[: config.videos], path)
