"""An opened dataset as the viewer's page asks for it: rows of the table, pictures, and the numbers of an episode."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from robolearn.configuration.parts.dataset_names import MINARI
from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.configuration.parts.task import environment_name
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools import convert
from robolearn.errors import DatasetError

MAX_CURVES = 64
"""Of one array of an episode; wider ones show their first columns."""
PICTURE_QUALITY = 88
THUMBNAIL_WIDTH = 96
PLOTTED = ("actions", "rewards", "gate", "policy_actions", "expert_actions")


class Library:
    """The dataset at `source`, kept open; safe to use from several threads.

    Folders of ALOHA and Minari are converted into a temporary file first, which `close` removes. The table's rows are
    read by a thread in the background: a file of 10,000 episodes is open at once.
    """

    def __init__(self, source: str, *, reading: Reading = NOTHING) -> None:
        self.source, self.reading = source, reading
        self.id = secrets.token_hex(4)
        """Of this run, in the addresses of pictures, so that browsers may keep them."""
        self.notes: tuple[str, ...] = ()
        self._scratch: Path | None = None
        self.path = self._convert() if convert.detect(source) in ("aloha", "minari") else Path(source)
        try:
            self.dataset = Dataset(self.path, reading=self.seen)
        except BaseException:
            self._remove_scratch()
            raise
        self.notes = self.notes or tuple(self.dataset.assumptions)
        self.names = list(self.dataset.episodes)
        self.number = {name: i for i, name in enumerate(self.names)}
        self.rows: list[dict[str, Any]] = []
        self._closing = threading.Event()
        self._reader = threading.Thread(target=self._read_rows, name="rows", daemon=True)
        self._reader.start()

    @property
    def seen(self) -> Reading:
        """How the file at `path` is read; a temporary conversion has been already."""
        return NOTHING if self.converted else self.reading

    @property
    def converted(self) -> bool:
        """Return whether the page shows a temporary conversion and not the source itself."""
        return self._scratch is not None

    @property
    def home(self) -> Path:
        """The folder that new files are written into: the source's own."""
        return Path.cwd() if self.source.startswith(MINARI) else Path(self.source).resolve().parent

    @property
    def cameras(self) -> list[str]:
        return [key for key, spec in self.dataset.observation_spec.items() if spec.is_image]

    def describe(self) -> dict[str, Any]:
        """Return what the page must know before any episode."""
        dataset = self.dataset
        shown = [key for key in self.cameras if dataset.observation_spec[key].shape[2] in (1, 3, 4)]
        return {
            "id": self.id,
            "file": Path(self.source).name,
            "task": dataset.task,
            "environment": environment_name(dataset.env_args),
            "control_hz": dataset.control_hz,
            "names": self.names,
            "cameras": shown,
            "actions": list(dataset.action_spec.names),
            "masks": {name: list(indices) for name, indices in dataset.masks.items()},
            "ours": dataset.ours,
            "in_place": dataset.ours and not dataset.recording and not self.converted,
            "notes": list(self.notes),
            "suggestion": _free_name(self.home, Path(self.source).stem or "dataset"),
        }

    def episode(self, index: int) -> dict[str, Any]:
        """Return the facts of one episode that are no curves."""
        info, steps = self.dataset.summary(index)
        events = [
            {"step": e.step, "time_s": e.time_s, "kind": e.kind, "reason": e.reason} for e in self.dataset.events(index)
        ]
        times = self._times(index, steps)
        return {
            "name": self.names[index],
            "steps": steps,
            "seconds": float(times[-1] - times[0]) + 1.0 / self.dataset.control_hz,
            "times": [round(float(t), 4) for t in times],
            "success": info.success,
            "seed": info.seed,
            "source": info.source,
            "round": info.round,
            "operator": info.operator,
            "device": info.device,
            "started_at": info.started_at,
            "model": info.model,
            "policy": info.policy,
            "notes": info.notes,
            "late_steps": info.late_steps,
            "events": events,
        }

    def curves(self, index: int) -> bytes:
        """Return the numbers of an episode: a JSON header, its length in 4 bytes before it, then float32 columns.

        The header has `modes` (T of ActionMode, or none) and `groups`: {name, labels, width, offset}, where `offset`
        counts float32 values behind the header, `width` columns of T values each; NaN where there is nothing.
        """
        steps = self.dataset.summary(index)[1]
        groups: list[dict[str, Any]] = []
        blocks: list[np.ndarray] = []
        offset = 0
        for name, values in self._plotted(index, steps):
            groups.append(
                {
                    "name": name,
                    "labels": self._labels(name, values.shape[1]),
                    "width": min(values.shape[1], MAX_CURVES),
                    "columns": values.shape[1],
                    "offset": offset,
                }
            )
            blocks.append(np.ascontiguousarray(values[:, :MAX_CURVES].T, np.float32))
            offset += blocks[-1].size
        header = json.dumps({"steps": steps, "modes": self._modes(index), "groups": groups}).encode()
        header += b" " * (-len(header) % 4)  # the float32 values are to begin at a multiple of four
        return len(header).to_bytes(4, "little") + header + b"".join(block.tobytes() for block in blocks)

    def picture(self, index: int, key: str, step: int, *, width: int | None = None) -> bytes:
        """Return one camera's picture of one step as JPEG; step -1 is the last. `width` makes it smaller."""
        if key not in self.cameras:
            raise DatasetError(f"{self.source} has no camera {key!r}; it has {self.cameras}")
        step = self.dataset.summary(index)[1] - 1 if step == -1 else step
        return encode(self.dataset.frame(index, key, step), width)

    def reopen(self) -> None:
        """Read the file again after its masks were changed in place; episodes and numbers are the same."""
        old, self.dataset = self.dataset, Dataset(self.path, reading=self.seen)
        old.close()

    def close(self) -> None:
        self._closing.set()
        self._reader.join(5.0)
        self.dataset.close()
        self._remove_scratch()

    def _convert(self) -> Path:
        self._scratch = Path(tempfile.mkdtemp(prefix="robolearn-view-"))
        try:
            done = convert.convert(self.source, self._scratch / "view.hdf5", reading=self.reading)
        except BaseException:
            self._remove_scratch()
            raise
        self.notes = done.lost
        return self._scratch / "view.hdf5"

    def _remove_scratch(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _read_rows(self) -> None:
        for index in range(len(self.names)):
            if self._closing.is_set():
                return
            self.rows.append(self._row(index))

    def _row(self, index: int) -> dict[str, Any]:
        try:
            info, steps = self.dataset.summary(index)
        except DatasetError as error:
            return {"problem": str(error)}
        return {
            "steps": steps,
            "success": info.success,
            "operator": info.operator,
            "source": info.source,
            "round": info.round,
            "seed": info.seed,
            "device": info.device,
            "started_at": info.started_at,
        }

    def _times(self, index: int, steps: int) -> np.ndarray:
        if "timestamps" in self.dataset.array_names(index):
            return self.dataset.arrays(index, ["timestamps"])["timestamps"]
        return np.arange(steps) / self.dataset.control_hz

    def _modes(self, index: int) -> list[int]:
        if "action_modes" not in self.dataset.array_names(index):
            return []
        return self.dataset.arrays(index, ["action_modes"])["action_modes"].tolist()

    def _plotted(self, index: int, steps: int) -> list[tuple[str, np.ndarray]]:
        """(T, columns) per group; arrays without a single number are left out."""
        there = self.dataset.array_names(index)
        low_dim = [f"obs/{key}" for key in self.dataset.low_dim_keys()]
        names = [name for name in (*PLOTTED, *low_dim) if name in there]
        arrays = self.dataset.arrays(index, names)
        flat = [(name, np.asarray(arrays[name], np.float64).reshape(steps, -1)) for name in names]
        return [(name, values) for name, values in flat if not np.isnan(values).all()]

    def _labels(self, name: str, columns: int) -> list[str]:
        if name in ("actions", "policy_actions", "expert_actions"):
            return list(self.dataset.action_spec.names)[:MAX_CURVES]
        key = name.rpartition("/")[2]
        return [key] if columns == 1 else [f"{key}[{i}]" for i in range(min(columns, MAX_CURVES))]


def encode(frame: np.ndarray, width: int | None = None) -> bytes:
    """(H, W, 1, 3 or 4) uint8 RGB -> JPEG, `width` pixels wide where given and smaller."""
    if width is not None and width < frame.shape[1]:
        height = max(1, round(frame.shape[0] * width / frame.shape[1]))
        frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
    if frame.ndim == 3 and frame.shape[2] >= 3:
        frame = frame[:, :, 2::-1]
    done, packed = cv2.imencode(".jpg", np.ascontiguousarray(frame), [cv2.IMWRITE_JPEG_QUALITY, PICTURE_QUALITY])
    if not done:
        raise DatasetError(f"a picture of shape {frame.shape} cannot be shown")
    return packed.tobytes()


def _free_name(folder: Path, stem: str) -> str:
    """A name for a new file beside the old one."""
    for number in range(1, 1000):
        name = f"{stem}_edited{'' if number == 1 else number}.hdf5"
        if not (folder / name).exists():
            return name
    return f"{stem}_edited.hdf5"
