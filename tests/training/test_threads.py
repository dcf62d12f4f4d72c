"""What the processor does inside and outside."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from robolearn.training import threads
from robolearn.training.threads import Pair, fitting_threads, flushed_denormals


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
    monkeypatch.setattr(threads, "ALL", 4)
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


def test_a_pair_runs_its_jobs_side_by_side_and_waits_for_both(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ALL", 2)
    pair, meeting, ended = Pair(), threading.Barrier(2, timeout=10.0), []

    def job(name: str, error: type[Exception] | None = None) -> Any:
        meeting.wait()  # each waits for the other, so one after the other would time out
        ended.append(name)
        if error is not None:
            raise error(name)
        return name, threading.current_thread() is threading.main_thread(), torch.get_num_threads()

    with fitting_threads(nn.Linear(2, 2), rows=1, jobs=pair.jobs):
        first, second = pair(lambda: job("a"), lambda: job("b"))
        assert first[:2] == ("a", True)
        assert second == ("b", False, first[2])
        for errors in ((ValueError, None), (None, KeyError), (ValueError, KeyError)):
            ended.clear()
            with pytest.raises(next(e for e in errors if e)):
                pair(lambda errors=errors: job("a", errors[0]), lambda errors=errors: job("b", errors[1]))
            assert sorted(ended) == ["a", "b"]


def test_a_pair_keeps_the_mode_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ALL", 2)
    pair = Pair()
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert pair(torch.is_grad_enabled, torch.is_grad_enabled) == (enabled, enabled)


def test_a_pair_on_one_core_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "ALL", 1)
    order: list[int] = []
    assert Pair()(lambda: order.append(1), lambda: order.append(2)) == (None, None)
    assert order == [1, 2]
    assert Pair(enabled=False).jobs == 1
