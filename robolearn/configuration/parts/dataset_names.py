"""Names of dataset files that every verb can read again. Free of h5py."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from robolearn.errors import ConfigError

SUFFIXES = (".hdf5", ".h5")
MINARI = "minari:"
"""Begins the name of a dataset that Minari keeps in its own store."""


def is_dataset_name(text: str) -> bool:
    """Return whether a file of that name is one file to every verb, and is told from a folder.

    Lists of files are split at commas and may be written in brackets.
    """
    return Path(text).suffix in SUFFIXES and not text.endswith("/") and not _means_something_else(text)


def check_dataset_name(key: str, text: str) -> None:
    """Raise ConfigError unless `text`, the value of `key`, names a dataset file."""
    if not is_dataset_name(text):
        raise ConfigError(
            f"{key} must name a file that ends in {' or '.join(SUFFIXES)}, without commas, which "
            f"separate files, and no folder; received {text!r}, take for example {_likely(text)!r}"
        )


def check_target(key: str, text: str, to: Literal["robolearn", "robomimic", "minari"]) -> None:
    """Raise ConfigError unless `text`, the value of `key`, suits the layout `to`."""
    if to != "minari":
        check_dataset_name(key, text)
    elif Path(text).suffix in SUFFIXES:
        raise ConfigError(
            f"{key}: Minari's layout is a folder; name one without {Path(text).suffix}, received {text!r}"
        )


def beside(path: Path, ending: str) -> Path:
    """Return the name of a new dataset file beside `path`: `x.hdf5` and `_train` give `x_train.hdf5`."""
    suffix = path.suffix if path.suffix in SUFFIXES else SUFFIXES[0]
    return path.with_name(f"{path.stem.replace(',', '_')}{ending}{suffix}")


def _means_something_else(text: str) -> bool:
    return "," in Path(text).name or text.startswith(("[", MINARI))


def _likely(text: str) -> str:
    """Return a name that is most likely meant."""
    plain = Path(text.removeprefix(MINARI).lstrip("["))
    if text.endswith("/") or plain.name in ("", ".."):
        return str(plain / f"demos{SUFFIXES[0]}")
    return str(plain.parent / f"{plain.stem.replace(',', '_').lstrip('.')}{SUFFIXES[0]}")
