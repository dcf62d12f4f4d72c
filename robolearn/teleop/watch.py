"""Live signals of a device in the terminal: what it sends, and what its profile makes of that."""

from __future__ import annotations

import time
from collections import Counter, deque

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from robolearn.configuration.teleop import AXES
from robolearn.teleop.devices.device import Command, Device
from robolearn.teleop.devices.signals import SignalDevice, Signals

RATE_HZ = 20.0
_BAR = 12


def watch(device: Device, seconds: float | None = None, console: Console | None = None) -> int:
    """Show a connected device's signals until Ctrl-C, or for some seconds; returns how often it was read.

    Raises DeviceLost where the device goes.
    """
    screen = _Screen(device)
    began = due = time.monotonic()
    reads = 0
    with Live(console=console, auto_refresh=False, transient=False) as live:
        while seconds is None or time.monotonic() - began < seconds:
            live.update(screen.picture(*_read(device)), refresh=True)
            reads += 1
            due = max(due + 1.0 / RATE_HZ, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))
    return reads


def _read(device: Device) -> tuple[Signals | None, Command]:
    if isinstance(device, SignalDevice):
        signals = device.signals()
        return signals, device.interpret(signals)
    return None, device.read()


class _Screen:
    def __init__(self, device: Device) -> None:
        self._device = device
        self._pressed: deque[str] = deque(maxlen=8)
        self._gripper: float | None = None

    def picture(self, signals: Signals | None, command: Command) -> Group:
        self._pressed.extend(f"{name} (session)" for name in command.buttons)
        self._gripper = self._gripper if command.gripper is None else command.gripper
        parts: list[Table | Text] = [Text(self._state(command), style="bold green" if command.engaged else "bold red")]
        if signals is not None:
            self._pressed.extend(signals.pressed)
            moving = "   ".join(f"{name} {value:+.2f}" for name, value in signals.values.items() if abs(value) > 0.01)
            parts.append(Text(f"inputs    {moving or 'at rest'}"))
        parts.append(_bars(command))
        parts.append(Text(f"gripper   {_gripper_text(self._gripper)}"))
        parts.append(Text(f"pressed   {', '.join(self._pressed) or 'nothing yet'}"))
        counts: Counter[str] | dict[str, int] = getattr(self._device, "counts", {})
        if counts:
            parts.append(Text("messages  " + ", ".join(f"{what}: {count}" for what, count in sorted(counts.items()))))
        return Group(*parts)

    def _state(self, command: Command) -> str:
        mode = getattr(self._device, "mode", None)
        age = time.monotonic() - command.sampled_at
        heard = f"{1000 * age:.0f} ms ago" if age < 3600 else "never"
        state = "engaged" if command.engaged else "holding still"
        return f"{state}   frame: {command.frame}" + (f"   mode: {mode}" if mode else "") + f"   heard: {heard}"


def _bars(command: Command) -> Table:
    """A bar for each axis of the twist, or the numbers of an action."""
    table = Table.grid(padding=(0, 1))
    if command.action is not None:
        table.add_row("action", " ".join(f"{value:+.2f}" for value in command.action))
        return table
    for axis, value in zip(AXES, command.twist):
        length = round(abs(value) * _BAR)
        left, right = ("█" * length, "") if value < 0 else ("", "█" * length)
        table.add_row(f"{axis:<9}", f"{left:>{_BAR}}│{right:<{_BAR}}", f"{value:+.2f}")
    return table


def _gripper_text(gripper: float | None) -> str:
    return "no word yet" if gripper is None else f"{gripper:+.2f} ({'closed' if gripper > 0 else 'open'})"
