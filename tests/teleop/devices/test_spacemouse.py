"""The SpaceMouse through all of pyspacemouse, on reports of a fake HID device: there is no real one in a test."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator

import pytest

from robolearn.configuration.teleop import Profile
from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.spacemouse import SpaceMouse

pyspacemouse = pytest.importorskip("pyspacemouse")
easyhid = pytest.importorskip("easyhid")
FULL = 350
"""Raw travel of a SpaceMouse's axis."""
RAW = Profile(device="spacemouse", axes={axis: f"+{axis}" for axis in ("x", "y", "z", "roll", "pitch", "yaw")})


class FakeMouse:
    """The HID interface of a SpaceMouse Compact (256F:C635), as easyhid shows it."""

    vendor_id, product_id, release_number = 0x256F, 0xC635, 0x0101
    path, product_string, manufacturer_string, serial_number = "fake", "SpaceMouse Compact", "3Dconnexion", "1"

    def __init__(self) -> None:
        self.reports: deque[bytes] = deque()
        self.plugged, self.nonblocking = True, False

    def move(self, x: int = 0, y: int = 0, z: int = 0) -> None:
        """Raw HID axes: x to the right, y towards the operator, z down."""
        self.reports.append(b"\x01" + struct.pack("<hhh", x, y, z) + bytes(6))

    def turn(self, x: int = 0, y: int = 0, z: int = 0) -> None:
        self.reports.append(b"\x02" + struct.pack("<hhh", x, y, z) + bytes(6))

    def press(self, *buttons: int) -> None:
        self.reports.append(b"\x03" + bytes([sum(1 << button for button in buttons)]) + bytes(11))

    def open(self) -> None:
        if not self.plugged:
            raise easyhid.HIDException("Failed to open device")

    def close(self) -> None: ...

    def set_nonblocking(self, on: bool) -> None:
        self.nonblocking = on

    def read(self, size: int) -> bytes:
        if not self.plugged:
            raise easyhid.HIDException("Failed to read from HID device: -1")
        assert self.nonblocking, "a control loop must not wait for the mouse"
        return bytearray(self.reports.popleft()[:size]) if self.reports else b""


@pytest.fixture
def hid(monkeypatch: pytest.MonkeyPatch) -> FakeMouse:
    made = FakeMouse()

    class Enumeration:
        def find(self) -> list[FakeMouse]:
            return [made] if made.plugged else []

    monkeypatch.setattr("pyspacemouse.api.Enumeration", Enumeration)
    return made


@pytest.fixture
def mouse(hid: FakeMouse) -> Iterator[SpaceMouse]:
    made = SpaceMouse(RAW)
    made.connect()
    yield made
    made.close()


def test_pushing_lifting_and_turning(hid: FakeMouse, mouse: SpaceMouse) -> None:
    assert mouse.read().twist.tolist() == [0] * 6
    for raw, expected in (
        ({"y": -FULL}, [1, 0, 0]),  # away from the operator
        ({"x": FULL}, [0, -1, 0]),  # to the right
        ({"z": -FULL}, [0, 0, 1]),  # up
        ({"x": -FULL // 2, "y": -FULL // 2}, [0.5, 0.5, 0]),
        ({"z": 10 * FULL}, [0, 0, -1]),
    ):
        hid.move(**raw)
        assert mouse.read().twist[:3].tolist() == pytest.approx(expected, abs=0.01)
    hid.move()
    for raw, expected in (
        ({"z": -FULL}, [0, 0, 1]),  # counter-clockwise, seen from above
        ({"y": -FULL}, [1, 0, 0]),  # about the axis that points away: to the right is down
        ({"x": FULL}, [0, -1, 0]),  # about the axis to the right, which is -y
    ):
        hid.turn(**raw)
        twist = mouse.read().twist
        assert twist[:3].tolist() == [0, 0, 0]
        assert twist[3:].tolist() == pytest.approx(expected, abs=0.01)


def test_a_read_takes_the_newest_report_and_misses_no_press(hid: FakeMouse, mouse: SpaceMouse) -> None:
    for step in range(20):
        hid.move(y=-step * 10)
        hid.press(*([0] if step in (3, 7) else []))
    signals = mouse.signals()
    assert signals.values["x"] == pytest.approx(190 / FULL)
    assert signals.pressed == ("button_1", "button_1")
    assert not hid.reports
    assert mouse.signals().values["x"] == pytest.approx(190 / FULL), "it stays where it is held"


def test_the_shipped_profile(hid: FakeMouse) -> None:
    mouse = SpaceMouse(load_profile("spacemouse"))
    mouse.connect()
    hid.move(y=-FULL)
    hid.turn(x=FULL, y=FULL, z=-FULL)
    hid.press(0, 1)
    command = mouse.read()
    assert command.twist.tolist() == [1, 0, 0, 0, 0, 1], "the tool's tilt is locked"
    assert command.buttons == ("start",)
    assert command.gripper == 1.0
    mouse.close()
    with pytest.raises(DeviceLost, match="connect again"):
        mouse.read()


def test_unplugged_in_the_middle(hid: FakeMouse, mouse: SpaceMouse) -> None:
    hid.move(y=-FULL)
    assert mouse.read().twist[0] == 1
    hid.plugged = False
    with pytest.raises(DeviceLost, match="unplugged"):
        mouse.read()


def test_what_is_missing_is_named(hid: FakeMouse, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SpaceMouse.missing() is None
    hid.plugged = False
    with pytest.raises(DeviceError, match="needs a SpaceMouse, plugged in"):
        SpaceMouse(RAW).connect()

    def no_library() -> None:
        raise AttributeError("undefined symbol: hid_enumerate")  # what easyhid does without it

    monkeypatch.setattr("pyspacemouse.api.Enumeration", no_library)
    with pytest.raises(DeviceError, match="apt-get install libhidapi-hidraw0"):
        SpaceMouse(RAW).connect()


def test_one_that_may_not_be_opened_is_refused_with_the_rule(hid: FakeMouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise easyhid.HIDException("Failed to open device")

    monkeypatch.setattr(hid, "open", refuse)
    with pytest.raises(DeviceError, match=r"cannot be opened.*udev rule"):
        SpaceMouse(RAW).connect()
