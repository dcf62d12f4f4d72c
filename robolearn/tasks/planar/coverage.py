"""Area of overlap of two T shapes: exact, batched, by Green's theorem on clipped edges."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from robolearn.tasks.arrays import Array, light, namespace, tensor

BAR = (0.0, 0.030857, 0.072, 0.018)
STEM = (0.0, -0.041143, 0.018, 0.054)
"""Centre x, y and half extents of the T's two rectangles, in the frame of its centre of mass, metres."""

_AREA = 4.0 * (BAR[2] * BAR[3] + STEM[2] * STEM[3])
_EPS = 1e-6 * math.sqrt(2.0)
"""By how much shapes are shrunk, metres. No round number: of two parallel edges that lie exactly so far apart, rounding
decides whether one counts, and people and tests put a T at round places."""
_PARALLEL = 1e-12


def _edges() -> tuple[np.ndarray, np.ndarray]:
    """Return starts and vectors of both rectangles' edges, counter-clockwise in the T's frame, (8,) each, as x + iy."""
    turns = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = np.array(
        [[x + i * half_x + 1j * (y + j * half_y) for i, j in turns] for x, y, half_x, half_y in (BAR, STEM)]
    )
    return corners.ravel(), (np.roll(corners, -1, axis=1) - corners).ravel()


_NORMALS = np.array([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
"""x and y of the outward normals of a rectangle's four sides."""
_SIDES = np.array([np.array(r[:2]) @ _NORMALS + np.array(r[2:]) @ abs(_NORMALS) for r in (BAR, STEM)])
"""(2, 4): how far the sides of either rectangle lie from the T's origin, along their normals."""


@cache
def _constants(dtype: torch.dtype, device: torch.device) -> tuple[Array, ...]:
    """Return starts and vectors of the edges, (8,) complex, and x, y and distance of sides for (4, 2, N, 16) arrays."""
    starts, alongs = (light(torch.as_tensor(z, dtype=dtype.to_complex(), device=device)) for z in _edges())
    values = (_NORMALS[0][:, None, None, None], _NORMALS[1][:, None, None, None], _SIDES.T[..., None, None])
    return starts, alongs, *(light(torch.as_tensor(v, dtype=dtype, device=device)) for v in values)


def coverage(
    position: torch.Tensor, yaw: torch.Tensor, goal_position: torch.Tensor, goal_yaw: torch.Tensor
) -> torch.Tensor:
    """Return the share of the goal's area that the T covers, (N,) in [0, 1].

    Args:
        position, goal_position: (N, 2) metres.
        yaw, goal_yaw: (N,) radians.

    The rectangles of a T do not overlap, so the areas of the four pairs add up. The boundary of an intersection is the
    part of each boundary inside the other shape, and by Green's theorem the part of an edge p + t a between t0 and t1
    adds (t1 - t0) p x a / 2. Edges that coincide must count once where the shapes lie on the same side of them, and not
    at all where they lie on opposite sides: so the goal's edges pass a side of the T's that faces the same way, and
    everything else is clipped against slightly shrunk shapes.
    """
    starts, alongs, nx, ny, sides = _constants(yaw.dtype, yaw.device)
    xp, turn, goal_turn = namespace(light(yaw)), _direction(yaw), _direction(goal_yaw)
    apart = light(position) - light(goal_position)
    offset = apart[:, :1] + 1j * apart[:, 1:]
    # The T's edges in the goal's frame, and the goal's in the T's frame, (N, 8) each; x + iy.
    turned = turn * goal_turn.conj()
    ours, ours_along = offset * goal_turn.conj() + turned * starts, turned * alongs
    theirs, theirs_along = turned.conj() * starts - offset * turn.conj(), turned.conj() * alongs
    start, along = xp.concatenate((ours, theirs), 1), xp.concatenate((ours_along, theirs_along), 1)
    x, y, dx, dy = start.real, start.imag, along.real, along.imag  # (N, 16)
    rate = dx * nx + dy * ny  # (4, 1, N, 16): how fast an edge leaves through a side
    faces = dy * nx - dx * ny > 0
    faces[..., :8] = False
    distance = x * nx + y * ny - xp.where(faces, sides + _EPS, sides - _EPS)  # (4, 2, N, 16): beyond a side
    # Who runs along a side leaves through it far away, or has left it long ago where outside.
    crossing = distance / -xp.where(abs(rate) < _PARALLEL, _PARALLEL, rate)
    enters = rate <= -_PARALLEL
    length = xp.amin(xp.where(enters, 1.0, crossing), 0) - xp.amax(crossing * enters, 0)  # (2, N, 16)
    inside = length.clip(0.0, 1.0).sum(0)  # the share of the edge in either rectangle
    # Both kinds of edge, seen from one origin: that of the goal.
    about_goal = inside[:, :8] * (ours.conj() * ours_along).imag + inside[:, 8:] * (starts.conj() * alongs).imag
    area = 0.5 * about_goal.sum(-1)
    return tensor((area / _AREA).clip(0.0, 1.0))


def _direction(yaw: torch.Tensor) -> Array:
    """Return exp(i yaw), (N, 1)."""
    return namespace(light(yaw)).exp(1j * light(yaw))[:, None]
