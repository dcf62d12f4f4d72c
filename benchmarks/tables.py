"""Write the tables of docs/results.md, docs/tasks.md and of the README from benchmarks/results/*.json.

python -m benchmarks.tables [--check]     with --check, only say whether the documents are up to date
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks._finetune_methods import STUDIES as FINETUNED
from benchmarks._report import load_runs
from robolearn.errors import count
from robolearn.evaluation.statistics import wilson

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TASKS = ("Reach", "Lift", "PickPlace", "Stack", "PegInsert", "PushT", "Fork")
COUNTS = (20, 50, 200)
"""Demonstrations of the table in docs/tasks.md."""


def main(check: bool) -> int:
    documents = {
        ROOT / "docs" / "results.md": results_page(),
        ROOT / "docs" / "tasks.md": renewed(
            ROOT / "docs" / "tasks.md",
            experts=expert_table(rows_of("experts")),
            demonstrations=demonstrations_table(rows_of("imitation")),
        ),
        ROOT / "docs" / "rl.md": renewed(ROOT / "docs" / "rl.md", finetune=finetune_table(load_runs("finetune"))),
        ROOT / "README.md": renewed(ROOT / "README.md", results=table(rows_of("pipeline"))),
    }
    stale = [path for path, text in documents.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what the results say; run python -m benchmarks.tables")
        return int(bool(stale))
    for path in stale:
        path.write_text(documents[path], encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


def results_page() -> str:
    """docs/results.md: one section per result file."""
    parts = [
        "# Results",
        "",
        "Made by `python -m benchmarks.tables` from `benchmarks/results/*.json`; do not edit by hand. Each section",
        "names the command that measured it. Ratios within one run travel better than absolute figures.",
        "",
    ]
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        of_processor = f" on {result['cpu']}" if path.stem != result["name"] else ""
        parts += section(f"{result['name']}{of_processor}", result)
    return "\n".join(parts).rstrip() + "\n"


def section(title: str, result: dict[str, Any]) -> list[str]:
    where = f"{result['cpu']}, {result['cores']} cores" + (f", {result['gpu']}" if result.get("gpu") else "")
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    picture = RESULTS / f"{result['name']}.png"
    commit = f"{str(result['commit'])[:10]}{' with changes' if result.get('dirty') else ''}"
    return [
        f"## {title}",
        "",
        f"`{result['command']}` on {result['date'][:10]} at {commit}, {where}; {versions}.",
        "",
        *table(result["rows"]),
        "",
        *([f"![{result['name']}](../benchmarks/results/{result['name']}.png)", ""] if picture.exists() else []),
    ]


def table(rows: list[dict[str, Any]]) -> list[str]:
    if rows and all("successes" in row for row in rows):
        return success_table(rows)
    lines = ["| case | unit | ours | peer | floor | goal | met |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        peer = _against(row, "peer")
        floor = _against(row, "floor")
        met = {True: "yes", False: "no", None: ""}[row.get("met")]
        note = f" ({row['note']})" if row.get("note") else ""
        cells = [row["case"] + note, row["unit"], _number(row["ours"]), peer, floor, _number(row.get("goal")), met]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def success_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| case | solved | success | 95% interval | note |", "|---|---|---|---|---|"]
    for row in rows:
        rate = f"{100 * row['successes'] / row['episodes']:.1f}%"
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}%"
        note = row.get("note") or ""
        lines.append(f"| {row['case']} | {row['successes']}/{row['episodes']} | {rate} | {interval} | {note} |")
    return lines


def expert_table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| task | expert solves | 95% interval | mean time to success |", "|---|---|---|---|"]
    for row in rows:
        rate = f"{row['successes']}/{row['episodes']} ({100 * row['ours']:.1f}%)"
        interval = f"{100 * row['low']:.1f} to {100 * row['high']:.1f}%"
        lines.append(f"| `{row['case']}` | {rate} | {interval} | {row['note'].split()[0]} s |")
    return lines


def demonstrations_table(rows: list[dict[str, Any]]) -> list[str]:
    """Success of the best policy of each of our tasks by the number of demonstrations."""
    best: dict[str, dict[int, tuple[float, str]]] = {}
    for row in rows:
        task, demonstrations, policy = row["case"].split(", ")
        if task not in TASKS:
            continue
        cell = f"{row['successes']}/{row['episodes']} {policy} ({100 * row['low']:.0f} to {100 * row['high']:.0f}%)"
        counts = best.setdefault(task, {})
        count = int(demonstrations.split()[0])
        counts[count] = max(counts.get(count, (-1.0, "")), (row["ours"], cell))
    lines = ["| task | " + " | ".join(f"{n} demonstrations" for n in COUNTS) + " |", "|---" * (1 + len(COUNTS)) + "|"]
    for task in TASKS:
        cells = [best.get(task, {}).get(n, (0.0, "not run"))[1] for n in COUNTS]
        lines.append(f"| `{task}` | {' | '.join(cells)} |")
    return lines


def finetune_table(outcomes: dict[str, dict[str, Any]]) -> list[str]:
    """Before and after, in the form of HIL-SERL's table: success, median time to success, and what it took."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for _, run in sorted(outcomes.items()):
        if "method" in run:
            runs.setdefault((run["task"], run["method"]), []).append(run)
    heads = (
        "task, method",
        "cloned",
        "corrected",
        "practised",
        "demonstrated in",
        "now in",
        "ratio",
        "practice",
        "in all",
    )
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    order = list(FINETUNED)
    for task, method in sorted(runs, key=lambda cell: (order.index(cell[0]), cell[1])):
        cell = runs[task, method]
        demonstrated, seconds = cell[0]["demonstrated_s"], [run["after"]["seconds"] for run in cell]
        steps, minutes = (statistics.fmean(run[name] for run in cell) for name in ("env_steps", "minutes"))
        after = statistics.median(seconds) if all(seconds) else None
        shown = [
            f"`{task}`, {method}, {count(len(cell), 'seed')}",
            _solved(cell, "cloned"),
            _solved(cell, "before") if cell[0]["dagger_episodes"] else "",
            _solved(cell, "after"),
            f"{demonstrated:.2f} s",
            "" if after is None else f"{after:.2f} s",
            "" if after is None else f"{after / demonstrated:.2f}",
            f"{steps / 1e6:.1f} M steps",
            f"{minutes:.0f} minutes",
        ]
        lines.append(f"| {' | '.join(shown)} |")
    return lines


def _solved(runs: list[dict[str, Any]], stage: str) -> str:
    solved, episodes = (sum(run[stage][name] for run in runs) for name in ("successes", "episodes"))
    interval = wilson(solved, episodes)
    return f"{100 * solved / episodes:.1f}% ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a result; none where it was not measured yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []


def renewed(document: Path, **tables: list[str]) -> str:
    """The document with what stands between `<!-- NAME: ... -->` and `<!-- /NAME -->` replaced."""
    text = document.read_text(encoding="utf-8")
    for name, lines in tables.items():
        shown = "\n".join(lines)
        pattern = rf"(<!-- {name}:.*? -->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, rf"\1\n{shown}\n\n\2", text, flags=re.DOTALL)
        assert found == 1, f"{document.name} has no place for the table {name}"
    return text


def _against(row: dict[str, Any], kind: str) -> str:
    """`1.2k (SB3), 2.5x` for a peer or a floor; empty where there is none."""
    value, name = row.get(kind), row.get(f"{kind}_name")
    if value is None:
        return ""
    positive = (row.get("ours") or 0) > 0 and value > 0  # returns may not be
    ratio = f", {row['ours'] / value:.2f}x" if positive else ""
    return f"{_number(value)}{f' ({name})' if name else ''}{ratio}"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
