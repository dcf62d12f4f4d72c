"""The leaves of a configuration class, as the command line, its help and the completions see them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from robolearn.configuration.tree.fields import default_of, field_docs, sections, strip_optional, tag_values


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


def options(cls: type, prefix: str = "", section: Any = None) -> Iterator[Option]:
    """Yield all leaves of a configuration class, depth first; union sections yield the fields of all their members.

    Args:
        section: the value that holds where nothing is given; defaults are then its own, if it is one of this class.
    """
    seen: set[str] = set()
    hints, docs = get_type_hints(cls), field_docs(cls)
    for f in fields(cls):
        key, members = prefix + f.name, sections(hints[f.name])
        default = getattr(section, f.name) if type(section) is cls else default_of(f)
        if members:
            names = tuple(n for m in members for n in tag_values(m))
            aliases = (f"{key}.name",) if names else ()
            text = docs.get(f.name, "")
            yield Option(key=key, type=str, default=default, help=text, choices=names, aliases=aliases)
            for option in (o for m in members for o in options(m, key + ".", default)):
                if option.key not in seen and option.key not in aliases:
                    seen.add(option.key)
                    yield option
            continue
        kind = strip_optional(hints[f.name])
        yield Option(
            key=key,
            type=kind,
            default=default,
            help=docs.get(f.name, ""),
            choices=tuple(map(str, get_args(kind))) if get_origin(kind) is Literal else (),
            positional=bool(f.metadata.get("positional")),
            open=get_origin(kind) in (dict, Mapping) or kind is dict,
        )


def common_groups(cls: type) -> dict[str, tuple[str, ...]]:
    """Return {title: keys} of what people change, as the class's `COMMON` declares it; empty where it has none.

    Every key is one of `options(cls)`, and none stands twice: a configuration that says otherwise is a fault of ours.
    """
    groups: dict[str, tuple[str, ...]] = dict(getattr(cls, "COMMON", {}))
    named = [key for keys in groups.values() for key in keys]
    unknown = set(named) - {option.key for option in options(cls)}
    assert not unknown, f"{cls.__name__}.COMMON names {sorted(unknown)}, which are no keys"
    assert len(set(named)) == len(named), f"{cls.__name__}.COMMON names a key twice: {named}"
    return groups
