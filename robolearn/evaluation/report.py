"""One self-contained HTML file about a run: no external request, readable offline and for years."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from robolearn import storage
from robolearn.configuration.parts.task import environment_name
from robolearn.envs.providers.lookup import PROVIDERS, provider_of
from robolearn.errors import RobolearnError, count
from robolearn.evaluation import plots
from robolearn.evaluation.compare import Comparison, compare_in_turn
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult
from robolearn.evaluation.video import Film
from robolearn.training.metrics import read_metrics

REPORT = "report.html"
MAX_EMBEDDED_VIDEO = 12_000_000
"""Bytes; larger videos are linked instead."""

PACKAGES = ("robolearn", "torch", "mujoco", "gymnasium", *(p.distribution for p in PROVIDERS), "numpy", "h5py")

_PATH_KEYS = ("ee_pos", "eef_pos", "gripper_pos", "achieved_goal")
"""Observations that are positions in space where they have three numbers."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a policy's life, evaluated."""

    name: str
    result: EvaluationResult
    description: str = ""
    metrics: Sequence[Path] = ()
    """`metrics.jsonl` of the run folders of this stage's training, in order (one per DAgger round, for example)."""
    film: Film | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Shown in the table of stages: steps, minutes, parameters ..."""


def write_report(
    folder: str | Path,
    stages: Sequence[Stage],
    *,
    title: str,
    command: str = "",
    dataset: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    reference: EvaluationResult | None = None,
) -> Path:
    """Write `report.html`, and the same figures as `report.json`, into `folder`; returns the HTML's path.

    Args:
        stages: at least one, in order; each is compared with the one before it, so all need the same seeds.
        command: what makes this run again.
        dataset: facts about the data, shown as they are.
        facts: further facts about the run (seeds, hardware ...).
        reference: the demonstrator's own evaluation, drawn as a dashed line.
    """
    if not stages:
        raise RobolearnError("a report needs at least one evaluated stage, received none")
    folder = Path(folder)
    results = [_named(stage) for stage in stages]
    comparisons = compare_in_turn(results)
    everything = {
        "title": title,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "versions": versions(),
        "dataset": dict(dataset or {}),
        "facts": _run_facts(results[0]) | dict(facts or {}),
    }
    page = (
        environment()
        .get_template("report.html.j2")
        .render(
            **everything,
            headline=_headline(results),
            stages=[_stage_view(i, s, r, folder) for i, (s, r) in enumerate(zip(stages, results))],
            reference=reference,
            comparisons=comparisons,
            success_figure=plots.success_figure(results, reference),
            time_figure=plots.time_figure(results, reference),
            trajectories=_trajectories(results),
            seeds=_seed_map(results),
        )
    )
    figures = {
        "stages": [{"name": r.name} | r.summary() for r in results],
        "comparisons": [c.to_dict() for c in comparisons],
        "reference": None if reference is None else {"name": reference.name} | reference.summary(),
    }
    storage.write_json(folder / "report.json", everything | figures, indent=1, default=str)
    path = folder / REPORT
    storage.write_text(path, page)
    return path


def versions() -> dict[str, str]:
    """Return the versions of Python, the platform and those packages a result depends on that are installed."""
    found = {"python": platform.python_version(), "platform": platform.platform(terse=True)}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _named(stage: Stage) -> EvaluationResult:
    """Return the stage's result under the stage's name, which tables and figures show."""
    return EvaluationResult(**{**vars(stage.result), "name": stage.name})


def _run_facts(result: EvaluationResult) -> dict[str, Any]:
    seeds = result.seeds
    span = f"{seeds[0]} to {seeds[-1]}" if seeds == tuple(range(seeds[0], seeds[0] + len(seeds))) else str(list(seeds))
    return {
        "environment": json.dumps(dict(result.env_args)),
        "control rate": f"{result.control_hz:g} Hz",
        "evaluation seeds": f"{span} ({count(len(seeds), 'episode')})",
        "actions": "the policy's mode" if result.deterministic else "sampled",
        **{f"note {number}": note for number, note in enumerate(result.notes, start=1)},
    }


def _headline(results: Sequence[EvaluationResult]) -> str:
    first, last = results[0], results[-1]
    total = len(last.episodes)
    if len(results) == 1:
        return f"{last.successes} of {count(total, 'episode')} solved."
    text = f"From {first.successes} to {last.successes} of {count(total, 'fresh episode')} solved"
    before, after = first.median_time_to_success_s, last.median_time_to_success_s
    if before and after and abs(after / before - 1) >= 0.02:
        change = (
            f"{100 * (1 - after / before):.0f}% faster"
            if after < before
            else f"{100 * (after / before - 1):.0f}% slower"
        )
        text += f", {change} in the median"
    return text + "."


def _stage_view(index: int, stage: Stage, result: EvaluationResult, folder: Path) -> dict[str, Any]:
    paths = [path for path in stage.metrics if path.exists()]
    logs = [(name, read_metrics(path.parent)) for name, path in zip(_distinct_names(paths), paths)]
    tint = plots.colour(index)
    return {
        "name": stage.name,
        "description": stage.description,
        "colour": tint,
        "result": result,
        "interval": result.interval(),
        "facts": dict(stage.facts),
        "curves": plots.curve_figures(logs, tint) if logs else [],
        "video": _video(stage.film, folder),
        "video_note": stage.film.note if stage.film is not None else "",
    }


def _distinct_names(paths: Sequence[Path]) -> list[str]:
    """Name each log by its run folder; where these agree (`rounds/01/train`, `rounds/02/train`), the folder above."""
    for depth in (2, 3):
        names = [path.parts[-depth] if len(path.parts) >= depth else path.name for path in paths]
        if len(set(names)) == len(names):
            return names
    return [f"run {number}" for number in range(1, len(paths) + 1)]


def _video(film: Film | None, folder: Path) -> dict[str, Any] | None:
    """Describe a video for the page: embedded where it is small, else linked relative to the report."""
    if film is None or film.path is None or not film.path.exists():
        return None
    if film.path.stat().st_size <= MAX_EMBEDDED_VIDEO:
        data = base64.b64encode(film.path.read_bytes()).decode("ascii")
        return {"embedded": True, "address": f"data:video/mp4;base64,{data}"}
    path, folder = film.path.resolve(), folder.resolve()
    address = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.as_uri()
    return {"embedded": False, "address": address}


def _trajectories(results: Sequence[EvaluationResult]) -> dict[str, str] | None:
    """Draw the recorded trajectories of every stage, with a caption."""
    recorded = [(r.name, [e for e in r.episodes if e.trajectory is not None]) for r in results]
    recorded = [(name, episodes) for name, episodes in recorded if episodes]
    if not recorded:
        return None
    paths = [
        (name, [(e, path) for e in episodes if (path := _path(e, results[0])) is not None])
        for name, episodes in recorded
    ]
    if all(episodes for _, episodes in paths):
        seeds = ", ".join(str(e.seed) for e in recorded[0][1])
        return {"figure": plots.path_figure(paths), "caption": f"Where the end effector goes, seeds {seeds}."}
    first = recorded[0][1][0].trajectory
    assert first is not None
    key = next((k for k, v in first.obs.items() if v.ndim == 2), None)
    if key is None:
        return None
    signals = [(name, [(e, e.trajectory.obs[key]) for e in episodes if e.trajectory]) for name, episodes in recorded]
    figure = plots.signal_figure(signals, results[0].control_hz, key)
    return {"figure": figure, "caption": "The first dimensions of the observation over time; dotted: not solved."}


def _path(episode: EpisodeRecord, result: EvaluationResult) -> np.ndarray | None:
    """Return (T+1, 3) end-effector positions, where the observation is known to hold them."""
    assert episode.trajectory is not None
    obs = episode.trajectory.obs
    path = provider_of(environment_name(result.env_args)).end_effector(obs)
    if path is not None:
        return path
    return next((obs[k] for k in _PATH_KEYS if k in obs and obs[k].ndim == 2 and obs[k].shape[1] == 3), None)


def _seed_map(results: Sequence[EvaluationResult]) -> list[dict[str, Any]]:
    """Return one row of cells per stage, in the order of the seeds."""
    return [
        {
            "name": result.name,
            "colour": plots.colour(i),
            "cells": [
                {
                    "solved": e.success,
                    "text": f"seed {e.seed}: "
                    + (f"solved in {e.time_to_success_s:.2f} s" if e.time_to_success_s is not None else "not solved"),
                }
                for e in result.episodes
            ],
        }
        for i, result in enumerate(results)
    ]


def environment(package: str = "robolearn.evaluation") -> jinja2.Environment:
    """Return the templates of a package, with those of reports to include and our ways of writing figures."""
    loaders = [jinja2.PackageLoader(name) for name in dict.fromkeys((package, "robolearn.evaluation"))]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(loaders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda value: f"{100 * value:.1f}%"
    environment.filters["points"] = lambda value: f"{100 * value:+.1f}"
    environment.filters["p_value"] = lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}"
    environment.filters["seconds"] = lambda value: "never" if value is None else f"{value:.2f} s"
    return environment


__all__ = ["Comparison", "Film", "Stage", "versions", "write_report"]
