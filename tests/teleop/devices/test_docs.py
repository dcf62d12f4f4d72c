"""docs/devices.md names every device, field and input that there is, and its examples are valid."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import yaml

from robolearn.configuration.teleop import AXES, BUTTONS, INPUTS, KEYS, PUCK_BUTTONS, ActionMap, GripperInputs, Profile
from robolearn.configuration.tree import from_dict
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.known_devices import OWN
from robolearn.teleop.devices.network import LARGEST_BYTES, NetworkDevice

TEXT = (Path(__file__).parents[3] / "docs" / "devices.md").read_text(encoding="utf-8")


def test_everything_is_named() -> None:
    words = set(re.findall(r"[A-Za-z0-9_]+", TEXT))
    inputs = {name for names in INPUTS.values() for name in names} - set(KEYS) - set(PUCK_BUTTONS)
    settings = {f.name for c in (Profile, ActionMap, GripperInputs) for f in fields(c)}
    assert not (set(OWN) | set(AXES) | set(BUTTONS) | inputs | settings) - words
    named_keys = {word for word in words if re.match(r"(Key|Digit|Arrow|Numpad|F\d|Shift|Control)\w", word)}
    assert named_keys - set(KEYS) == {"KeyboardEvent"}
    assert f"{LARGEST_BYTES} bytes" in TEXT


def test_the_examples_are_valid() -> None:
    profile, actions = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL))
    assert from_dict(Profile, profile).mode_inputs == ("right_stick",)
    assert from_dict(ActionMap, actions).scale == 0.5
    (message,) = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    assert json.loads(message)["buttons"] == ["start"]
    assert NetworkDevice(load_profile("network"))._take(message) is None
