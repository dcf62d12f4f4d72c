"""YAML files of plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from robolearn.configuration.tree.values import to_dict
from robolearn.errors import ConfigError
from robolearn.storage import absence, write_text


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping; only plain values, never objects, and no key twice.

    Raises ConfigError.
    """
    try:
        data = yaml.load(Path(path).read_text(encoding="utf-8"), _UniqueKeys)
    except FileNotFoundError:
        raise ConfigError(f"cannot read the configuration {path}: it {absence(path)}") from None
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping of keys to values, received {type(data).__name__}")
    return data


def write_yaml(config: Any, path: str | Path) -> None:
    """Write the resolved configuration, so that an output says how it was made."""
    write_text(path, yaml.safe_dump(to_dict(config), sort_keys=False, allow_unicode=True))


class _UniqueKeys(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, of which YAML's own readers keep the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                raise yaml.YAMLError(f"the key {key.value!r} stands in lines {lines[key.value]} and {line}; keep one")
        return super().construct_mapping(node, deep)
