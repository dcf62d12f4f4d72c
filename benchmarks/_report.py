"""One form for every benchmark's result: a JSON file beside the others, and a table on the terminal.

benchmarks/results/<name>.json, or <name>.<processor>.json of speeds, so that those of several makes stand side by side
  {name, command, date, commit, dirty, versions, cpu, cores, load_before, gpu, seconds, rows: [...]}
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from robolearn.evaluation.statistics import wilson
from robolearn.storage import write_text

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LOAD_BEFORE = os.getloadavg()[0]
"""Processes that wanted a core in the minute before the benchmark began."""
BUSY = 0.5
PACKAGES = ("robolearn", "numpy", "torch", "h5py", "isal", "mujoco", "mujoco-warp", "gymnasium", "stable-baselines3")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measured case; numbers are in `unit`. Where the goal is a ratio, `unit` says so."""

    case: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""
    floor: float | None = None
    floor_name: str = ""
    goal: float | None = None
    better: Literal["higher", "lower"] = "higher"
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether ours reaches the goal; None where there is none."""
        if self.goal is None:
            return None
        return bool(self.ours >= self.goal if self.better == "higher" else self.ours <= self.goal)


@dataclass(frozen=True, kw_only=True)
class SuccessRow(Row):
    """A success rate with its Wilson interval."""

    successes: int
    episodes: int
    low: float
    high: float
    seeds: list[int]

    @classmethod
    def of(
        cls,
        case: str,
        successes: int,
        episodes: int,
        seeds: Sequence[int],
        *,
        goal: float | None = None,
        peer: float | None = None,
        peer_name: str = "",
        note: str = "",
    ) -> SuccessRow:
        interval = wilson(successes, episodes)
        return cls(
            case=case,
            unit="success rate",
            ours=successes / episodes,
            peer=peer,
            peer_name=peer_name,
            goal=goal,
            note=note,
            successes=successes,
            episodes=episodes,
            low=interval.low,
            high=interval.high,
            seeds=list(seeds),
        )


def write(name: str, rows: Sequence[Row], *, seconds: float, speed: bool = False) -> Path:
    """Write `benchmarks/results/<name>.json`, print the table, return the path.

    Args:
        speed: the figures are of this make of processor; another one's stay beside them.
    """
    cpu = _cpu()
    result = {
        "name": name,
        "command": shlex.join(["python", "-m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "commit": commit(),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "versions": {"python": platform.python_version()} | _versions(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(LOAD_BEFORE, 2),
        "gpu": gpu_name(),
        "seconds": round(seconds, 1),
        "rows": [asdict(row) | {"met": row.met} for row in rows],
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    make = "_".join(re.findall(r"[a-z0-9]+", cpu.lower().replace("(r)", "")))
    path = RESULTS / f"{name}{f'.{make}' if speed else ''}.json"
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    Console().print(_table(name, rows))
    if speed and LOAD_BEFORE > BUSY:
        print(f"note: the machine was not idle when this began (load average {LOAD_BEFORE:.1f}); measure it again")
    return path


def quartiles(ratios: Sequence[float] | np.ndarray, of: str) -> str:
    """Return a note on how far ratios spread that were measured in turns (`of`: pairs of blocks, rounds)."""
    low, high = np.quantile(ratios, (0.25, 0.75))
    return f"quartiles {low:.3g} and {high:.3g} of {len(ratios)} {of}"


def own_cores() -> bool:
    """Return whether this program is scheduled before all ordinary ones, as by `chrt -r 10 python -m ...`."""
    return os.sched_getscheduler(0) == os.SCHED_RR


def load_now() -> str:
    """Return a note on what else the machine does, which timings of a shared one want beside them."""
    scheduled = ", scheduled before other programs" if own_cores() else ""
    return f"load average before {os.getloadavg()[0]:.1f}{scheduled}"


def load_runs(name: str) -> dict[str, Any]:
    """By key, what each finished run of a long benchmark left in benchmarks/results/raw/<name>.json."""
    path = RESULTS / "raw" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def save_runs(name: str, runs: dict[str, Any]) -> dict[str, Any]:
    """Keep these, and those that another process has added since; a line for each. Returns all."""
    runs = {**load_runs(name), **runs}
    path = RESULTS / "raw" / f"{name}.json"
    lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(runs[key])}" for key in sorted(runs))
    write_text(path, f"{{\n{lines}\n}}\n")
    return runs


def _table(name: str, rows: Sequence[Row]) -> Table:
    table = Table("case", "ours", "peer", "ours/peer", "floor", "ours/floor", "goal", "met", "unit", title=name)
    for row in rows:
        met = {None: "", True: "yes", False: "NO"}[row.met]
        peer = f"{_number(row.peer)} {row.peer_name}".strip()
        floor = f"{_number(row.floor)} {row.floor_name}".strip()
        ratios = [_number(row.ours / other) if other else "" for other in (row.peer, row.floor)]
        table.add_row(row.case, _number(row.ours), peer, ratios[0], floor, ratios[1], _number(row.goal), met, row.unit)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def commit() -> str:
    """Return the commit that is checked out; empty where there is no repository."""
    return _git("rev-parse", "HEAD")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def gpu_name() -> str | None:
    """Return the card's name; None where there is no card."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
