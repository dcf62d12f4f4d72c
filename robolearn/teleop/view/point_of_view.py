"""From where the scene is looked at."""

from __future__ import annotations

from dataclasses import dataclass

FREE = "free"
ZOOM = (0.2, 5.0)


@dataclass(frozen=True, kw_only=True)
class View:
    """A point of view: a camera of the model by name, or a free one around its centre."""

    camera: str = FREE
    azimuth: float = 140.0
    elevation: float = -25.0
    zoom: float = 1.0
