"""Plain values <-> frozen dataclass trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from robolearn.configuration.tree.fields import (
    default_of,
    field_docs,
    is_none,
    sections,
    select_member,
    strip_optional,
    unknown_key,
)
from robolearn.errors import ConfigError

C = TypeVar("C")

TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
"""Words for truth values."""


def from_dict(cls: type[C], data: Mapping[str, Any]) -> C:
    """Build the dataclass `cls` from nested plain values; raises ConfigError naming the place of any fault."""
    return _build(cls, data, "")


def to_dict(config: Any) -> Any:
    """Nested plain values (YAML-serialisable) of a configuration; inverse of `from_dict`."""
    if is_dataclass(config):
        return {f.name: to_dict(getattr(config, f.name)) for f in fields(config)}
    if isinstance(config, Mapping):
        return {str(k): to_dict(v) for k, v in config.items()}
    if isinstance(config, (list, tuple)):
        return [to_dict(v) for v in config]
    return config


def text_values(value: Any, where: str) -> tuple[str, ...]:
    """Return the texts that a value of YAML or the command line stands for: one, a list, or a list in one word."""
    return _coerce_sequence((str, ...), value, where)


def _build(cls: Any, data: Any, where: str, base: Any = None) -> Any:
    """`cls` from `data`; what `data` leaves out comes from the instance `base`, where there is one."""
    if not isinstance(data, Mapping):
        data = {fields(cls)[0].name: data}
    hints, names = get_type_hints(cls), [f.name for f in fields(cls)]
    for key in data:
        if key not in names:
            raise unknown_key(str(key), names, where)
    values: dict[str, Any] = {}
    for f in fields(cls):
        default = default_of(f) if base is None else getattr(base, f.name)
        place = f"{where}.{f.name}" if where else f.name
        if f.name in data:
            values[f.name] = _coerce(hints[f.name], data[f.name], place, default)
        elif default is MISSING:
            raise ConfigError(f"missing value for {place}: {field_docs(cls).get(f.name, 'required')}")
        else:
            values[f.name] = default
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def _coerce(kind: Any, value: Any, where: str, default: Any = None) -> Any:
    if is_none(kind, value) or (value is None and kind in (Any, None)):
        return None
    if value is None:
        raise ConfigError(f"{where} needs a value, received none")
    if members := sections(kind):
        member = select_member(members, value, where, default)
        return _build(member, value, where, default if type(default) is member else None)
    kind = strip_optional(kind)
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal:
        for choice in args:
            if value == choice or str(value) == str(choice):
                return choice
        raise ConfigError(f"{where} must be one of {', '.join(map(str, args))}; received {value!r}")
    if origin in (tuple, list):
        return _coerce_sequence(args, value, where)
    if origin in (dict, Mapping) or kind is dict:
        if isinstance(value, str) and value.startswith("{"):
            value = _mapping_in_one_word(value, where)
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, received {value!r}")
        item = args[1] if args else Any
        return {str(k): _coerce(item, v, f"{where}.{k}") for k, v in value.items()}
    return _coerce_scalar(kind, value, where)


def _mapping_in_one_word(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{where} must be a mapping such as '{{a: b}}', received {text!r}") from None


def _list_in_one_word(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{where} must be a list such as '[a, b]', received {text!r}") from None


def _coerce_sequence(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]  # one word on the command line may hold the whole list
    if isinstance(value, str):
        value = _list_in_one_word(value, where) if value.startswith("[") else [v for v in value.split(",") if v]
    if not isinstance(value, (list, tuple)):
        value = [value]
    items = args[:1] * len(value) if len(args) == 2 and args[1] is ... else args
    if len(items) != len(value):
        raise ConfigError(f"{where} must have {len(items)} values, received {value!r}")
    return tuple(_coerce(item, v, f"{where}[{i}]") for i, (item, v) in enumerate(zip(items, value)))


def _coerce_scalar(kind: Any, value: Any, where: str) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        if (text := str(value).lower()) in TRUTHS:
            return TRUTHS[text]
    elif kind is int and not isinstance(value, bool):
        try:
            number = float(value)
            if number == int(number):
                return int(value) if isinstance(value, int) else int(number)
        except (TypeError, ValueError, OverflowError):
            pass
    elif kind is float and not isinstance(value, bool):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    elif kind is str and not isinstance(value, (Mapping, list, tuple)):
        return str(value)
    name = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{where} must be {name}, received {value!r}")
