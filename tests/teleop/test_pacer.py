"""The clock of a control loop: deadlines on an absolute schedule, missed ones skipped, an account that adds up."""

from __future__ import annotations

import gc
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from robolearn.teleop.pacer import OTHERS, Pacer, punctual
from tests.teleop.session_parts import Clock


def paced(hz: float, clock: Clock) -> Pacer:
    return Pacer(hz, clock=clock, sleep=clock.sleep)


def begins(pacer: Pacer, clock: Clock, work: list[float]) -> np.ndarray:
    """When each tick begins, where each takes the time in `work`."""
    times = []
    for seconds in work:
        pacer.wait()
        times.append(clock.now)
        clock.now += seconds
    return np.array(times)


def test_delays_do_not_add_up() -> None:
    clock = Clock()
    pacer = paced(20.0, clock)
    times = begins(pacer, clock, [0.01, 0.04, 0.0, 0.049] * 50)
    np.testing.assert_allclose(times - times[0], np.arange(200) / 20.0, atol=1e-5)
    assert pacer.late == 0
    assert pacer.ticks == 200


def test_a_long_step_makes_no_burst_and_keeps_the_schedule() -> None:
    clock = Clock()
    pacer = paced(20.0, clock)
    times = begins(pacer, clock, [0.0, 0.0, 0.33, 0.0, 0.0, 0.0])
    assert pacer.late == 1
    np.testing.assert_allclose(np.diff(times), [0.05, 0.05, 0.33, 0.02, 0.05], atol=1e-5)


@settings(max_examples=60)
@given(st.lists(st.floats(0.0, 0.4), min_size=2, max_size=60), st.sampled_from([5.0, 20.0, 50.0]))
def test_whatever_a_step_costs_ticks_stay_on_the_grid(work: list[float], hz: float) -> None:
    clock = Clock()
    pacer = paced(hz, clock)
    late = 0
    first = None
    before = -np.inf
    for seconds in work:
        pacer.wait()
        first = clock.now if first is None else first
        phase = (clock.now - first) * hz
        late += pacer.is_late
        # On the grid, or begun late because the step before was not done earlier.
        assert abs(phase - round(phase)) < 1e-3 or clock.now == pytest.approx(before, abs=1e-4)
        clock.now += seconds
        before = clock.now
    assert pacer.late == late


def test_a_restart_forgives_what_is_no_step() -> None:
    clock = Clock()
    pacer = paced(10.0, clock)
    pacer.wait()
    clock.now += 3.0
    pacer.restart()
    pacer.wait()
    assert pacer.late == 0
    assert clock.now == pytest.approx(100.0 + 3.0 + 0.1, abs=1e-4)


def test_the_section_that_makes_the_loop_slow_is_named() -> None:
    clock = Clock()
    pacer = paced(20.0, clock)
    with pacer.section("device"):
        clock.now += 0.001
    assert pacer.blame() is None
    for _ in range(100):
        with pacer.section("physics"):
            clock.now += 0.08
    assert pacer.blame() == "a step takes 81 ms where 20 Hz leave 50 ms; physics costs 80 ms"


def test_a_section_that_fails_is_booked_too() -> None:
    clock = Clock()
    pacer = paced(20.0, clock)

    def fail() -> None:
        with pacer.section("physics"):
            clock.now += 0.02
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert pacer.costs["physics"] == pytest.approx(0.02)


def test_late_steps_are_counted_by_what_made_them_late() -> None:
    clock = Clock()
    pacer = paced(20.0, clock)
    pacer.wait()
    with pacer.section("physics"):
        clock.now += 0.01
    with pacer.section("recording"):
        clock.now += 0.2
    pacer.wait()
    assert pacer.is_late
    with pacer.section("physics"):
        clock.now += 0.01
    clock.now += 0.2  # in none of our sections
    pacer.wait()
    pacer.wait()
    assert pacer.late_by == {"recording": 1, OTHERS: 1}
    assert sum(pacer.late_by.values()) == pacer.late


def test_inside_the_loop_threads_give_way_and_the_collector_leaves_the_past_alone() -> None:
    before = sys.getswitchinterval(), gc.get_freeze_count()
    with punctual():
        assert sys.getswitchinterval() < 0.001
        assert gc.get_freeze_count() > before[1]
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (pytest.approx(before[0]), 0)
