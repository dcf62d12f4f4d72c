"""Figures of `benchmarks.dagger`: what labels bring, and how far policies stray from the expert's states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robolearn.evaluation import plots
from robolearn.evaluation.statistics import wilson

if TYPE_CHECKING:
    from benchmarks.dagger import Cell

Cells = Mapping[tuple[str, str], "Cell"]
CLONING = "#8a97a6"


def draw_success(found: Cells, path: Path) -> None:
    """Draw success against labelled steps, a panel for each task, with 95% Wilson intervals."""
    tasks = list(dict.fromkeys(task for task, _ in found))
    if not tasks:
        return
    variants = list(dict.fromkeys(variant for _, variant in found if not variant.startswith("cloning")))
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(4.2 * len(tasks), 3.6), layout="constrained")
        for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False).flat, tasks):
            clones = sorted((c for (t, v), c in found.items() if t == task and v.startswith("cloning")), key=labels)
            _mark(axes, clones, CLONING, "o-", "cloning")
            for number, variant in enumerate(variants):
                if (task, variant) in found:
                    _mark(axes, [found[task, variant]], plots.colour(number), "o", variant)
            axes.set(title=task, ylim=(-3, 103), xlim=(0, None), xlabel="labelled steps", ylabel="success, %")
            axes.locator_params(axis="x", nbins=5)
        drawn = {name: mark for axes in figure.axes for mark, name in zip(*axes.get_legend_handles_labels())}
        figure.legend(drawn.values(), drawn.keys(), fontsize=9, ncols=len(drawn), loc="outside upper center")
        figure.savefig(path, dpi=110)


def labels(cell: Cell) -> float:
    return cell.mean("labelled")


def _mark(axes: Axes, cells: Sequence[Cell], tint: str, style: str, name: str) -> None:
    intervals = [wilson(sum(cell.solved), len(cell.solved)) for cell in cells]
    rates = 100 * np.array([i.estimate for i in intervals])
    below, above = rates - [100 * i.low for i in intervals], [100 * i.high for i in intervals] - rates
    axes.errorbar(
        [labels(cell) for cell in cells], rates, yerr=[below, above], fmt=style, color=tint, capsize=3, label=name
    )


def draw_drift(found: Cells, variants: Sequence[str], path: Path) -> None:
    """Draw distance from the expert's states, and who is still on them, against time: cloned and after some rounds.

    A column for each task and variant; means over the training seeds, the growth exponent in the legend.
    """
    columns = [cell for cell in found.values() if cell.variant in variants and cell.runs[0]["drift"]]
    if not columns:
        return
    with mpl.rc_context(plots.STYLE):
        figure = Figure(figsize=(3.9 * len(columns), 5.8), layout="constrained")
        grid = figure.subplots(2, len(columns), squeeze=False, sharex="col")
        for (above, below), cell in zip(grid.T, columns):
            rounds = min(len(run["drift"]) for run in cell.runs)
            for place, number in enumerate(sorted({0, 1, 2, rounds // 2, rounds - 1} & {*range(rounds)})):
                logs = [run["drift"][number] for run in cell.runs]
                tint = CLONING if number == 0 else plots.colour(place - 1)
                name = "cloned" if number == 0 else f"round {number}"
                exponents = [log["exponent"] for log in logs if log["exponent"] is not None]
                grows = f", t^{np.mean(exponents):.2f}" if exponents else ""
                for axes, key, label in ((above, "mean_distance", name + grows), (below, "within", name)):
                    axes.plot(*_mean(logs, key), color=tint, lw=1.5, label=label)
            above.set(ylabel="distance, widths of the tube", ylim=(0, None))
            title = f"{cell.task}, {cell.variant}:\nthe summed distance grows as"
            above.legend(title=title, ncols=2, fontsize=8, title_fontsize=9, loc="lower left", bbox_to_anchor=(0, 1))
            below.set(xlabel="time, s (simulated)", ylabel="still on the expert's states", ylim=(0, 1.03))
        figure.savefig(path, dpi=110)


def _mean(logs: Sequence[Mapping[str, Any]], key: str) -> tuple[np.ndarray, np.ndarray]:
    """Return times in seconds and the mean of the runs' curves, for as long as all of them go."""
    length = min(len(log["steps"]) for log in logs)
    times = np.asarray(logs[0]["steps"][:length]) / logs[0]["control_hz"]
    return times, np.mean([log[key][:length] for log in logs], axis=0)
