"""Practice that another process records while the learner learns: new episodes of a growing file, as transitions.

session, its own process ──▶ corrections.hdf5 ──▶ RecordedPractice.look ──▶ all of it: practice
                                                                      └──▶ where somebody took over: demonstrations
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robolearn.contract import Interface
from robolearn.datasets.dataset import Dataset
from robolearn.errors import DatasetError
from robolearn.policies.policy import Policy
from robolearn.rl.collecting.demonstrations import (
    RecordedEpisode,
    Shape,
    macro_steps,
    read_episode,
    with_base_actions,
)
from robolearn.rl.collecting.macro_steps import RewardSource
from robolearn.rl.collecting.replay_buffer import Replay, Share
from robolearn.specs import ActionMode

FIRST_ROOM = 4096
"""Transitions that there is room for at first; the room is doubled where they are more."""

PATIENCE_S = 60.0
"""For so long a file may be unreadable, which it is for a moment while it is finished."""

Key = tuple[str, int, str]
"""An episode's name, seed and time: the name alone is given anew after an episode was taken back."""


class RecordedPractice:
    """The episodes of a file as far as they were looked at.

    What was taken back in the file is never drawn again. What was cut off is practice as far as it went.
    """

    def __init__(
        self,
        path: Path,
        needs: Interface,
        shape: Shape,
        *,
        reward: RewardSource,
        base: Policy | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        """
        Args:
            path: written by somebody else, or not there yet; in the learner's units.
            needs: what the learner sees and does.
            base: the policy whose action the learner is shown, `BASE_ACTION`; None where it is shown none.
        """
        self.path, self.shape, self.base = path, shape, base
        self.reward: RewardSource = reward
        self.device = torch.device(device)
        self.keys = tuple(needs.observation_spec) if base is not None else shape.obs_keys
        self.replay: Replay | None = None
        self.steps = self.corrected_steps = self.rewarded = 0
        """Control steps, those of them that somebody made in the policy's place, and episodes with a reward."""
        self._ages: dict[Key, range] = {}
        self._taken_back = False
        self._seen: tuple[int, int, int] | None = None
        self._unreadable_since: float | None = None

    @property
    def episodes(self) -> int:
        """Episodes that the file holds."""
        return len(self._ages)

    def look(self) -> None:
        """Take in what is new in the file. Costs a system call where nothing is.

        Raises DatasetError where the file stays unreadable.
        """
        found = _stamp(self.path)
        if found in (None, self._seen):
            return
        try:
            self._read()
        except DatasetError:
            # It was finished, or an episode taken back, in the middle of it; or the machine is too busy to look.
            now = time.monotonic()
            self._unreadable_since = self._unreadable_since or now
            if _stamp(self.path) == found and now - self._unreadable_since >= PATIENCE_S:
                raise
            return
        self._seen, self._unreadable_since = found, None

    def practice(self) -> list[Share]:
        """Return all transitions."""
        return [] if self.replay is None else [Share(self.replay, self._standing() if self._taken_back else None)]

    def demonstrated(self) -> list[Share]:
        """Return the transitions in which somebody took over."""
        if self.replay is None:
            return []
        corrected = self.replay.corrected()
        if self._taken_back:
            corrected = corrected[torch.isin(corrected, self._standing())]
        return [Share(self.replay, corrected)]

    def _standing(self) -> Tensor:
        """Return the ages (K,) of the transitions that were not taken back."""
        ranges = [torch.arange(ages.start, ages.stop, device=self.device) for ages in self._ages.values()]
        return torch.cat([torch.zeros(0, dtype=torch.int64, device=self.device), *ranges])

    def _read(self) -> None:
        with Dataset(self.path) as dataset:
            # Episodes are taken back from the end: what lies before one that stands has stood, too.
            known = list(self._ages)
            while known and known[-1] != _key(dataset, len(known) - 1):
                del self._ages[known.pop()]
                self._taken_back = True
            for index in range(len(known), len(dataset)):
                episode = _practised(dataset, index, self.keys, self.reward)
                key = _key(dataset, index)
                assert key is not None
                self._ages[key] = self._take(episode)

    def _take(self, episode: RecordedEpisode) -> range:
        """Put an episode into the replay; return the ages of its transitions."""
        if self.base is not None:
            (episode,) = with_base_actions(self.base, [episode])
        steps = list(macro_steps(episode, self.shape, self.device))
        replay = self._with_room(len(steps), steps[0][0], steps[0][1])
        first = len(replay)
        for step in steps:
            replay.add(*step)
        assert episode.corrected is not None
        self.steps += len(episode)
        self.corrected_steps += int(episode.corrected.sum())
        self.rewarded += bool(episode.rewards.any())
        return range(first, len(replay))

    def _with_room(self, count: int, window: dict[str, Tensor], actions: Tensor) -> Replay:
        """Return the replay with room for `count` more transitions: nothing in it is ever written over."""
        held = 0 if self.replay is None else len(self.replay)
        if self.replay is None or held + count >= self.replay.rows:
            capacity = max(FIRST_ROOM, 2 * (held + count))
            larger = Replay(capacity, window, actions, n_step=self.shape.n_step, device=self.device)
            if self.replay is not None:
                larger.load_state_dict(self.replay.state_dict())
            self.replay = larger
        return self.replay


def _key(dataset: Dataset, index: int) -> Key | None:
    """Return what tells an episode from all others; None where there is none of this number."""
    if index >= len(dataset):
        return None
    info = dataset.episode_info(index)
    return dataset.episodes[index], info.seed, info.started_at


def _practised(dataset: Dataset, index: int, keys: Sequence[str], reward: RewardSource) -> RecordedEpisode:
    modes = dataset.arrays(index, ["action_modes"])["action_modes"]
    corrected = torch.from_numpy(modes == ActionMode.INTERVENTION)
    seed = dataset.episode_info(index).seed
    return replace(read_episode(dataset, index, keys, reward), corrected=corrected, seed=seed)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Return what changes with every publication of a file; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
