"""One driver at a time: first come, asked, answered, silent, gone."""

from __future__ import annotations

import pytest

from robolearn.teleop.seat import PATIENCE_S, Seat
from tests.teleop.session_parts import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def seat(clock: Clock) -> Seat:
    seat = Seat(clock)
    for page in "abc":
        seat.enter(page)
    return seat


def pass_time(seat: Seat, clock: Clock, seconds: float) -> None:
    clock.now += seconds
    seat.update()


def test_the_first_page_drives(seat: Seat, clock: Clock) -> None:
    pass_time(seat, clock, 1000.0)
    assert seat.driver == "a"


def test_the_driver_is_asked_and_answers(seat: Seat) -> None:
    seat.ask("b")
    seat.answer("c", give=True)
    assert seat.driver == "a"
    assert seat.asking == "b"
    seat.ask("c")
    assert seat.asking == "b"
    seat.answer("a", give=False)
    assert seat.asking is None
    assert seat.driver == "a"
    seat.ask("c")
    seat.answer("a", give=True)
    assert seat.driver == "c"


def test_a_silent_driver_loses_the_seat_to_who_asks(seat: Seat, clock: Clock) -> None:
    seat.ask("b")
    pass_time(seat, clock, PATIENCE_S - 1)
    assert seat.driver == "a"
    seat.stir("a")
    pass_time(seat, clock, PATIENCE_S - 1)
    seat.stir("b")  # who is not the driver changes nothing
    assert seat.driver == "a"
    pass_time(seat, clock, 1.0)
    assert seat.driver == "b"


def test_a_driver_that_comes_back_soon_keeps_the_seat(seat: Seat, clock: Clock) -> None:
    seat.leave("a")
    pass_time(seat, clock, PATIENCE_S - 1)
    seat.enter("a")
    pass_time(seat, clock, 100.0)
    assert seat.driver == "a"


def test_the_seat_of_one_that_is_gone_passes_on(seat: Seat, clock: Clock) -> None:
    seat.leave("a")
    pass_time(seat, clock, PATIENCE_S)
    assert seat.driver == "b"
    seat.ask("c")
    seat.leave("b")
    seat.update()
    assert seat.driver == "c", "who asked need not wait"


def test_who_asked_and_left_is_forgotten(seat: Seat, clock: Clock) -> None:
    seat.ask("b")
    seat.leave("b")
    pass_time(seat, clock, 100.0)
    assert seat.driver == "a"


def test_an_empty_seat_is_taken_by_the_next_page(clock: Clock) -> None:
    seat = Seat(clock)
    seat.enter("a")
    seat.leave("a")
    pass_time(seat, clock, PATIENCE_S)
    seat.enter("z")
    assert seat.driver == "z"
