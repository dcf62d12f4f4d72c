"""Two jobs at the same time, and what a thread of its own must not change about them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn

from robolearn.rl.engine.side_by_side import SideBySide
from robolearn.training import threads
from robolearn.training.threads import fitting_threads


def test_two_jobs_run_at_the_same_time_and_both_are_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 2)
    beside, meeting, ended = SideBySide(), threading.Barrier(2, timeout=10.0), []

    def job(name: str, error: type[Exception] | None = None) -> Any:
        meeting.wait()  # each waits for the other, so one after the other would time out
        ended.append(name)
        if error is not None:
            raise error(name)
        return name, threading.current_thread() is threading.main_thread(), torch.get_num_threads()

    with fitting_threads(nn.Linear(2, 2), rows=1, jobs=beside.jobs):
        first, second = beside(lambda: job("a"), lambda: job("b"))
        assert first[:2] == ("a", True)
        assert second == ("b", False, first[2])
        for errors in ((ValueError, None), (None, KeyError), (ValueError, KeyError)):
            ended.clear()
            with pytest.raises(next(e for e in errors if e)):
                beside(lambda errors=errors: job("a", errors[0]), lambda errors=errors: job("b", errors[1]))
            assert sorted(ended) == ["a", "b"]


def test_a_job_keeps_the_mode_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 2)
    beside = SideBySide()
    for enabled in (False, True):
        with torch.set_grad_enabled(enabled):
            assert beside(torch.is_grad_enabled, torch.is_grad_enabled) == (enabled, enabled)


def test_one_core_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_THREADS", 1)
    order: list[int] = []
    assert SideBySide()(lambda: order.append(1), lambda: order.append(2)) == (None, None)
    assert order == [1, 2]
    assert SideBySide(enabled=False).jobs == 1


def test_halves_of_a_list_come_back_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores in (1, 2):
        monkeypatch.setattr(threads, "MAX_THREADS", cores)
        for count in range(4):
            assert SideBySide().map(lambda x: x * x, range(count)) == [x * x for x in range(count)]
