"""`robolearn train`: behaviour cloning of dataset files into a policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from robolearn.imitation.config import BCConfig


@dataclass(frozen=True, kw_only=True)
class TrainConfig(BCConfig):
    """Train a policy by behaviour cloning."""

    output: str = ""
    """Run folder; empty means policies/<dataset>_<head>."""
    resume: bool = False
    """Go on where the run in the output folder stopped."""

    @property
    def run_dir(self) -> Path:
        return Path(self.output or f"policies/{Path(self.dataset[0]).stem}_{self.policy.head.name}")


CONFIG = TrainConfig


def run(config: TrainConfig) -> int:
    from robolearn.imitation.bc import train_bc

    run_dir = config.run_dir
    hint = f"robolearn train --config {run_dir / 'config.yaml'} --resume"
    resolved = replace(config, output=str(run_dir), resume=False)
    result = train_bc(resolved, run_dir, resume=config.resume, resume_hint=hint)
    figures = "".join(f", {name} {value:.4g}" for name, value in result.metrics.items() if name != "score")
    print(f"trained {result.steps} steps{figures}: {result.policy}")
    print(f"next: robolearn eval {result.policy}")
    return 0
