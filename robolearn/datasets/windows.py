"""Training windows from a dataset, in an order that is a pure function of (seed, epoch).

Small arrays lie in flat tensors, one row per recorded step of all episodes; a window is a row and its neighbours,
clamped to the episode. With To=3, Tp=4 and an episode of rows 10..14, the window of row 11 gathers

    obs      rows 10 10 11               (the first row repeats; padding)
    actions  rows 10 10 11 12 13 14      valid: no yes yes yes yes yes
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
import torch

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.format.schema import stored_as_frames
from robolearn.datasets.normalisation import glitch_mask
from robolearn.errors import DatasetError, TrainingError
from robolearn.specs import ActionMode, Batch

BLOCK_WINDOWS = 4096
"""Windows gathered at once and handed out as slices: the fixed cost of a tensor operation is paid once per block."""
BLOCK_BYTES = 16 << 20
"""A block of images is no larger than this, or one batch."""
READ_AHEAD = 4
"""Batches whose frames are read in the background."""
READERS = 2

StepWeights = Callable[[Dataset, int], np.ndarray]
"""(dataset, episode index) -> (T,) non-negative loss weights."""


class WindowSampler:
    """Yields one epoch of `Batch`es per iteration, shuffled, resumable in the middle; floats are float32.

    Args:
        obs_steps: To, observations up to the current one.
        pred_steps: Tp, actions from the current one on.
        obs_keys: observation keys to load (all where None).
        target: `actions` are the executed ones. `labels` are, per step, the expert's label where there is one, else
            the executed action where a person or expert acted (any mode but policy); steps with neither are not
            valid, and no window is drawn at them. A chunk ends behind the first step at which the policy drove: what
            the expert would have done later is an answer to where the policy went, and no plan from here.
        drop_last: leave out the last batch of an epoch where it would be smaller.
        image_memory: bytes that inflated images may take in memory, on the device; the first keys that fit are loaded
            once, others are streamed from the file by background threads.
        step_weights: loss weights per step; they are scaled to mean one over the windows.
        share: (i, n) yields every n-th window of each batch, from the i-th on: n samplers share out the same batches.

    Raises DatasetError where the dataset lacks a key or has fewer windows than one batch.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        obs_steps: int,
        pred_steps: int,
        batch_size: int,
        seed: int,
        obs_keys: Sequence[str] | None = None,
        target: Literal["actions", "labels"] = "actions",
        drop_last: bool = True,
        device: torch.device | str = "cpu",
        image_memory: int = 1 << 30,
        step_weights: StepWeights | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        if min(obs_steps, pred_steps, batch_size) < 1:
            raise DatasetError(
                f"obs_steps, pred_steps and batch_size must be at least 1, "
                f"received {obs_steps}, {pred_steps} and {batch_size}"
            )
        spec = dataset.observation_spec.select(tuple(dataset.observation_spec) if obs_keys is None else tuple(obs_keys))
        self.batch_size, self.seed, self.drop_last, self.share = batch_size, seed, drop_last, share
        self.device = torch.device(device)
        self._dataset, self._spec, self._obs_steps = dataset, spec, obs_steps
        self._frame_keys = self._streamed_keys(image_memory)
        self._epoch = self._batch = 0
        self._offsets = torch.arange(-(obs_steps - 1), pred_steps, device=self.device)
        self._load(target, step_weights)

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to."""
        return self._epoch

    @property
    def num_windows(self) -> int:
        return len(self._windows)

    def __len__(self) -> int:
        """Return batches per epoch."""
        full, rest = divmod(self.num_windows, self.batch_size)
        return full + bool(rest and not self.drop_last)

    def __iter__(self) -> Iterator[Batch]:
        """Return the rest of the current epoch; the next iteration begins the next one."""
        order = self.order(self._epoch)
        first = self._batch
        batches = self._with_frames(order, first) if self._frame_keys else self._gathered(order, first)
        for number, batch in enumerate(batches, first + 1):
            self._batch = number
            if number == len(self):
                self._epoch, self._batch = self._epoch + 1, 0
            yield batch

    def forever(self) -> Iterator[Batch]:
        """Yield epoch after epoch, from where the sampler stands."""
        while True:
            yield from self

    def order(self, epoch: int) -> np.ndarray:
        """Return (num_windows,) int64 permutation of the windows: a pure function of (seed, epoch)."""
        generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, epoch])))
        return generator.permutation(self.num_windows)

    def state_dict(self) -> dict[str, int]:
        """Return the position after the last batch that was handed out."""
        return {"seed": self.seed, "epoch": self._epoch, "batch": self._batch} | self._identity()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was taken. Raises TrainingError where data or batch size have changed since."""
        for name, value in self._identity().items():
            if state[name] != value:
                raise TrainingError(f"cannot resume: the sampler had {name} {state[name]}, now it is {value}")
        self.seed, self._epoch, self._batch = int(state["seed"]), int(state["epoch"]), int(state["batch"])

    def _identity(self) -> dict[str, int]:
        return {"num_windows": self.num_windows, "batch_size": self.batch_size, "drop_last": int(self.drop_last)}

    def _streamed_keys(self, image_memory: int) -> tuple[str, ...]:
        """Return the image keys that do not fit into memory any more."""
        rows = sum(self._dataset.lengths)
        streamed: list[str] = []
        for key, array in self._spec.items():
            if stored_as_frames(array):
                nbytes = rows * array.size * np.dtype(array.dtype).itemsize
                if nbytes > image_memory:
                    streamed.append(key)
                else:
                    image_memory -= nbytes
        return tuple(streamed)

    def _load(self, target: str, step_weights: StepWeights | None) -> None:
        """Fill the flat tensors; row r is step `_steps[r]` of episode `_episodes[r]`, between `_first` and `_last`."""
        if not len(self._dataset):
            raise DatasetError(f"{self._dataset.paths[0]} has no episodes to train on")
        lengths = self._dataset.lengths
        names = [f"obs/{key}" for key in self._spec if key not in self._frame_keys]
        pictures = [name for name in names if stored_as_frames(self._spec[name.removeprefix("obs/")])]
        arrays = ["actions", "action_modes", "expert_actions"] if target == "labels" else ["actions"]
        columns = self._dataset.columns([name for name in names if name not in pictures] + arrays)
        labelled = acted = np.ones(sum(lengths), bool)
        if target == "labels":
            targets, labelled, acted = labels(**{name: columns[name] for name in arrays})
            columns |= {"actions": targets}
        columns |= self._dataset.columns(pictures, keep=False)
        self._columns = {name: self._tensor(columns[name]) for name in [*names, "actions"]}
        ends = np.cumsum(lengths)
        self._first = self._tensor(np.repeat(ends - lengths, lengths))
        self._last = self._tensor(np.repeat(ends - 1, lengths))
        self._episodes = self._tensor(np.repeat(np.arange(len(lengths)), lengths))
        self._valid = self._tensor(labelled)
        self._followed = None if acted.all() else self._tensor(acted)
        self._windows = torch.nonzero(self._valid & ~self._seen_glitches(lengths)).flatten()
        weights = [self._check_weights(step_weights, i, steps) for i, steps in enumerate(lengths)]
        self._weights = self._normalise(np.concatenate(weights))
        if not self.num_windows:
            raise DatasetError(f"no step of {self._dataset.paths[0]} has a target {target!r}; nothing to learn from")
        # A first recording may be smaller than a batch; it then is one batch.
        self.batch_size = min(self.batch_size, self.num_windows)
        if self.batch_size < self.share[1]:
            raise DatasetError(f"a batch of {self.batch_size} windows cannot be shared by {self.share[1]} processes")

    def _seen_glitches(self, lengths: Sequence[int]) -> torch.Tensor:
        """Return (rows,) whether the window at a row sees a glitch: nobody can learn from a sensor's absurd value."""
        bad = np.zeros(len(self._valid), bool)
        for name, column in self._columns.items():
            if name == "actions" or column.dtype == torch.uint8:  # pictures hold no glitch that a range could tell
                continue
            if (mask := glitch_mask(column.cpu().numpy(), lengths)) is not None:
                bad |= mask.reshape(len(mask), -1).any(axis=1)
        rows = self._tensor(bad)
        if bad.any():
            seen = torch.arange(len(bad), device=self.device)[:, None] + self._offsets[: self._obs_steps]
            rows = rows[torch.maximum(seen, self._first[:, None])].any(dim=1)
        return rows

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        if array.dtype.kind == "f":
            array = array.astype(np.float32, copy=False)
        array = np.ascontiguousarray(array)
        return torch.from_numpy(array if array.flags.writeable else array.copy()).to(self.device)

    def _check_weights(self, step_weights: StepWeights | None, index: int, steps: int) -> np.ndarray:
        weights = np.ones(steps) if step_weights is None else np.asarray(step_weights(self._dataset, index), np.float64)
        if weights.shape != (steps,) or not (np.isfinite(weights).all() and (weights >= 0).all()):
            raise DatasetError(
                f"step weights of {self._dataset.episodes[index]} must be {steps} finite numbers >= 0, "
                f"received shape {weights.shape}"
            )
        return weights

    def _normalise(self, weights: np.ndarray) -> torch.Tensor:
        mean = weights[self._windows.cpu().numpy()].mean() if self.num_windows else 1.0
        if not mean > 0:
            raise DatasetError("all step weights are zero")
        return self._tensor((weights / mean).astype(np.float32))

    def _gathered(self, order: np.ndarray, first: int) -> Iterator[Batch]:
        """Yield batches without frames, from number `first` on."""
        rows = self._windows[torch.from_numpy(order).to(self.device)]
        size, end = self.batch_size, min(len(rows), len(self) * self.batch_size)
        row_bytes = sum(c[:1].nbytes for name, c in self._columns.items() if name != "actions") * self._obs_steps
        block = max(1, min(BLOCK_WINDOWS, BLOCK_BYTES // max(1, row_bytes)) // size) * size
        number, count = self.share
        for start in range(first * size, end, block):
            parts = [part[number::count] for part in rows[start : min(start + block, end)].split(size)]
            whole, sizes = self._gather(torch.cat(parts)), [len(part) for part in parts]
            obs = [dict(zip(whole.obs, values)) for values in zip(*(v.split(sizes) for v in whole.obs.values()))]
            others = (whole.actions, whole.valid, whole.weights, whole.episodes, whole.steps)
            for i, (actions, valid, weights, episodes, steps) in enumerate(zip(*(v.split(sizes) for v in others))):
                yield Batch(
                    obs=obs[i] if obs else {},
                    actions=actions,
                    valid=valid,
                    weights=weights,
                    episodes=episodes,
                    steps=steps,
                )

    def _gather(self, rows: torch.Tensor) -> Batch:
        """Return the windows of (M,) rows, without frames."""
        wanted = rows[:, None] + self._offsets
        first = self._first[rows]
        index = torch.minimum(torch.maximum(wanted, first[:, None]), self._last[rows][:, None])
        seen = index[:, : self._obs_steps]
        valid = torch.eq(index, wanted) & self._valid[index]
        if self._followed is not None:
            valid[:, self._obs_steps :] &= self._followed[index[:, self._obs_steps - 1 : -1]].cumprod(1).bool()
        return Batch(
            obs={key: self._take(f"obs/{key}", seen) for key in self._spec if key not in self._frame_keys},
            actions=self._take("actions", index),
            valid=valid,
            weights=self._weights[rows],
            episodes=self._episodes[rows],
            steps=rows - first,
        )

    def _take(self, name: str, index: torch.Tensor) -> torch.Tensor:
        column = self._columns[name]
        return column.index_select(0, index.reshape(-1)).view(*index.shape, *column.shape[1:])

    def _with_frames(self, order: np.ndarray, first: int) -> Iterator[Batch]:
        """Yield batches whose frames are read and inflated by background threads, a few batches ahead."""
        ahead: deque[tuple[Batch, Future[dict[str, torch.Tensor]]]] = deque()
        pool = ThreadPoolExecutor(READERS, thread_name_prefix="frames")
        try:
            for batch in self._gathered(order, first):
                ahead.append((batch, pool.submit(self._read_frames, batch.episodes, batch.steps)))
                if len(ahead) > READ_AHEAD:
                    yield self._join(*ahead.popleft())
            while ahead:
                yield self._join(*ahead.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _join(self, batch: Batch, frames: Future[dict[str, torch.Tensor]]) -> Batch:
        moved = {key: value.to(self.device, non_blocking=True) for key, value in frames.result().items()}
        obs = batch.obs | moved
        return Batch(
            obs={key: obs[key] for key in self._spec},
            actions=batch.actions,
            valid=batch.valid,
            weights=batch.weights,
            episodes=batch.episodes,
            steps=batch.steps,
        )

    def _read_frames(self, episodes: torch.Tensor, steps: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return (B, To, ...) per frame key; a frame that several windows share is read once."""
        seen = (steps.cpu()[:, None] + self._offsets[: self._obs_steps].cpu()).clamp(min=0).numpy()
        pairs = np.stack([np.broadcast_to(episodes.cpu().numpy()[:, None], seen.shape), seen], -1).reshape(-1, 2)
        unique, inverse = np.unique(pairs, axis=0, return_inverse=True)
        frames: dict[str, torch.Tensor] = {}
        for key in self._frame_keys:
            spec = self._spec[key]
            read = np.empty((len(unique), *spec.shape), spec.dtype)
            for i, (episode, step) in enumerate(unique.tolist()):
                read[i] = self._dataset.frame(episode, key, step)
            windows = torch.from_numpy(read[inverse.reshape(seen.shape)])
            frames[key] = windows.pin_memory() if self.device.type == "cuda" else windows
        return frames


def labels(
    actions: np.ndarray, action_modes: np.ndarray, expert_actions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (T, A) targets, (T,) which of them count, and (T,) at which a person or an expert drove.

    A target is the label, else what a person or an expert executed.
    """
    labelled = np.all(np.isfinite(expert_actions), axis=1)
    acted = np.isin(action_modes, (ActionMode.DEMONSTRATION, ActionMode.INTERVENTION, ActionMode.EXPERT))
    return np.where(np.expand_dims(labelled, 1), expert_actions, actions), labelled | acted, acted


def split(dataset: Dataset, valid_fraction: float, seed: int, *, by_masks: bool = True) -> tuple[Dataset, Dataset]:
    """Return training and validation episodes: those of the masks `train` and `valid` where the files have them.

    Otherwise a random share of the episodes is set aside: at least one where `valid_fraction` is positive and there
    are two or more.

    Args:
        by_masks: whether masks are looked at.
    """
    masks = dataset.masks
    if by_masks and "train" in masks and "valid" in masks:
        return dataset.select(masks["train"]), dataset.select(masks["valid"])
    if not 0.0 <= valid_fraction < 1.0:
        raise DatasetError(f"valid_fraction must lie in [0, 1), received {valid_fraction}")
    count = min(round(valid_fraction * len(dataset)), len(dataset) - 1)
    if valid_fraction > 0 and len(dataset) > 1:
        count = max(1, count)
    order = np.random.default_rng(np.random.SeedSequence([seed])).permutation(len(dataset)).tolist()
    return dataset.select(sorted(order[count:])), dataset.select(sorted(order[: max(0, count)]))
