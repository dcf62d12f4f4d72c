"""Pictures of worlds, drawn by C MuJoCo's renderer for both back ends."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import atexit
import copy
import math
import weakref
from typing import Any

import mujoco
import numpy as np

from robolearn.sim import rendering

_QUICK_SHADOW = 1024
"""Texels along a side of the shadow map."""
_SMALL = 128
"""Pixels along a side of a picture that shows no more facets of a round body than a dozen."""
_LOOKS = ("geom_rgba", "mat_rgba", "light_pos", "light_dir", "light_diffuse", "cam_pos", "cam_quat")


class Pictures:
    """One renderer for all worlds of a model; not to be shared between threads."""

    def __init__(self, model: mujoco.MjModel, height: int, width: int, *, quick: bool = False):
        """
        Args:
            quick: for somebody who looks on, and never for a policy: coarse shadows and no antialiasing, which are
                three fourths of what a picture costs where the processor draws.

        Raises TaskError, saying what to install, where OpenGL is missing.
        """
        rendering.prepare()
        self._model = copy.copy(model)
        # Shadows finer than the picture shows, and facets smaller than its pixels, are most of what a frame costs where
        # the processor draws.
        quality = self._model.vis.quality
        quality.shadowsize = min(quality.shadowsize, 2 ** math.ceil(math.log2(4 * max(height, width))))
        if max(height, width) <= _SMALL:
            quality.numslices, quality.numstacks = min(quality.numslices, 12), min(quality.numstacks, 8)
        if quick:
            quality.shadowsize, quality.offsamples = min(quality.shadowsize, _QUICK_SHADOW), 0
        self._renderer: Any = mujoco.Renderer(self._model, height, width)
        self._close = weakref.finalize(self, self._renderer.close)
        # Also at interpreter exit, and before OpenGL goes, whose own exit function is older than this one. That of
        # `finalize` may not be: it is registered with the process's first finaliser.
        self._close.atexit = False
        atexit.register(self._close)

    def draw(self, model: mujoco.MjModel, data: mujoco.MjData, camera: str | int) -> np.ndarray:
        """Draw (height, width, 3) uint8 from one camera. `model` may differ from ours in colours, lights, cameras."""
        for name in _LOOKS:
            getattr(self._model, name)[:] = getattr(model, name)
        self._renderer.update_scene(data, camera)
        return self._renderer.render().copy()

    def close(self) -> None:
        self._close()
