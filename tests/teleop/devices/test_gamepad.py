"""The gamepad for real: a virtual joystick of SDL itself, moved through SDL's own functions."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices import pygame_parts
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.gamepad import BUTTONS, Gamepad

pytest.importorskip("pygame")
GAMECONTROLLER = 1
"""SDL_JOYSTICK_TYPE_GAMECONTROLLER"""
FULL = 32767


class VirtualPad:
    """Six axes and fifteen buttons, as SDL numbers them."""

    def __init__(self) -> None:
        maps = Path("/proc/self/maps")
        loaded = [
            line.split()[-1] for line in maps.read_text().splitlines() if "libSDL2-2" in line or "libSDL2." in line
        ]
        self.sdl = ctypes.CDLL(loaded[0])
        self.sdl.SDL_JoystickOpen.restype = ctypes.c_void_p
        self.sdl.SDL_JoystickSetVirtualAxis.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int16]
        self.sdl.SDL_JoystickSetVirtualButton.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_uint8]
        self.index = self.sdl.SDL_JoystickAttachVirtual(GAMECONTROLLER, 6, len(BUTTONS), 0)
        assert self.index >= 0
        self.handle = self.sdl.SDL_JoystickOpen(self.index)
        for trigger in (4, 5):
            self.axis(trigger, -FULL - 1)

    def axis(self, number: int, value: int) -> None:
        self.sdl.SDL_JoystickSetVirtualAxis(self.handle, number, value)

    def button(self, name: str, down: bool) -> None:
        self.sdl.SDL_JoystickSetVirtualButton(self.handle, BUTTONS.index(name), down)

    def unplug(self) -> None:
        if self.index is not None:
            self.sdl.SDL_JoystickDetachVirtual(self.index)
            self.index = None


@pytest.fixture
def pad() -> Iterator[VirtualPad]:
    if not Path("/proc/self/maps").exists():
        pytest.skip("finds SDL by /proc")
    pygame = pygame_parts.import_pygame()
    pygame.joystick.init()  # keeps SDL's joysticks up while devices come and go
    made = VirtualPad()
    yield made
    made.unplug()
    pygame.joystick.quit()


@pytest.fixture
def gamepad(pad: VirtualPad) -> Iterator[Gamepad]:
    made = Gamepad(load_profile("gamepad"))
    made.connect()
    made.read()
    yield made
    made.close()


def test_sticks_move_and_the_trigger_squeezes(pad: VirtualPad, gamepad: Gamepad) -> None:
    pad.axis(1, -FULL - 1)  # the left stick, ahead
    pad.axis(2, round(0.05 * FULL))  # in the dead zone
    pad.axis(5, FULL)
    command = gamepad.read()
    assert command.engaged
    assert command.twist.tolist() == [1, 0, 0, 0, 0, 0]
    assert command.gripper == pytest.approx(1.0, abs=1e-3)
    pad.axis(1, 0)
    pad.axis(0, round(0.56 * FULL))
    pad.axis(5, -FULL - 1)
    command = gamepad.read()
    assert command.twist.tolist() == pytest.approx([0, -0.25, 0, 0, 0, 0], abs=1e-3), "half the travel, squared"
    assert command.gripper == pytest.approx(-1.0, abs=1e-3)


def test_every_axis_has_its_name(pad: VirtualPad, gamepad: Gamepad) -> None:
    for number, name in enumerate(("left_x", "left_y", "right_x", "right_y", "left_trigger", "right_trigger")):
        pad.axis(number, FULL)
        values = gamepad.signals().values
        assert values[name] == pytest.approx(1.0)
        pad.axis(number, -FULL - 1 if "trigger" in name else 0)


def test_buttons_are_told_once(pad: VirtualPad, gamepad: Gamepad) -> None:
    for name, told in (("start", "start"), ("a", "success"), ("dpad_up", "pause"), ("back", "quit")):
        pad.button(name, True)
        assert gamepad.read().buttons == (told,)
        assert gamepad.read().buttons == ()
        pad.button(name, False)
        assert gamepad.read().buttons == ()


def test_the_stick_click_changes_the_mode(pad: VirtualPad, gamepad: Gamepad) -> None:
    pad.axis(2, FULL)
    assert gamepad.read().twist.tolist() == [0, 0, 0, 0, 0, -1]
    pad.button("right_stick", True)
    assert gamepad.read().twist.tolist() == [0, 0, 0, 1, 0, 0]
    assert gamepad.mode == "turn"


def test_unplugged_in_the_middle(pad: VirtualPad, gamepad: Gamepad) -> None:
    pad.axis(1, FULL)
    assert gamepad.read().twist[0] == -1
    pad.unplug()
    with pytest.raises(DeviceLost, match="unplugged"):
        gamepad.read()
    gamepad.close()
    with pytest.raises(DeviceLost, match="connect again"):
        gamepad.read()


def test_none_plugged_in() -> None:
    assert Gamepad.missing() == "a gamepad, plugged in"
    with pytest.raises(DeviceError, match="found 0 gamepads, expected one of number 0; plug it in"):
        Gamepad(load_profile("gamepad")).connect()


def test_a_second_one_by_its_number(pad: VirtualPad) -> None:
    assert Gamepad.missing() is None
    with pytest.raises(DeviceError, match="found 1 gamepads, expected one of number 1"):
        Gamepad(load_profile("gamepad"), index=1).connect()
