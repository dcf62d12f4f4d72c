"""Answers to a full disk, a folder that may not be written to, or too little memory: one sentence that says what
is kept and how to go on."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from robolearn.errors import RobolearnError, count, hint
from robolearn.storage import absence

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
OUTPUTS = ("run_dir", "output", "folder", "target", "video")
NO_SUCH_PLACE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP}


class BadLuckError(RobolearnError):
    """The machine failed a command: nothing is wrong with what was asked for."""


@contextmanager
def explained(verb: str, config: Any) -> Iterator[None]:
    """Turn the operating system's errors inside into a BadLuckError.

    A closed pipe at the other end of our output is no bad luck, and errors that name no cause are ours: both pass.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        number = error.errno or _number_in(str(error))
        if number is None:
            raise
        place = error.filename2 or error.filename or _output(config) or "a file"
        kept, again = _prospects(verb, config)
        raise BadLuckError(
            f"cannot read or write {os.fsdecode(place)}: {_reason(place, number)}. {kept}; {_remedy(number)}, "
            f"then {again}"
        ) from error
    except UnicodeEncodeError as error:
        word = next(word for word in error.object.split() if not word.isascii())
        raise BadLuckError(
            f"{word!a} holds characters that cannot be written as {error.encoding} here; rename it, or set "
            "LC_ALL=C.UTF-8, and run the same again"
        ) from error
    except (MemoryError, RuntimeError) as error:
        if "Symlink loop" in str(error):  # of Path.resolve, until Python 3.12
            raise BadLuckError(f"{error}; mend the link, then run the same again") from error
        if not _is_memory(error):
            raise
        kept, again = _prospects(verb, config)
        reason = str(error).splitlines()[0] if str(error) else "none was left"
        remedy = "lower batch_size, num_envs or the sizes under policy"
        raise BadLuckError(f"there is not enough memory ({reason}). {kept}; {remedy}, then {again}") from error


def _reason(place: Any, number: int) -> str:
    path = Path(os.fsdecode(place))
    if path.is_symlink() and not path.exists():
        return f"it {absence(path)}"
    return "it is a file, not a folder" if number == errno.EEXIST and path.is_file() else os.strerror(number)


def _remedy(number: int) -> str:
    if number in FULL:
        return "make room"
    if number in FORBIDDEN:
        return "get the right to write there or choose another place"
    return "mend that path or choose another" if number in NO_SUCH_PLACE else "look after that disk"


def _output(config: Any) -> str:
    """Return where the command writes; every configuration says so by one of these names."""
    return str(next((value for name in OUTPUTS if (value := getattr(config, name, ""))), ""))


def _prospects(verb: str, config: Any) -> tuple[str, str]:
    """Say what the command leaves behind, and how to go on from there."""
    run = Path(_output(config))
    summary = run / "checkpoints" / "latest" / "checkpoint.json"
    if summary.is_file():
        step = json.loads(summary.read_text(encoding="utf-8")).get("step")
        resume = hint(verb, "--config", run / "config.yaml", "--resume")
        return f"The checkpoint of step {step} in {run} is kept", f"go on with: {resume}"
    rounds = len(list(run.glob("rounds/*/report.json")))
    if rounds:
        return f"The {count(rounds, 'complete round')} in {run} are kept", "run the same again to go on from there"
    return "What is complete is kept", "run the same again" + (" with --resume" if hasattr(config, "resume") else "")


def _number_in(text: str) -> int | None:
    """The error number that HDF5 writes into its messages."""
    found = re.search(r"errno = (\d+)", text)
    return int(found[1]) if found else None


def _is_memory(error: BaseException) -> bool:
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
