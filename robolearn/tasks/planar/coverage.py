"""Area of overlap of two T shapes: exact, batched, by Green's theorem on clipped edges."""

from __future__ import annotations

import torch

BAR = (0.0, 0.030857, 0.072, 0.018)
STEM = (0.0, -0.041143, 0.018, 0.054)
"""Centre x, y and half extents of the T's two rectangles, in the frame of its centre of mass, metres."""

_AREA = 4.0 * (BAR[2] * BAR[3] + STEM[2] * STEM[3])
_EPS = 1e-6


def coverage(
    position: torch.Tensor, yaw: torch.Tensor, goal_position: torch.Tensor, goal_yaw: torch.Tensor
) -> torch.Tensor:
    """Return the share of the goal's area that the T covers.

    Args:
        position, goal_position: (N, 2) metres.
        yaw, goal_yaw: (N,) radians.

    Returns (N,) in [0, 1]. The rectangles of a T do not overlap, so the areas of the four pairs add up.
    """
    total = torch.zeros_like(yaw)
    for ours in (BAR, STEM):
        for theirs in (BAR, STEM):
            total = total + _rectangles(_corners(position, yaw, ours), _corners(goal_position, goal_yaw, theirs))
    return torch.clamp(total / _AREA, 0.0, 1.0)


def _corners(position: torch.Tensor, yaw: torch.Tensor, rectangle: tuple[float, ...]) -> torch.Tensor:
    """Return (N, 4, 2) corners, counter-clockwise, world frame."""
    x, y, half_x, half_y = rectangle
    signs = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=yaw.dtype, device=yaw.device)
    local = torch.tensor([x, y], dtype=yaw.dtype, device=yaw.device) + signs * signs.new_tensor([half_x, half_y])
    c, s = torch.cos(yaw)[:, None], torch.sin(yaw)[:, None]
    turned = torch.stack((c * local[:, 0] - s * local[:, 1], s * local[:, 0] + c * local[:, 1]), dim=-1)
    return position[:, None] + turned


def _rectangles(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return (N,) areas of intersection of two (N, 4, 2) rectangles.

    The boundary of the intersection is the part of each boundary inside the other shape. Edges that coincide must
    count once where the shapes lie on the same side of them, and not at all where they lie on opposite sides: so b's
    edges pass a half-plane of a that faces the same way, and everything else is clipped against slightly shrunk shapes.
    """
    origin = b.mean(dim=1, keepdim=True)  # numbers near zero keep float32 exact enough
    a, b = a - origin, b - origin
    return 0.5 * (_inside(a, b, shared=False) + _inside(b, a, shared=True))


def _inside(a: torch.Tensor, b: torch.Tensor, *, shared: bool) -> torch.Tensor:
    """Return (N,) twice the share of a's edges, clipped to b, in the enclosed area; `shared` edges count here."""
    start, along = a, torch.roll(a, -1, dims=1) - a
    sides = torch.roll(b, -1, dims=1) - b
    normals = torch.stack((sides[..., 1], -sides[..., 0]), dim=-1)
    normals = normals / torch.linalg.vector_norm(normals, dim=-1, keepdim=True)  # outward, for counter-clockwise b
    own = torch.stack((along[..., 1], -along[..., 0]), dim=-1)
    same_way = (own[:, :, None] * normals[:, None]).sum(-1) > 0
    margin = torch.where(same_way & shared, _EPS, -_EPS)
    distance = ((start[:, :, None] - b[:, None]) * normals[:, None]).sum(-1) - margin
    rate = (along[:, :, None] * normals[:, None]).sum(-1)
    parallel = rate.abs() < 1e-12
    crossing = -distance / torch.where(parallel, torch.ones_like(rate), rate)
    outside = (parallel & (distance > 0)).any(-1)
    enter = torch.where(~parallel & (rate < 0), crossing, -torch.inf).amax(-1).clamp(min=0.0)
    leave = torch.where(~parallel & (rate > 0), crossing, torch.inf).amin(-1).clamp(max=1.0)
    first, last = start + enter[..., None] * along, start + leave[..., None] * along
    area = first[..., 0] * last[..., 1] - first[..., 1] * last[..., 0]
    return torch.where((leave > enter) & ~outside, area, torch.zeros_like(area)).sum(-1)
