"""Configuration: YAML and command-line values, unions told apart by name, and errors that name the place."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, strategies as st

from robolearn.configuration.tree import from_dict, load, options, read_yaml, to_dict, write_yaml
from robolearn.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Circle:
    name: Literal["circle"] = "circle"
    radius: float = 1.0
    """Metres."""


@dataclass(frozen=True, kw_only=True)
class Square:
    name: Literal["square"] = "square"
    side: float = 2.0
    """Length of a side."""
    corners: Literal["round", "sharp"] = "sharp"


@dataclass(frozen=True, kw_only=True)
class Place:
    id: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.id:
            raise ConfigError("id must not be empty")


@dataclass(frozen=True, kw_only=True)
class World:
    place: Place
    """Where."""
    shape: Circle | Square = field(default_factory=lambda: Square(side=7.0))
    sizes: tuple[int, ...] = (1, 2)
    pair: tuple[float, float] = (0.0, 1.0)
    steps: int | None = None
    seed: int = 0
    deep: bool = False


def world(*overrides: tuple[str, Any], path: Any = None) -> World:
    return load(World, path, [("place", "here"), *overrides])


def test_a_plain_value_sets_the_first_field_of_a_section() -> None:
    assert world().place == Place(id="here")
    assert from_dict(World, {"place": "there"}).place == Place(id="there")


def test_what_a_section_leaves_out_comes_from_its_default_instance() -> None:
    assert world(("shape.corners", "round")).shape == Square(side=7.0, corners="round")


def test_another_member_of_a_union_starts_from_its_own_defaults() -> None:
    assert world(("shape", "circle"), ("shape.radius", "3")).shape == Circle(radius=3.0)
    assert world(("shape.name", "circle")).shape == Circle()


def test_free_mappings_take_any_key_and_read_values_as_yaml() -> None:
    kwargs = world(("place.kwargs.a", "1"), ("place.kwargs.b.c", "x"), ("place.kwargs.d", "[1, 2.5]")).place.kwargs
    assert kwargs == {"a": 1, "b": {"c": "x"}, "d": [1, 2.5]}


def test_text_in_yaml_stays_text() -> None:
    kwargs = {"a": "123", "b": "yes", "c": "\x01", "d": "[1"}
    assert from_dict(World, {"place": {"id": "x", "kwargs": kwargs}}).place.kwargs == kwargs


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("sizes", "3,4,5", (3, 4, 5)),
        ("sizes", "[3, 4]", (3, 4)),
        ("sizes", ["3", "4"], (3, 4)),
        ("sizes", ["3,4"], (3, 4)),
        ("sizes", "3", (3,)),
        ("pair", "1e-3,2", (1e-3, 2.0)),
        ("steps", "1e3", 1000),
        ("steps", "none", None),
        ("deep", "true", True),
        ("deep", "off", False),
    ],
)
def test_text_is_read_as_the_declared_type(key: str, text: Any, value: Any) -> None:
    assert getattr(world((key, text)), key) == value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sed", "1", "unknown key 'sed'; did you mean 'seed'"),
        ("shape.sid", "1", "unknown key 'sid' in shape; did you mean 'side'"),
        ("shape.radius", "1", "unknown key 'radius' in shape"),
        ("shape", "hexagon", "shape must be one of circle, square; received 'hexagon'"),
        ("shape.corners", "bent", "shape.corners must be one of round, sharp; received 'bent'"),
        ("steps", "1.5", "steps must be int, received '1.5'"),
        ("deep", "maybe", "deep must be bool, received 'maybe'"),
        ("pair", "1,2,3", "pair must have 2 values"),
        ("seed", None, "seed needs a value"),
        ("place", "", "place: id must not be empty"),
        ("place.kwargs", "3", "place.kwargs must be a mapping"),
    ],
)
def test_errors_name_the_place_and_the_value(key: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        world((key, value))
    assert message in str(caught.value)


def test_a_missing_required_value_is_named_with_its_help() -> None:
    with pytest.raises(ConfigError, match=r"missing value for place: Where\."):
        load(World)


def test_yaml_gives_values_and_overrides_win(tmp_path: Any) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("place: {id: there, kwargs: {a: 1}}\nshape: {name: circle, radius: 9}\nseed: 5\n")
    config = load(World, path, [("seed", "6"), ("place.kwargs.b", "2")])
    assert (config.seed, config.shape) == (6, Circle(radius=9.0))
    assert config.place == Place(id="there", kwargs={"a": 1, "b": 2})


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "a: [", "!!python/object/apply:os.system ['true']", "\xff\xfe"])
def test_yaml_that_is_no_mapping_of_plain_values_is_refused(tmp_path: Any, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError):
        read_yaml(path)


def test_a_missing_file_is_named(tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_yaml(tmp_path / "nowhere.yaml")


@given(
    shape=st.one_of(
        st.builds(Circle, radius=st.floats(allow_nan=False)),
        st.builds(Square, side=st.floats(allow_nan=False), corners=st.sampled_from(["round", "sharp"])),
    ),
    sizes=st.lists(st.integers(), max_size=4).map(tuple),
    steps=st.none() | st.integers(),
    kwargs=st.dictionaries(st.text(min_size=1), st.none() | st.booleans() | st.integers() | st.text()),
    deep=st.booleans(),
)
def test_yaml_round_trip(shape: Any, sizes: Any, steps: Any, kwargs: Any, deep: bool) -> None:
    config = World(place=Place(id="x", kwargs=kwargs), shape=shape, sizes=sizes, steps=steps, deep=deep)
    assert from_dict(World, yaml.safe_load(yaml.safe_dump(to_dict(config)))) == config


def test_the_resolved_configuration_can_be_read_back(tmp_path: Any) -> None:
    config = world(("shape", "circle"), ("sizes", "4"))
    write_yaml(config, tmp_path / "config.yaml")
    assert load(World, tmp_path / "config.yaml") == config


def test_options_list_every_leaf_with_help_and_default() -> None:
    found = {o.key: o for o in options(World)}
    assert set(found) >= {"place.id", "place.kwargs", "shape", "shape.radius", "shape.side", "sizes", "deep"}
    assert found["place.id"].default is MISSING
    assert found["place.kwargs"].open
    assert found["shape"].choices == ("circle", "square")
    assert found["shape.radius"].help == "Metres."
    assert found["shape.side"].default == 7.0  # of this world, not of squares
    assert found["shape.radius"].default == 1.0
