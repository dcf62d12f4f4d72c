"""Profiles: the shipped ones load, faults are named with what is known, and whatever is allowed gives sane commands."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from robolearn.configuration.teleop import AXES, BUTTONS, INPUTS, GripperInputs, Profile
from robolearn.configuration.tree import from_dict, to_dict
from robolearn.errors import ConfigError, DeviceError
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.signals import Interpreter, Presses, Signals
from robolearn.workspace import shipped_files


@pytest.mark.parametrize("device", INPUTS)
def test_every_device_with_inputs_ships_a_profile(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    profile = load_profile(device)
    assert profile.device == device
    assert {signed[1:] for signed in profile.axes.values()} >= {"x", "y"}
    assert Path(f"teleop/{device}.yaml") in shipped_files()


def test_ones_own_workspace_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "teleop").mkdir()
    (tmp_path / "teleop" / "keyboard.yaml").write_text("device: keyboard\naxes: {KeyI: +z}\n")
    assert load_profile("keyboard").axes == {"KeyI": "+z"}
    (tmp_path / "left.yaml").write_text("device: keyboard\naxes: {KeyJ: +y}\n")
    assert load_profile("keyboard", tmp_path / "left.yaml").axes == {"KeyJ": "+y"}
    with pytest.raises(ConfigError, match=r"left\.yaml is a profile for keyboard, expected one for gamepad"):
        load_profile("gamepad", "left.yaml")
    with pytest.raises(DeviceError, match=r"no profile 'lefty'; known: browser, gamepad, keyboard"):
        load_profile("keyboard", "lefty")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"axes": {"KeyÄ": "+x"}}, r"unknown input of the keyboard in axes: 'KeyÄ'.*KeyA, KeyB.*AltRight"),
        ({"axes": {"left_x": "+x"}}, r"unknown input of the keyboard in axes: 'left_x'"),
        ({"axes": {"KeyW": "+up"}}, r"unknown axis in axes.KeyW: 'up'; known: x, y, z, roll, pitch, yaw"),
        ({"axes": {"KeyW": "x"}}, r"axes.KeyW must be a sign and an axis, as \+x or -yaw; received 'x'"),
        ({"axes": {"KeyW": "+-x"}}, r"axes.KeyW must be a sign and an axis"),
        ({"modes": {"turn": {"KeyW": "+rol"}}}, r"unknown axis in modes.turn.KeyW: 'rol'; did you mean 'roll'"),
        ({"buttons": {"KeyQ": "stop"}}, r"unknown session button in buttons.KeyQ: 'stop'.*start, success, failure"),
        ({"gripper": {"toggle": ["Spacebar"]}}, r"in gripper: 'Spacebar'; did you mean 'Space'"),
        ({"deadman": ["ShiftLef"]}, r"in deadman: 'ShiftLef'; did you mean 'ShiftLeft'"),
        ({"axes": {"KeyW": "+x"}, "buttons": {"KeyW": "quit"}}, r"KeyW is used in axes and again in buttons"),
        ({"mode_inputs": ["Tab"]}, r"mode_inputs need at least two modes"),
        ({"locks": ["yam"]}, r"unknown axis in locks: 'yam'; did you mean 'yaw'"),
        ({"scale": {"x": 1.5}}, r"scale.x must lie in \(0, 1\], received 1.5"),
        ({"scale": {"x": math.nan}}, r"scale.x must lie in"),
        ({"dead_zone": 1.0}, r"dead_zone must lie in \[0, 1\)"),
        ({"curve": math.inf}, r"curve must lie in"),
        ({"axis": {"KeyW": "+x"}}, r"unknown key 'axis'.*did you mean 'axes'"),
        ({"frame": "tool"}, r"frame must be one of world, camera"),
    ],
)
def test_faults_are_named_with_what_is_known(fault: dict, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_dict(Profile, {"device": "keyboard"} | fault)


def test_dead_zone_curve_scale_lock_and_fine() -> None:
    profile = Profile(
        device="gamepad",
        axes={"left_x": "+x", "left_y": "-y", "right_x": "+z", "right_y": "+yaw"},
        dead_zone=0.2,
        curve=2.0,
        scale={"y": 0.5},
        locks=("yaw",),
        fine=("a",),
        fine_scale=0.1,
    )
    command = Interpreter(profile).command

    def twist(**values: float) -> list[float]:
        return command(Signals(values=values)).twist.tolist()

    assert twist(left_x=0.2, left_y=-0.1) == [0, 0, 0, 0, 0, 0]
    # Half of the travel beyond the dead zone, squared.
    np.testing.assert_allclose(twist(left_x=0.6, left_y=0.6, right_x=-0.6), [0.25, -0.125, -0.25, 0, 0, 0])
    np.testing.assert_allclose(twist(left_x=1.0, left_y=-1.0, right_y=1.0), [1, 0.5, 0, 0, 0, 0])
    np.testing.assert_allclose(twist(left_x=1.0, a=1.0), [0.1, 0, 0, 0, 0, 0])


def test_opposite_keys_cancel_and_two_inputs_never_exceed_full_speed() -> None:
    command = Interpreter(Profile(device="keyboard", axes={"KeyW": "+x", "KeyS": "-x", "ArrowUp": "+x"})).command
    assert command(Signals(values={"KeyW": 1.0, "KeyS": 1.0})).twist[0] == 0.0
    assert command(Signals(values={"KeyW": 1.0, "ArrowUp": 1.0})).twist[0] == 1.0


def test_modes_go_round_and_start_again_with_an_episode() -> None:
    profile = Profile(
        device="keyboard", modes={"move": {"KeyW": "+x"}, "turn": {"KeyW": "+pitch"}}, mode_inputs=("Tab",)
    )
    interpreter = Interpreter(profile)
    held = {"KeyW": 1.0}
    assert interpreter.command(Signals(values=held)).twist.tolist() == [1, 0, 0, 0, 0, 0]
    assert interpreter.command(Signals(values=held, pressed=("Tab",))).twist.tolist() == [0, 0, 0, 0, 1, 0]
    assert interpreter.mode == "turn"
    assert interpreter.command(Signals(values=held, pressed=("Tab",))).twist.tolist() == [1, 0, 0, 0, 0, 0]
    interpreter.command(Signals(pressed=("Tab",)))
    interpreter.reset()
    assert interpreter.mode == "move"


def test_gripper_by_toggle_open_close_and_squeeze() -> None:
    keys = GripperInputs(toggle=("Space",), open=("KeyO",), close=("KeyC",))
    interpreter = Interpreter(Profile(device="keyboard", gripper=keys))

    def pressed(*names: str) -> float | None:
        return interpreter.command(Signals(pressed=names)).gripper

    assert [pressed("Space"), pressed(), pressed("Space"), pressed("Space", "Space")] == [1.0, None, -1.0, -1.0]
    assert [pressed("KeyC"), pressed("Space"), pressed("KeyC", "KeyO"), pressed("Space")] == [1.0, -1.0, -1.0, 1.0]
    interpreter.reset()
    assert pressed("Space") == 1.0
    squeeze = Interpreter(Profile(device="gamepad", gripper=GripperInputs(squeeze="right_trigger")))
    found = [squeeze.command(Signals(values={"right_trigger": v})).gripper for v in (0.0, 0.25, 1.0)]
    assert found == [-1.0, -0.5, 1.0]


def test_the_deadman_and_a_dead_line_hold_the_robot_but_buttons_are_heard() -> None:
    profile = Profile(
        device="keyboard",
        axes={"KeyW": "+x"},
        deadman=("ShiftLeft",),
        buttons={"Enter": "start"},
        gripper=GripperInputs(toggle=("Space",)),
    )
    interpreter = Interpreter(profile)
    held = interpreter.command(Signals(values={"KeyW": 1.0}, pressed=("Enter", "Space")))
    assert not held.engaged
    assert held.twist.tolist() == [0.0] * 6
    assert held.gripper is None
    assert held.buttons == ("start",)
    moving = interpreter.command(Signals(values={"KeyW": 1.0, "ShiftLeft": 1.0}, pressed=("Space",)))
    assert moving.engaged
    assert moving.twist[0] == 1.0
    assert moving.gripper == 1.0, "a toggle while holding still must not count"
    assert not interpreter.command(Signals(values={"KeyW": 1.0, "ShiftLeft": 1.0}, live=False)).engaged


def test_presses_are_edges_in_order() -> None:
    presses = Presses()
    presses.update({"a": 1.0})
    presses.update({"a": 1.0, "trigger": 0.4})
    presses.update({"a": 0.0, "trigger": 0.6})
    presses.update({"a": 1.0, "trigger": 0.9})
    assert presses.take() == ("a", "trigger", "a")
    assert presses.take() == ()
    for _ in range(1000):
        presses.update({"a": 1.0})
        presses.update({})
    assert len(presses.take()) <= 64


SIGNED = st.builds(lambda sign, axis: sign + axis, st.sampled_from("+-"), st.sampled_from(AXES))


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    device = draw(st.sampled_from(sorted(INPUTS)))
    names = draw(st.permutations(INPUTS[device]))[:20]
    cut = draw(st.lists(st.integers(0, len(names)), min_size=5, max_size=5).map(sorted))
    parts = [names[a:b] for a, b in zip([0, *cut], [*cut, len(names)])]
    return Profile(
        device=device,
        frame=draw(st.sampled_from(("world", "camera"))),
        axes={name: draw(SIGNED) for name in parts[0]},
        buttons={name: draw(st.sampled_from(BUTTONS)) for name in parts[1]},
        deadman=tuple(parts[2]),
        fine=tuple(parts[3]),
        gripper=GripperInputs(toggle=tuple(parts[4])),
        modes={mode: {name: draw(SIGNED) for name in parts[5]} for mode in ("one", "two")},
        dead_zone=draw(st.floats(0, 0.99)),
        curve=draw(st.floats(0.1, 10)),
        scale=draw(st.dictionaries(st.sampled_from(AXES), st.floats(0.01, 1))),
        locks=tuple(draw(st.sets(st.sampled_from(AXES)))),
    )


@settings(max_examples=60)
@given(profile=profiles(), data=st.data())
def test_any_profile_gives_commands_within_bounds_and_survives_yaml(profile: Profile, data: st.DataObject) -> None:
    assert from_dict(Profile, to_dict(profile)) == profile
    inputs = st.sampled_from(INPUTS[profile.device])
    values = data.draw(st.dictionaries(inputs, st.floats(-1.5, 1.5), max_size=20))
    pressed = data.draw(st.lists(inputs, max_size=5))
    command = Interpreter(profile).command(
        Signals(values=values, pressed=tuple(pressed), live=data.draw(st.booleans()))
    )
    assert command.twist.shape == (6,)
    assert np.isfinite(command.twist).all()
    assert np.abs(command.twist).max() <= 1.0
    assert all(command.twist[AXES.index(axis)] == 0.0 for axis in profile.locks)
    assert command.engaged or not command.twist.any()
    assert set(command.buttons) <= set(BUTTONS)
    assert command.gripper in (None, -1.0, 1.0)
    assert command.frame == profile.frame


@settings(max_examples=60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["axes", "KeyW", "+x", "modes", "gripper", "toggle", "scale"]), inner)
        ),
    ).map(lambda value: {"device": "keyboard"} | (value if isinstance(value, dict) else {"axes": value}))
)
def test_whatever_is_in_a_profile_is_a_profile_or_a_named_fault(data: dict) -> None:
    with contextlib.suppress(ConfigError):
        profile = from_dict(Profile, data)
        assert Interpreter(profile).command(Signals(values={"KeyW": 1.0})).twist.shape == (6,)
