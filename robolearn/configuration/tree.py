"""Configuration: frozen dataclass trees <-> YAML <-> command line.

A verb's configuration is one frozen, keyword-only dataclass tree. YAML gives values, the command line overrides them:

    robolearn train --config configs/train/pick_place.yaml --policy.head.num_modes 8

Rules, the same in YAML and on the command line:

- an unknown key is an error that names the closest known one;
- a section may be a union of dataclasses told apart by their `name: Literal[...]` field (policy heads, for example);
  changing `name` on the command line starts that section afresh;
- a plain value given for a section sets the section's first field: `--policy.head mixture`, `--task gym:Hopper-v5`;
- help texts are the docstrings below the fields.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from robolearn.errors import ConfigError
from robolearn.storage import write_text

C = TypeVar("C")


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


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file holding a mapping; only plain values are read, never objects."""
    try:
        data = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, received {type(data).__name__}")
    return data


def write_yaml(config: Any, path: str | Path) -> None:
    """Write the resolved configuration, so that an output says how it was made."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


def load(cls: type[C], path: str | Path | None = None, overrides: Sequence[tuple[str, Any]] = ()) -> C:
    """Read `path` (where given), apply dotted `overrides` in order, and build `cls`."""
    data = read_yaml(path) if path is not None else {}
    for key, value in overrides:
        _override(cls, data, key.split("."), value, "")
    return from_dict(cls, data)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One leaf of a configuration tree, as the command line and the completions see it."""

    key: str
    type: Any
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    positional: bool = False
    open: bool = False
    """Takes any sub-key (a free mapping such as `task.kwargs`)."""
    aliases: tuple[str, ...] = ()
    """Other keys for the same: a section's name may be written as in YAML, `policy.head.name`."""


def options(cls: type, prefix: str = "") -> Iterator[Option]:
    """All leaves of a configuration class, depth first; union sections yield the fields of all their members."""
    seen: set[str] = set()
    hints, docs = get_type_hints(cls), _field_docs(cls)
    for f in fields(cls):
        key, members = prefix + f.name, _sections(hints[f.name])
        if members:
            names = tuple(n for m in members for n in _tag_values(m))
            aliases = (f"{key}.name",) if names else ()
            default, text = _default(f), docs.get(f.name, "")
            yield Option(key=key, type=str, default=default, help=text, choices=names, aliases=aliases)
            for option in (o for m in members for o in options(m, key + ".")):
                if option.key not in seen and option.key not in aliases:
                    seen.add(option.key)
                    yield option
            continue
        kind = _strip_optional(hints[f.name])
        yield Option(
            key=key,
            type=kind,
            default=_default(f),
            help=docs.get(f.name, ""),
            choices=tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else (),
            positional=bool(f.metadata.get("positional")),
            open=get_origin(kind) in (dict, Mapping) or kind is dict,
        )


def unknown_key(key: str, known: Sequence[str], where: str) -> ConfigError:
    """The error for a key nobody knows, with the closest known one."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(sorted(known))}"
    return ConfigError(f"unknown key {key!r}{f' in {where}' if where else ''}; {hint}")


def _build(cls: Any, data: Any, where: str, base: Any = None) -> Any:
    """`cls` from `data`; what `data` leaves out comes from the instance `base`, where there is one."""
    if not isinstance(data, Mapping):
        data = {fields(cls)[0].name: data}
    hints = get_type_hints(cls)
    for key in data:
        if key not in hints:
            raise unknown_key(str(key), list(hints), where)
    values: dict[str, Any] = {}
    for f in fields(cls):
        default = _default(f) if base is None else getattr(base, f.name)
        place = f"{where}.{f.name}" if where else f.name
        if f.name in data:
            values[f.name] = _coerce(hints[f.name], data[f.name], place, default)
        elif default is MISSING:
            raise ConfigError(f"missing value for {place}: {_field_docs(cls).get(f.name, 'required')}")
        else:
            values[f.name] = default
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}" if where else str(error)) from None


def _coerce(kind: Any, value: Any, where: str, default: Any = None) -> Any:
    if value is None or (isinstance(value, str) and value.lower() in ("none", "null") and _is_optional(kind)):
        if _is_optional(kind) or kind in (Any, None):
            return None
        raise ConfigError(f"{where} needs a value, received none")
    if members := _sections(kind):
        member = _select(members, value, where, default)
        return _build(member, value, where, default if type(default) is member else None)
    kind = _strip_optional(kind)
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
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a mapping, received {value!r}")
        item = args[1] if args else Any
        return {str(k): _coerce(item, v, f"{where}.{k}") for k, v in value.items()}
    return _coerce_scalar(kind, value, where)


def _coerce_sequence(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str):
        value = value[0]  # one word on the command line may hold the whole list
    if isinstance(value, str):
        value = yaml.safe_load(value) if value.startswith("[") else [v for v in value.split(",") if v]
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
        text = str(value).lower()
        if text in ("true", "yes", "on", "1"):
            return True
        if text in ("false", "no", "off", "0"):
            return False
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


def _override(cls: Any, data: dict[str, Any], path: Sequence[str], value: Any, where: str, base: Any = None) -> None:
    """Set data[path] = value, checking each key on the way against the classes; `where` is the path so far."""
    name, rest = path[0], path[1:]
    by_name = {f.name: f for f in fields(cls)}
    if name not in by_name:
        raise unknown_key(name, list(by_name), where)
    members = _sections(get_type_hints(cls)[name])
    place = f"{where}.{name}" if where else name
    if not members:
        target = data
        for part, following in zip(path, rest):
            target = target.setdefault(part, {})
            if not isinstance(target, dict):
                raise ConfigError(f"{'.'.join((place, *rest))}: {part} holds a plain value and takes no {following!r}")
        target[path[-1]] = _parsed(value) if rest else value  # below a free mapping no type says what the text means
        return
    default = _default(by_name[name]) if base is None else getattr(base, name)
    section = data.get(name, {})
    if not isinstance(section, dict):
        section = {fields(_select(members, section, place, default))[0].name: section}
    member = _select(members, section, place, default)
    tag = [] if not _tag_values(member) else ["name"]
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


def _select(members: list[Any], value: Any, where: str, default: Any) -> Any:
    """The union member that `value` (a mapping with `name`, or a bare name) is meant for."""
    if not _tag_values(members[0]):
        return members[0]
    tag = value.get("name") if isinstance(value, Mapping) else value
    if tag is None:
        return type(default) if type(default) in members else members[0]
    for member in members:
        if tag in _tag_values(member):
            return member
    known = [name for member in members for name in _tag_values(member)]
    raise ConfigError(f"{where} must be one of {', '.join(known)}; received {tag!r}")


def _sections(kind: Any) -> list[Any]:
    """The dataclasses in an annotation: [D] for D, [D, E] for D | E, [] for plain values."""
    candidates = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [c for c in candidates if isinstance(c, type) and is_dataclass(c)]


def _tag_values(cls: Any) -> tuple[str, ...]:
    kind = get_type_hints(cls).get("name")
    return get_args(kind) if get_origin(kind) is Literal else ()


def _is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def _strip_optional(kind: Any) -> Any:
    if not _is_optional(kind):
        return kind
    rest = [a for a in get_args(kind) if a is not type(None)]
    return rest[0] if len(rest) == 1 else Any


def _default(f: Field[Any]) -> Any:
    return (
        f.default if f.default is not MISSING else f.default_factory() if f.default_factory is not MISSING else MISSING
    )


@cache
def _field_docs(cls: type) -> dict[str, str]:
    """The string literal below each annotated field, over the whole inheritance chain."""
    docs: dict[str, str] = {}
    for base in reversed([c for c in cls.__mro__ if is_dataclass(c)]):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        except (OSError, TypeError, SyntaxError):
            continue
        assert isinstance(body, ast.ClassDef)
        for node, following in zip(body.body, body.body[1:]):
            if (
                isinstance(node, ast.AnnAssign)
                and isinstance(node.target, ast.Name)
                and isinstance(following, ast.Expr)
                and isinstance(following.value, ast.Constant)
            ):
                docs[node.target.id] = " ".join(str(following.value.value).split())
    return docs
