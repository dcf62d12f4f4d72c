"""The part of pygame-ce that keyboard and gamepad need. Both must be read by the thread that connected them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from robolearn.errors import DeviceError

MISSING = "pygame-ce (pip install 'robolearn[teleop]')"


def installed() -> bool:
    """Return whether pygame-ce can be imported."""
    return importlib.util.find_spec("pygame") is not None


def import_pygame() -> Any:
    """Return pygame without its greeting. Raises DeviceError where it is not installed, or is not the -ce one."""
    with _environment(PYGAME_HIDE_SUPPORT_PROMPT="1"):
        try:
            import pygame
        except ImportError:
            raise DeviceError(f"this device needs {MISSING}") from None
    if not getattr(pygame, "IS_CE", False):
        raise DeviceError("this device needs pygame-ce, found pygame; pip uninstall pygame, then pip install pygame-ce")
    return pygame


def open_display(pygame: Any, **settings: str) -> None:
    """Start SDL's video part, which carries all events, under some of SDL's own settings (environment variables).

    Raises DeviceError where there is no screen.
    """
    # SDL would otherwise turn SIGTERM into an event, and a session could not be ended.
    with _environment(SDL_NO_SIGNAL_HANDLERS="1", **settings):
        try:
            pygame.display.init()
        except pygame.error as error:
            raise DeviceError(
                f"no screen to open a window on ({error}); over SSH use --device browser, which needs none"
            ) from None


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for a while; those that the user has set are left alone."""
    fresh = {name: value for name, value in variables.items() if name not in os.environ}
    os.environ.update(fresh)
    try:
        yield
    finally:
        for name in fresh:
            os.environ.pop(name, None)
