"""What the page may say, what it must not, and what silence means."""

from __future__ import annotations

import json
import math
import threading

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from robolearn.configuration.teleop import BUTTONS, KEYS, Profile
from robolearn.teleop.devices import browser
from robolearn.teleop.devices.browser import BrowserDevice
from robolearn.teleop.devices.files import load_profile

SHIPPED = load_profile("browser")
REST = {"axes": [0.0] * 4, "buttons": [0.0] * 17}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(browser, "time", made)
    return made


@pytest.fixture
def device(clock: Clock) -> BrowserDevice:
    return BrowserDevice(load_profile("browser"))


def test_keys_held_drive_until_they_are_released(device: BrowserDevice) -> None:
    assert not device.read().engaged, "nobody has said anything yet"
    device.feed({"keys": ["KeyW", "KeyQ"]})
    command = device.read()
    assert command.engaged
    assert command.twist.tolist() == [1, 0, 0, 0, 0, 1]
    assert command.sampled_at == 100.0
    device.feed({"keys": []})
    assert device.read().twist.tolist() == [0] * 6


def test_gamepad_touch_and_mouse(clock: Clock) -> None:
    device = BrowserDevice(
        Profile(
            device="browser",
            axes={"left_y": "-x", "touch_right_x": "+y", "mouse_x": "+roll", "wheel": "+z"},
            buttons={"guide": "mark"},
            deadman=("mouse_left", "left_trigger"),
        )
    )
    pad = {"axes": [0, -0.5, 0, 0, 0.3], "buttons": [0.0] * 16 + [1.0, 1.0]}
    device.feed({"gamepad": pad, "touch": {"right": [0.25, 1]}, "mouse": {"x": -0.5, "wheel": 1, "buttons": []}})
    command = device.read()
    assert not command.engaged
    assert command.buttons == ("mark",)
    device.feed(
        {"gamepad": pad, "touch": {"right": [0.25, 1]}, "mouse": {"x": -0.5, "wheel": 1, "buttons": ["mouse_left"]}}
    )
    assert device.read().twist.tolist() == [0.5, 0.25, 1.0, -0.5, 0, 0]
    pad["buttons"][6] = 0.7
    device.feed({"gamepad": pad})
    assert device.read().engaged, "a trigger is a deadman, too"


def test_silence_and_lost_focus_hold_the_robot(device: BrowserDevice, clock: Clock) -> None:
    device.feed({"keys": ["KeyW"]})
    clock.now += 0.19
    assert device.read().engaged
    clock.now += 0.02
    held = device.read()
    assert not held.engaged
    assert held.twist.tolist() == [0] * 6
    device.feed({"keys": ["KeyW"]})
    assert device.read().engaged
    device.feed({"keys": ["KeyW"], "focused": False})
    assert not device.read().engaged
    device.feed({"keys": ["KeyW"]})
    device.close()
    assert not device.read().engaged


def test_presses_between_two_reads_are_told_once_and_in_order(device: BrowserDevice) -> None:
    for keys in (["Enter"], [], ["Space"], [], ["Digit1"], ["Digit1"]):
        device.feed({"keys": keys})
    device.feed({"keys": [], "buttons": ["pause"], "gripper": None})
    command = device.read()
    assert command.buttons == ("pause", "start", "success")
    assert command.gripper == 1.0
    assert device.read().buttons == ()
    device.feed({"gripper": -0.5})
    assert [device.read().gripper, device.read().gripper] == [-0.5, None]


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({"gamepad": {"axes": [math.nan], "buttons": []}}, "not finite or out of range"),
        ({"gamepad": {"axes": [math.inf]}}, "not finite or out of range"),
        ({"gamepad": {"axes": [1e30]}}, "not finite or out of range"),
        ({"gamepad": {"axes": [10**400]}}, "not finite or out of range"),
        ({"gamepad": {"axes": [True]}}, "not a number"),
        ({"gamepad": {"axes": ["1"]}}, "not a number"),
        ({"gamepad": {"axes": [0.0] * 1000}}, "too long"),
        ({"gamepad": [1, 2]}, "gamepad is not an object"),
        ({"gripper": math.nan}, "not finite or out of range"),
        ({"gripper": "closed"}, "not a number"),
        ({"touch": {"left": [0.0]}}, "not a list of numbers"),
        ({"touch": {"middle": [0, 0]}}, "touch is not left and right"),
        ({"mouse": 3}, "mouse is not an object"),
        ({"mouse": {"x": {}}}, "not a number"),
        ({"keys": "KeyW"}, "keys is not a list of names"),
        ({"keys": [1]}, "keys is not a list of names"),
        ({"keys": ["KeyW"] * 100_000}, "too long"),
        ({"buttons": ["explode"]}, "unknown session button"),
        ({"focused": 1}, "focused is not true or false"),
        ({"key": ["KeyW"]}, "unknown field"),
        (["KeyW"], "not an object"),
        (None, "not an object"),
    ],
)
def test_malformed_messages_are_counted_and_change_nothing(device: BrowserDevice, message: object, fault: str) -> None:
    device.feed({"keys": ["KeyW"]})
    device.feed(message)  # pyright: ignore[reportArgumentType]
    assert device.counts == {"accepted": 1, fault: 1}
    assert device.read().twist.tolist() == [1, 0, 0, 0, 0, 0]


def test_keys_that_nobody_knows_and_a_stick_slightly_too_far_are_no_fault(device: BrowserDevice) -> None:
    device.feed({"keys": ["KeyW", "BrowserBack", ""], "gamepad": REST | {"axes": [0, 1.0000153, 0, 0]}})
    assert device.counts == {"accepted": 1}
    assert device.read().twist.tolist() == [0] * 6, "ahead by the key, back by the stick"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(KEYS + BUTTONS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "keys": st.lists(st.sampled_from(KEYS), max_size=5) | ANYTHING,
        "focused": st.booleans() | ANYTHING,
        "gamepad": st.fixed_dictionaries({"axes": st.lists(st.floats(-2, 2)), "buttons": ANYTHING}) | ANYTHING,
        "touch": st.dictionaries(st.sampled_from(["left", "right"]), st.lists(st.floats(-1, 1))) | ANYTHING,
        "mouse": st.fixed_dictionaries({"x": st.floats(), "buttons": ANYTHING}) | ANYTHING,
        "buttons": st.lists(st.sampled_from(BUTTONS)) | ANYTHING,
        "gripper": st.floats() | ANYTHING,
    },
)


@settings(max_examples=100)
@given(messages=st.lists(FIELDS | ANYTHING, max_size=5))
def test_whatever_is_fed_the_command_is_sane(messages: list) -> None:
    device = BrowserDevice(SHIPPED)
    for message in messages:
        device.feed(message)
    command = device.read()
    assert np.isfinite(command.twist).all()
    assert np.abs(command.twist).max() <= 1.0
    assert command.engaged or not command.twist.any()
    assert command.gripper is None or -1.0 <= command.gripper <= 1.0
    assert set(command.buttons) <= set(BUTTONS)
    assert sum(device.counts.values()) == len(messages)
    assert len(device.counts) < 20, "kinds of fault are few, or counting them would fill the memory"


def test_ten_thousand_messages_from_threads_while_it_is_read() -> None:
    device = BrowserDevice(load_profile("browser"))
    messages = [json.loads(json.dumps({"keys": ["KeyW"] * (i % 2), "buttons": ["mark"]})) for i in range(2500)]
    threads = [threading.Thread(target=lambda: [device.feed(m) for m in messages]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        command = device.read()
        assert command.twist[0] in (0.0, 1.0)
        assert len(command.buttons) <= 64
    assert device.counts == {"accepted": 10_000}
