"""Configuration: frozen dataclass trees <-> YAML <-> command line.

A verb's configuration is one frozen, keyword-only dataclass tree. YAML gives values, the command line overrides them:

    robolearn train --config configs/train/pick_place.yaml --policy.head.num_modes 8

Rules, the same in YAML and on the command line:

- an unknown key is an error that names the closest known one, and so is a key given twice;
- a section may be a union of dataclasses told apart by their `name: Literal[...]` field (policy heads, for example);
  changing `name` on the command line starts that section afresh;
- a plain value given for a section sets the section's first field: `--policy.head mixture`, `--task gym:Hopper-v5`;
- help texts are the docstrings below the fields, and a verb's class names in `COMMON` the keys that people change.
"""

from robolearn.configuration.tree.fields import unknown_key
from robolearn.configuration.tree.options import Option, common_groups, options
from robolearn.configuration.tree.overrides import load
from robolearn.configuration.tree.values import from_dict, to_dict
from robolearn.configuration.tree.yaml_files import read_yaml, write_yaml

__all__ = [
    "Option",
    "common_groups",
    "from_dict",
    "load",
    "options",
    "read_yaml",
    "to_dict",
    "unknown_key",
    "write_yaml",
]
