"""The report's figures, as SVG data URIs: nothing to load, and no clashes between the identifiers of two figures."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from robolearn.evaluation.results import EpisodeRecord, EvaluationResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6a51a3", "#8c6d31")
"""Wong's palette (Nature Methods 2011), told apart by colour-blind readers too, in an order of contrast on white."""

INK, FAINT = "#1c2733", "#8a97a6"
MAX_POINTS = 400
"""Points of a curve; more would only make the file larger."""

PANELS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("success", ("success", "success_rate", "eval_success")),
    ("steps of an episode", ("episode_length", "eval_steps")),
    ("loss", ("loss", "valid_loss")),
    ("return", ("return", "eval_return")),
    ("divergence", ("kl", "prior_kl")),
    ("value loss", ("value_loss", "critic_loss")),
)
"""Learning curves in order of interest, and the metrics drawn in each; a metric may carry a prefix such as `train/`."""

MAX_PANELS = 4
"""Of one stage."""

Log = tuple[str, Sequence[Mapping[str, Any]]]
"""A name and the rows of a metrics.jsonl, in which what is not finite stands as None."""

Signals = Sequence[tuple[str, Sequence[tuple[EpisodeRecord, np.ndarray]]]]
"""Per stage: its name, and episodes with an array over time each."""

STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": "#c7d0da",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e8edf2",
    "grid.linewidth": 0.8,
    "xtick.color": "#55636f",
    "ytick.color": "#55636f",
    "text.color": INK,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "robolearn",
}


def colour(index: int) -> str:
    """Return the colour of the stage or group `index`."""
    return COLOURS[index % len(COLOURS)]


def success_figure(results: Sequence[EvaluationResult], reference: EvaluationResult | None = None) -> str:
    """Draw success rates with their 95% Wilson intervals, one row per result."""
    with styled():
        figure, axes = new_figure(5.0, 0.9 + 0.5 * len(results))
        for row, result in enumerate(results):
            interval = result.interval()
            rate, low, high = 100 * interval.estimate, 100 * interval.low, 100 * interval.high
            axes.plot([low, high], [row, row], color=colour(row), lw=3, alpha=0.45, solid_capstyle="round")
            axes.plot(rate, row, "o", color=colour(row), ms=9)
        if reference is not None:
            axes.axvline(100 * reference.success_rate, color=FAINT, ls=(0, (4, 3)), lw=1.2)
            axes.set_title(f"dashed: {reference.name}", loc="right", fontsize=8.5, fontweight="normal", color=FAINT)
        axes.set(xlim=(-2, 102), ylim=(len(results) - 0.4, -0.6), xlabel="success, %")
        axes.set_yticks(range(len(results)), [r.name for r in results])
        axes.tick_params(axis="y", length=0, labelsize=10, labelcolor=INK)
        axes.grid(axis="y", visible=False)
        return data_uri(figure)


def time_figure(results: Sequence[EvaluationResult], reference: EvaluationResult | None = None) -> str:
    """Draw the share of episodes solved within a time: height is success, position is speed."""
    with styled():
        figure, axes = new_figure(5.0, 2.9)
        shown = [(r, colour(i), "-") for i, r in enumerate(results)]
        shown += [(reference, FAINT, (0, (4, 3)))] if reference is not None else []
        end = max((t for r, *_ in shown for t in r.times_to_success_s), default=1.0) * 1.05
        for result, tint, line in shown:
            times = np.sort(result.times_to_success_s)
            n = max(1, len(result.episodes))
            x, y = (
                np.concatenate([[0.0], times, [end]]),
                np.concatenate([[0], np.arange(1, len(times) + 1), [len(times)]]),
            )
            axes.step(x, 100 * y / n, where="post", color=tint, ls=line, lw=1.8, label=result.name)
        axes.set(xlim=(0, end), ylim=(0, 103), xlabel="time to success, s (simulated)", ylabel="episodes solved, %")
        axes.legend()
        return data_uri(figure)


def curve_figures(logs: Sequence[Log], tint: str) -> list[tuple[str, str]]:
    """Return (title, figure) for each group of metrics in PANELS that one stage's logs hold; one line per log."""
    logs = [(name, numbers(rows)) for name, rows in logs]
    present = dict.fromkeys(name for _, rows in logs for row in rows for name in row)
    grouped = [(title, [n for n in present if n.rsplit("/", 1)[-1] in wanted]) for title, wanted in PANELS]
    return [(title, _curves(logs, names, tint)) for title, names in grouped if names][:MAX_PANELS]


def _curves(logs: Sequence[Log], names: Sequence[str], tint: str) -> str:
    with styled():
        figure, axes = new_figure(3.3, 2.2)
        for name, style in zip(names, ("-", "--", ":", "-.")):
            for index, (label, rows) in enumerate(logs):
                x, y = _curve(rows, name)
                words = ([name] if len(names) > 1 else []) + ([label] if len(logs) > 1 else [])
                shade = 0.35 + 0.65 * (index + 1) / len(logs)
                axes.plot(x, y, style, color=tint, alpha=shade, lw=1.5, label=" ".join(words))
        axes.set_xlabel("step")
        if len(names) * len(logs) > 1:
            axes.legend(fontsize=8)
        return data_uri(figure)


def path_figure(stages: Signals) -> str:
    """Draw paths in space, (T+1, 3) per episode, a panel per stage, to one scale; crosses end episodes that failed."""
    everything = np.concatenate([path for _, episodes in stages for _, path in episodes])
    low, high = everything.min(0), everything.max(0)
    margin = 0.05 * (high - low) + 1e-3
    with styled():
        figure = empty_figure(3.4 * len(stages), 3.3, layout=None)
        figure.subplots_adjust(0.0, 0.03, 0.97, 0.93, wspace=0.02)
        for position, (name, episodes) in enumerate(stages):
            axes: Any = figure.add_subplot(1, len(stages), position + 1, projection="3d")
            for record, path in episodes:
                axes.plot(*path.T, color=colour(position), lw=1.3, alpha=0.75)
                axes.plot(*path[:1].T, "o", color=FAINT, ms=3)
                axes.plot(*path[-1:].T, "o" if record.success else "x", color=colour(position), ms=5)
            axes.set(xlim=(low[0] - margin[0], high[0] + margin[0]), ylim=(low[1] - margin[1], high[1] + margin[1]))
            axes.set_zlim(low[2] - margin[2], high[2] + margin[2])
            axes.set_title(name)
            axes.set_xlabel("x", labelpad=-8)
            axes.set_ylabel("y", labelpad=-8)
            axes.set_zlabel("z", labelpad=-8)
            axes.tick_params(labelsize=7, pad=-3)
            axes.locator_params(nbins=4)
            for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
                axis.set_pane_color((0.97, 0.98, 0.99, 1.0))
        return data_uri(figure)


def signal_figure(stages: Signals, hz: float, key: str) -> str:
    """Draw the first dimensions of an observation, (T+1, D) per episode, over time: one row per stage."""
    dims = min(4, *(signal.shape[1] for _, episodes in stages for _, signal in episodes))
    with styled():
        figure = empty_figure(10.0, 0.4 + 1.7 * len(stages))
        grid = figure.subplots(len(stages), dims, squeeze=False, sharex=True, sharey="col")
        for row, (name, episodes) in enumerate(stages):
            for column in range(dims):
                axes = grid[row, column]
                for record, signal in episodes:
                    line = "-" if record.success else ":"
                    axes.plot(np.arange(len(signal)) / hz, signal[:, column], line, color=colour(row), lw=1, alpha=0.7)
                if row == 0:
                    axes.set_title(f"{key}[{column}]")
                if row == len(stages) - 1:
                    axes.set_xlabel("s")
            grid[row, 0].set_ylabel(name)
        return data_uri(figure)


def numbers(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Return the finite numbers of each row, by name: what curves can be drawn of."""
    return [
        {name: float(v) for name, v in row.items() if isinstance(v, (int, float)) and math.isfinite(v)} for row in rows
    ]


def _curve(rows: Sequence[Mapping[str, float]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (P,) steps and (P,) values, thinned by averaging neighbours."""
    points = np.array([(row.get("step", i), row[name]) for i, row in enumerate(rows) if name in row], np.float64)
    if len(points) > MAX_POINTS:
        points = np.stack([chunk.mean(0) for chunk in np.array_split(points, MAX_POINTS)])
    return points.reshape(-1, 2)[:, 0], points.reshape(-1, 2)[:, 1]


def styled() -> AbstractContextManager[None]:
    """Return a context in which figures are drawn in the report's style."""
    import matplotlib as mpl  # late, as below: most of an evaluation goes by before anything is drawn

    return mpl.rc_context(STYLE)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of so many inches with its axes."""
    figure = empty_figure(width, height)
    return figure, figure.subplots()


def empty_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """Return a figure of so many inches without axes."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout=layout)


def data_uri(figure: Figure) -> str:
    """Return the figure as an SVG data URI; the same figure always gives the same bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
