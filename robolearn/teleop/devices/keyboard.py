"""The keyboard of this machine, by a small window that must have the focus."""

from __future__ import annotations

import os
import sys
import time
from typing import Any, ClassVar

from robolearn.configuration.teleop import Profile
from robolearn.errors import DeviceLost
from robolearn.sim.rendering import load_compilers
from robolearn.teleop.devices import pygame_parts
from robolearn.teleop.devices.signals import SignalDevice, Signals

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
SCANCODES: dict[int, str] = {
    **{4 + i: f"Key{letter}" for i, letter in enumerate(_LETTERS)},
    **{30 + i: f"Digit{digit}" for i, digit in enumerate("1234567890")},
    **dict(enumerate(("Enter", "Escape", "Backspace", "Tab", "Space", "Minus", "Equal", "BracketLeft"), 40)),
    **dict(enumerate(("BracketRight", "Backslash"), 48)),
    **dict(enumerate(("Semicolon", "Quote", "Backquote", "Comma", "Period", "Slash", "CapsLock"), 51)),
    **{58 + i: f"F{i + 1}" for i in range(12)},
    **dict(enumerate(("Insert", "Home", "PageUp", "Delete", "End", "PageDown"), 73)),
    **dict(enumerate(("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"), 79)),
    **dict(enumerate(("NumpadDivide", "NumpadMultiply", "NumpadSubtract", "NumpadAdd", "NumpadEnter"), 84)),
    **{89 + i: f"Numpad{digit}" for i, digit in enumerate("1234567890")},
    99: "NumpadDecimal",
    **dict(enumerate(("ControlLeft", "ShiftLeft", "AltLeft"), 224)),
    **dict(enumerate(("ControlRight", "ShiftRight", "AltRight"), 228)),
}
"""USB HID usage ids (page 0x07 of the HID Usage Tables), which SDL's scancodes are -> W3C `KeyboardEvent.code`."""
_SIZE, _LINE, _COLUMNS, _NAMES = (620, 420), 22, 2, 110
_PAPER, _INK, _PALE = (246, 246, 244), (32, 34, 38), (150, 152, 156)


class Keyboard(SignalDevice):
    """Keys held in the window; while its focus is elsewhere the robot holds still. Closing the window means quit."""

    summary: ClassVar = "the keyboard of this machine, by a window"
    needs: ClassVar = "a screen and pygame-ce"

    def __init__(self, profile: Profile) -> None:
        super().__init__(profile)
        self._pygame: Any = None
        self._held: dict[str, float] = {}
        self._shown: object = None

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        if not pygame_parts.installed():
            return pygame_parts.MISSING
        screenless = sys.platform.startswith("linux") and not (
            os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
        )
        return "a screen (over SSH use browser)" if screenless else None

    def connect(self) -> None:
        """Open the window. Raises DeviceError without pygame-ce or a screen."""
        pygame = pygame_parts.import_pygame()
        load_compilers()
        # SDL falls back to a driver without windows or keys, where it finds no screen.
        best = "wayland,x11" if os.environ.get("WAYLAND_DISPLAY") else "x11"
        drivers = {"SDL_VIDEODRIVER": best} if sys.platform.startswith("linux") else {}
        pygame_parts.open_display(pygame, **drivers)
        pygame.font.init()
        pygame.display.set_caption("robolearn: keyboard")
        pygame.display.set_mode(_SIZE)
        self._pygame, self._held, self._shown = pygame, {}, None

    def close(self) -> None:
        if self._pygame is not None:
            self._pygame.display.quit()
            self._pygame = None

    def signals(self) -> Signals:
        pygame = self._pygame
        if pygame is None:
            raise DeviceLost("the keyboard's window is closed; connect again")
        pressed: list[str] = []
        buttons: list[str] = []
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                buttons.append("quit")
            elif event.type == pygame.WINDOWFOCUSLOST:
                self._held.clear()
            elif event.type in (pygame.KEYDOWN, pygame.KEYUP) and event.scancode in SCANCODES:
                name = SCANCODES[event.scancode]
                if event.type == pygame.KEYDOWN:
                    pressed.append(name)
                    self._held[name] = 1.0
                else:
                    self._held.pop(name, None)
        focused = bool(pygame.key.get_focused())
        self._show(focused)
        return Signals(
            values=dict(self._held),
            pressed=tuple(pressed),
            buttons=tuple(buttons),
            live=focused,
            sampled_at=time.monotonic(),
        )

    def _show(self, focused: bool) -> None:
        """Draw what the keys do; anew only when something on it has changed."""
        if self._shown == (focused, self.mode):
            return
        self._shown = (focused, self.mode)
        pygame, ink = self._pygame, _INK if focused else _PALE
        page, font = pygame.display.get_surface(), pygame.font.Font(None, 22)
        page.fill(_PAPER)
        title = "driving" if focused else "click here to drive; the robot holds still"
        page.blit(font.render(title + (f"   mode: {self.mode}" if self.mode else ""), True, _INK), (16, 14))
        lines = describe(self.profile, self.mode)
        rows = -(-len(lines) // _COLUMNS)
        for i, (name, what) in enumerate(lines):
            x, y = 16 + (i // rows) * _SIZE[0] // _COLUMNS, 48 + (i % rows) * _LINE
            page.blit(font.render(name, True, _PALE), (x, y))
            page.blit(font.render(what, True, ink), (x + _NAMES, y))
        pygame.display.flip()


def describe(profile: Profile, mode: str | None) -> list[tuple[str, str]]:
    """Return each input of a profile, and what it does."""
    gripper = profile.gripper
    lines = [*profile.motion(mode).items()]
    lines += [(name, f"{what} gripper") for what in ("open", "close", "toggle") for name in getattr(gripper, what)]
    lines += [(gripper.squeeze, "squeeze gripper")] if gripper.squeeze else []
    named = {"hold to move": profile.deadman, "slower": profile.fine, "next mode": profile.mode_inputs}
    lines += [(name, what) for what, names in named.items() for name in names]
    return [*lines, *profile.buttons.items()]
