"""Find profiles and action maps: in `teleop/` of the workspace one stands in, then among the shipped ones."""

from __future__ import annotations

from pathlib import Path

from robolearn.configuration.teleop import ActionMap, Profile
from robolearn.configuration.tree import load
from robolearn.errors import ConfigError, DeviceError
from robolearn.workspace import template


def folders() -> tuple[Path, ...]:
    """Return the folders that are searched, one's own first."""
    return Path("teleop"), template() / "teleop"


def load_profile(device: str, profile: str | Path | None = None) -> Profile:
    """Return a device's profile.

    Args:
        profile: a file, or the name of one in `teleop/`; None takes the one named like the device.

    Raises ConfigError where there is none, or where it is faulty or for another device.
    """
    path = _find(str(profile or device))
    try:
        found = load(Profile, path)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if found.device != device:
        raise ConfigError(f"{path} is a profile for {found.device}, expected one for {device}")
    return found


def action_maps() -> dict[Path, ActionMap]:
    """Return all action maps, one's own first. Raises ConfigError naming a faulty file."""
    maps: dict[Path, ActionMap] = {}
    for path in (p for folder in folders() for p in sorted((folder / "actions").glob("*.yaml"))):
        if path.resolve() in {known.resolve() for known in maps}:
            continue
        try:
            maps[path] = load(ActionMap, path)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None
    return maps


def _find(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise DeviceError(f"there is no profile {path}; {_known()}")
        return path
    for folder in folders():
        if (folder / f"{name}.yaml").is_file():
            return folder / f"{name}.yaml"
    raise DeviceError(f"there is no profile {name!r}; {_known()}")


def _known() -> str:
    found = sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})
    return f"known: {', '.join(found)} (teleop/NAME.yaml), or give a file"
