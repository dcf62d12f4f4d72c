"""The demo over several training seeds: how good each stage is, on the same fresh evaluation seeds.

python -m benchmarks.pipeline [--training-seeds 3] [--folder runs/pipeline]     resumable: complete stages are kept
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from benchmarks._report import SuccessRow, write
from robolearn.configuration.demo import PipelineConfig
from robolearn.demo import run_pipeline
from robolearn.evaluation.results import EvaluationResult

TITLES = {
    "demonstrator": "demonstrator (Meta-World's scripted policy)",
    "clone": "behaviour cloning, 20 demonstrations",
    "dagger": "+ 2 DAgger rounds",
    "finetune": "+ PPO from success alone",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training-seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/pipeline"))
    arguments = parser.parse_args()
    began = time.monotonic()
    outcomes = [
        run_pipeline(PipelineConfig(output=str(arguments.folder / f"seed_{seed}"), seed=1000 * seed)).results
        for seed in range(arguments.training_seeds)
    ]
    rows = [stage_row(name, [r for results in outcomes for r in results if r.name == name]) for name in TITLES]
    write("pipeline", rows, seconds=time.monotonic() - began)


def stage_row(name: str, results: list[EvaluationResult]) -> SuccessRow:
    """One row of the table, pooled over the training seeds."""
    each = ", ".join(str(r.successes) for r in results)
    times = sorted(t for r in results for t in r.times_to_success_s)
    return SuccessRow.of(
        TITLES[name],
        sum(r.successes for r in results),
        sum(len(r.episodes) for r in results),
        results[0].seeds,
        goal=0.95 if name == "finetune" else None,
        note=f"per training seed {each}; median time to success {times[len(times) // 2]:.2f} s",
    )


if __name__ == "__main__":
    main()
