"""The whole line: record -> clone -> DAgger -> PPO -> evaluate -> report, one folder, resumable at every stage.

demo/demonstrations.hdf5     what the expert did
demo/clone/policy            behaviour cloning
demo/dagger/policy           the same policy, corrected; dagger/rounds/*/episodes.hdf5 hold who acted and why
demo/finetune/policy         the same policy, fine-tuned from success alone
demo/evaluation/*.json       every stage on the same seeds
demo/report.html             all of it on one page
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from robolearn.configuration.demo import PipelineConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.tree import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.envs.experts import make_expert
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.errors import hint
from robolearn.evaluation.compare import compare_in_turn
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.report import Stage, write_report
from robolearn.evaluation.results import EvaluationResult
from robolearn.evaluation.video import Film, film, film_task
from robolearn.imitation.bc import train_bc
from robolearn.imitation.dagger import dagger
from robolearn.policies.folder import CARD_FILE, load_policy
from robolearn.policies.policy import Policy
from robolearn.rl.finetune import finetune
from robolearn.specs import Actor
from robolearn.training.progress import Progress, clock

STAGES = ("clone", "dagger", "finetune")
DESCRIPTIONS = {
    "clone": "The demonstrations, imitated by behaviour cloning.",
    "dagger": "The same policy, corrected at the states it visits by itself (DAgger).",
    "finetune": "The same policy, fine-tuned with PPO from success alone.",
}
FILMED = 3
"""Evaluation episodes on the video."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The results of the line."""

    results: tuple[EvaluationResult, ...]
    """Of the demonstrator and of each stage, on the same seeds."""
    report: Path
    lines: tuple[str, ...]
    """For the terminal."""


def run_pipeline(config: PipelineConfig) -> Outcome:
    """Run every stage that is not complete yet.

    Raises TaskError, before there is a folder, where the environment or its expert is not installed.
    """
    folder = config.folder
    if not folder.exists():
        with make(config.task, 1) as env:
            make_expert(config.expert, env)
    check_same_inputs(config, folder / "config.yaml", output=folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_yaml(config, folder / "config.yaml")
    again = hint("demo", folder)
    steps: list[tuple[str, Path, Callable[[], object]]] = [
        (
            f"record {config.demonstrations} demonstrations",
            folder / "demonstrations.hdf5",
            lambda: record(config.record),
        ),
        (
            "clone them into a mixture policy",
            folder / "clone" / "policy",
            lambda: train_bc(config.clone, folder / "clone", resume=True, resume_hint=again),
        ),
        (
            f"correct it in {config.rounds} DAgger rounds",
            folder / "dagger" / "policy",
            lambda: dagger(config.correct, folder / "dagger", resume_hint=again),
        ),
        (
            "fine-tune it with PPO from success alone",
            folder / "finetune" / "policy",
            lambda: finetune(config.finetune, folder / "finetune", resume=True, resume_hint=again),
        ),
    ]
    for number, (title, product, run) in enumerate(steps, start=1):
        _stage(number, len(steps) + 1, title, product, run)
    print(f"[{len(steps) + 1}/{len(steps) + 1}] evaluate every stage on the same {config.episodes} seeds", flush=True)
    results = tuple(_evaluate(config, name) for name in ("demonstrator", *STAGES))
    lines = tuple(map(str, (*results, *compare_in_turn(results[1:]))))
    return Outcome(results=results, report=_report(config, results), lines=lines)


def _stage(number: int, total: int, title: str, product: Path, run: Callable[[], object]) -> None:
    print(f"[{number}/{total}] {title}", flush=True)
    if product.exists() and not product.with_name(product.name + ".parts").exists():
        print(f"      already there: {product}", flush=True)
        return
    began = time.monotonic()
    run()
    print(f"      {product} after {clock(time.monotonic() - began)}", flush=True)


def _evaluate(config: PipelineConfig, name: str) -> EvaluationResult:
    path = config.folder / "evaluation" / f"{name}.json"
    if path.exists():
        result = EvaluationResult.load(path)
        if result.seeds == tuple(config.eval_seeds):
            return result
    with (
        make(config.task, config.num_envs) as env,
        Progress(f"evaluate {name}", config.episodes, unit="episode") as progress,
    ):
        actor: Policy | Actor = (
            make_expert(config.expert, env) if name == "demonstrator" else load_policy(config.folder / name / "policy")
        )
        result = evaluate(
            actor,
            env,
            config.eval_seeds,
            name=name,
            record="trajectory",
            on_episode=lambda _: progress.update(progress.done + 1),
        )
    result.save(path)
    return result


def _report(config: PipelineConfig, results: Sequence[EvaluationResult]) -> Path:
    folder = config.folder
    with Dataset(config.record.output) as dataset:
        facts = {"file": Path(config.record.output).name, "episodes": len(dataset), "steps": sum(dataset.lengths)}
    metrics = {
        "clone": [folder / "clone" / "metrics.jsonl"],
        "dagger": sorted(folder.glob("dagger/rounds/*/train/metrics.jsonl")),
        "finetune": [folder / "finetune" / "metrics.jsonl"],
    }
    stages = [
        Stage(
            name=result.name,
            result=result,
            description=_description(config, result.name),
            metrics=metrics[result.name],
            film=_film(config) if result.name == STAGES[-1] else None,
        )
        for result in results[1:]
    ]
    return write_report(
        folder,
        stages,
        title=f"{config.task.id.removeprefix('gym:')} {' '.join(map(str, config.task.kwargs.values()))}".strip(),
        command=hint("demo", "--config", folder / "config.yaml"),
        dataset=facts | {"action noise": config.action_noise, "demonstrator": config.expert},
        facts={"training seed": config.seed},
        reference=results[0],
    )


def _description(config: PipelineConfig, name: str) -> str:
    """Return what a stage did; of fine-tuning that never saw a reward, what its card says."""
    card = (config.folder / name / "policy" / CARD_FILE).read_text(encoding="utf-8")
    note = next((line.removeprefix("- note: ") for line in card.splitlines() if line.startswith("- note: ")), "")
    return f"Not fine-tuned: {note}" if note else DESCRIPTIONS[name]


def _film(config: PipelineConfig) -> Film:
    with make(film_task(config.task), 1) as env:
        policy = load_policy(config.folder / STAGES[-1] / "policy")
        return film(policy, env, config.eval_seeds[:FILMED], config.folder / "video.mp4")
