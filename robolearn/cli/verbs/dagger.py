"""`robolearn dagger`: correct a policy with rounds of corrected roll-outs, and tell what came of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from robolearn.configuration.dagger import DaggerConfig, DaggerReportConfig, DaggerUndoConfig, GateTruthConfig
from robolearn.errors import count, hint


def run(config: DaggerConfig) -> int:
    import json

    from robolearn.imitation.dagger import ROUND, Rounds, dagger
    from robolearn.imitation.dagger_report import write_dagger_report

    output = Path(config.output)
    policy = dagger(config, output, resume_hint=hint("dagger", "--config", output / "config.yaml"))
    rounds = Rounds(output)
    for number in rounds.complete():
        facts = json.loads((rounds.round(number) / ROUND).read_text(encoding="utf-8"))
        disagreement = facts["mean_disagreement"]
        print(
            f"round {number}: {facts['successes']}/{facts['episodes']} episodes succeeded, "
            f"{facts['expert_steps']}/{facts['steps']} steps by the expert, {count(facts['takeovers'], 'takeover')}"
            + ("" if disagreement is None else f", mean disagreement {disagreement:.3f}")
        )
    print(f"corrected policy: {policy}")
    print(f"report: {write_dagger_report(output)}")
    print(f"next: {hint('eval', policy)}    {hint('finetune', policy)}")
    return 0


def report(config: DaggerReportConfig) -> int:
    from robolearn.imitation.dagger_report import write_dagger_report

    print(f"report: {write_dagger_report(Path(config.run))}")
    return 0


def undo(config: DaggerUndoConfig) -> int:
    from robolearn.imitation.dagger import undo as take_back

    number, aside = take_back(Path(config.run))
    print(f"took round {number} back; its files are in {aside}, and the run's policy is that of round {number - 1}")
    return 0


def gates(config: GateTruthConfig) -> int:
    import json

    from robolearn.imitation.dagger_report import write_dagger_report
    from robolearn.imitation.gate_truth import score_gates

    path = score_gates(config)
    facts = json.loads(path.read_text(encoding="utf-8"))
    states, failing = facts["states"], 100 * facts["failing"]
    print(f"round {facts['round']}: {states} states, from {failing:.0f}% of which the policy fails")
    print(f"{'gate':<12}{'AUROC':>8}{'asks':>8}{'precision':>11}{'recall':>8}{'lead':>9}")
    for name, row in facts["gates"].items():
        columns = [_number(row[key], 2) for key in ("auroc", "asks", "precision", "recall")]
        lead = "–" if row["lead_s"] is None else f"{row['lead_s']:.1f} s"
        print(f"{name:<12}{columns[0]:>8}{columns[1]:>8}{columns[2]:>11}{columns[3]:>8}{lead:>9}")
    print(f"wrote {path}; report: {write_dagger_report(Path(config.run))}")
    return 0


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


VERBS: dict[str, tuple[type, Callable[[Any], int], str]] = {
    "run": (DaggerConfig, run, "run rounds: roll out, correct, aggregate, train, measure"),
    "report": (DaggerReportConfig, report, "tell what a run did, round by round"),
    "undo": (DaggerUndoConfig, undo, "take the last round of a run back"),
    "gates": (GateTruthConfig, gates, "score gates against restored states: would the policy have failed?"),
}
DEFAULT = "run"
