"""A YAML file and the command line's dotted overrides, together one configuration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml

from robolearn.configuration.tree.fields import (
    default_of,
    is_none,
    sections,
    select_member,
    tag_values,
    unknown_key,
)
from robolearn.configuration.tree.values import from_dict
from robolearn.configuration.tree.yaml_files import read_yaml
from robolearn.errors import ConfigError

C = TypeVar("C")


def load(
    cls: type[C],
    path: str | Path | None = None,
    overrides: Sequence[tuple[str, Any]] = (),
    complete: Callable[[dict[str, Any]], None] | None = None,
) -> C:
    """Read `path` (where given), apply dotted `overrides` in order, and build `cls`.

    Args:
        complete: fills in what the values leave open (a task of which only some fields are given), before they are
            checked.
    """
    data = read_yaml(path) if path is not None else {}
    for key, value in overrides:
        _override(cls, data, key.split("."), value, "")
    if complete is not None:
        complete(data)
    return from_dict(cls, data)


def _override(cls: Any, data: dict[str, Any], path: Sequence[str], value: Any, where: str, base: Any = None) -> None:
    """Set data[path] = value, checking each key on the way against the classes; `where` is the path so far."""
    name, rest = path[0], path[1:]
    by_name = {f.name: f for f in fields(cls)}
    if name not in by_name:
        raise unknown_key(name, list(by_name), where)
    kind = get_type_hints(cls)[name]
    members = sections(kind)
    place = f"{where}.{name}" if where else name
    if not members:
        target = data
        for part, following in zip(path, rest):
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{'.'.join((place, *rest))}: {part} holds a plain value and takes no {following!r}")
        target[path[-1]] = _parsed(value) if rest else value  # below a free mapping no type says what the text means
        return
    if not rest and is_none(kind, value):
        data[name] = None
        return
    default = default_of(by_name[name]) if base is None else getattr(base, name)
    section = data.get(name)
    section = {} if section is None else section
    if not isinstance(section, dict):
        section = {fields(select_member(members, section, place, default))[0].name: section}
    member = select_member(members, section, place, default)
    tag = [] if not tag_values(member) else ["name"]
    if not rest:
        rest = tag or [fields(member)[0].name]
    if list(rest) == tag:
        current = section.get("name", getattr(default, "name", None))
        data[name] = section | {"name": value} if current == value else {"name": value}
        return
    _override(member, section, rest, value, place, default if type(default) is member else None)
    data[name] = section


def _parsed(value: Any) -> Any:
    """Text from the command line as YAML reads it, or as it stands where it is no YAML."""
    try:
        return yaml.safe_load(value) if isinstance(value, str) else value
    except yaml.YAMLError:
        return value
