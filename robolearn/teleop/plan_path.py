"""The policy's plan as a path through the scene: where its next actions mean to take the tool."""

from __future__ import annotations

import numpy as np

from robolearn.envs.interface import VectorEnv

TOOL = "tcp"
"""Name of the site that the actions move."""
AXES = ("delta_x", "delta_y", "delta_z")


def intended_path(env: VectorEnv, plan: np.ndarray) -> np.ndarray:
    """Return (T + 1, 3) metres, from where the tool is, if every action moved it by all that it asks for.

    (0, 3) where there is no plan, or actions do not move a site called TOOL along the world's axes.

    Args:
        plan: (T, A) actions in [-1, 1].
    """
    world, names = env.world(0), env.action_spec.names
    moved = [AXES.index(name) for name in names if name in AXES]
    if world is None or not len(plan) or not moved or all(world[0].site(i).name != TOOL for i in range(world[0].nsite)):
        return np.zeros((0, 3))
    steps = np.zeros((len(plan) + 1, 3))
    columns = [place for place, name in enumerate(names) if name in AXES]
    steps[1:, moved] = env.action_spec.to_physical(np.asarray(plan, np.float32))[:, columns]
    return world[1].site(TOOL).xpos + np.cumsum(steps, axis=0)
