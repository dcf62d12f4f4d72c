"""`robolearn eval`: policies on fixed seeds, with intervals and paired tests."""

from __future__ import annotations

from robolearn.configuration.evaluation import EvalConfig

CONFIG = EvalConfig


def run(config: EvalConfig) -> int:
    from robolearn.evaluation.evaluate_policies import run_evaluation

    for line in run_evaluation(config):
        print(line)
    return 0
