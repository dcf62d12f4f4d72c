"""`robolearn teleop`: list the devices to drive with, and show one's live signals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from robolearn.configuration.teleop import DevicesConfig, DeviceTestConfig
from robolearn.errors import DeviceError


def run_test(config: DeviceTestConfig) -> int:
    from robolearn.teleop.devices.known_devices import make_device
    from robolearn.teleop.devices.signals import SignalDevice
    from robolearn.teleop.watch import watch

    if config.device in ("browser", "gizmo", "expert", "policy", "replay"):
        raise DeviceError(f"{config.device} has nothing to plug in; it is seen at work in robolearn record")
    options = {
        "network": {"host": config.host, "port": config.port, "token": config.token},
        "gamepad": {"index": config.index},
    }
    device = make_device(config.device, config.profile, **options.get(config.device, {}))
    device.connect()
    try:
        if isinstance(device, SignalDevice):
            print(f"{config.device}: Ctrl-C ends")
        if address := getattr(device, "address", None):
            print(f"waiting for a client at {address}")
        watch(device, config.seconds)
    except KeyboardInterrupt:
        print()
    finally:
        device.close()
    return 0


def run_devices(config: DevicesConfig) -> int:
    from robolearn.teleop.devices.known_devices import listed

    for device in listed():
        print(f"{device.name:<12}{device.summary}")
        if device.needs:
            print(f"{'':<12}needs {device.needs}")
        print(f"{'':<12}{'there' if device.missing is None else f'missing: {device.missing}'}")
    return 0


VERBS: dict[str, tuple[type, Callable[[Any], int], str]] = {
    "test": (DeviceTestConfig, run_test, "show a device's live signals in the terminal"),
    "devices": (DevicesConfig, run_devices, "list the devices, what each needs, and whether it is there"),
}
