"""What becomes of a full disk, a folder that may not be written to, or too little memory: one sentence that says what
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

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
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
        where = f" {os.fsdecode(error.filename)}" if error.filename else ""
        reason = os.strerror(number)
        raise BadLuckError(f"cannot read or write{where}: {reason}. {_kept(verb, config)}; {_mend(number)}") from error
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise BadLuckError(
            f"there is not enough memory for this ({str(error).splitlines()[0] if str(error) else 'none was left'}). "
            f"{_kept(verb, config)}; lower batch_size, num_envs or the sizes under policy"
        ) from error


def _mend(number: int) -> str:
    if number in FULL:
        return "make room first"
    if number in FORBIDDEN:
        return "or choose a place that you may write to"
    return "check that path, or choose another" if number in NO_SUCH_PLACE else "look after that disk first"


def _kept(verb: str, config: Any) -> str:
    """What the command leaves behind, and the command that goes on from there."""
    run = Path(getattr(config, "run_dir", "") or getattr(config, "output", "") or getattr(config, "folder", ""))
    summary = run / "checkpoints" / "latest" / "checkpoint.json"
    if summary.is_file():
        step = json.loads(summary.read_text(encoding="utf-8")).get("step")
        resume = hint(verb, "--config", run / "config.yaml", "--resume")
        return f"The checkpoint of step {step} in {run} is whole; go on with: {resume}"
    rounds = len(list(run.glob("rounds/*/report.json")))
    if rounds:
        return f"{count(rounds, 'complete round')} in {run} stay; run the same again to go on from there"
    return "What was written before stays as it is; run the same again to go on"


def _number_in(text: str) -> int | None:
    """The error number that HDF5 writes into its messages."""
    found = re.search(r"errno = (\d+)", text)
    return int(found[1]) if found else None


def _is_memory(error: BaseException) -> bool:
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)
