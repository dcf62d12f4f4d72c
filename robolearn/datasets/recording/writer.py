"""Writing a dataset so that nothing committed can be lost, whatever instant the power, the process or the disk fails.

While recording, the dataset is a small index file with links into a folder beside it:

    pick.hdf5                index: attributes and one relative external link per episode; republished by rename
    pick.hdf5.parts/         base.hdf5      the file that is being appended to (a hard link, never written)
                             demo_7.hdf5    a committed episode: written, synced, then renamed to this name
                             live_9.partial, live_9.journal     an episode in progress

`close` copies everything into one self-contained file, renames it over the index and removes the folder. So the name
`pick.hdf5` opens in plain h5py at every instant, and a commit costs the episode, not the dataset.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from robolearn.datasets.format.groups import EpisodeGroup, coerce, compress, frame_keys, write_header
from robolearn.datasets.format.schema import LIVE_PREFIX, STEP_ARRAYS, Header, demo_name, text
from robolearn.datasets.recording.durable_files import (
    WriteLock,
    hdf5_file,
    parts_of,
    publish,
    storage_error,
    uninterrupted,
)
from robolearn.datasets.recording.index import BASE, Index
from robolearn.datasets.recording.live_episode import LiveEpisode
from robolearn.datasets.recording.step_pipeline import DiskThread, RecordingStats
from robolearn.errors import DatasetError
from robolearn.specs import ActionSpec, Episode, EpisodeInfo, ObservationSpec

COMPRESSORS = 2
LOOKAHEAD = 8
"""Frames compressed ahead of the one being written."""


class DatasetWriter:
    """Creates or extends a dataset file; use as a context manager.

    On leaving, also through an exception, episodes still in progress are kept up to their last observation, marked
    unsuccessful and interrupted.

    Args:
        path: the dataset file. Its folder is made if need be.
        env_args: robomimic's env_name, type and env_kwargs.
        control_hz: nominal control rate.
        models: MJCF files by name (their hash), which episodes refer to in `EpisodeInfo.model`.
        append: extend an existing file of the same task and specs instead of refusing it.
        max_pending_bytes: how much live recording may queue before `add_step` waits for the disk.

    Raises DatasetError where the file exists (without `append`), differs, is being written by another process or was
    left by an interrupted recording.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        task: str,
        env_args: Mapping[str, Any],
        control_hz: float,
        action_spec: ActionSpec,
        observation_spec: ObservationSpec,
        models: Mapping[str, bytes] | None = None,
        append: bool = False,
        max_pending_bytes: int = 64 << 20,
    ) -> None:
        self.header = Header(
            task=task,
            env_args=dict(env_args),
            control_hz=float(control_hz),
            action_spec=action_spec,
            observation_spec=observation_spec,
        )
        self.stats = RecordingStats()
        self.path = Path(path).resolve()
        self.parts = parts_of(self.path)
        self._live: list[LiveEpisode] = []
        self._begun = 0
        self._closed = False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.path.parent) from error
        self._lock = WriteLock(self.path)
        try:
            self._index = Index.begin(self.path, self.header, models or {}, append=append)
        except BaseException:
            self._lock.release()
            raise
        self._pool = ThreadPoolExecutor(COMPRESSORS, thread_name_prefix="compress")
        self._disk = DiskThread(max_pending_bytes)

    @property
    def episodes(self) -> tuple[str, ...]:
        """Names of the committed episodes, in order."""
        return tuple(self._index.steps)

    def begin_episode(
        self,
        *,
        seed: int,
        source: Literal["demo", "dagger", "rl"] = "demo",
        round: int = 0,
        operator: str = "",
        device: str = "",
        started_at: str | None = None,
        model: str = "",
        policy: str = "",
        notes: str = "",
    ) -> LiveEpisode:
        """Start recording step by step; `started_at` is now where it is not given.

        Several episodes may be in progress at once; they get their place in the dataset when they are committed.
        """
        self._check_open()
        info = EpisodeInfo(
            success=False,
            seed=seed,
            source=source,
            round=round,
            operator=operator,
            device=device,
            started_at=datetime.now().astimezone().isoformat() if started_at is None else started_at,
            model=model,
            policy=policy,
            notes=notes,
        )
        self._check_info(info)
        live = LiveEpisode(
            name=f"{LIVE_PREFIX}{self._begun}",
            header=self.header,
            info=info,
            parts=self.parts,
            pool=self._pool,
            stats=self.stats,
            disk=self._disk,
            next_name=lambda: demo_name(self._index.next_number),
            on_end=self._end_live,
        )
        self._begun += 1
        self._live.append(live)
        return live

    def write_episode(self, episode: Episode) -> str:
        """Commit one whole episode, durably; returns its name."""
        return self.write_episodes([episode])[0]

    def write_episodes(self, episodes: Sequence[Episode]) -> list[str]:
        """Commit several whole episodes at once, all or none: for many short ones, far fewer waits for the disk."""
        self._check_open()
        checked = [(episode, *self._check_episode(episode)) for episode in episodes]
        if not checked:
            return []
        names = [demo_name(self._index.next_number + i) for i in range(len(checked))]
        partial, shard = self.parts / f"{names[0]}.partial", self.parts / f"{names[0]}.hdf5"
        with uninterrupted():
            try:
                with hdf5_file(partial) as (file, guard):
                    write_header(file, self.header)
                    for name, (episode, obs, final) in zip(names, checked):
                        self._write_whole(EpisodeGroup(file, name, self.header.observation_spec), episode, obs, final)
                        guard.check()
                publish(partial, shard)
                self._index.add({name: len(episode) for name, (episode, *_) in zip(names, checked)}, shard)
            except BaseException:
                for path in (partial, shard):
                    path.unlink(missing_ok=True)
                raise
        return names

    def remove_last(self) -> str:
        """Take back the last episode committed by this writer; returns its name. Raises DatasetError where none is."""
        self._check_open()
        own = [name for name, shard in self._index.shards.items() if shard.name != BASE]
        if not own:
            raise DatasetError("there is no episode of this recording to take back")
        self._index.remove(own[-1])
        return own[-1]

    def add_mask(self, name: str, demos: Sequence[str]) -> None:
        """Set a filter key (train, valid, ...) to the named episodes."""
        self._check_open()
        unknown = [demo for demo in demos if demo not in self._index.steps]
        if unknown or not name or "/" in name or name in (".", ".."):
            raise DatasetError(f"a mask needs a plain name and episodes of this file; received {name!r}, {unknown}")
        self._index.set_mask(name, demos)

    def close(self) -> None:
        """Finish: one self-contained file. Raises DatasetError where that fails; what was committed stays readable."""
        if self._closed:
            return
        self._closed = True
        try:
            with uninterrupted():
                if failures := [live.failure for live in self._live if live.failure is not None]:
                    for live in self._live:
                        live.abandon()
                    raise failures[0]
                for live in list(self._live):
                    live.salvage()
                self._index.consolidate()
        finally:
            self._disk.close()
            self._index.close()
            self._pool.shutdown()
            self._lock.release()

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except DatasetError as failure:
            if error is None:
                raise
            error.add_note(f"closing the dataset failed as well: {failure}")

    def _check_open(self) -> None:
        if self._closed:
            raise DatasetError(f"the writer of {self.path} is closed")
        for live in self._live:
            if live.failure is not None:
                raise live.failure

    def _check_info(self, info: EpisodeInfo) -> None:
        for value in (info.operator, info.device, info.started_at, info.model, info.policy, info.notes):
            text(value)
        if not -(2**63) <= info.seed < 2**63:
            raise DatasetError(f"a seed must fit 64 bits, received {info.seed}")

    def _check_episode(self, episode: Episode) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """The observations in the file's dtypes; an Episode has checked everything else itself."""
        spec, size = self.header.observation_spec, self.header.action_spec.size
        self._check_info(episode.info)
        if episode.actions.shape[1] != size:
            raise DatasetError(
                f"the episode's actions must have {size} dimensions, received {episode.actions.shape[1]}"
            )
        if set(episode.obs) != set(spec):
            raise DatasetError(f"the episode must have the observation keys {list(spec)}, received {list(episode.obs)}")
        obs = {key: coerce(episode.obs[key], s, f"obs/{key}", (len(episode),)) for key, s in spec.items()}
        final = {key: coerce(episode.final_obs[key], s, f"final_obs/{key}") for key, s in spec.items()}
        return obs, final

    def _write_whole(
        self, group: EpisodeGroup, episode: Episode, obs: dict[str, np.ndarray], final: dict[str, np.ndarray]
    ) -> None:
        frames = frame_keys(self.header.observation_spec)
        for key in frames:
            for step, data in enumerate(self._compressed(obs[key])):
                group.add_frame(key, step, data)
        arrays = {f"obs/{key}": obs[key] for key in obs if key not in frames}
        for name in STEP_ARRAYS:
            value = getattr(episode, name, None)
            if value is not None:
                arrays[name] = value
        group.finish(episode.info, arrays, final, episode.events)

    def _compressed(self, frames: np.ndarray) -> Iterator[bytes]:
        """Compress rows in the pool, a few ahead, in order."""
        ahead: deque[Future[bytes]] = deque()
        for frame in frames:
            ahead.append(self._pool.submit(compress, frame))
            if len(ahead) > LOOKAHEAD:
                yield ahead.popleft().result()
        for future in ahead:
            yield future.result()

    def _end_live(self, episode: LiveEpisode, steps: int) -> None:
        if steps:
            self._index.add({episode.name: steps}, episode.shard)
        self._live.remove(episode)
