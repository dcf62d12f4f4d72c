"""robolearn: record demonstrations, clone them, correct them with DAgger, fine-tune the same policy with RL.

Importing the package is cheap: torch and MuJoCo load with the first part that needs them.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from robolearn.envs.make import make
    from robolearn.policies.folder import load_policy

try:
    __version__ = version("robolearn")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0.0.0"

_LAZY = {
    "make": ("robolearn.envs.make", "make"),
    "load_policy": ("robolearn.policies.folder", "load_policy"),
}

__all__ = ["__version__", "load_policy", "make"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'robolearn' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
