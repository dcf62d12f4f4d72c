"""Train a success classifier on recorded episodes, choose its threshold, and say how far it can be trusted.

    episodes ──▶ trained on | validation: picks the threshold | test: precision and recall, nothing was picked on it

Whole episodes go to one side: states of one episode look alike.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robolearn.configuration.reward import RewardConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.normalisation import normalisation_statistics
from robolearn.envs.interface import Observation
from robolearn.errors import DatasetError
from robolearn.evaluation.statistics import Interval, wilson
from robolearn.rl.reward.classifier import FOLDER, ClassifierConfig, SuccessClassifier, save_classifier
from robolearn.storage import write_json
from robolearn.training.optim import Optimiser
from robolearn.training.run import open_run

FEWEST = 3
"""Successes that can be shared out: one to learn from, one to pick the threshold by, one to test on."""
ROWS = 1024
"""States that are classified at once."""
FIGURES = "figures.json"


@dataclass(frozen=True, kw_only=True)
class States:
    """States of some episodes, one after the other."""

    obs: Observation
    """(S, ...) per key."""
    solved: Tensor
    """(S,) bool."""
    lengths: tuple[int, ...]
    """States of each episode."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """How good a classifier is on episodes that nothing was learned from or picked by."""

    precision: Interval
    """Of the states called solved, those that are."""
    recall: Interval
    """Of the solved states, those called so."""
    false_alarms: Interval
    """Of the episodes, those in which it counts a state as solved that is not, after `hold_steps` in a row."""
    threshold: float

    def lines(self) -> list[str]:
        """Return what a person reads, a line each."""
        named = {"precision": self.precision, "recall": self.recall, "episodes with a false alarm": self.false_alarms}
        return [f"{name} {v.estimate:.1%} [{v.low:.1%}, {v.high:.1%}]" for name, v in named.items()] + [
            f"threshold {self.threshold:.3f}"
        ]


@dataclass(frozen=True, kw_only=True)
class RewardResult:
    """Outcome of training a classifier."""

    folder: Path
    """What `--reward_from` takes."""
    figures: Figures


class Classification:
    """The algorithm: balanced cross-entropy; one of the training loop."""

    def __init__(self, classifier: SuccessClassifier, config: RewardConfig) -> None:
        self.classifier = classifier.train()
        self.optimiser = Optimiser(classifier, config.optimiser, config.loop.total_steps)

    def update(self, batch: tuple[Observation, Tensor]) -> dict[str, Tensor]:
        obs, solved = batch
        log_odds = self.classifier(obs)
        # L = -E[y log p + (1 - y) log(1 - p)], half of the batch with y = 1
        loss = F.binary_cross_entropy_with_logits(log_odds, solved.float())
        accuracy = ((log_odds > 0) == solved).float().mean()
        return {"loss": loss.detach(), "accuracy": accuracy, **self.optimiser.step(loss)}

    def state_dict(self) -> dict[str, Any]:
        return {"classifier": self.classifier.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.classifier.load_state_dict(state["classifier"])
        self.optimiser.load_state_dict(state["optimiser"])


class BalancedStates:
    """A source of the training loop: half of each batch solved, half not, each drawn uniformly."""

    def __init__(self, states: States, batch_size: int, seed: int, device: torch.device) -> None:
        self.states, self.device = states, device
        self.kinds = [states.solved.nonzero()[:, 0], (~states.solved).nonzero()[:, 0]]
        self.sizes = [batch_size // 2, batch_size - batch_size // 2]
        self.generator = torch.Generator().manual_seed(seed)

    def next(self) -> tuple[Observation, Tensor]:
        drawn = [
            rows[torch.randint(len(rows), (n,), generator=self.generator)] for rows, n in zip(self.kinds, self.sizes)
        ]
        index = torch.cat(drawn)
        obs = {key: value[index].to(self.device) for key, value in self.states.obs.items()}
        return obs, self.states.solved[index].to(self.device)

    def describe(self, batch: tuple[Observation, Tensor]) -> str:
        largest = max(float(v.float().abs().nan_to_num(torch.inf).max()) for v in batch[0].values())
        return f"Its largest observation is {largest:g}"

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.generator.set_state(state["generator"])


def train_reward(config: RewardConfig, *, resume_hint: str = "train again with resume") -> RewardResult:
    """Train a classifier as `config` says and write it to `reward` in its run folder.

    Raises DatasetError where the episodes show one kind of state only, or are too few to be shared out.
    """
    label = "reward"
    resolved = replace(config, resume=False)
    with open_run(resolved, config.run_dir, resume=config.resume, label=label, resume_hint=resume_hint) as run:
        dataset = run.resources.enter_context(Dataset(config.dataset, reading=config.reading))
        keys = config.obs_keys or tuple(dataset.observation_spec)
        spec = dataset.observation_spec.select(keys)
        parts = [dataset.select(rows) for rows in shared_out(dataset, config)]
        train, valid, test = (read_states(part, keys, config.last_steps) for part in parts)
        check_both_kinds(dataset, train)
        for line in dataset.assumptions:
            print(f"assumed: {line}", file=sys.stderr, flush=True)
        run.seed()
        numeric = [key for key in keys if key in dataset.low_dim_keys()]
        build = ClassifierConfig(
            network=config.network, vision=config.vision, threshold=0.5, hold_steps=config.hold_steps
        )
        statistics = normalisation_statistics(parts[0], numeric) if numeric else {}
        classifier = SuccessClassifier(build, spec, statistics).to(run.device)
        run.fit_threads(classifier, rows=config.batch_size)
        run.begin()
        source = BalancedStates(train, config.batch_size, config.seed, run.device)
        run.train(Classification(classifier, config), source)
        classifier.eval()
        threshold = pick_threshold(scores(classifier, valid), valid.solved.numpy(), config.precision)
        figures = judge(scores(classifier, test), test, threshold, config.hold_steps)
        classifier.config = replace(build, threshold=threshold)
        folder = run.folder / FOLDER
        save_classifier(classifier, folder, _card(config, dataset, figures))
        write_json(run.folder / FIGURES, _plain(figures), indent=2)
    return RewardResult(folder=folder, figures=figures)


def shared_out(dataset: Dataset, config: RewardConfig) -> list[list[int]]:
    """Return the episodes to train on, to pick the threshold by and to test on, successes and failures alike.

    Raises DatasetError where there are no successes, or too few of them.
    """
    files = ", ".join(str(path) for path in dataset.paths)
    successes = [i for i, info in enumerate(dataset.info) if info.success]
    failures = [i for i, info in enumerate(dataset.info) if not info.success]
    if not successes:
        raise DatasetError(
            f"the {len(dataset)} episodes of {files} are failures only, so that no state is solved and a classifier "
            "would see one class only. Add files with successes, or say so where all succeeded: --success true"
        )
    if len(successes) < FEWEST:
        raise DatasetError(
            f"{files} has {len(successes)} episodes that succeeded; a classifier needs at least {FEWEST}, one each to "
            "learn from, to pick the threshold by and to test on. Record more"
        )
    generator = np.random.default_rng(config.seed)
    parts: list[list[int]] = [[], [], []]
    for rows in (successes, failures):
        rows = generator.permutation(rows).tolist()
        each = max(1, round(len(rows) * config.held_out / 2)) if len(rows) >= FEWEST else 0
        each = min(each, (len(rows) - 1) // 2)
        for part, chosen in zip(parts, (rows[2 * each :], rows[:each], rows[each : 2 * each])):
            part += chosen
    return [sorted(part) for part in parts]


def read_states(dataset: Dataset, keys: Sequence[str], last_steps: int) -> States:
    """Return all states of the episodes, the one reached last included, and which of them are solved."""
    seen: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    solved: list[Tensor] = []
    for episode in (dataset.read(i, keys) for i in range(len(dataset))):
        for key in keys:
            seen[key] += [episode.obs[key], episode.final_obs[key][None]]
        labels = torch.zeros(len(episode.actions) + 1, dtype=torch.bool)
        labels[-last_steps:] = episode.info.success
        solved.append(labels)
    obs = {key: torch.as_tensor(np.concatenate(parts)) for key, parts in seen.items()}
    return States(obs=obs, solved=torch.cat(solved), lengths=tuple(map(len, solved)))


def check_both_kinds(dataset: Dataset, train: States) -> None:
    """Raise DatasetError where every state to learn from is solved; say so where no episode failed."""
    files = ", ".join(str(path) for path in dataset.paths)
    if bool(train.solved.all()):
        raise DatasetError(
            f"every state of {files} counts as solved, so that a classifier would see one class only: states that are "
            "not solved are missing. Lower --last_steps, or add episodes that failed"
        )
    if all(info.success for info in dataset.info):
        print(
            f"note: no episode of {files} failed; what is not solved is known from ways to success only. Practice "
            "meets other states: failed episodes (record --keep_failures, or corrections.hdf5 of a run) teach them",
            file=sys.stderr,
            flush=True,
        )


def scores(classifier: SuccessClassifier, states: States) -> np.ndarray:
    """Return (S,) the probability that each state is solved."""
    device = next(classifier.parameters()).device
    starts = range(0, len(states.solved), ROWS)
    parts = [
        classifier.probability({key: value[i : i + ROWS].to(device) for key, value in states.obs.items()})
        for i in starts
    ]
    return torch.cat(parts).double().cpu().numpy()


def pick_threshold(scored: np.ndarray, solved: np.ndarray, precision: float) -> float:
    """Return the lowest threshold with at least this precision, in the middle of the gap below it; where none has it,
    that of the best precision.

    Args:
        scored: (S,) probabilities.
        solved: (S,) bool, at least one.
    """
    order = np.argsort(-scored, kind="stable")
    descending = scored[order]
    precisions = np.cumsum(solved[order]) / np.arange(1, len(order) + 1)
    whole = np.append(descending[:-1] != descending[1:], True)  # a threshold cannot part equal scores
    wanted = min(precision, float(precisions[whole].max()))
    last = int(np.flatnonzero(whole & (precisions >= wanted))[-1])
    below = descending[last + 1] if last + 1 < len(descending) else 0.0
    return float((descending[last] + below) / 2)


def judge(scored: np.ndarray, states: States, threshold: float, hold_steps: int) -> Figures:
    """Return precision, recall and false alarms with their intervals (Wilson)."""
    solved, called = states.solved.numpy(), scored >= threshold
    right, alarms, first = int((called & solved).sum()), 0, 0
    for length in states.lengths:
        wrong = called[first : first + length] & ~solved[first : first + length]
        runs = np.convolve(wrong, np.ones(hold_steps), "valid") if length >= hold_steps else np.zeros(0)
        alarms += bool((runs == hold_steps).any())
        first += length
    return Figures(
        precision=wilson(right, int(called.sum())),
        recall=wilson(right, int(solved.sum())),
        false_alarms=wilson(alarms, len(states.lengths)),
        threshold=threshold,
    )


def _plain(figures: Figures) -> dict[str, Any]:
    return {name: v.to_dict() if isinstance(v, Interval) else v for name, v in vars(figures).items()}


def _card(config: RewardConfig, dataset: Dataset, figures: Figures) -> str:
    solved = sum(info.success for info in dataset.info)
    return "\n".join(
        [
            "# Success classifier",
            "",
            f"- task: {dataset.task}",
            f"- data: {', '.join(path.name for path in dataset.paths)}, {len(dataset)} episodes, {solved} successful",
            f"- sees: {', '.join(config.obs_keys or dataset.observation_spec)}",
            *(f"- on test episodes: {line}" for line in figures.lines()),
            "",
        ]
    )
