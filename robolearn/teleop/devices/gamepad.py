"""A gamepad of this machine, by SDL's game controllers: the same names whatever the make."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from robolearn.configuration.teleop import PAD_AXES, Profile
from robolearn.errors import DeviceError, DeviceLost
from robolearn.teleop.devices import pygame_parts
from robolearn.teleop.devices.signals import Presses, SignalDevice, Signals

BUTTONS = (
    *("a", "b", "x", "y", "back", "guide", "start", "left_stick", "right_stick", "left_shoulder", "right_shoulder"),
    *("dpad_up", "dpad_down", "dpad_left", "dpad_right"),
)
"""In the order of SDL_GameControllerButton; the axes are in that of SDL_GameControllerAxis."""
_FULL = 32767.0


class Gamepad(SignalDevice):
    """The first gamepad, or the one of a number; needs no window and no screen."""

    summary: ClassVar = "a gamepad of this machine"
    needs: ClassVar = "a gamepad and pygame-ce"

    def __init__(self, profile: Profile, index: int = 0) -> None:
        super().__init__(profile)
        self.index = index
        self._pygame: Any = None
        self._pad: Any = None
        self._instance = -1
        self._presses = Presses()

    @classmethod
    def missing(cls) -> str | None:
        """Return what is not there, in words; None where all is."""
        if not pygame_parts.installed():
            return pygame_parts.MISSING
        pygame, controller = _open()
        try:
            return (
                None if any(map(controller.is_controller, range(controller.get_count()))) else "a gamepad, plugged in"
            )
        finally:
            controller.quit()
            pygame.display.quit()

    def connect(self) -> None:
        """Open the gamepad. Raises DeviceError where none is plugged in, or SDL does not know its layout."""
        pygame, controller = _open()
        pads = [i for i in range(controller.get_count()) if controller.is_controller(i)]
        if self.index >= len(pads):
            strangers = controller.get_count() - len(pads)
            why = f" ({strangers} of unknown layout: set SDL_GAMECONTROLLERCONFIG)" if strangers else ""
            controller.quit()
            pygame.display.quit()
            raise DeviceError(f"found {len(pads)} gamepads{why}, expected one of number {self.index}; plug it in")
        self._pygame, self._pad = pygame, controller.Controller(pads[self.index])
        self._instance = self._pad.as_joystick().get_instance_id()
        self._presses = Presses()

    def close(self) -> None:
        if self._pygame is not None:
            self._pad.quit()
            self._pygame._sdl2.controller.quit()
            self._pygame.display.quit()
            self._pygame = self._pad = None

    def signals(self) -> Signals:
        if self._pad is None:
            raise DeviceLost("the gamepad is closed; connect again")
        events = self._pygame.event.get()
        if not self._pad.attached():
            raise DeviceLost(f"the gamepad {self.index} was unplugged; plug it in and connect again")
        quick = [BUTTONS[e.button] for e in events if self._is_own_press(e)]
        values = {name: min(1.0, self._pad.get_axis(i) / _FULL) for i, name in enumerate(PAD_AXES)}
        held = {name: 1.0 for i, name in enumerate(BUTTONS) if self._pad.get_button(i)}
        # Triggers can be pressed, too; buttons come by events, of which none is missed between two reads.
        self._presses.update({name: values[name] for name in ("left_trigger", "right_trigger")})
        return Signals(values=values | held, pressed=(*quick, *self._presses.take()), sampled_at=time.monotonic())

    def _is_own_press(self, event: Any) -> bool:
        down = event.type == self._pygame.CONTROLLERBUTTONDOWN
        return down and event.instance_id == self._instance and event.button < len(BUTTONS)


def _open() -> tuple[Any, Any]:
    pygame = pygame_parts.import_pygame()
    from pygame._sdl2 import controller

    # Events come without a window, whichever window has the focus.
    pygame_parts.open_display(pygame, SDL_VIDEODRIVER="dummy", SDL_JOYSTICK_ALLOW_BACKGROUND_EVENTS="1")
    controller.init()
    return pygame, controller
