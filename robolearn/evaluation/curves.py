"""Learning curves over seeds: runs in groups, a line and a band for each, and a table of their final values."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robolearn.configuration.evaluation import CurvesConfig
from robolearn.configuration.tree import read_yaml
from robolearn.errors import ConfigError, printable
from robolearn.evaluation.plots import COLOURS
from robolearn.evaluation.statistics import bootstrap, interquartile_mean, stratified_bootstrap
from robolearn.storage import atomic_file
from robolearn.training.metrics import read_metrics

CANDIDATES = ("eval_success", "eval_return", "success", "return", "valid_loss", "loss")
RATES = ("eval_success", "success")
GRID_POINTS = 200
NOT_COMPARED = frozenset({"seed", "output", "device", "wandb", "tensorboard", "resume"})
"""Settings in which the runs of one group may differ."""


@dataclass(frozen=True)
class Curve:
    """One run's metric."""

    run: Path
    x: np.ndarray
    """(P,) environment steps where the run counts them, else updates."""
    y: np.ndarray
    """(P,)."""


@dataclass(frozen=True)
class Group:
    """R runs that differ in their seed only."""

    name: str
    curves: tuple[Curve, ...]
    method: str = ""
    """Settings that the runs have in common besides their task; empty where they name no task."""

    def on_grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (G,) places that every run reached and (R, G) values, linear between the points measured."""
        grid = np.linspace(
            max(curve.x[0] for curve in self.curves), min(curve.x[-1] for curve in self.curves), GRID_POINTS
        )
        return grid, np.stack([np.interp(grid, curve.x, curve.y) for curve in self.curves])

    @property
    def finals(self) -> np.ndarray:
        """Return (R,) last values."""
        return np.array([curve.y[-1] for curve in self.curves])


def plot_curves(config: CurvesConfig) -> tuple[Path, list[dict[str, Any]]]:
    """Draw the picture; returns its path and a table of the final values of each group."""
    output = Path(config.output)
    if output.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"output must end in .png, .svg or .pdf, received {config.output!r}")
    rows = {Path(run): read_metrics(run) for run in config.runs}
    empty = ", ".join(str(run) for run, lines in rows.items() if not lines)
    rows = {run: lines for run, lines in rows.items() if lines}
    if not rows:
        raise ConfigError(f"no metrics.jsonl with anything in it in {empty}; name run folders")
    if empty:
        print(f"note: no metrics.jsonl with anything in it in {empty}", file=sys.stderr)
    metric = config.metric or next((m for m in CANDIDATES if all(_has(m, lines) for lines in rows.values())), "")
    without = [str(run) for run, lines in rows.items() if not _has(metric, lines)]
    if without:
        known = sorted(set.intersection(*({k for row in lines for k in row} for lines in rows.values())))
        raise ConfigError(f"metric {metric!r} is not in {', '.join(without)}; all runs have {', '.join(known)}")
    groups = group_runs({run: _curve(run, lines, metric) for run, lines in rows.items()})
    with atomic_file(output) as fresh:
        figure = draw(groups, metric, config.bootstraps)
        figure.savefig(fresh, format=output.suffix[1:], dpi=150, bbox_inches="tight")
    table = [summary(group, config.bootstraps) for group in groups]
    # Only rates have the same scale in every task; returns would need a human's or an expert's to be divided by.
    return output, table + (across_tasks(groups, config.bootstraps) if metric in RATES else [])


def group_runs(curves: Mapping[Path, Curve]) -> list[Group]:
    """Group runs with equal settings, seeds apart, in the order of their first run."""
    found: dict[tuple[str, str], list[Curve]] = {}
    for run, curve in curves.items():
        path = run / "config.yaml"
        settings = {k: v for k, v in read_yaml(path).items() if k not in NOT_COMPARED} if path.exists() else str(run)
        method = ""
        if isinstance(settings, dict) and "task" in settings:
            method = _text({k: v for k, v in settings.items() if k != "task"})
        found.setdefault((_text(settings), method), []).append(curve)
    return [
        Group(_common_name([c.run.name for c in members]), tuple(members), method)
        for (_, method), members in found.items()
    ]


def summary(group: Group, bootstraps: int) -> dict[str, Any]:
    """Return mean, interquartile mean and its 95% bootstrap interval of the final values."""
    low, high = bootstrap(group.finals[:, None], bootstraps)[:, 0] if len(group.curves) > 1 else (np.nan, np.nan)
    return {
        "name": group.name,
        "runs": len(group.curves),
        "mean": float(group.finals.mean()),
        "iqm": float(interquartile_mean(group.finals)),
        "low": float(low),
        "high": float(high),
    }


def across_tasks(groups: Sequence[Group], bootstraps: int) -> list[dict[str, Any]]:
    """Return a row for each method that was run in several tasks: as `summary`, over all its runs.

    The interval is of the stratified bootstrap: runs are drawn anew within each task.
    """
    methods: dict[str, list[Group]] = {}
    for group in groups:
        methods.setdefault(group.method, []).append(group)
    rows = []
    for members in (members for method, members in methods.items() if method and len(members) > 1):
        strata = [group.finals for group in members]
        low, high = stratified_bootstrap(strata, bootstraps)
        pooled = np.concatenate(strata)
        name = f"{_common_name([group.name for group in members])}, {len(members)} tasks"
        figures = {"mean": float(pooled.mean()), "iqm": float(interquartile_mean(pooled)), "low": low, "high": high}
        rows.append({"name": name, "runs": len(pooled), **figures})
    return rows


def draw(groups: Sequence[Group], metric: str, bootstraps: int) -> Figure:
    """Draw a figure of its own."""
    figure = Figure(figsize=(7.0, 4.2))
    draw_groups(axes := figure.subplots(), groups, bootstraps)
    axes.set_xlabel("steps")
    axes.set_ylabel(metric)
    axes.legend(frameon=False)
    return figure


def draw_groups(axes: Axes, groups: Sequence[Group], bootstraps: int) -> None:
    """Draw a line for each group's interquartile mean and a band for its 95% interval."""
    for i, group in enumerate(groups):
        grid, values = group.on_grid()
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(
            grid, interquartile_mean(values, axis=0), color=colour, label=f"{printable(group.name)} ({len(values)})"
        )
        if len(values) > 1:
            low, high = bootstrap(values, min(bootstraps, 500))
            axes.fill_between(grid, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.grid(alpha=0.3)


def _text(settings: Any) -> str:
    return json.dumps(settings, sort_keys=True, default=str)


def _has(metric: str, lines: Sequence[Mapping[str, Any]]) -> bool:
    return any(line.get(metric) is not None for line in lines)


def _curve(run: Path, lines: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    kept = [line for line in lines if line.get(metric) is not None]
    x = [float(line["env_steps"] if line.get("env_steps") is not None else line["step"]) for line in kept]
    return Curve(run, np.asarray(x), np.asarray([float(line[metric]) for line in kept]))


def _common_name(names: Sequence[str]) -> str:
    """Return what the names of a group's runs have in common, without a trailing seed."""
    if len(names) == 1:
        return names[0]
    length = next((i for i, letters in enumerate(zip(*names)) if len(set(letters)) > 1), min(map(len, names)))
    return re.sub(r"[_.-]+(seed[_.-]*)?\d*$", "", names[0][:length]) or names[0]
