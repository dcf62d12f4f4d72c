"""Rates, time left, and little output where nobody watches."""

from __future__ import annotations

import pytest

from robolearn.training import progress
from robolearn.training.progress import Progress, clock


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


def test_plain_lines_come_every_few_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time = Clock()
    monkeypatch.setattr(progress, "time", time)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with Progress("train", 1000, start=200) as p:
        for done in range(201, 601):
            time.now += 0.125  # exact in binary
            p.update(done, note=f"loss {done}")
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 10, "50 seconds in lines of 5"
        # The 200 steps of an earlier run do not count towards the rate.
        assert lines[-1] == "train: 600/1000 steps, 8.0/s, 0:50 left, loss 600"
        time.now += 50
        p.update(1000)
    assert capsys.readouterr().err.splitlines()[-1] == "train: 1000/1000 steps, 8.0/s, took 1:40, loss 600"


def test_slow_units_are_given_in_seconds_each(monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock()
    monkeypatch.setattr(progress, "time", time)
    p = Progress("record", 4, unit="demo")
    assert p.status() == "0/4 demos"
    time.now += 20
    p.update(2)
    assert p.status() == "2/4 demos, 10.0 s each, 0:20 left"


def test_clock() -> None:
    assert [clock(s) for s in (0, 5.4, 754, 3723)] == ["0:00", "0:05", "12:34", "1:02:03"]
