"""`robolearn demo`: the whole line once, on a third party's task, in minutes."""

from __future__ import annotations

from robolearn.configuration.demo import PipelineConfig

CONFIG = PipelineConfig


def run(config: PipelineConfig) -> int:
    from robolearn.demo import run_pipeline

    outcome = run_pipeline(config)
    print()
    for line in outcome.lines:
        print(line)
    print(f"\nreport: {outcome.report}")
    return 0
