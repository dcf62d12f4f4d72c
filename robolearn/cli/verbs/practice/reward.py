"""`robolearn reward`: learn from recorded episodes which states are solved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from robolearn.configuration.reward import RewardConfig
from robolearn.errors import hint


def train(config: RewardConfig) -> int:
    from robolearn.rl.reward.train import train_reward

    run_dir = config.run_dir
    again = hint("reward", "train", "--config", run_dir / "config.yaml", "--resume")
    result = train_reward(replace(config, output=str(run_dir)), resume_hint=again)
    for line in result.figures.lines():
        print(f"on test episodes: {line}")
    print(f"success classifier: {result.folder}")
    print(f"next: {hint('finetune', 'POLICY', '--method', 'residual', '--reward_from', result.folder)}")
    return 0


VERBS: dict[str, tuple[type, Callable[[Any], int], str]] = {
    "train": (RewardConfig, train, "train a classifier of solved states, usable as a task's reward"),
}
