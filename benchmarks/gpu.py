"""Every GPU figure with one command: `make gpu-figures`, within eight minutes on one card.

    python -m benchmarks.gpu                # on the card: results/gpu/<part>/<benchmark>.json, each with its name
    python -m benchmarks.gpu --rehearse     # the same parts, tiny, on the CPU (Warp's CPU device), results thrown away

A part that this commit has finished on this card is not run again, so a call that was cut off goes on where it stopped.
A part that would take longer than what is left of the time is ended and told as missing; the next call begins with it,
and fine-tuning goes on from its last checkpoint.
Each part has a process of its own: a CUDA fault, or memory that fragments, must not take the others with it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import _report

PARTS_FOLDER = _report.RESULTS / "gpu"


@dataclass(frozen=True)
class Part:
    """One benchmark with the arguments of the card and those of the rehearsal."""

    name: str
    module: str
    card: str
    """May name the {commit}, for what a later call is to go on with."""
    rehearsal: str
    """May name the {folder} of the results; empty where another part rehearses the same."""


PARTS = (
    Part(
        "simulation_lift",
        "gpu_sim",
        "--device cuda --tasks Lift --worlds 1024,4096,16384 --steps 50",
        "--device cpu --tasks Lift --worlds 2 --steps 2",
    ),
    Part("simulation_peg_insert", "gpu_sim", "--device cuda --tasks PegInsert --worlds 1024,4096 --steps 50", ""),
    Part(
        "rl",
        "rl_gpu",
        "--device cuda --tasks Reach --minutes 0.75 --updates 20",
        "--device cpu --tasks Reach --minutes 0 --worlds 2 --sac-worlds 1 --updates 1 --episodes 1 --rehearse",
    ),
    Part("rl_lift", "rl_gpu", "--device cuda --tasks Lift --minutes 1.5 --sac-worlds= --updates 20", ""),
    Part("cloning", "train_bc", "--rounds 3 --seconds 2", "--rounds 1 --seconds 0.2"),
    Part(
        "cloning_expressive",
        "policy_train",
        "--rounds 3 --seconds 2 --cases autoregressive,diffusion,flow,ACT",
        "--rounds 1 --seconds 0.2 --cases flow",
    ),
    Part(
        "latency",
        "policy_latency",
        "--device cuda --repeats 50",
        "--device cpu --repeats 2 --seconds 0 --cases gaussian",
    ),
    Part(
        "finetune",
        "finetune",
        "--tasks Lift --seeds 1 --backend warp --updates 100 --runs runs/gpu/{commit}",
        "--tasks Lift --seeds 1 --backend warp --rehearse --runs {folder}/runs",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="for all parts together; none takes 8, or 30 to rehearse")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, default=PARTS_FOLDER, help=argparse.SUPPRESS)
    own, of_part = partition(sys.argv[1:])
    args = parser.parse_args(own)
    if args.part:
        run_here(args.part, args.folder, of_part)
    elif args.rehearse:
        with tempfile.TemporaryDirectory() as folder:
            parts = [part for part in PARTS if part.rehearsal]
            sys.exit(run_all(Path(folder), parts, args.minutes or 30.0, rehearse=True))
    elif not torch.cuda.is_available():
        sys.exit("no CUDA card is at hand; `python -m benchmarks.gpu --rehearse` tries the parts on the CPU")
    else:
        sys.exit(run_all(args.folder, PARTS, args.minutes or 8.0, rehearse=False))


def partition(words: list[str]) -> tuple[list[str], list[str]]:
    """Return our own arguments, and behind `--` those of a part, which may have the same names."""
    at = words.index("--") if "--" in words else len(words)
    return words[:at], words[at + 1 :]


def run_here(module: str, folder: Path, arguments: Sequence[str]) -> None:
    """Run one benchmark in this process, its results into `folder`."""
    _report.RESULTS = folder
    sys.argv = [module, *arguments]
    importlib.import_module(f"benchmarks.{module}").main()


def run_all(folder: Path, parts: Sequence[Part], minutes: float, *, rehearse: bool) -> int:
    """Run what is not done yet; return how many parts have no result."""
    end, missing = time.monotonic() + 60 * minutes, []
    for part in parts:
        if finished(folder / part.name):
            print(f"{part.name}: done before", flush=True)
            continue
        began = time.monotonic()
        results = folder / part.name
        shutil.rmtree(results, ignore_errors=True)  # of another commit or card
        arguments = (part.rehearsal if rehearse else part.card).format(folder=results, commit=_report.commit()).split()
        command = [sys.executable, "-m", "benchmarks.gpu", "--part", part.module, "--folder", str(results), "--"]
        try:
            left = max(1.0, end - began)
            code = subprocess.run([*command, *arguments], cwd=_report.ROOT, timeout=left, check=False).returncode
        except subprocess.TimeoutExpired:
            code = None
        if code != 0:
            missing.append(part.name)
        outcome = {None: "the time was over", 0: "done"}.get(code, f"failed with exit status {code}")
        print(f"{part.name}: {outcome} after {time.monotonic() - began:.0f} s", flush=True)
    if missing:
        print(f"missing: {', '.join(missing)}; call again to go on with them", flush=True)
    return len(missing)


def finished(folder: Path) -> bool:
    """Return whether this commit has left a result there, on this card."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    return any(r["commit"] == _report.commit() and r["gpu"] == _report.gpu_name() for r in results)


if __name__ == "__main__":
    main()
