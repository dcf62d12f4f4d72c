"""Threads and denormals inside and outside of the contexts; nothing changes by an import."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from robolearn.training import threads
from robolearn.training.threads import fitting_threads, flushed_denormals


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
