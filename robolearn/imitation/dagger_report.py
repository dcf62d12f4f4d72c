"""The report of a DAgger run, round by round: `RUN/report.html` and `RUN/report.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.tree import from_dict, read_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.errors import TrainingError, count
from robolearn.evaluation import plots
from robolearn.evaluation.report import environment
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.dagger import EPISODES, EVALUATION, ROUND, Rounds
from robolearn.imitation.drift import DRIFT
from robolearn.imitation.gate_truth import TRUTH
from robolearn.specs import ActionMode
from robolearn.storage import write_json, write_text

MODE_COLOURS = {
    ActionMode.POLICY: "#c9d6e2",
    ActionMode.INTERVENTION: "#d55e00",
    ActionMode.EXPERT: "#e69f00",
    ActionMode.DEMONSTRATION: "#009e73",
    ActionMode.DISTURBANCE: "#999999",
}


def write_dagger_report(run: Path) -> Path:
    """Write the report of a run and return the page's path. Raises TrainingError where no round is complete."""
    rounds = Rounds(run)
    numbers = rounds.complete()
    if not numbers:
        raise TrainingError(f"{run} has no complete round to report; `robolearn dagger` makes them")
    config = from_dict(DaggerConfig, read_yaml(run / "config.yaml"))
    facts = [json.loads((rounds.round(n) / ROUND).read_text(encoding="utf-8")) for n in numbers]
    measured = {n: EvaluationResult.load(p) for n in (0, *numbers) if (p := rounds.round(n) / EVALUATION).exists()}
    write_json(run / "report.json", {"rounds": facts, "alone": {n: r.summary() for n, r in measured.items()}}, indent=2)
    figures = [
        {"title": "Success without help", "caption": "With 95% Wilson intervals.", "uri": _success(measured)},
        {"title": "Who drove", "caption": _LEGEND, "uri": _timeline([rounds.round(n) / EPISODES for n in numbers])},
        *_drift_figures(rounds, [n for n in (0, *numbers) if (rounds.round(n) / DRIFT).exists()]),
        *_gate_figures(run / TRUTH),
    ]
    page = environment("robolearn.imitation").get_template("dagger.html.j2")
    text = page.render(
        title=f"DAgger, gate {config.gate.name}: {run.name}",
        headline=_headline(measured, facts),
        rows=[_row(n, measured.get(n), facts[n - 1] if n else None) for n in (0, *numbers)],
        measured=len(next(iter(measured.values())).episodes) if measured else 0,
        figures=[figure for figure in figures if figure["uri"]],
    )
    write_text(run / "report.html", text)
    return run / "report.html"


_LEGEND = (
    "One line per episode, in order; grey: the policy, red: an intervention, yellow: the expert's turn by DAgger's "
    "mixture. A dot at the end: solved."
)


def _headline(measured: dict[int, EvaluationResult], facts: Sequence[dict[str, Any]]) -> str:
    steps = sum(row["expert_steps"] for row in facts)
    cost = f"{count(len(facts), 'round')}, {steps} steps by the expert"
    if len(measured) < 2:
        return cost
    first, last = measured[min(measured)], measured[max(measured)]
    return f"{100 * first.success_rate:.0f}% alone before, {100 * last.success_rate:.0f}% after {cost}"


def _row(number: int, measured: EvaluationResult | None, facts: dict[str, Any] | None) -> dict[str, Any]:
    """One line of the table; what is not known stands as a dash."""
    interval = None if measured is None else measured.interval()
    row = {"round": number, "alone": "–", "interval": "–"}
    if interval is not None:
        row |= {"alone": f"{100 * interval.estimate:.1f}%"}
        row |= {"interval": f"{100 * interval.low:.0f} to {100 * interval.high:.0f}%"}
    names = ("episodes", "helped", "share", "expert_steps", "takeovers", "per_minute", "first", "caught", "missed")
    if facts is None:
        return row | dict.fromkeys(names, "–")
    first = facts["time_to_takeover_s"]
    return row | {
        "episodes": facts["episodes"],
        "helped": f"{facts['successes']}/{facts['episodes']}",
        "share": f"{100 * facts['expert_share']:.1f}%",
        "expert_steps": facts["expert_steps"],
        "takeovers": f"{facts['takeovers_per_episode']:.2f}",
        "per_minute": f"{facts['takeovers_per_minute']:.1f}",
        "first": "–" if first is None else f"{first:.1f} s",
        "caught": facts["caught"],
        "missed": facts["missed"],
    }


def _success(measured: dict[int, EvaluationResult]) -> str:
    """Success of each round's policy, with intervals."""
    if not measured:
        return ""
    with plots.styled():
        figure, axes = plots.new_figure(6.4, 2.8)
        numbers = sorted(measured)
        intervals = [measured[n].interval() for n in numbers]
        rates = np.array([100 * i.estimate for i in intervals])
        below = rates - [100 * i.low for i in intervals]
        above = [100 * i.high for i in intervals] - rates
        axes.errorbar(numbers, rates, yerr=[below, above], fmt="o-", color=plots.colour(0), capsize=3)
        axes.set(xlabel="round", ylabel="success, %", ylim=(-3, 103), xticks=numbers)
        return plots.data_uri(figure)


def _timeline(files: Sequence[Path]) -> str:
    """Every episode as a line of who drove, rounds one below the other."""
    rows: list[tuple[np.ndarray, bool, float]] = []
    gaps: list[int] = []
    for path in files:
        with Dataset(path) as dataset:
            for i in range(len(dataset)):
                modes = dataset.arrays(i, ["action_modes"])["action_modes"]
                rows.append((modes, dataset.info[i].success, dataset.control_hz))
        gaps.append(len(rows))
    with plots.styled():
        figure, axes = plots.new_figure(8.0, 0.8 + 0.07 * len(rows))
        for y, (modes, success, hz) in enumerate(rows):
            edges = np.flatnonzero(np.diff(modes)) + 1
            for start, end in zip(np.r_[0, edges], np.r_[edges, len(modes)]):
                tint = MODE_COLOURS[ActionMode(int(modes[start]))]
                axes.barh(y, (end - start) / hz, left=start / hz, height=0.8, color=tint, linewidth=0)
            if success:
                axes.plot(len(modes) / hz + 0.1, y, ".", color=plots.colour(2), ms=4)
        for y in gaps[:-1]:
            axes.axhline(y - 0.5, color=plots.FAINT, lw=0.8)
        axes.set(xlabel="time, s (simulated)", yticks=[], ylim=(len(rows) - 0.4, -0.6))
        axes.grid(visible=False)
        return plots.data_uri(figure)


def _drift_figures(rounds: Rounds, numbers: Sequence[int]) -> list[dict[str, str]]:
    """Compounding error: distance from the demonstrated states, and who is still among them."""
    logs = {n: json.loads((rounds.round(n) / DRIFT).read_text(encoding="utf-8")) for n in numbers}
    panels = (
        ("mean_distance", "Distance from the demonstrated states", "widths of the expert's tube"),
        ("within", "Still on the expert's states", "share of episodes"),
    )
    figures = []
    for key, title, label in panels:
        with plots.styled():
            figure, axes = plots.new_figure(6.4, 2.8)
            for i, (number, log) in enumerate(logs.items()):
                times = np.asarray(log["steps"]) / log["control_hz"]
                name = "cloned" if number == 0 else f"round {number}"
                exponent = "" if log["exponent"] is None else f", grows as t^{log['exponent']:.2f}"
                axes.plot(times, log[key], color=plots.colour(i), lw=1.6, label=name + exponent * (key != "within"))
            axes.set(xlabel="time, s (simulated)", ylabel=label, ylim=(0, None))
            if axes.get_legend_handles_labels()[0]:
                axes.legend()
            caption = "Of the policies alone. The exponent is that of the summed distance; 2 is cloning's worst case."
            figures.append({"title": title, "caption": caption, "uri": plots.data_uri(figure) if logs else ""})
    return figures


def _gate_figures(path: Path) -> list[dict[str, str]]:
    """Gates against the truth, where they were scored: which failing states each catches at what cost."""
    if not path.exists():
        return []
    facts = json.loads(path.read_text(encoding="utf-8"))
    with plots.styled():
        figure, axes = plots.new_figure(4.6, 3.6)
        for i, (name, row) in enumerate(facts["gates"].items()):
            tint = plots.colour(i)
            if row["roc"]:
                false, true = zip(*row["roc"])
                axes.plot(false, true, "-", color=tint, lw=1.6, label=f"{name}, area {row['auroc']:.2f}")
            if row["recall"] is not None and row["false_alarms"] is not None:
                axes.plot(row["false_alarms"], row["recall"], "o", color=tint, ms=6, label=None if row["roc"] else name)
        axes.plot([0, 1], [0, 1], ls=(0, (4, 3)), color=plots.FAINT, lw=1.0)
        axes.set(xlabel="good states asked at", ylabel="failing states caught", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="lower right")
        caption = (
            f"Of {facts['states']} states that the policy of round {facts['round']} brought about, restored and rolled "
            f"out: it fails from {100 * facts['failing']:.0f}% of them. Dots: the gate's own threshold."
        )
        return [{"title": "Gates against the truth", "caption": caption, "uri": plots.data_uri(figure)}]
