"""The leftovers of a conversion: arrays, groups and attributes of any type, each once, with its shape."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import h5py
import numpy as np

from robolearn.datasets.format import checked as safe
from robolearn.datasets.format.leaves import describe, walk
from robolearn.errors import DatasetError
from robolearn.specs import join_key

MAX_TEXT = 40


def left_over(group: h5py.Group, taken: set[str], attributes: Iterable[str], where: str) -> Iterator[str]:
    """Yield a line for each array, group and attribute below `group` that is not taken.

    Args:
        taken: paths of arrays below the group.
        attributes: names of the group's attributes that are taken.
        where: how the group is called in the lines: "data/demo_i".
    """
    try:
        for path, data in walk(group):
            name = join_key(path)
            if name not in taken:
                yield f"{where}/{name} {describe(data)}, not taken"
        yield from _other_children(group, where)
    except DatasetError as error:
        yield f"{where}: {error}, not taken"
    for name in sorted(set(group.attrs) - set(attributes)):
        yield f"attribute {name} of {where} {_value(group, name)}, not taken"


def per_episode(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines of several episodes once each: with the shapes of the first episode that has them."""
    seen: set[str] = set()
    for line in lines:
        name = line.partition(" (")[0]
        if name not in seen:
            seen.add(name)
            yield line


def _other_children(group: h5py.Group, where: str) -> Iterator[str]:
    for name in safe.names(group):
        child = safe.open_child(group, name)
        if isinstance(child, h5py.Group):
            if not len(child):
                yield f"{where}/{name} (an empty group), not taken"
            for attribute in child.attrs:
                yield f"attribute {attribute} of {where}/{name} {_value(child, attribute)}, not taken"


def _value(group: h5py.HLObject, name: str) -> str:
    with safe.reading(f"{safe.Place(group)} attribute {name}"):
        attribute = group.attrs.get_id(name)
        if attribute.shape:
            return f"({', '.join(map(str, attribute.shape))}) {attribute.dtype}"
        if attribute.get_storage_size() > safe.MAX_ATTR_BYTES:
            return "(of an absurd size)"
        value = (
            safe.decoded(np.asarray(group.attrs[name], object)) if attribute.dtype.kind == "O" else group.attrs[name]
        )
        text = str(safe.decoded(value))
        return f"({text[:MAX_TEXT]}...)" if len(text) > MAX_TEXT else f"({text})"
