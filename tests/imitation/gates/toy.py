"""A walk along a line whose every outcome is known, and a loop that lets a gate decide who walks.

A point at (x, y) moves by a tenth of its action. The way leads along y = 0 to x = 3; whoever is further than 1 from the
line has failed for good. The expert walks straight and corrects y; the robot does so too, but in some episodes it turns
off at x = 1 and then keeps going away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.imitation.gates.gate import Gate, Setting, View
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode, ActionSpec, ArraySpec, Episode, EpisodeInfo, ObservationSpec
from tests.imitation.toy import write_dataset

OBSERVATION = ObservationSpec({"place": ArraySpec(shape=(2,))})
ACTION = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))
LONGEST = 60


def setting(**changes: float) -> Setting:
    return Setting(**({"control_hz": 10.0, "num_envs": 1, "seed": 0, "round": 1, "rounds": 3} | changes))  # type: ignore[arg-type]


def make_policy(head: object | None = None) -> Policy:
    torch.manual_seed(0)
    config = PolicyConfig(head=head or GaussianHeadConfig(squash=False), backbone=MLPConfig(hidden_sizes=(16,)))  # type: ignore[arg-type]
    return build_policy(config, OBSERVATION, ACTION)


def expert(place: np.ndarray) -> np.ndarray:
    """(N, 2) -> (N, 2)."""
    return np.stack([np.full(len(place), 0.8), np.clip(-3.0 * place[:, 1], -1.0, 1.0)], 1).astype(np.float32)


def robot(place: np.ndarray, faulty: np.ndarray) -> np.ndarray:
    """(N, 2), (N,) bool -> (N, 2)."""
    lost = faulty & (place[:, 0] > 1.0) & (place[:, 0] < 2.0)
    return np.where(lost[:, None], np.array([0.2, 0.9], np.float32), expert(place))


@dataclass
class Walk:
    """One episode, as it goes."""

    seed: int
    place: np.ndarray
    faulty: bool
    rows: list[tuple[np.ndarray, ...]] = field(default_factory=list)

    def episode(self) -> Episode:
        obs, actions, proposals, labels, corrected, score = (
            np.array(column) for column in zip(*self.rows, strict=True)
        )
        ended = np.arange(len(obs)) == len(obs) - 1
        return Episode(
            info=EpisodeInfo(success=self.success, seed=self.seed, source="dagger", round=1),
            obs={"place": obs},
            final_obs={"place": self.place.astype(np.float32)},
            actions=actions,
            rewards=ended & self.success,
            terminated=ended,
            truncated=np.zeros(len(obs), bool),
            timestamps=np.arange(len(obs)) * 0.1,
            action_modes=np.where(corrected, ActionMode.INTERVENTION, ActionMode.POLICY),
            policy_actions=proposals,
            expert_actions=np.where(corrected[:, None], labels, np.nan),
            gate=score,
        )

    @property
    def success(self) -> bool:
        return bool(self.place[0] >= 3.0)

    @property
    def ended(self) -> bool:
        return self.success or abs(self.place[1]) > 1.0 or len(self.rows) >= LONGEST


def begin(seed: int, faults: float) -> Walk:
    rng = np.random.default_rng(seed)
    return Walk(seed, np.array([0.0, rng.uniform(-0.3, 0.3)]), bool(rng.random() < faults))


def demonstrations(path: Path, episodes: int = 8) -> Path:
    """Write what the expert does, at half to full speed."""
    written = []
    for seed in range(episodes):
        walk, rng = begin(1000 + seed, 0.0), np.random.default_rng(seed)
        while not walk.ended:
            action = expert(walk.place[None])[0] * rng.uniform(0.9, 1.0)
            walk.rows.append((walk.place.astype(np.float32), action, action, action, False, 0.0))  # type: ignore[arg-type]
            walk.place = walk.place + 0.1 * action
        episode = walk.episode()
        modes = np.full(len(episode), ActionMode.DEMONSTRATION)
        nothing = np.full_like(episode.actions, np.nan)
        written.append(
            Episode(
                **{
                    f: getattr(episode, f)
                    for f in ("obs", "final_obs", "actions", "rewards", "terminated", "truncated")
                },
                info=EpisodeInfo(success=True, seed=seed),
                timestamps=episode.timestamps,
                action_modes=modes,
                policy_actions=nothing,
                expert_actions=nothing,
            )
        )
    return write_dataset(path, written, observation_spec=OBSERVATION, action_spec=ACTION)


def walk(gate: Gate, seeds: Sequence[int], num_envs: int, faults: float = 0.5) -> list[Episode]:
    """Run an episode for each seed, the gate deciding who acts; returns them in the order in which they ended."""
    queue, done = iter(seeds), []
    walks = [begin(seed, faults) for _, seed in zip(range(num_envs), queue)]
    gate.reset([w.seed for w in walks], torch.ones(num_envs, dtype=torch.bool))
    idle, correcting = np.zeros(num_envs, bool), np.zeros(num_envs, bool)
    while not idle.all():
        place = np.stack([w.place for w in walks]).astype(np.float32)
        proposals, labels = robot(place, np.array([w.faulty for w in walks])), expert(place)
        obs = {"place": torch.from_numpy(place)}
        verdict = gate.judge(
            View(
                obs=obs,
                proposals=torch.from_numpy(proposals),
                labels=torch.from_numpy(np.where((correcting | bool(gate.labels_everything))[:, None], labels, np.nan)),
                correcting=correcting,
                window={"place": obs["place"][:, None]},
            )
        )
        correcting = verdict.correct.copy()
        scores = np.full(num_envs, np.nan) if verdict.score is None else verdict.score
        actions = np.where(correcting[:, None], labels, proposals)
        for i in np.flatnonzero(~idle).tolist():
            walks[i].rows.append((place[i], actions[i], proposals[i], labels[i], correcting[i], scores[i]))
            walks[i].place = walks[i].place + 0.1 * actions[i]
            if walks[i].ended:
                done.append(walks[i].episode())
                gate.told(np.array([row[4] for row in walks[i].rows]), np.array([row[5] for row in walks[i].rows]), i)
                correcting[i] = False
                seed = next(queue, None)
                if seed is None:
                    idle[i] = True
                    continue
                walks[i] = begin(seed, faults)
                gate.reset([seed], torch.from_numpy(np.arange(num_envs) == i))
    return done


def write(path: Path, episodes: Sequence[Episode]) -> Path:
    return write_dataset(path, episodes, observation_spec=OBSERVATION, action_spec=ACTION)


def share(episodes: Sequence[Episode]) -> float:
    """Return the corrector's share of the steps."""
    modes = np.concatenate([e.action_modes for e in episodes if e.action_modes is not None])
    return float((modes != ActionMode.POLICY).mean())
