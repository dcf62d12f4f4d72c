"""Find an OpenGL back end that works for MuJoCo on this machine, and say what to install where none does.

Lies below every package because physics, environments and evaluation all draw pictures.
"""

from __future__ import annotations

import functools
import importlib
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from robolearn.errors import TaskError

ADVICE = (
    "pictures need OpenGL, which this machine lacks; on Debian or Ubuntu: "
    "apt-get install libegl1 libgl1-mesa-dri libosmesa6 (MUJOCO_GL=egl, osmesa or glfw chooses by hand)"
)

_PROBE_S = 60.0
_PROBE = """
import mujoco
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='1' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
assert renderer.render().max() > 0
"""


@functools.cache
def find_backend() -> str | None:
    """Return "egl", "osmesa", "glfw" or None: the first that draws a picture; MUJOCO_GL decides where it is set.

    They are tried in a subprocess: one that fails may abort the process, or leave a library loaded that bars the next.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    return next((name for name in ([wanted] if wanted else _candidates()) if _works(name)), None)


def prepare() -> str:
    """Make MuJoCo and the environments on it draw with the back end found; returns its name.

    Cheap after the first call. Raises TaskError, saying what to install, where OpenGL is missing.
    """
    name = find_backend()
    if name is None:
        raise TaskError(ADVICE)
    load_compilers()
    if os.environ.get("MUJOCO_GL", "").lower().strip() != name:
        os.environ["MUJOCO_GL"] = name
        _rebind(name)
    return name


def load_compilers() -> None:
    """Load what must be loaded before OpenGL is, which windows may use as well as pictures.

    Mesa draws on processors by way of LLVM, and triton, which torch's compiler and optimisers load where it is
    installed, brings an LLVM of its own: loaded after Mesa's it crashes the process, before it both work.
    """
    with suppress(ImportError):
        importlib.import_module("triton")


def _candidates() -> list[str]:
    if sys.platform == "darwin":
        return ["cgl"]
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return ["egl", "osmesa"] + (["glfw"] if display else [])


def _works(name: str) -> bool:
    environment = os.environ | ({} if name == "cgl" else {"MUJOCO_GL": name})
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, timeout=_PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return probe.returncode == 0


def _rebind(name: str) -> None:
    """MuJoCo reads MUJOCO_GL once, on import; this makes up for a later choice."""
    for module_name in ("mujoco.rendering.classic.gl_context", "mujoco.gl_context"):
        module: Any = sys.modules.get(module_name)
        if module is not None:
            module.GLContext = importlib.import_module(f"mujoco.{name}").GLContext
