"""`robolearn view`: recorded episodes in the browser."""

from __future__ import annotations

from robolearn.configuration.view import ViewConfig
from robolearn.errors import ConfigError

CONFIG = ViewConfig


def run(config: ViewConfig) -> int:
    try:
        from robolearn.teleop.view.app import view
    except ImportError as error:
        raise ConfigError(f"the viewer needs {error.name}; install it with: pip install 'robolearn[teleop]'") from None
    view(config)
    return 0
