"""Behaviour cloning: maximum likelihood (or its bound, or an error) of the recorded actions, any policy head."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.loop import OptimiserConfig
from robolearn.configuration.parts.policy import PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.examine import check_trainable
from robolearn.datasets.normalisation import normalisation_statistics
from robolearn.datasets.windows import StepWeights, WindowSampler, split
from robolearn.errors import ConfigError, DatasetError
from robolearn.imitation.agreement import check_init_policy
from robolearn.imitation.weights import step_weights
from robolearn.policies.build import build_policy
from robolearn.policies.folder import PolicyCard, load_policy
from robolearn.policies.policy import Policy
from robolearn.policies.residual import check_clonable
from robolearn.specs import Batch
from robolearn.training import distributed
from robolearn.training.loop import Algorithm, RunState, Source
from robolearn.training.optim import MovingAverage, Optimiser
from robolearn.training.precision import autocast
from robolearn.training.run import card_figures, open_run
from robolearn.training.seeding import seed_everything
from robolearn.training.threads import flushed_denormals

MAX_VALID_BATCHES = 50
LARGE_ON_A_PROCESSOR = 8_000_000
"""Weights with which an update takes a good part of a second there, or seconds."""

PolicyEvaluation = Callable[[Policy, int], Mapping[str, float]]
"""(policy, step) -> metrics; `score`, where given, picks the best checkpoint."""


class BehaviourCloning:
    """The algorithm: one optimiser step on the policy's own loss per batch."""

    name = "behaviour cloning"

    def __init__(
        self, policy: Policy, config: OptimiserConfig, total_steps: int, *, precision: str = "float32"
    ) -> None:
        self.policy = policy.train()
        self.optimiser = Optimiser(policy, config, total_steps)
        self.average = MovingAverage(policy, config) if config.ema else None
        self.autocast = autocast(next(policy.parameters()).device, precision == "bfloat16")

    def update(self, batch: Batch) -> dict[str, Tensor]:
        with flushed_denormals():
            with self.autocast:
                losses, weights, metrics = self.policy.losses(batch)
                # L = sum_i w_i l_i / sum_i w_i: this process's rows above, the rows of all processes below, so that
                # gradients summed over processes are those of one batch.
                loss = (losses * weights).sum() / distributed.sum_(weights.sum()).clamp_min(1e-8)
            # What is logged is the mean over processes, of shares that sum to the loss.
            metrics = {"loss": loss.detach() * distributed.world_size(), **metrics}
            metrics |= self.optimiser.step(loss)
            if self.average is not None:
                self.average.update()
        return metrics

    def export(self, folder: Path) -> None:
        """Write what belongs beside the exported policy: nothing."""

    def result(self) -> Policy:
        """Return the policy to evaluate and export: the averaged weights where an average is kept."""
        return self.policy if self.average is None else self.average.average()

    def state_dict(self) -> dict[str, Any]:
        average = {} if self.average is None else self.average.state_dict()
        return {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict(), "average": average}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


class DataLearner(Algorithm, Protocol):
    """An algorithm that makes a policy of a data set: cloning, or one that learns from its rewards as well."""

    @property
    def name(self) -> str: ...

    @property
    def policy(self) -> Policy:
        """The policy that learns."""
        ...

    def result(self) -> Policy:
        """Return the policy to evaluate and export."""
        ...

    def export(self, folder: Path) -> None:
        """Write what belongs beside the exported policy in `folder`."""
        ...


class DatasetSource:
    """The loop's view of a window sampler: batch after batch, resumable."""

    def __init__(self, dataset: Dataset, sampler: WindowSampler) -> None:
        self.dataset, self.sampler = dataset, sampler
        self._batches: Iterator[Batch] = sampler.forever()

    def next(self) -> Batch:
        return next(self._batches)

    def describe(self, batch: Batch) -> str:
        """Name the window that stands out most: values that are not finite, else the farthest from the others."""
        row, name = oddest_row(batch)
        episode = self.dataset.episodes[int(batch.episodes[row])]
        return f"Its oddest window is step {int(batch.steps[row])} of episode {episode} ({name})"

    def state_dict(self) -> dict[str, Any]:
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state)
        self._batches = self.sampler.forever()


@dataclass(frozen=True, kw_only=True)
class BCResult:
    """Outcome of cloning."""

    policy: Path
    """The exported policy folder."""
    steps: int
    metrics: dict[str, float]
    """Of the last evaluation."""


MakeLearner = Callable[[Policy, BCConfig, Dataset, DatasetSource], tuple[DataLearner, Source]]
"""(policy, config, episodes, windows) -> the algorithm and the source that it learns from."""


def cloning(
    policy: Policy, config: BCConfig, train: Dataset, windows: DatasetSource
) -> tuple[BehaviourCloning, Source]:
    """Return plain cloning of the windows."""
    return BehaviourCloning(policy, config.optimiser, config.loop.total_steps, precision=config.precision), windows


def train_bc(
    config: BCConfig,
    run_dir: str | Path,
    *,
    task: TaskConfig | None = None,
    learner: MakeLearner = cloning,
    resume: bool = False,
    evaluate: PolicyEvaluation | None = None,
    resume_hint: str = "train again with resume",
    label: str = "train",
) -> BCResult:
    """Train a policy on recorded windows and export it to `run_dir/policy`.

    Under torchrun the processes share out each batch, and the first one evaluates and writes.

    Args:
        task: that the policy is for; None takes the one that the data was recorded in.
        learner: makes the algorithm: cloning, or one that weights it.
        resume: go on where an earlier run in `run_dir` stopped; starts one where there is none.
        evaluate: called every `loop.evaluate_every` steps, beside the validation loss.

    Raises ConfigError, DatasetError or PolicyError before training begins where data and policy do not fit.
    """
    with open_run(config, run_dir, resume=resume, label=label, resume_hint=resume_hint) as run:
        dataset = run.resources.enter_context(Dataset(config.dataset, reading=config.reading))
        train, valid = train_and_valid(dataset, config)
        look_at_data(train, config)
        run.seed()
        policy = make_policy(config, train).to(run.device)
        note_size(policy, run.device)
        run.fit_threads(policy, rows=config.batch_size)
        share = (distributed.rank(), distributed.world_size())
        weights = step_weights(config.weights, train)
        sampler = make_sampler(
            train, policy.config, config, run.device, config.batch_size, share=share, weights=weights
        )
        validate = None
        if valid is not None:
            windows = make_sampler(valid, policy.config, config, run.device, config.batch_size, drop_last=False)
            validate = Validation(windows, config.seed)
        distributed.broadcast_(policy)
        algorithm, source = learner(policy, config, train, DatasetSource(train, sampler))

        def evaluation(step: int) -> dict[str, float]:
            was_training = algorithm.policy.training
            result = algorithm.result().eval()
            metrics = {} if validate is None else validate(result)
            if evaluate is not None:
                metrics |= evaluate(result, step)
            algorithm.policy.train(was_training)
            return metrics

        judged = validate is not None or evaluate is not None
        if config.export == "best" and not judged:
            raise ConfigError(
                "export best picks by evaluations, and there are none: set episodes aside (--valid_fraction 0.1), roll "
                "out (--rollouts 20), or export last"
            )
        run.begin()
        state = run.train(algorithm, source, evaluate=evaluation if judged else None)
        if config.export == "best" and (best := run.best()) is not None:
            algorithm.load_state_dict(best["algorithm"])
        card = _card(config, task.id if task else train.task, train, state, algorithm.name)
        run.export(algorithm.result(), card, env_args=task.env_args() if task else dataset.env_args)
        if distributed.is_main():
            algorithm.export(run.policy)
    return BCResult(policy=run.policy, steps=state.step, metrics=dict(state.evaluation))


def train_and_valid(dataset: Dataset, config: BCConfig) -> tuple[Dataset, Dataset | None]:
    """Return episodes to learn from and to validate on: the files' masks decide, else `valid_fraction`."""
    if not len(dataset):
        raise DatasetError(f"{', '.join(config.dataset)} holds no episodes to learn from")
    masks = dataset.masks
    for name in (config.filter_key, config.valid_mask if config.valid_mask != BCConfig.valid_mask else None):
        if name and name not in masks:
            raise DatasetError(f"no mask {name!r} in {', '.join(config.dataset)}; the masks are {sorted(masks)}")
    if config.valid_mask not in masks and config.valid_fraction:
        chosen = dataset.select(masks[config.filter_key]) if config.filter_key else dataset
        return split(chosen, config.valid_fraction, config.seed, by_masks=False)
    held_out = masks.get(config.valid_mask, ()) if config.valid_mask else ()
    # Not the mask `train`: episodes of files without masks (DAgger rounds) are to be learned from, too.
    chosen = masks[config.filter_key] if config.filter_key else range(len(dataset))
    train = dataset.select([i for i in chosen if i not in set(held_out)])
    if not len(train):
        raise DatasetError(
            f"{', '.join(config.dataset)} leaves no episodes to learn from; all are in the mask {config.valid_mask!r}, "
            "which is set aside for validation (--valid_mask none learns from it)"
        )
    return train, dataset.select(held_out) if held_out else None


def look_at_data(dataset: Dataset, config: BCConfig) -> None:
    """Say what was assumed of the data and what is odd in it. Raises DatasetError where it must not be learned from."""
    wanted = [key for key in config.policy.obs_keys if key in dataset.observation_spec]
    actions = ("actions", "expert_actions") if config.target == "labels" else ("actions",)
    odd = check_trainable(dataset, wanted or None, actions)
    if distributed.rank() == 0:
        for title, lines in (("assumed", dataset.assumptions), ("warning", odd)):
            for line in lines:
                print(f"{title}: {line}", file=sys.stderr, flush=True)


def note_size(policy: Policy, device: torch.device) -> None:
    """Say so where a network is too large for a processor, before somebody waits for it."""
    weights = sum(parameter.numel() for parameter in policy.parameters())
    if device.type == "cpu" and weights > LARGE_ON_A_PROCESSOR and distributed.rank() == 0:
        print(
            f"note: {weights / 1e6:.0f} million weights want a GPU; docs/policies.md tells which networks a processor "
            "trains in minutes",
            file=sys.stderr,
            flush=True,
        )


def make_policy(config: BCConfig, dataset: Dataset) -> Policy:
    """Return a new policy normalised by the data, or the one at `init_policy`, checked against the data.

    The data is taken to be fit for training: `look_at_data` says so.
    """
    if config.init_policy:
        policy = load_policy(config.init_policy)
        check_clonable(policy, config.init_policy)
        if config.policy not in (PolicyConfig(), policy.config):
            raise ConfigError(f"init_policy {config.init_policy} decides what the policy is; leave `policy` out")
        check_init_policy(policy, dataset, config.init_policy)
    else:
        keys = config.policy.obs_keys or tuple(dataset.observation_spec)
        numeric = [key for key in keys if key in dataset.low_dim_keys()]
        statistics = normalisation_statistics(dataset, (*numeric, "actions"))
        policy = build_policy(config.policy, dataset.observation_spec, dataset.action_spec, statistics)
        actions = torch.tensor(dataset.columns(["actions"])["actions"], dtype=torch.float32)
        policy.head.fit(policy.action_normaliser.normalise(actions))
    longest = max(dataset.lengths)
    if policy.config.pred_steps > longest:
        raise DatasetError(
            f"policy.pred_steps is {policy.config.pred_steps}, but the longest episode of {', '.join(config.dataset)} "
            f"has {longest} steps; predict fewer steps or record longer episodes"
        )
    return policy


class Validation:
    """Mean loss over held-out windows, the same ones with the same noise at each call; `score` is its negative."""

    def __init__(self, sampler: WindowSampler, seed: int) -> None:
        self.sampler, self.seed = sampler, seed
        self.start = sampler.state_dict()

    @torch.no_grad()
    def __call__(self, policy: Policy) -> dict[str, float]:
        self.sampler.load_state_dict(self.start)
        seed_everything(self.seed)
        total, count = 0.0, 0
        for batch in islice(self.sampler, MAX_VALID_BATCHES):
            total += float(policy.loss(batch)[0]) * len(batch)
            count += len(batch)
        return {"valid_loss": total / count, "score": -total / count}


def oddest_row(batch: Batch) -> tuple[int, str]:
    """Return the row with a value that is not finite, else the farthest (in deviations) from the mean; and why."""
    best, found = -1.0, (0, "nothing stands out")
    for name, value in {**{f"obs/{k}": v for k, v in batch.obs.items()}, "actions": batch.actions}.items():
        rows = value.detach().double().flatten(1)
        finite = torch.isfinite(rows)
        centred = rows - torch.where(finite, rows, 0.0).mean(0)
        distance = (centred.abs() / centred[finite.all(1)].std(0, unbiased=False).clamp_min(1e-6)).nan_to_num(torch.inf)
        distance = torch.where(finite, distance, torch.inf).amax(1)
        row = int(distance.argmax())
        if float(distance[row]) > best:
            best = float(distance[row])
            extreme = rows[row][distance[row].isinf() & ~finite[row]] if best == np.inf else rows[row]
            found = (row, f"{name} reaches {float(extreme.abs().max()):g}")
    return found


def make_sampler(
    dataset: Dataset,
    policy: PolicyConfig,
    config: BCConfig,
    device: torch.device,
    batch_size: int,
    *,
    drop_last: bool = True,
    share: tuple[int, int] = (0, 1),
    weights: StepWeights | None = None,
) -> WindowSampler:
    """Return windows of the size that the policy needs; `share` and `weights` as for `WindowSampler`."""
    return WindowSampler(
        dataset,
        obs_steps=policy.obs_steps,
        pred_steps=policy.pred_steps,
        obs_keys=policy.obs_keys,
        batch_size=batch_size,
        seed=config.seed,
        target=config.target,
        step_weights=weights,
        drop_last=drop_last,
        device=device,
        share=share,
    )


def _card(config: BCConfig, task: str, train: Dataset, state: RunState, algorithm: str) -> PolicyCard:
    sources = sorted({info.source for info in train.info})
    steps = sum(train.lengths)
    return PolicyCard(
        task={"task": task, "control rate": f"{train.control_hz:g} Hz"},
        data={
            "files": ", ".join(str(path.name) for path in train.paths),
            "episodes": f"{len(train)} ({', '.join(sources)}), {steps} steps",
            "successful": sum(info.success for info in train.info),
        },
        training={
            "algorithm": f"{algorithm} of {config.target}",
            "steps": f"{state.step} of {config.batch_size} windows, {state.time_s:.0f} s",
            "learning rate": f"{config.optimiser.learning_rate:g}, {config.optimiser.schedule}",
            "started from": config.init_policy or "new weights",
            "seed": config.seed,
        },
        evaluation=card_figures(state.evaluation),
    )
