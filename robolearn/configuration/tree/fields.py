"""Facts of a dataclass's fields: sections, unions told apart by `name`, defaults and help texts."""

from __future__ import annotations

import ast
import difflib
import inspect
import textwrap
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from robolearn.errors import ConfigError

MAX_LISTED = 30
"""Known keys that an error lists."""


def unknown_key(key: str, known: Sequence[str], where: str) -> ConfigError:
    """The error for a key nobody knows, with the closest known one."""
    close = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    listed = ", ".join(sorted(known)[:MAX_LISTED]) + (" ..." if len(known) > MAX_LISTED else "")
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {listed}"
    return ConfigError(f"unknown key {key!r}{f' in {where}' if where else ''}; {hint}")


def select_member(members: list[Any], value: Any, where: str, default: Any) -> Any:
    """The union member that `value` (a mapping with `name`, or a bare name) is meant for."""
    if not tag_values(members[0]):
        return members[0]
    tag = value.get("name") if isinstance(value, Mapping) else value
    if tag is None:
        return type(default) if type(default) in members else members[0]
    for member in members:
        if tag in tag_values(member):
            return member
    known = [name for member in members for name in tag_values(member)]
    raise ConfigError(f"{where} must be one of {', '.join(known)}; received {tag!r}")


def sections(kind: Any) -> list[Any]:
    """The dataclasses in an annotation: [D] for D, [D, E] for D | E, [] for plain values."""
    candidates = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [c for c in candidates if isinstance(c, type) and is_dataclass(c)]


def tag_values(cls: Any) -> tuple[str, ...]:
    kind = get_type_hints(cls).get("name")
    return get_args(kind) if get_origin(kind) is Literal else ()


def is_optional(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType) and type(None) in get_args(kind)


def is_none(kind: Any, value: Any) -> bool:
    """Return whether `value` is none for an annotation that allows it; on the command line it is written as a word."""
    word = isinstance(value, str) and value.lower() in ("none", "null")
    return is_optional(kind) and (value is None or word)


def strip_optional(kind: Any) -> Any:
    if not is_optional(kind):
        return kind
    rest = [a for a in get_args(kind) if a is not type(None)]
    return rest[0] if len(rest) == 1 else Any


def default_of(f: Field[Any]) -> Any:
    return (
        f.default if f.default is not MISSING else f.default_factory() if f.default_factory is not MISSING else MISSING
    )


def first_changed(config: Any, names: Sequence[str]) -> str | None:
    """Return the first of these fields of a dataclass that is not at its default; None where all are."""
    usual = {f.name: default_of(f) for f in fields(config)}
    return next((name for name in names if getattr(config, name) != usual[name]), None)


@cache
def field_docs(cls: type) -> dict[str, str]:
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
