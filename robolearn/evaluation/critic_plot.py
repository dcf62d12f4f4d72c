"""The honest critic's plot: what critics promised of first actions against what the episodes returned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from robolearn.configuration.evaluation import CriticPlotConfig
from robolearn.errors import ConfigError
from robolearn.evaluation.plots import COLOURS
from robolearn.storage import atomic_file
from robolearn.training.critic_record import read_critic

KINDS = {"one": "one critic", "least": "least of several"}


def plot_critic(config: CriticPlotConfig) -> tuple[Path, dict[str, float]]:
    """Write the picture; return its path and the last evaluation's mean errors, predicted minus realised.

    Raises ConfigError where the run has no critics, or has not been evaluated.
    """
    path = Path(config.output)
    if path.suffix not in (".png", ".svg", ".pdf"):
        raise ConfigError(f"output must end in .png, .svg or .pdf, received {config.output!r}")
    rows = read_critic(Path(config.run))
    figure = draw(rows)
    with atomic_file(path) as fresh:
        figure.savefig(fresh, format=path.suffix[1:])
    return path, {kind: float(np.mean(rows[-1][kind]) - np.mean(rows[-1]["realised"])) for kind in KINDS}


def draw(rows: list[dict[str, Any]]) -> Figure:
    """Return two panels: the last evaluation episode by episode, and the mean error from evaluation to evaluation."""
    figure = Figure(figsize=(9.0, 4.2), layout="constrained", dpi=120)
    episodes, errors = figure.subplots(1, 2)
    _draw_episodes(episodes, rows[-1])
    _draw_errors(errors, rows)
    return figure


def _draw_episodes(axes: Axes, row: dict[str, Any]) -> None:
    every = [*row["one"], *row["least"], *row["realised"]]
    ends = [min(every), max(every)]
    axes.plot(ends, ends, color="0.6", linewidth=1, label="honest")
    for (kind, label), colour in zip(KINDS.items(), COLOURS):
        axes.plot(row["realised"], row[kind], ".", color=colour, alpha=0.6, label=label)
    axes.set(
        title=f"update {row['step']}: {len(row['realised'])} episodes",
        xlabel="realised discounted return",
        ylabel="predicted, Q(s0, a0)",
    )
    axes.legend()


def _draw_errors(axes: Axes, rows: list[dict[str, Any]]) -> None:
    steps = [row["step"] for row in rows]
    axes.axhline(0.0, color="0.6", linewidth=1)
    for (kind, label), colour in zip(KINDS.items(), COLOURS):
        mean = [float(np.mean(row[kind]) - np.mean(row["realised"])) for row in rows]
        axes.plot(steps, mean, marker="o", markersize=3, color=colour, label=label)
    axes.set(title="too hopeful above zero", xlabel="update", ylabel="mean predicted minus realised")
    axes.legend()
