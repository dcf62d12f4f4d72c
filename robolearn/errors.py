"""Errors that a user can mend. The command line prints their message, without a traceback, and exits with 2.

A message states what was expected, what was received, where, and what to do. Broken internal invariants are
`assert`ed instead. A few helpers keep the wording of messages the same everywhere.
"""

import shlex


class RobolearnError(Exception):
    """Base of every error that is the input's fault and not ours."""


class ConfigError(RobolearnError):
    """A configuration value, key or file is wrong."""


class DatasetError(RobolearnError):
    """A dataset file is missing, damaged or not what the caller needs."""


class TaskError(RobolearnError):
    """An environment, task or expert is unknown or behaves against its contract."""


class PolicyError(RobolearnError):
    """A policy folder is damaged, or a policy does not fit the data or the task."""


class TrainingError(RobolearnError):
    """A training run cannot start, resume or go on (for example: the loss is not finite)."""


class DeviceError(RobolearnError):
    """A teleoperation device, its profile or what it needs is missing or wrong."""


class DeviceLost(DeviceError):
    """A device that was connected has gone: unplugged, closed, or out of data."""


class NoticeWarning(UserWarning):
    """Something odd that refuses nothing; the command line prints such sentences itself, where they belong."""


def count(number: int, noun: str) -> str:
    """Return "1 episode", "2 episodes": a number with its noun, whose plural takes an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Return a text that every file and font takes: bytes of a path that are no text become question marks."""
    return text.encode("utf-8", "replace").decode()


def option(key: str, *values: object) -> str:
    """Return an option of a command line that can be pasted into a shell, whatever is in its values."""
    return shlex.join([f"--{key}", *map(str, values)])


def hint(*words: object) -> str:
    """Return a command line of ours that can be pasted into a shell, whatever is in its paths."""
    return shlex.join(["robolearn", *map(str, words)])
