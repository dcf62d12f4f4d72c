"""Threads and denormals inside and outside of the contexts; nothing changes by an import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from robolearn.training import threads
from robolearn.training.threads import fitting_threads, flushed_denormals, refit_threads


def test_numbers_next_to_zero_are_flushed_inside_only() -> None:
    tiny = torch.full((64,), 1e-30)
    with flushed_denormals():
        assert float((tiny * 1e-12).max()) == 0.0
    assert float((tiny * 1e-12).max()) > 0.0
    with pytest.raises(RuntimeError), flushed_denormals():
        raise RuntimeError
    assert float((tiny * 1e-12).max()) > 0.0


def test_networks_get_the_threads_they_are_worth_unless_the_user_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    monkeypatch.setattr(threads, "MAX_THREADS", 4)
    monkeypatch.setattr(threads, "gaining_threads", lambda seconds, most: most)
    monkeypatch.setattr(threads, "_fit", threads._Fit())
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        for rows, expected in ((8, 1), (64, 2), (100_000, 4)):  # of about 400,000 multiplications
            with fitting_threads(nn.Linear(632, 632), rows=rows):
                assert torch.get_num_threads() == expected
            assert torch.get_num_threads() == 3
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        with fitting_threads(nn.Linear(4, 4), rows=1):
            assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({1: 8.0, 2: 4.1, 4: 2.2, 6: 2.1}, 4),  # the last two gain next to nothing
        ({1: 8.0, 2: 7.5, 4: 7.2, 6: 7.1}, 1),  # two threads of one core
        ({1: 8.0, 2: 60.0, 4: 60.0, 6: 60.0}, 1),  # another program has the other cores
        ({1: 8.0, 2: 9.0, 4: 3.0, 6: 1.5}, 6),
    ],
)
def test_as_many_threads_as_gain_something(seconds: dict[int, float], expected: int) -> None:
    jitter = iter([1.0, 1.0, 1.0, 1.0, 9.0, 1.0] * 10)  # one of five rounds met something else
    assert threads.gaining_threads(lambda n: seconds[n] * next(jitter), 6) == expected


def test_threads_follow_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "MAX_THREADS", 4)
    monkeypatch.setattr(threads, "_fit", threads._Fit())
    gain, clock = [4], [0.0]
    monkeypatch.setattr(threads, "gaining_threads", lambda seconds, most: gain[0])
    monkeypatch.setattr(threads.time, "monotonic", lambda: clock[0])
    before = torch.get_num_threads()
    refit_threads()  # outside: nothing to fit
    assert torch.get_num_threads() == before
    with fitting_threads(nn.Linear(632, 632), rows=64):
        assert torch.get_num_threads() == 2
        gain[0] = 1  # somebody has come
        for clock[0], expected in ((50.0, 2), (60.1, 1), (70.0, 1)):
            refit_threads()
            assert torch.get_num_threads() == expected
        with fitting_threads(nn.Linear(4, 4), rows=1):
            assert torch.get_num_threads() == 1
        gain[0] = 4  # and gone: bad news was looked at again after ten seconds
        for clock[0], expected in ((70.2, 2), (130.0, 2)):
            refit_threads()
            assert torch.get_num_threads() == expected
        gain[0] = 1  # and come to stay: the second look says so, too, and holds for a minute
        for clock[0], expected in ((130.3, 1), (140.4, 1)):
            refit_threads()
            assert torch.get_num_threads() == expected
        gain[0] = 4
        for clock[0], expected in ((200.0, 1), (200.5, 2)):
            refit_threads()
            assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == before


def test_only_a_run_settles_the_threads_of_the_process_and_no_import_does() -> None:
    """In a process of its own: the pool's threads, from the second on, flush denormals once a run has started them."""
    code = """
import torch
calls, settle = [], torch.set_num_threads
torch.set_num_threads = lambda n: (calls.append(n), settle(n))
flush, flushes = torch.set_flush_denormal, []
torch.set_flush_denormal = lambda mode: (flushes.append(mode), flush(mode))[1]
import robolearn.imitation.bc, robolearn.rl.finetune, robolearn.rl.from_scratch
from robolearn.training.threads import start_thread_pool
assert not calls and not flushes, (calls, flushes)
settle(2)
start_thread_pool()
start_thread_pool()
assert calls == [2], calls
assert flushes == [True, False], flushes
tiny = torch.full((1 << 20,), 1e-30) * 1e-12
print(int((tiny[:1000] > 0).all()), int((tiny[-1000:] == 0).all()))
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=clean)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["1", "1"], "the caller keeps small numbers, the pool's other thread flushes them"
