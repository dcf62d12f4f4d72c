"""The device that a configuration names."""

from __future__ import annotations

import torch

from robolearn.errors import ConfigError


def resolve_device(name: str) -> torch.device:
    """Return the torch device `name`, or for `auto` a GPU where there is one, else the processor.

    Raises ConfigError where the device cannot be used here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device {name!r} cannot be used here ({reason}); use auto or cpu") from None
    return device
