"""One training run from the check of its folder to the exported policy: what cloning, RL and fine-tuning share.

    with open_run(config, folder, resume=resume) as run:
        run.seed()
        policy = build_policy(...).to(run.device)
        run.fit_threads(policy, rows=config.batch_size)
        run.begin()
        state = run.train(algorithm, source, evaluate=...)
        run.export(policy, card)

    run/config.yaml  metrics.jsonl  tensorboard/  checkpoints/{latest,best}/  policy/

Whatever is refused before `begin` leaves no folder behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.tree import write_yaml
from robolearn.policies.folder import PolicyCard, save_policy
from robolearn.policies.policy import Policy
from robolearn.training import distributed
from robolearn.training.checkpoint import load_checkpoint
from robolearn.training.loop import (
    BEST,
    SCORE,
    Algorithm,
    Evaluate,
    RunState,
    Source,
    check_run_dir,
    check_steps_left,
    run_loop,
)
from robolearn.training.seeding import seed_everything
from robolearn.training.threads import fitting_threads, start_thread_pool
from robolearn.training.torch_device import resolve_device


class RunConfig(Protocol):
    """The part of a configuration that every run has."""

    @property
    def device(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def loop(self) -> LoopConfig: ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run in its folder. Under torchrun every process holds one, and the first writes."""

    config: RunConfig
    folder: Path
    device: torch.device
    """This process's own."""
    resources: ExitStack
    """Closed when the run ends: datasets, environments, and whatever else the caller enters."""
    resume: bool
    label: str
    resume_hint: str

    def seed(self) -> None:
        """Seed every generator, equally in all processes, so that all draw the same weights."""
        seed_everything(self.config.seed)

    def fit_threads(self, *networks: nn.Module, rows: int) -> None:
        """Give torch as many threads as `networks` are worth with `rows` rows at a time, until the run ends."""
        self.resources.enter_context(fitting_threads(*networks, rows=rows))

    def begin(self) -> None:
        """Make the folder and write the resolved configuration into it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if distributed.is_main():
            write_yaml(self.config, self.folder / "config.yaml")

    def train(self, algorithm: Algorithm, source: Source, *, evaluate: Evaluate | None = None) -> RunState:
        """Run the training loop to its end, and return what it remembers; arguments as for `run_loop`."""
        if not distributed.is_main():
            seed_everything(distributed.own_seed(self.config.seed))  # each process explores with noise of its own
        return run_loop(
            algorithm,
            source,
            config=self.config.loop,
            run_dir=self.folder,
            evaluate=evaluate,
            resume=self.resume,
            label=self.label,
            resume_hint=self.resume_hint,
        )

    def best(self) -> dict[str, Any] | None:
        """Return the checkpoint of the best evaluation, or None where no evaluation gave a score."""
        return load_checkpoint(self.folder / BEST) if (self.folder / BEST).is_dir() else None

    @property
    def policy(self) -> Path:
        """Folder of the exported policy."""
        return self.folder / "policy"

    def export(self, policy: Policy, card: PolicyCard, *, env_args: Mapping[str, Any] | None = None) -> None:
        """Write the policy folder from the first process; arguments as for `save_policy`."""
        if distributed.is_main():
            save_policy(policy, self.policy, card, env_args=env_args)


@contextmanager
def open_run(
    config: RunConfig,
    folder: str | Path,
    *,
    resume: bool = False,
    label: str = "train",
    resume_hint: str = "run the same again with resume",
) -> Iterator[Run]:
    """Join the processes of the run, find its device, and hold its resources until it ends.

    Args:
        resume: go on where an earlier run in `folder` stopped; starts one where there is none.
        label: names the run in its progress.
        resume_hint: what to tell someone who interrupts the run.

    Raises TrainingError where the run would write over another, and ConfigError where it would go on with a run of
    other inputs or the device cannot be used.
    """
    check_run_dir(folder, resume)
    if resume:
        check_same_inputs(config, Path(folder) / "config.yaml", output=folder)
        check_steps_left(folder, config.loop.total_steps)
    start_thread_pool()
    with ExitStack() as resources:
        resources.enter_context(distributed.process_group())
        yield Run(
            config=config,
            folder=Path(folder),
            device=distributed.own_device(resolve_device(config.device)),
            resources=resources,
            resume=resume,
            label=label,
            resume_hint=resume_hint,
        )


def card_figures(evaluation: Mapping[str, float]) -> dict[str, str]:
    """Return an evaluation's metrics as a policy card shows them, without the score that picks checkpoints."""
    return {name: f"{value:.4g}" for name, value in evaluation.items() if name != SCORE}
