"""The keyboard for real: a window of an X server without a screen (Xvfb), and keys pressed by xdotool."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from robolearn.configuration.teleop import KEYS
from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices.device import Command
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.keyboard import SCANCODES, Keyboard, describe

pytest.importorskip("pygame")


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if not (shutil.which("Xvfb") and shutil.which("xdotool")):
        pytest.skip("needs Xvfb and xdotool")
    read, write = os.pipe()
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"],
        pass_fds=(write,),
        stderr=subprocess.DEVNULL,
    )
    os.close(write)
    with os.fdopen(read) as number:
        name = f":{number.readline().strip()}"
    monkeypatch.setenv("DISPLAY", name)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("SDL_VIDEODRIVER", raising=False)
    yield name
    server.terminate()
    server.wait(60)


@pytest.fixture
def keyboard(display: str) -> Iterator[Keyboard]:
    made = Keyboard(load_profile("keyboard"))
    made.connect()
    until(made, lambda command: command.engaged)
    yield made
    made.close()


def xdotool(*arguments: str) -> None:
    subprocess.run(["xdotool", *arguments], check=True, timeout=60)


def until(device: Keyboard, wanted: Callable[[Command], object], seconds: float = 60.0) -> Command:
    """The first command that is as wanted."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        command = device.read()
        if wanted(command):
            return command
        time.sleep(0.01)
    raise AssertionError(f"never came; last: {command}")


def test_keys_held_drive_and_stop_when_released(keyboard: Keyboard) -> None:
    xdotool("keydown", "w", "keydown", "d")
    command = until(keyboard, lambda c: c.twist[0] and c.twist[1])
    assert command.twist.tolist() == [1, -1, 0, 0, 0, 0]
    xdotool("keydown", "shift")
    assert until(keyboard, lambda c: c.twist[0] < 1).twist.tolist() == pytest.approx([0.3, -0.3, 0, 0, 0, 0])
    xdotool("keyup", "shift", "keyup", "w", "keyup", "d")
    until(keyboard, lambda c: not c.twist.any() and c.engaged)


def test_taps_between_two_reads_are_not_lost(keyboard: Keyboard) -> None:
    xdotool("key", "--delay", "1", "Return", "space", "1", "Escape")
    time.sleep(0.2)
    told: list[Command] = []  # one, unless the X server stalls
    until(keyboard, lambda c: told.append(c) or "quit" in c.buttons)
    assert [button for command in told for button in command.buttons] == ["start", "success", "quit"]
    assert [command.gripper for command in told if command.gripper is not None] == [1.0]
    assert keyboard.read().buttons == ()


def test_a_window_that_loses_the_focus_holds_the_robot(keyboard: Keyboard) -> None:
    xdotool("keydown", "w")
    until(keyboard, lambda c: c.twist[0] == 1)
    found = subprocess.run(["xdotool", "getwindowfocus"], check=True, capture_output=True, text=True, timeout=60)
    window = found.stdout.strip()
    xdotool("windowunmap", window)
    command = until(keyboard, lambda c: not c.engaged)
    assert not command.twist.any()
    xdotool("keyup", "w", "windowmap", "--sync", window, "windowfocus", window)
    assert not until(keyboard, lambda c: c.engaged).twist.any(), "a key let go elsewhere is no longer held"


def test_closing_it_loses_it_and_connecting_again_finds_it(keyboard: Keyboard) -> None:
    keyboard.close()
    keyboard.close()
    with pytest.raises(DeviceLost, match="connect again"):
        keyboard.read()
    keyboard.connect()
    assert keyboard.read() is not None


@pytest.mark.usefixtures("display")
def test_compilers_can_be_loaded_after_the_window() -> None:
    """Triton's LLVM after that of Mesa, which drew the window, ended the process: the pictures of a session load it."""
    pytest.importorskip("triton", reason="comes with torch's CUDA wheels")
    code = """
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.keyboard import Keyboard
Keyboard(load_profile("keyboard")).connect()
import triton
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_a_screen_it_says_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    assert "browser" in str(Keyboard.missing())
    with pytest.raises(DeviceError, match="over SSH use --device browser"):
        Keyboard(load_profile("keyboard")).connect()


def test_every_key_of_profiles_has_its_place() -> None:
    assert sorted(SCANCODES.values()) == sorted(KEYS)
    sdl = pytest.importorskip("pygame")
    # SDL's own names of a few, as an independent reference.
    for name, code in {
        "KeyA": "A",
        "KeyZ": "Z",
        "Digit0": "0",
        "Enter": "RETURN",
        "Space": "SPACE",
        "F12": "F12",
    }.items():
        assert SCANCODES[getattr(sdl, f"KSCAN_{code}")] == name
    more = {"ArrowUp": "UP", "PageDown": "PAGEDOWN", "Backslash": "BACKSLASH", "Slash": "SLASH", "Numpad0": "KP0"}
    for name, code in (more | {"ShiftRight": "RSHIFT", "ControlLeft": "LCTRL", "CapsLock": "CAPSLOCK"}).items():
        assert SCANCODES[getattr(sdl, f"KSCAN_{code}")] == name


def test_the_window_says_what_every_input_does() -> None:
    profile = load_profile("keyboard")
    lines = describe(profile, None)
    assert ("KeyW", "+x") in lines
    assert ("Space", "toggle gripper") in lines
    assert ("Escape", "quit") in lines
