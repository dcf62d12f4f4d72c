"""Spaces as specs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, strategies as st

from robolearn.envs.spaces import PictureOptions, action_layout, observation_leaves
from robolearn.errors import TaskError


def read(space: spaces.Space, value: object) -> dict[str, np.ndarray]:
    out = {}
    for leaf in observation_leaves(space):
        out[leaf.key] = np.full(leaf.spec.shape, 77, leaf.spec.dtype)
        leaf.write(value, out[leaf.key])
    return out


def test_a_bare_box_is_the_state_in_float32() -> None:
    value = np.array([[1 / 3, 2.0]])
    (state,) = read(spaces.Box(-np.inf, np.inf, (1, 2), np.float64), value).values()
    assert state.dtype == np.float32
    np.testing.assert_array_equal(state, np.float32([1 / 3, 2.0]))


def test_discrete_observations_become_one_hot_from_their_start() -> None:
    out = read(
        spaces.Dict({"a": spaces.Discrete(3, start=5), "b": spaces.MultiDiscrete([2, 3])}), {"a": 6, "b": [1, 2]}
    )
    assert out["a"].tolist() == [0, 1, 0]
    assert out["b"].tolist() == [0, 1, 0, 0, 1]


PICTURES = {
    "as they are to be": ((40, 50, 3), lambda x: x),
    "with transparency": ((40, 50, 4), lambda x: x),
    "channels first": ((3, 40, 50), lambda x: x.transpose(1, 2, 0)),
    "grey, channels first": ((1, 40, 50), lambda x: x.transpose(1, 2, 0)),
    "grey": ((40, 50), lambda x: x[..., None]),
    "four grey frames": ((4, 40, 50), lambda x: x.transpose(1, 2, 0)),
    "two frames": ((2, 40, 50, 3), lambda x: np.concatenate([x[0], x[1]], -1)),
    "two frames, channels first": ((2, 3, 40, 50), lambda x: np.concatenate([x[0], x[1]], 0).transpose(1, 2, 0)),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("kind", ["bytes", "to 1", "to 255"])
def test_pictures_of_any_layout_are_bytes_of_height_width_channels(name: str, kind: str) -> None:
    shape, expected = PICTURES[name]
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    space, value = {
        "bytes": (spaces.Box(0, 255, shape, np.uint8), pixels),
        "to 1": (spaces.Box(0.0, 1.0, shape, np.float32), pixels.astype(np.float32) / 255.0),
        "to 255": (spaces.Box(0.0, 255.0, shape, np.float64), pixels.astype(np.float64)),
    }[kind]
    ((key, image),) = read(space, value).items()
    assert (key, image.dtype) == ("image", np.uint8)
    np.testing.assert_array_equal(image, expected(pixels))
    (leaf,) = observation_leaves(space)
    np.testing.assert_array_equal(leaf.read(np.stack([value, value]), 2)[1], expected(pixels))


@pytest.mark.parametrize(("shape", "expected"), [((7, 6, 3), (7, 6, 3)), ((3, 4, 6), (4, 6, 3)), ((4, 6), (24,))])
def test_bytes_of_three_dimensions_are_pictures_of_any_size(shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    (leaf,) = observation_leaves(spaces.Box(0, 255, shape, np.uint8))
    assert leaf.spec.shape == expected


def test_the_layout_is_as_told_where_the_shape_says_nothing() -> None:
    space = spaces.Box(0, 255, (3, 40, 3), np.uint8)
    (leaf,) = observation_leaves(space, pictures=PictureOptions(layout="chw"))
    assert leaf.spec.shape == (40, 3, 3)


def test_depth_stays_as_it_is_unless_a_range_scales_it() -> None:
    metres = np.linspace(0.0, 5.0, 32 * 40, dtype=np.float32).reshape(32, 40, 1)
    for high in (5.0, np.inf):
        space = spaces.Box(0.0, high, metres.shape, np.float32)
        np.testing.assert_array_equal(read(space, metres)["image"], metres)
        (leaf,) = observation_leaves(space, pictures=PictureOptions(depth_range=(1.0, 3.0)))
        assert leaf.spec.is_image
        found = leaf.convert(metres)
        np.testing.assert_array_equal(found, np.rint(255 * np.clip((metres.astype(np.float64) - 1.0) / 2.0, 0.0, 1.0)))


@pytest.mark.parametrize("shape", [(4, 4), (10, 12), (3, 10, 12), (64, 3)])
def test_matrices_of_numbers_are_no_pictures(shape: tuple[int, ...]) -> None:
    value = np.random.default_rng(0).normal(size=shape)
    (found,) = read(spaces.Box(-np.inf, np.inf, shape, np.float64), value).values()
    np.testing.assert_array_equal(found, value.reshape(-1).astype(np.float32))


def test_nested_keys_are_joined_and_selected_in_the_order_asked() -> None:
    space = spaces.Dict({"x": spaces.Dict({"y": spaces.Box(-1, 1, (2,)), "z": spaces.Box(-1, 1, (3,))})})
    assert [leaf.key for leaf in observation_leaves(space)] == ["x/y", "x/z"]
    assert [leaf.key for leaf in observation_leaves(space, ("x/z",))] == ["x/z"]
    with pytest.raises(TaskError, match=r"\['w'\].*\['x/y', 'x/z'\]"):
        observation_leaves(space, ("w",))


def test_two_keys_of_one_name_are_an_error() -> None:
    box = spaces.Box(-1, 1, (2,))
    with pytest.raises(TaskError, match=r"\('a', 'b'\).*would both be called 'a/b'"):
        observation_leaves(spaces.Dict({"a/b": box, "a": spaces.Dict({"b": box})}))


def test_spaces_without_a_fixed_size_are_refused_by_name() -> None:
    with pytest.raises(TaskError, match="words is a Text space"):
        observation_leaves(spaces.Dict({"words": spaces.Text(5)}))


@given(
    st.lists(st.tuples(st.floats(-1024, 1024, width=32), st.floats(0.125, 1024, width=32)), min_size=1, max_size=4),
    st.lists(st.floats(-2.0, 2.0, width=32), min_size=4, max_size=4),
)
def test_physical_actions_never_leave_the_space(bounds: list[tuple[float, float]], unit: list[float]) -> None:
    low = np.float32([b[0] for b in bounds])
    high = np.float32([b[0] + b[1] for b in bounds])
    space = spaces.Box(low, high, dtype=np.float32)
    layout = action_layout(space)
    assert layout.spec is not None
    assert space.contains(layout.to_env(layout.spec.to_physical(np.float32(unit[: len(bounds)]))))


@pytest.mark.parametrize(
    ("bound", "dtype"), [(np.inf, "float32"), (np.finfo("f4").max, "float32"), (np.finfo("f8").max, "float64")]
)
def test_unbounded_actions_are_refused_with_a_way_out_and_limited_on_request(bound: float, dtype: Any) -> None:
    space = spaces.Box(np.array([-bound, -2], dtype), np.array([bound, 2], dtype), dtype=dtype)
    with pytest.raises(TaskError, match=r"dimensions \[0\].*--task.action_limit.*RescaleAction"):
        action_layout(space)
    layout = action_layout(space, limit=3.0)
    assert layout.spec is not None
    assert (layout.spec.low, layout.spec.high) == ((-3.0, -2.0), (3.0, 2.0))


@pytest.mark.parametrize("space", [spaces.MultiDiscrete([2, 2]), spaces.Box(0, 3, (2,), np.int64), spaces.Dict({})])
def test_other_action_spaces_are_refused(space: spaces.Space) -> None:
    with pytest.raises(TaskError, match="Box of floats or Discrete"):
        action_layout(space)
