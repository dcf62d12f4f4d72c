"""Physics and visual randomisation: per-episode models, drawn from the episode's seed."""

# pyright: reportAttributeAccessIssue=false
from __future__ import annotations

import math
from collections.abc import Mapping

import mujoco
import numpy as np
import torch

from robolearn.tasks.draw import Draw
from robolearn.tasks.task import Task

_PHYSICS, _VISUALS = 11, 12


def physics(task: Task, seeds: torch.Tensor, amount: float) -> dict[str, torch.Tensor]:
    """Draw sliding friction of the task's geoms, masses of its bodies, and servo gains, each scaled by a random factor.

    Args:
        seeds: (N,) int64.
        amount: 1 scales friction and mass by up to 1.5 either way and gains by up to 1.15; 0 changes nothing.

    Returns values for `Simulation.set_model`.
    """
    model, draw = task.model, Draw(seeds, _PHYSICS)
    values = _copies(
        model, ("geom_friction", "body_mass", "body_inertia", "actuator_gainprm", "actuator_biasprm"), seeds
    )
    for name in task.random_friction:
        values["geom_friction"][:, model.geom(name).id, 0] *= _factor(draw, 1.5, amount)
    for name in task.random_mass:
        body, factor = model.body(name).id, _factor(draw, 1.5, amount)
        values["body_mass"][:, body] *= factor
        values["body_inertia"][:, body] *= factor[:, None]
    gain = _factor(draw, 1.15, amount)[:, None, None]
    values["actuator_gainprm"] *= gain
    values["actuator_biasprm"] *= gain
    return values


def visuals(task: Task, seeds: torch.Tensor, amount: float) -> dict[str, torch.Tensor]:
    """Draw colours of materials, direction and brightness of lights, and camera poses, each moved at random."""
    model, draw = task.model, Draw(seeds, _VISUALS)
    values = _copies(model, ("mat_rgba", "light_diffuse", "light_dir", "cam_pos"), seeds)
    tint = 0.25 * amount * draw.uniform(-1, 1, 3 * model.nmat).unflatten(-1, (model.nmat, 3))
    values["mat_rgba"][..., :3] = torch.clamp(values["mat_rgba"][..., :3] + tint, 0.02, 1.0)
    values["light_diffuse"] *= _factor(draw, 1.5, amount)[:, None, None]
    values["light_dir"] += 0.3 * amount * draw.uniform(-1, 1, 3 * model.nlight).unflatten(-1, (model.nlight, 3))
    values["cam_pos"] += 0.02 * amount * draw.uniform(-1, 1, 3 * model.ncam).unflatten(-1, (model.ncam, 3))
    return values


def _copies(model: mujoco.MjModel, names: tuple[str, ...], seeds: torch.Tensor) -> dict[str, torch.Tensor]:
    fields: Mapping[str, np.ndarray] = {name: np.asarray(getattr(model, name), np.float64) for name in names}
    return {
        name: torch.as_tensor(value, device=seeds.device).expand(len(seeds), *value.shape).clone()
        for name, value in fields.items()
    }


def _factor(draw: Draw, most: float, amount: float) -> torch.Tensor:
    """Return (N,) log-uniform between 1/most and most, drawn towards 1 by a smaller `amount`."""
    return torch.exp(amount * math.log(most) * draw.uniform(-1, 1)[:, 0])
