"""Killed, out of power or out of disk at any instant: what was committed is there, the rest is recovered."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from robolearn.datasets.dataset import Dataset
from robolearn.datasets.recording.durable_files import parts_of
from robolearn.datasets.recording.repair import repair
from robolearn.datasets.tools.convert import convert
from robolearn.datasets.tools.validate import validate
from robolearn.errors import DatasetError
from tests.commands import Fork, forks
from tests.datasets.factory import CAMERA, assert_same, episode
from tests.datasets.session import STEPS, file_log, record_and_stand_still, session
from tests.waiting import wait_until

DURABLE = ("replace", "fsync", "fdatasync", "write", "pwrite", "link", "unlink", "ftruncate", "mkdir", "rmdir")
"""The calls through which a recording changes the disk."""


def committed_in(log: list[str]) -> list[str]:
    return [line.split()[-1] for line in log if line.startswith("committed ")]


def check_file(path: Path, committed: list[str], opened: bool) -> None:
    """The file as it stands: opens in plain h5py and holds every committed episode, bit for bit."""
    if not path.exists():
        assert not opened
        assert not committed
        return
    with h5py.File(path) as file:
        for name in committed:
            source = episode(int(name[5:]), STEPS)
            assert np.array_equal(file[f"data/{name}/obs/wrist"][()], source.obs["wrist"])
    with Dataset(path) as dataset:
        found = dict(zip(dataset.episodes, range(len(dataset))))
        for name in committed:
            assert_same(dataset.read(found[name]), episode(int(name[5:]), STEPS))


def check_recovered(path: Path, committed: list[str]) -> None:
    """After `repair`: valid, everything committed bit-identical, of the one in progress steps that were recorded."""
    if not path.exists() and not parts_of(path).exists():
        assert not committed
        return
    repair(path)
    assert not parts_of(path).exists()
    if not path.exists():
        assert not committed
        return
    assert validate(path) == []
    with Dataset(path) as dataset:
        names = list(dataset.episodes)
        assert set(committed) <= set(names)
        for i, name in enumerate(names):
            found, number = dataset.read(i), int(name[5:])
            with h5py.File(path) as file:
                interrupted = bool(file[f"data/{name}"].attrs["interrupted"])
            if not interrupted:
                assert_same(found, episode(number, STEPS))
                continue
            assert name not in committed
            candidates = [s for s in (number, 99) if same_beginning(found, episode(s, STEPS))]
            assert candidates, f"{name} holds steps that were never recorded"


def same_beginning(found: Any, source: Any) -> bool:
    """Whether `found` is a beginning of `source`, with the next observation as its final one."""
    n = len(found)
    return n < len(source) and all(
        np.array_equal(found.obs[key], source.obs[key][:n])
        and np.array_equal(found.final_obs[key], source.obs[key][n])
        and np.array_equal(found.actions, source.actions[:n])
        for key in CAMERA
    )


def session_process(path: Path, log: Path) -> None:
    session(path, file_log(log), pace_s=0.003)


def kill_at_random(folder: Path, kills: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    stages: set[str] = set()
    whole: list[float] = []
    for number in range(-3, kills):  # the first ones run to their end, and tell how long that takes here
        path, log = folder / f"{number}.hdf5", folder / f"{number}.log"
        process = forks.Process(target=session_process, args=(path, log))
        process.start()
        while not log.exists() and process.is_alive():
            time.sleep(0.002)
        began = time.monotonic()
        if number < 0:
            process.join()
            whole.append(time.monotonic() - began)
            continue
        time.sleep(float(rng.uniform(0, 1.2 * np.median(whole))))
        process.kill()
        process.join()
        lines = log.read_text().splitlines()
        stages.add(lines[-1].split()[0] if lines else "nothing")
        check_file(path, committed_in(lines), "opened" in lines)
        check_recovered(path, committed_in(lines))
        path.unlink(missing_ok=True)
    if kills >= 30:
        writing, ending = {"step", "committing", "committed"}, {"closing", "closed"}
        assert stages & writing, f"the kills met only {stages}"
        assert stages & ending, f"the kills met only {stages}"


def test_killed_at_random_instants(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 10, seed=0)


@pytest.mark.long
def test_killed_at_30_random_instants(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 30, seed=2)


@pytest.mark.slow
def test_killed_at_200_random_instants(tmp_path: Path) -> None:
    kill_at_random(tmp_path, 200, seed=1)


def test_a_file_that_took_the_name_of_an_interrupted_recording_is_not_taken_for_it(tmp_path: Path) -> None:
    path, other, log = tmp_path / "d.hdf5", tmp_path / "other.hdf5", tmp_path / "log"
    process = forks.Process(target=session_process, args=(path, log))
    process.start()
    while not log.exists() or "committed" not in log.read_text():
        time.sleep(0.002)
    process.kill()
    process.join()
    session(other, lambda _: None)
    path.unlink()
    with pytest.raises(DatasetError, match="holds an interrupted recording of that name"):
        convert(other, path)
    shutil.copy(other, path)
    with h5py.File(path, "r+") as file:
        for demo in file["data"].values():
            demo.attrs["seed"] = 77
    before = sorted(file.name for file in parts_of(path).iterdir())
    with pytest.raises(DatasetError, match=r"of which d.hdf5 is not the file, for it lacks demo_0.*another name"):
        repair(path)
    assert sorted(file.name for file in parts_of(path).iterdir()) == before
    path.rename(tmp_path / "renamed.hdf5")
    assert "demo_0" in repair(path).committed


def test_every_step_older_than_a_second_is_recovered(tmp_path: Path) -> None:
    path, log = tmp_path / "d.hdf5", tmp_path / "log"
    process = Fork(record_and_stand_still, path, log)
    wait_until(lambda: log.exists() and "a second later" in log.read_text(), lambda: process.err)
    process.kill()
    process.wait()
    report = repair(path)
    assert report.committed == ("demo_0",)
    assert report.recovered == {"demo_1": 199}
    with Dataset(path) as dataset:
        assert_same(dataset.read(0), episode(0, 5))
        assert same_beginning(dataset.read(1), episode(1, 200))


@contextlib.contextmanager
def on_disk_call(action: Callable[[int, str, Callable[..., Any], tuple[Any, ...]], Any]) -> Iterator[None]:
    """Route every durable call of this process through `action(count, name, original, args)`."""
    originals = {name: getattr(os, name) for name in DURABLE}
    lock, count = threading.Lock(), 0

    def routed(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            with lock:
                count += 1
                number = count
            return action(number, name, lambda *a: originals[name](*a, **kwargs), args)

        return call

    for name in DURABLE:
        setattr(os, name, routed(name))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def count_calls(folder: Path) -> int:
    calls = 0

    def count(number: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        nonlocal calls
        calls = number
        return original(*args)

    with on_disk_call(count):
        session(folder / "count.hdf5", lambda line: None)
    return calls


def killed_by_itself(path: Path, log: Path, at: int) -> int:
    """A forked session that kills itself right before its `at`-th durable call; returns how it ended."""

    def die(number: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if number == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args)

    pid = os.fork()
    if pid == 0:
        try:
            report = file_log(log)
            with on_disk_call(die):
                session(path, report)
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_before_calls(folder: Path, stride: int) -> None:
    calls = count_calls(folder)
    assert calls > 100
    for at in range(1, calls + 1, stride):
        path, log = folder / f"{at}.hdf5", folder / f"{at}.log"
        ended = killed_by_itself(path, log, at)
        assert ended in (-signal.SIGKILL, 0)
        lines = log.read_text().splitlines()
        check_file(path, committed_in(lines), "opened" in lines)
        check_recovered(path, committed_in(lines))
        path.unlink(missing_ok=True)


def test_killed_before_disk_calls(tmp_path: Path) -> None:
    kill_before_calls(tmp_path, stride=127)


@pytest.mark.slow
def test_killed_before_many_disk_calls(tmp_path: Path) -> None:
    kill_before_calls(tmp_path, stride=5)


def full_from(folder: Path, at: int) -> None:
    """From the `at`-th durable call on the disk is full; then space is freed and `repair` runs."""

    def fill(number: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        if number >= at and name in ("write", "pwrite", "ftruncate", "mkdir", "link"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*args)

    path = folder / f"{at}.hdf5"
    lines: list[str] = []
    failure = None
    with on_disk_call(fill):
        try:
            session(path, lines.append)
        except DatasetError as error:
            failure = str(error)
    assert lines[-1] == "closed" if failure is None else "no space left" in failure
    check_file(path, committed_in(lines), "opened" in lines)
    check_recovered(path, committed_in(lines))
    path.unlink(missing_ok=True)


def test_disk_full_at_disk_calls(tmp_path: Path) -> None:
    for at in range(1, count_calls(tmp_path) + 1, 127):
        full_from(tmp_path, at)


@pytest.mark.slow
def test_disk_full_at_many_disk_calls(tmp_path: Path) -> None:
    for at in range(1, count_calls(tmp_path) + 1, 5):
        full_from(tmp_path, at)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_small_file_system_fills_up(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    for kilobytes in (16, 64, 128, 192, 384):
        options = f"size={kilobytes}k"
        mounting = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mount)]
        if subprocess.run(mounting, check=False, capture_output=True).returncode:
            pytest.skip("mounting is not allowed here")
        try:
            lines: list[str] = []
            path = mount / "d.hdf5"
            with contextlib.suppress(DatasetError):
                session(path, lines.append)
            check_file(path, committed_in(lines), "opened" in lines)
            roomy = tmp_path / f"roomy{kilobytes}"
            shutil.copytree(mount, roomy)
            check_recovered(roomy / "d.hdf5", committed_in(lines))
        finally:
            subprocess.run(["umount", str(mount)], check=True)


class PowerLoss:
    """What a disk holds when power fails: only what was synced.

    Keeps, beside the real files, their contents as of their last sync and every folder's names as of its last sync.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[Path, dict[str, int]] = {root: {}}

    def after(self, name: str, args: tuple[Any, ...]) -> bool:
        """Account for a call that has been made; true where the durable state may have changed."""
        if name not in ("fsync", "fdatasync"):
            return False
        target = Path(os.readlink(f"/proc/self/fd/{args[0]}"))
        if target.is_dir():
            self.names[target] = self.listing(target)
        else:
            self.contents[os.fstat(args[0]).st_ino] = target.read_bytes() if target.exists() else b""
        return True

    @staticmethod
    def listing(folder: Path) -> dict[str, int]:
        return {entry.name: entry.inode() for entry in os.scandir(folder)}

    def restore(self, target: Path, *, all_names: bool) -> None:
        """The surviving tree; with `all_names` the folders survive as they are and only contents are lost."""
        target.mkdir()
        self._restore(self.root, target, all_names)

    def _restore(self, folder: Path, target: Path, all_names: bool) -> None:
        names = self.listing(folder) if all_names and folder.exists() else self.names.get(folder, {})
        for name, inode in names.items():
            if (folder / name).is_dir() or folder / name in self.names:
                (target / name).mkdir()
                self._restore(folder / name, target / name, all_names)
            elif not name.endswith((".lock", ".log")):
                (target / name).write_bytes(self.contents.get(inode, b""))


def test_power_fails_after_some_syncs(tmp_path: Path) -> None:
    power_fails(tmp_path, stride=9)


@pytest.mark.slow
def test_power_fails_after_any_sync(tmp_path: Path) -> None:
    power_fails(tmp_path, stride=1)


def power_fails(tmp_path: Path, stride: int) -> None:
    live = tmp_path / "live"
    live.mkdir()
    disk, lines, checked = PowerLoss(live), [], 0

    def account(number: int, name: str, original: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        nonlocal checked
        result = original(*args)
        if threading.current_thread() is threading.main_thread() and disk.after(name, args):
            for all_names in (False, True):
                checked += 1
                survived = tmp_path / f"{checked}"
                disk.restore(survived, all_names=all_names)
                snapshots.append((survived, committed_in(lines), "opened" in lines))
        return result

    snapshots: list[tuple[Path, list[str], bool]] = []
    real_open = os.open

    def forgetful_open(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        fd = real_open(path, flags, *args, **kwargs)
        if flags & (os.O_CREAT | os.O_TRUNC):
            disk.contents.pop(os.fstat(fd).st_ino, None)
        return fd

    os.open = forgetful_open  # type: ignore[assignment]
    try:
        with on_disk_call(account):
            session(live / "d.hdf5", lines.append)
    finally:
        os.open = real_open
    assert len(snapshots) > 40
    for survived, committed, opened in snapshots[::stride]:
        check_file(survived / "d.hdf5", committed, opened)
        check_recovered(survived / "d.hdf5", committed)
