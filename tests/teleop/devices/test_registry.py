"""Devices by name: our own, another package's, and unknown ones; `robolearn teleop`."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robolearn.cli.main import main
from robolearn.errors import DeviceError
from robolearn.teleop.devices.device import EpisodicDevice, SeeingDevice
from robolearn.teleop.devices.known_devices import OWN, device_names, listed, make_device
from tests.commands import start
from tests.waiting import wait_until

ROOT = Path(__file__).parents[3]
PLUGIN = """
import time
from robolearn.teleop.devices.device import hold

class Foot:
    summary, needs = "a pedal", "a foot"

    def __init__(self, profile, env, speed=1.0):
        self.given = (profile, env, speed)

    @classmethod
    def missing(cls):
        return "a foot"

    def connect(self): ...
    def read(self): return hold(time.monotonic())
    def close(self): ...
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "foot_pedal.py").write_text(PLUGIN)
    about = tmp_path / "foot_pedal-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: foot-pedal\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[robolearn.devices]\npedal = foot_pedal:Foot\nbroken = foot_pedal:Hand\nkeyboard = foot_pedal:Foot\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_all_of_our_own_are_found_and_are_devices() -> None:
    assert device_names()[: len(OWN)] == list(OWN)
    for name in ("browser", "keyboard", "gamepad", "spacemouse", "network"):
        device = make_device(name)
        assert isinstance(device, EpisodicDevice), "a session opens the gripper, and the next toggle must close it"
        assert not isinstance(device, SeeingDevice)
    with pytest.raises(DeviceError, match=r"unknown device 'keybord'; did you mean 'keyboard'\? Known: browser, keyb"):
        make_device("keybord")
    with pytest.raises(DeviceError, match=r"device network: .*'prot'; its options: host, port, token"):
        make_device("network", prot=3)


@pytest.mark.usefixtures("plugin")
def test_other_packages_bring_devices() -> None:
    device = make_device("pedal", "mine.yaml", speed=0.5)
    assert device.given == ("mine.yaml", None, 0.5)  # pyright: ignore[reportAttributeAccessIssue]
    assert not device.read().engaged
    assert type(make_device("keyboard")).__name__ == "Keyboard", "our names stay ours"
    with pytest.raises(DeviceError, match="device 'broken' is foot_pedal:Hand, which does not load"):
        make_device("broken")
    lines = {line.name: line for line in listed()}
    assert (lines["pedal"].summary, lines["pedal"].missing) == ("a pedal", "a foot")
    assert "does not load" in str(lines["broken"].missing)


def test_the_list_says_what_is_there(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert main(["teleop", "devices"]) == 0
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", printed, re.MULTILINE) for name in OWN)
    assert "missing: a screen (over SSH use browser)" in printed or sys.platform != "linux"
    assert re.search(r"^browser .*\n +needs a browser\n +there$", printed, re.MULTILINE)


def test_teleop_test_shows_live_signals_of_a_client_until_ctrl_c() -> None:
    terminal = os.environ | {"FORCE_COLOR": "1"}  # to which rich prints every picture, not the last one only
    running = start("teleop", "test", "--device", "network", "--port", "0", environment=terminal)
    wait_until(lambda: re.search(r"waiting for a client at ws://127.0.0.1:\d+/\n", running.out))
    address = running.out.split(" at ")[1].split()[0]
    with subprocess.Popen([sys.executable, ROOT / "teleop/examples/network_client.py", address]) as client:
        wait_until(lambda: re.search(r"messages  accepted: \d\d", running.out), lambda: running.out)
        wait_until(lambda: "█" in running.out)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
        client.kill()


def test_the_verb_and_its_devices_need_no_torch() -> None:
    code = (
        "import sys; from robolearn.cli.main import main; import robolearn.teleop.devices.actions\n"
        "main(['teleop', 'test', '--device', 'network', '--port', '0', '--seconds', '0.1'])\n"
        "sys.exit('torch' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--device", "keybord"], "did you mean 'keyboard'"),
        (["--device", "browser"], "seen at work in robolearn record"),
        (["--device", "keyboard", "--profile", "none.yaml"], "there is no profile none.yaml"),
        (["--seconds", "-1"], "seconds must be positive"),
        (["--device", "network", "--host", "0.0.0.0"], "needs a token"),
    ],
)
def test_bad_input_is_named(arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["teleop", "test", *arguments]) == 2
    assert fault in capsys.readouterr().err
