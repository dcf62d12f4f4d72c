"""Gates against the truth: would the policy have failed from here? Restored states answer what no gate can know.

For every few steps of a round's episodes the physics are restored and the policy is rolled out alone. A gate's score at
that state is then right or wrong, and what asking would have cost is known: ROC, precision and recall at the gate's own
threshold, the lead before a failure, and the share of states at which it asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.configuration.dagger import DaggerConfig, GateTruthConfig
from robolearn.configuration.parts.gates import GateConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import from_dict, read_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import ActorDriver, env_for
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.errors import TaskError, TrainingError
from robolearn.evaluation.statistics import auroc
from robolearn.imitation.corrector import make_corrector
from robolearn.imitation.dagger import EPISODES, Rounds
from robolearn.imitation.gates.build import make_gate
from robolearn.imitation.gates.gate import View
from robolearn.imitation.gates.human import SimulatedHuman
from robolearn.policies.folder import load_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode
from robolearn.storage import write_json
from robolearn.training.progress import Progress

TRUTH = "gates.json"


@dataclass(frozen=True)
class Moment:
    """A state that the policy brought about."""

    episode: int
    step: int
    seed: int
    state: np.ndarray
    """(S,) float64."""


def score_gates(config: GateTruthConfig) -> Path:
    """Score gates on one round of a run and write `RUN/gates.json`; returns its path.

    Raises TrainingError where the run has no such round, TaskError where its states cannot be restored.
    """
    run = Path(config.run)
    rounds = Rounds(run)
    number = config.round or 1
    if number not in rounds.complete():
        raise TrainingError(f"{run} has no complete round {number}; it has {len(rounds.complete())}")
    made = from_dict(DaggerConfig, read_yaml(run / "config.yaml"))
    policy = load_policy(rounds.policy(number - 1, made.policy))
    before = [*map(Path, made.dataset), *(rounds.round(n) / EPISODES for n in range(1, number))]
    with Dataset(rounds.round(number) / EPISODES) as dataset:
        task = made.task or TaskConfig.from_env_args(dict(dataset.env_args))
        moments = _moments(dataset, config.every)
        if not moments:
            raise TaskError(
                f"{dataset.paths[0]} holds no states that the policy brought about; nothing can be restored"
            )
        with make(task, config.num_envs) as raw:
            env = env_for(policy, raw, rounds.policy(number - 1, made.policy))
            failed = _would_fail(env, policy, moments, config.rollouts)
            judged = {}
            for name in config.gates:
                gate = from_dict(_Named, {"gate": name}).gate
                judged[name] = _judge(env, policy, gate, made, before, number, moments, config)
    results = {name: _figures(scores, asks, failed, moments, env.control_hz) for name, (scores, asks) in judged.items()}
    path = run / TRUTH
    facts = {"round": number, "states": len(moments), "failing": float(np.mean(failed >= 0.5)), "gates": results}
    write_json(path, facts, indent=2)
    return path


@dataclass(frozen=True, kw_only=True)
class _Named:
    """Reads a gate's name as a configuration."""

    gate: GateConfig


def _moments(dataset: Dataset, every: int) -> list[Moment]:
    """Every few steps at which the policy itself was driving and had driven from the start."""
    found = []
    for index in range(len(dataset)):
        arrays = dataset.arrays(index, ["states", "action_modes"])
        alone = np.cumprod(arrays["action_modes"] == ActionMode.POLICY).astype(bool)
        seed = dataset.info[index].seed
        found += [Moment(index, t, seed, arrays["states"][t]) for t in range(0, len(alone), every) if alone[t]]
    return found


def _restore(env: VectorEnv, loop: EpisodeLoop, moments: Sequence[Moment]) -> None:
    """Begin the moments' episodes and put each into its state."""
    slots = loop.begin()
    mask = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    mask[[slot.index for slot in slots]] = True
    loop.obs = env.set_states(np.stack([moments[slot.order].state for slot in slots]), mask)


def _would_fail(env: VectorEnv, policy: Policy, moments: Sequence[Moment], rollouts: int) -> np.ndarray:
    """(M,) share of rollouts from each moment that do not solve the task."""
    failures = np.zeros(len(moments))
    with Progress("restore and roll out", len(moments) * rollouts, unit="state") as progress:
        for attempt in range(rollouts):
            for start in range(0, len(moments), env.num_envs):
                part = moments[start : start + env.num_envs]
                runner = PolicyRunner(policy, env.num_envs, deterministic=rollouts == 1)
                seeds = [moment.seed + attempt for moment in part]
                loop = EpisodeLoop(env, ActorDriver(runner, env.num_envs), [moment.seed for moment in part])
                _restore(env, loop, part)
                runner.reset(seeds, torch.arange(env.num_envs) < len(part))
                while loop.running:
                    for slot in loop.advance().ended:
                        failures[start + slot.order] += not slot.success
                progress.update(attempt * len(moments) + start + len(part))
    return failures / rollouts


def _judge(
    env: VectorEnv,
    policy: Policy,
    gate_config: Any,
    made: DaggerConfig,
    before: Sequence[Path],
    number: int,
    moments: Sequence[Moment],
    config: GateTruthConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """(M,) scores and (M,) whether the gate asks, of a gate prepared as that round's."""
    gate = make_gate(
        gate_config,
        control_hz=env.control_hz,
        num_envs=env.num_envs,
        seed=made.seed,
        round=number,
        rounds=made.rounds,
        reading=made.reading,
    )
    gate.prepare(policy, before, number)
    expert = make_corrector(config.expert, env)
    scores, asks = np.full(len(moments), np.nan), np.zeros(len(moments), bool)
    for start in range(0, len(moments), env.num_envs):
        part = moments[start : start + env.num_envs]
        runner = PolicyRunner(policy, env.num_envs)
        loop = EpisodeLoop(env, ActorDriver(runner, env.num_envs), [moment.seed for moment in part])
        _restore(env, loop, part)
        mask = torch.arange(env.num_envs) < len(part)
        seeds = [moment.seed for moment in part]
        expert.reset(seeds, mask)
        gate.reset(seeds, mask)
        proposals = runner.act(loop.obs)
        view = View(
            obs=loop.obs,
            proposals=proposals,
            labels=expert.act(loop.obs),
            correcting=np.zeros(env.num_envs, bool),
            window=runner.window,
        )
        verdict = gate.judge(view)
        asked = np.asarray(verdict.correct, bool)
        if isinstance(gate, SimulatedHuman):  # who takes time to react
            for _ in range(gate.reaction):
                asked = asked | gate.judge(view).correct
        rows = slice(start, start + len(part))
        asks[rows] = asked[: len(part)]
        if verdict.score is not None:
            scores[rows] = np.asarray(verdict.score)[: len(part)]
    return scores, asks


def _figures(
    scores: np.ndarray, asks: np.ndarray, failed: np.ndarray, moments: Sequence[Moment], hz: float
) -> dict[str, Any]:
    """ROC, and precision, recall, lead and cost at the gate's own threshold."""
    truth = failed >= 0.5
    caught = asks & truth
    known = np.isfinite(scores)
    return {
        "auroc": auroc(scores[known], truth[known]) if truth[known].any() and not truth[known].all() else None,
        "roc": _roc(scores[known], truth[known]) if known.any() else [],
        "asks": float(asks.mean()),
        "interventions_per_episode": _interventions(asks, moments),
        "precision": float(caught.sum() / asks.sum()) if asks.any() else None,
        "recall": float(caught.sum() / truth.sum()) if truth.any() else None,
        "false_alarms": float((asks & ~truth).sum() / (~truth).sum()) if not truth.all() else None,
        "lead_s": _lead(asks, truth, moments, hz),
    }


def _roc(scores: np.ndarray, truth: np.ndarray) -> list[tuple[float, float]]:
    """(share of good states asked at, share of failing states caught) at 21 thresholds."""
    if not truth.any() or truth.all():
        return []
    thresholds = np.quantile(scores, np.linspace(1.0, 0.0, 21))
    return [(float((scores[~truth] >= t).mean()), float((scores[truth] >= t).mean())) for t in thresholds]


def _interventions(asks: np.ndarray, moments: Sequence[Moment]) -> float:
    """Return how often the gate would interrupt an episode, on average: asking at states in a row counts once."""
    first = np.array([i == 0 or moments[i - 1].episode != moment.episode for i, moment in enumerate(moments)])
    begins = asks & (first | ~np.r_[False, asks[:-1]])
    return float(begins.sum() / first.sum())


def _lead(asks: np.ndarray, truth: np.ndarray, moments: Sequence[Moment], hz: float) -> float | None:
    """Mean seconds from the first ask of an episode to the first state from which all is lost; positive is in time."""
    leads = []
    for episode in {moment.episode for moment in moments}:
        rows = [i for i, moment in enumerate(moments) if moment.episode == episode]
        lost = next((moments[i].step for i in rows if truth[i]), None)
        asked = next((moments[i].step for i in rows if asks[i]), None)
        if lost is not None and asked is not None:
            leads.append((lost - asked) / hz)
    return float(np.mean(leads)) if leads else None
