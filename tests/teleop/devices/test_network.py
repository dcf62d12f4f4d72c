"""The network device, driven by clients in processes of their own."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices import network
from robolearn.teleop.devices.device import Command
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.network import LARGEST_BYTES, NetworkDevice

SHIPPED = load_profile("network")
EXAMPLE = Path(__file__).parents[3] / "teleop" / "examples" / "network_client.py"
FLOOD = """
import json, sys, time
from websockets.sync.client import connect
with connect(sys.argv[1], compression=None) as line:
    for seq in range(10_000):
        if seq % 500 == 0:
            sys.stdin.readline()
        buttons = ["quit"] if seq == 9_999 else []
        twist = [seq / 10_000, 0, 0, 0, 0, 0]
        line.send(json.dumps({"seq": seq, "time": time.monotonic(), "twist": twist, "buttons": buttons}))
    sys.stdin.readline()
"""
"""Sends 500 messages, as fast as it can, for each line that it reads, and goes when its last one has been heard."""


class Clock:
    """Stands still unless the test moves it, so that no message grows old on a machine that stalls."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(network, "time", made)
    return made


@pytest.fixture
def device(clock: Clock) -> Iterator[NetworkDevice]:
    made = NetworkDevice(load_profile("network"), port=0)
    made.connect()
    yield made
    made.close()


def until(device: NetworkDevice, wanted: Callable[[Command], object], seconds: float = 60.0) -> Command:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        command = device.read()
        if wanted(command):
            return command
        time.sleep(0.005)
    raise AssertionError(f"never came; last: {command}, counts: {device.counts}")


def send(line: ClientConnection, seq: int, **fields: object) -> None:
    message = {"seq": seq, "time": network.time.monotonic()} | fields  # the device's clock, which the test moves
    line.send(json.dumps({"twist": [0.0] * 6} | message if "action" not in message else message))


def test_the_example_client_drives_and_its_death_holds_the_robot(device: NetworkDevice) -> None:
    assert not device.read().engaged
    client = subprocess.Popen([sys.executable, str(EXAMPLE), device.address])
    try:
        command = until(device, lambda c: c.engaged and c.twist[1] > 0.1)
        assert np.hypot(*command.twist[:2]) == pytest.approx(0.5)
        client.send_signal(signal.SIGKILL)
        until(device, lambda c: not c.engaged)  # by the line that broke: no time passes here
    finally:
        client.kill()
        client.wait()
    again = subprocess.run([sys.executable, str(EXAMPLE), device.address, "--seconds", "0.3"], check=False, timeout=90)
    assert again.returncode == 0
    assert device.counts["connection lost"] == 1


def test_silence_holds_the_robot_and_the_next_word_moves_it(device: NetworkDevice, clock: Clock) -> None:
    with connect(device.address) as line:
        send(line, 1, twist=[1, 0, 0, 0, 0, 0])
        assert until(device, lambda c: c.engaged).sampled_at == pytest.approx(clock.now)
        clock.now += 0.19
        assert device.read().engaged
        clock.now += 0.02
        assert not device.read().engaged
        send(line, 2, twist=[0, 1, 0, 0, 0, 0], engaged=True)
        assert until(device, lambda c: c.engaged).twist.tolist() == [0, 1, 0, 0, 0, 0]
        send(line, 3, twist=[0, 1, 0, 0, 0, 0], engaged=False)
        until(device, lambda c: not c.engaged)


def test_actions_grippers_and_buttons(device: NetworkDevice) -> None:
    with connect(device.address) as line:
        send(line, 1, action=[0.5, -1, 0.25], buttons=["start", "mark"])
        command = until(device, lambda c: c.action is not None)
        np.testing.assert_allclose(command.action, [0.5, -1, 0.25])
        assert command.buttons == ("start", "mark")
        assert device.read().buttons == ()
        send(line, 2, gripper=0.5)
        assert until(device, lambda c: c.gripper is not None).gripper == 0.5
        assert device.read().action is None


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[" * 2000, "not JSON"),
        ("[1, 2]", "not an object"),
        ('{"seq": 1, "time": 0, "twist": [NaN, 0, 0, 0, 0, 0]}', "not finite or out of range"),
        ('{"seq": 1, "time": 0, "twist": [1e30, 0, 0, 0, 0, 0]}', "not finite or out of range"),
        ('{"seq": 1, "time": 0, "twist": [0, 0, 0]}', "not a list of numbers"),
        ('{"seq": 1, "time": 0, "action": [true]}', "not a number"),
        ('{"seq": 1, "time": 0}', "neither twist nor action, or both"),
        ('{"seq": 1.5, "time": 0, "action": [0]}', "seq is not a whole number"),
        ('{"seq": 1, "time": Infinity, "action": [0]}', "time is not a number of seconds"),
        ('{"seq": 1, "time": 0, "action": [0], "buttons": ["explode"]}', "unknown session button"),
        ('{"seq": 1, "time": 0, "action": [0], "gripper": "shut"}', "not a number"),
        ('{"seq": 1, "time": 0, "action": [0], "engaged": 1}', "engaged is not true or false"),
        ('{"seq": 1, "time": 0, "action": [0], "sequence": 1}', "unknown field"),
        (b"\x00\xff\xfe", "not JSON"),
    ],
)
def test_garbage_is_answered_once_counted_and_changes_nothing(
    device: NetworkDevice, text: str | bytes, fault: str
) -> None:
    with connect(device.address) as line:
        send(line, 0, twist=[0.5, 0, 0, 0, 0, 0])
        for _ in range(3):
            line.send(text)
        assert json.loads(line.recv(timeout=10)) == {"error": fault}
        send(line, 2, twist=[0.5, 0, 0, 0, 0, 0], buttons=["mark"])
        command = until(device, lambda c: c.buttons)
        assert command.twist[0] == 0.5
        with pytest.raises(TimeoutError):
            line.recv(timeout=0.05)
    assert device.counts == {"accepted": 2, fault: 3}


def test_old_messages_are_left_out(device: NetworkDevice) -> None:
    with connect(device.address) as line:
        send(line, 5, twist=[1, 0, 0, 0, 0, 0])
        send(line, 4, twist=[0, 1, 0, 0, 0, 0], buttons=["discard"])
        send(line, 6, twist=[0, 0, 1, 0, 0, 0], buttons=["mark"])
        command = until(device, lambda c: c.buttons)
    assert command.buttons == ("mark",)
    assert command.twist.tolist() == [0, 0, 1, 0, 0, 0]
    assert device.counts["old sequence number"] == 1


def test_a_huge_message_ends_the_connection_and_the_next_client_is_welcome(device: NetworkDevice) -> None:
    with connect(device.address, compression=None) as line:
        send(line, 1, twist=[1, 0, 0, 0, 0, 0])
        until(device, lambda c: c.engaged)
        line.send("x" * (LARGEST_BYTES + 1))
        with pytest.raises(ConnectionClosed):
            line.recv(timeout=10)
    until(device, lambda c: not c.engaged)
    assert device.counts["too large"] == 1
    with connect(device.address) as line:
        send(line, 1, buttons=["mark"])
        until(device, lambda c: c.buttons)


def test_ten_thousand_messages_a_second_from_another_process(device: NetworkDevice) -> None:
    client = subprocess.Popen([sys.executable, "-c", FLOOD, device.address], stdin=subprocess.PIPE, text=True)
    assert client.stdin is not None
    seen, pressed = [], []

    def heard(command: Command) -> float:
        """Note a command; returns the newest of all."""
        pressed.extend(command.buttons)
        seen.extend([command.twist[0]] if command.engaged else [])
        return max(seen, default=-1.0)

    try:
        for sent in range(500, 10_001, 500):
            client.stdin.write("\n")
            client.stdin.flush()
            until(device, lambda c, last=(sent - 1) / 10_000: heard(c) > last - 1e-6)
            heard(device.read())  # nothing is on the line, for which a read would wait
    finally:
        client.stdin.close()
        client.wait(60)
    assert device.counts["accepted"] == 10_000
    assert seen == sorted(seen), "newer never gives way to older"
    assert pressed == ["quit"]
    assert len(set(seen)) > 20


def test_one_drives_at_a_time(device: NetworkDevice) -> None:
    with connect(device.address) as first:
        send(first, 1, twist=[1, 0, 0, 0, 0, 0])
        until(device, lambda c: c.engaged)
        with connect(device.address) as second, pytest.raises(ConnectionClosed, match="another client drives"):
            second.recv(timeout=10)
        send(first, 2, twist=[0, 1, 0, 0, 0, 0])
        assert until(device, lambda c: c.twist[1]).engaged
    assert device.counts["refused: another client drives"] == 1


@pytest.mark.usefixtures("clock")
def test_pages_and_strangers_are_refused() -> None:
    with pytest.raises(DeviceError, match="needs a token"):
        NetworkDevice(load_profile("network"), host="0.0.0.0")
    device = NetworkDevice(load_profile("network"), port=0, token="geheim-ü")
    device.connect()
    try:
        link = device.address
        with pytest.raises(InvalidStatus, match="403"):
            connect(link.replace("geheim", "falsch"))
        with pytest.raises(InvalidStatus, match="403"):
            connect(link.partition("?")[0])
        with pytest.raises(InvalidStatus, match="403"):
            connect(link, origin="http://example.org")
        with connect(link) as line:
            send(line, 1, buttons=["mark"])
            until(device, lambda c: c.buttons)
        assert device.counts["refused: wrong token"] == 2
    finally:
        device.close()


def test_a_port_that_is_taken_and_a_closed_device(device: NetworkDevice) -> None:
    port = int(device.address.rsplit(":", 1)[1].strip("/"))
    with pytest.raises(DeviceError, match=f"cannot listen on 127.0.0.1:{port}"):
        NetworkDevice(load_profile("network"), port=port).connect()
    with connect(device.address) as line:
        send(line, 1)
        until(device, lambda c: c.engaged)
        device.close()
        with pytest.raises(ConnectionClosed):
            line.recv(timeout=10)
    with pytest.raises(DeviceLost, match="connect again"):
        device.read()


def test_a_message_that_waited_on_its_way_is_as_old_as_it_is(clock: Clock) -> None:
    """The sender's clock is ahead by 50 s; its third message waits for 0.5 s, and later its clock jumps back."""
    device = NetworkDevice(load_profile("network"))
    sampled = []
    for seq, (arrived, sent) in enumerate([(10.0, 60.0), (10.1, 60.1), (10.7, 60.2), (10.8, 60.8), (10.9, 30.0)]):
        clock.now = arrived
        message = {"seq": seq, "time": sent, "twist": [1, 0, 0, 0, 0, 0]}
        assert device._take(json.dumps(message)) is None
        sampled.append(device._sampled_at)
    assert sampled == pytest.approx([10.0, 10.1, 10.2, 10.8, -20.0])
    for seq in range(5, 5 + network._WINDOW):
        clock.now += 0.02
        device._take(json.dumps({"seq": seq, "time": clock.now + 19.1, "twist": [1, 0, 0, 0, 0, 0]}))
    assert device._sampled_at == pytest.approx(clock.now), "the sender's new clock is believed in the end"


@settings(max_examples=150)
@given(
    st.text(max_size=60)
    | st.binary(max_size=60)
    | st.fixed_dictionaries(
        {"seq": st.integers() | st.floats(), "time": st.floats() | st.none()},
        optional={
            "twist": st.lists(st.floats(-2, 2) | st.none(), min_size=5, max_size=7),
            "action": st.lists(st.floats(), max_size=4),
            "gripper": st.floats() | st.text(),
            "buttons": st.lists(st.sampled_from(["start", "explode"])),
            "engaged": st.booleans() | st.integers(),
        },
    ).map(json.dumps)
)
def test_whatever_comes_is_taken_or_counted(text: str | bytes) -> None:
    device = NetworkDevice(SHIPPED)
    fault = device._take(text)
    assert device.counts == {fault or "accepted": 1}
    if fault is None:
        values = device._values.values() if device._action is None else device._action.tolist()
        assert all(-1.0 <= value <= 1.0 for value in values)
