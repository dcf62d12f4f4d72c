"""All devices by name: our own, and those of other packages under the entry points `robolearn.devices`.

An entry point names a class (or any callable) that takes `(profile, env, **options)` and gives a `Device`; `profile`
is a `Profile`, a file, the name of one, or None. What it has as `summary`, `needs` and `missing()` is listed by
`robolearn teleop devices`. Listing names imports no device.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robolearn.configuration.teleop import INPUTS, Profile
from robolearn.errors import DeviceError
from robolearn.teleop.devices.device import Device
from robolearn.teleop.devices.files import load_profile

if TYPE_CHECKING:
    from robolearn.envs.interface import VectorEnv

GROUP = "robolearn.devices"
_PACKAGE = "robolearn.teleop.devices"
OWN: dict[str, str] = {
    "browser": f"{_PACKAGE}.browser:BrowserDevice",
    "keyboard": f"{_PACKAGE}.keyboard:Keyboard",
    "gamepad": f"{_PACKAGE}.gamepad:Gamepad",
    "spacemouse": f"{_PACKAGE}.spacemouse:SpaceMouse",
    "network": f"{_PACKAGE}.network:NetworkDevice",
    "gizmo": f"{_PACKAGE}.gizmo:Gizmo",
    "expert": f"{_PACKAGE}.acting:ExpertDevice",
    "policy": f"{_PACKAGE}.acting:PolicyDevice",
    "replay": f"{_PACKAGE}.acting:ReplayDevice",
}
"""Where each of our devices is; its module is imported only when it is asked for."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A line of `robolearn teleop devices`."""

    name: str
    summary: str
    needs: str
    missing: str | None
    """What is not there, in words; None where all is."""


def device_names() -> list[str]:
    """List all known devices: our own, then others', by name."""
    return [*OWN, *sorted(_others())]


def make_device(
    name: str, profile: Profile | str | Path | None = None, env: VectorEnv | None = None, **options: Any
) -> Device:
    """Return a device that is not connected yet.

    Args:
        profile: what its inputs do, a file or the name of one in `teleop/`; None takes the one named like the device.
        env: a single environment, for devices that know it: gizmo, expert, policy and replay.
        options: the device's own: `host`, `port`, `token` (network), `index` (gamepad), `expert` (expert), `folder`
            and `deterministic` (policy), `file` and `episode` (replay), `port` and `site` (gizmo).

    Raises DeviceError on an unknown name (with the closest known one) or option, ConfigError on a faulty profile.
    """
    factory = _load(name)
    if name not in OWN:
        return _call(name, factory, (profile, env), options)
    if name in INPUTS:
        found = profile if isinstance(profile, Profile) else load_profile(name, profile)
        return _call(name, factory, (found,), options)
    if profile is not None:
        raise DeviceError(f"the device {name} has no inputs and takes no profile, received {profile}")
    if env is None:
        raise DeviceError(f"the device {name} needs the environment that it acts in, received none")
    return _call(name, factory, (env,), options)


def listed() -> list[Listed]:
    """Look at every device: what it is, what it needs and whether that is there."""
    return [_look_at(name) for name in device_names()]


def _look_at(name: str) -> Listed:
    try:
        factory = _load(name)
    except DeviceError as error:
        return Listed(name=name, summary="", needs="", missing=str(error))
    missing: Callable[[], str | None] = getattr(factory, "missing", lambda: None)
    return Listed(
        name=name,
        summary=getattr(factory, "summary", f"from {factory.__module__}"),
        needs=getattr(factory, "needs", ""),
        missing=missing(),
    )


def _load(name: str) -> Callable[..., Device]:
    if name in OWN:
        module, _, attribute = OWN[name].partition(":")
        try:
            return getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            raise DeviceError(f"device {name} needs {error.name}; pip install 'robolearn[teleop]'") from None
    others = _others()
    if name not in others:
        close = difflib.get_close_matches(name, device_names(), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? Known" if close else "known"
        raise DeviceError(f"unknown device {name!r}; {hint}: {', '.join(device_names())}")
    try:
        return others[name].load()
    except (ImportError, AttributeError) as error:
        raise DeviceError(f"device {name!r} is {others[name].value}, which does not load: {error}") from None


def _call(name: str, factory: Callable[..., Device], arguments: tuple[Any, ...], options: dict[str, Any]) -> Device:
    signature = inspect.signature(factory)
    try:
        signature.bind(*arguments, **options)
    except TypeError as error:
        known = ", ".join(list(signature.parameters)[len(arguments) :]) or "none"
        raise DeviceError(f"device {name}: {error}; its options: {known}") from None
    return factory(*arguments, **options)


def _others() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP) if point.name not in OWN}
