"""Checkpoints of a run: one folder, replaced at once; reading one runs no code."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from robolearn.errors import TrainingError
from robolearn.storage import atomic_folder

STATE_FILE, SUMMARY_FILE = "state.pt", "checkpoint.json"
MAPPED_BYTES = 2**30
"""Larger checkpoints are mapped while they are read."""


def save_checkpoint(
    folder: str | Path, state: Mapping[str, Any], summary: Mapping[str, Any], parts: Sequence[Path] = ()
) -> None:
    """Write (or replace) a checkpoint; after a crash at any instant the old one or the new one is whole.

    Args:
        state: nested dicts, lists and tuples of tensors and plain values, nothing else: what can be read back with
            `weights_only`.
        summary: a few plain values for people, written as JSON.
        parts: of `save_part`, by the other processes of the run; they move into the folder.
    """
    _check_plain(state, "state")
    with atomic_folder(folder) as fresh:
        for path in parts:
            os.replace(path, fresh / path.name)
        _write(state, fresh / STATE_FILE)
        (fresh / SUMMARY_FILE).write_text(json.dumps(dict(summary), indent=2) + "\n", encoding="utf-8")


def part_file(rank: int) -> str:
    """Return the name of the file that a further process of a run adds to a checkpoint."""
    return f"rank_{rank}.pt"


def save_part(folder: str | Path, rank: int, state: Mapping[str, Any]) -> Path:
    """Write one process's part beside the checkpoint `folder`, for `save_checkpoint` to take in."""
    _check_plain(state, "state")
    path = Path(folder).parent / part_file(rank)
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(state, path)
    return path


def load_checkpoint(folder: str | Path, name: str = STATE_FILE) -> dict[str, Any]:
    """The state that `save_checkpoint` wrote, on the CPU. Raises TrainingError where it is missing or damaged."""
    path = Path(folder) / name
    if not path.is_file():
        raise TrainingError(f"there is no checkpoint in {folder}")
    try:
        # A large one, with a replay in it, might not fit into memory beside what it is copied to.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=path.stat().st_size > MAPPED_BYTES)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TrainingError(f"{path} is damaged or not a checkpoint of ours: {reason}") from None


def _write(state: Mapping[str, Any], path: Path) -> None:
    # Through a file of Python's, whose errors say what is wrong with the disk; torch's own say "unexpected pos".
    with path.open("wb") as file:
        try:
            torch.save(dict(state), file)
        except RuntimeError as error:
            raise (error.__context__ if isinstance(error.__context__, OSError) else error) from None


def _check_plain(value: Any, place: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            assert type(key) in (str, int), f"{place} has a key of type {type(key).__name__}"
            _check_plain(item, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        # Long rows of numbers (generator states, positions) are of one kind: looking at both ends is enough.
        for i in range(len(value)) if len(value) < 64 else (0, len(value) - 1):
            _check_plain(value[i], f"{place}[{i}]")
    else:
        plain = value is None or type(value) in (bool, int, float, str, Tensor, torch.nn.Parameter)
        assert plain, f"{place} is a {type(value).__name__}, which a checkpoint cannot hold"
