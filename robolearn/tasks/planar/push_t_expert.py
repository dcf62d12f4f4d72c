"""PushT's scripted expert: choose where to push by a quasi-static model, go there around the T, push, look again.

Model (Goyal et al. 1991, ellipsoidal limit surface): a frictionless push of length s along the inward normal n at p
moves the centre of mass by s n / (1 + t^2) and turns the T by s (t / c) / (1 + t^2), with t = (p x n) / c and c the
ratio of the largest torque to the largest force that friction under the T can take.

What it does follows from what is observed, so that a policy without memory can learn it: a way counts by the length of
the shortest path around the T. A step along that path shortens it by as much as any other can become shorter at most,
so what was best when the puck set out stays best until it arrives.
"""

from __future__ import annotations

import torch

from robolearn.tasks.draw import Draw
from robolearn.tasks.planar.coverage import BAR, STEM
from robolearn.tasks.planar.planar_task import HIGH, LOW
from robolearn.tasks.scripted import ScriptedExpert, limit

_PUCK_M = 0.018
_TORQUE_RATIO_M = 0.055
_LEVER_M = 0.07
"""Metres of position that a radian of heading counts for."""
_CLEAR_M = 0.008
"""Distance from the T at which the puck lines up for a push."""
_MARGIN_M = 0.004
"""Distance from the T that ways keep."""
_DONE_M = 0.0005
"""A push shorter than this is finished."""
_LAZINESS = 0.45
"""Share of the squared error that a metre of way is worth."""
_PATIENCE = 0.15
"""What a push that has been lined up is worth beyond others, in the same unit."""


class PushTExpert(ScriptedExpert):
    """Greedy: the push that removes most of the error, less the way there."""

    tremor = (0.01, 0.05)
    drift = (0.0, 0.05)

    def __init__(self, num_envs: int, action_size: int, device: torch.device):
        points, normals = _contacts()
        self._points, self._normals = points.to(device), normals.to(device)
        self._touch = self._points - self._normals * _PUCK_M
        """(C, 2): where the puck's centre is when it touches."""
        self._before = self._touch - self._normals * _CLEAR_M
        lever = points[:, 0] * normals[:, 1] - points[:, 1] * normals[:, 0]
        t = lever / _TORQUE_RATIO_M
        gain = 1.0 / (1.0 + t * t)
        motion = torch.cat((normals * gain[:, None], (gain * t / _TORQUE_RATIO_M)[:, None] * _LEVER_M), dim=-1)
        self._motion = motion.to(device)
        self._norms = (self._motion**2).sum(-1)
        self._corners = _corners().to(device)
        self._onward = _shortest_ways(self._corners, self._before)
        super().__init__(num_envs, action_size, device)

    def style(self, draw: Draw) -> None:
        self._pace = draw.uniform(0.7, 1.0).float()
        self._push_pace = draw.uniform(0.3, 0.45).float()

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        heading = obs["object"][:, 2:4]
        puck = _into(heading, -obs["object"][:, 4:6])
        cosine, sine = obs["goal"][:, 4:6].unbind(-1)
        turn = _LEVER_M * torch.atan2(sine, cosine)
        error = torch.cat((_into(heading, obs["goal"][:, 2:4]), turn[:, None]), dim=-1)
        length = (error @ self._motion.T) / self._norms  # (N, C): of the push that helps most
        share = torch.clamp(length, min=0.0) ** 2 * self._norms / (error**2).sum(-1, keepdim=True).clamp(min=1e-8)
        way, towards = self._ways(puck)
        lined_up, ahead, beside = self._lined_up(puck)
        value = share - _LAZINESS * torch.where(lined_up, 0.0, way) + _PATIENCE * (lined_up & (length > _DONE_M))
        value = value - 9.0 * ~self._reachable(obs["object"][:, :2], heading)
        contact = value.argmax(dim=-1, keepdim=True)
        chosen = torch.arange(len(puck), device=puck.device)[:, None], contact
        pushing = self._push(contact[:, 0], ahead[chosen], beside[chosen[0][:, 0], contact[:, 0]], length[chosen])
        direction = limit(1e6 * (towards[chosen][:, 0] - puck), 1.0)  # round a corner as fast as anywhere
        travel = limit(direction * (25.0 * way[chosen]).clamp(max=1.0) + self._shy(puck), self._pace)
        return _out_of(heading, torch.where(lined_up[chosen], pushing, travel))

    def _reachable(self, tee: torch.Tensor, heading: torch.Tensor) -> torch.Tensor:
        """Return (N, C) bool: the puck can stand at this contact without leaving its workspace."""
        where = tee[:, None] + _out_of(heading[:, None], self._touch[None])
        low, high = (torch.tensor(corner, device=where.device) for corner in (LOW, HIGH))
        return ((where > low + 0.01) & (where < high - 0.01)).all(dim=-1)

    def _lined_up(self, puck: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return whether the puck (N, 2) can push at each contact (N, C), how far it is beyond touching it (N, C), and
        the way to the line of the push (N, C, 2)."""
        relative = puck[:, None] - self._touch
        ahead = (relative * self._normals).sum(-1)
        beside = ahead[..., None] * self._normals - relative
        near = (ahead > -_CLEAR_M - 0.004) & (ahead < 0.004)
        return near & (torch.linalg.vector_norm(beside, dim=-1) < 0.006), ahead, beside

    def _push(
        self, contact: torch.Tensor, ahead: torch.Tensor, beside: torch.Tensor, length: torch.Tensor
    ) -> torch.Tensor:
        """Return (N, 2): up to the contact, and on by `length` (N, 1)."""
        normal = self._normals[contact]
        advance = normal * torch.clamp(60.0 * length + 0.12, max=1.0) * self._push_pace
        approach = limit(normal * torch.clamp(-30.0 * ahead, 0.12, 1.0) + 20.0 * beside, self._pace)
        return torch.where(ahead < -0.002, approach, advance + 10.0 * beside)

    def _ways(self, puck: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the length of the shortest way of the puck (N, 2) to each contact (N, C), and its next point
        (N, C, 2): the contact's own, or a corner that the way goes round."""
        stops = torch.cat((self._corners, self._before))
        leg = torch.linalg.vector_norm(stops - puck[:, None], dim=-1)
        room = (_clearance(puck) - 0.0005).clamp(max=_PUCK_M + _MARGIN_M)  # the T may be touched already
        leg = leg + 9.0 * _blocked(puck[:, None], stops[None], room[:, None])
        corners = len(self._corners)
        direct, round_corner = leg[:, corners:, None], leg[:, None, :corners] + self._onward.T
        way, first = torch.cat((direct, round_corner), dim=-1).min(dim=-1)
        around = self._corners[(first - 1).clamp(min=0)]
        return way, torch.where((first == 0)[..., None], self._before, around)

    def _shy(self, puck: torch.Tensor) -> torch.Tensor:
        """Return (N, 2): away from a T that is nearer than ways may go."""
        excess, clearance = _nearest(puck)
        away = excess / clearance[:, None].clamp(min=1e-6)
        return away * torch.clamp(40.0 * (_PUCK_M + _MARGIN_M - clearance), 0.0, 0.3)[:, None]


def _contacts(spacing: float = 0.02) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (C, 2) points on the T's outline and (C, 2) inward normals, in the frame of its centre of mass."""
    top, low = BAR[1] + BAR[3], BAR[1] - BAR[3]
    bottom, wide, narrow = STEM[1] - STEM[3], BAR[2], STEM[2]
    inner = _PUCK_M + _MARGIN_M + 0.001  # from the corners between bar and stem
    edges = [
        ((-wide, top), (wide, top), (0.0, -1.0)),
        ((-wide, low), (-wide, top), (1.0, 0.0)),
        ((wide, low), (wide, top), (-1.0, 0.0)),
        ((-wide, low), (-narrow - inner, low), (0.0, 1.0)),
        ((narrow + inner, low), (wide, low), (0.0, 1.0)),
        ((-narrow, bottom), (-narrow, low - inner), (1.0, 0.0)),
        ((narrow, bottom), (narrow, low - inner), (-1.0, 0.0)),
        ((-narrow, bottom), (narrow, bottom), (0.0, 1.0)),
    ]
    points, normals = [], []
    for start, end, normal in edges:
        a, b = torch.tensor(start), torch.tensor(end)
        length = float(torch.linalg.vector_norm(b - a)) - 0.008
        count = max(1, round(length / spacing))
        share = 0.5 + (torch.linspace(-0.5, 0.5, count + 1) * length / (length + 0.008))
        points.append(a + share[:, None] * (b - a))
        normals.append(torch.tensor(normal).expand(count + 1, 2))
    return torch.cat(points), torch.cat(normals)


def _corners() -> torch.Tensor:
    """Return (K, 2) points that a shortest way around the T may go by."""
    out = _PUCK_M + _MARGIN_M + 0.002
    bar = [(i * (BAR[2] + out), BAR[1] + j * (BAR[3] + out)) for i in (-1, 1) for j in (-1, 1)]
    return torch.tensor([*bar, *((i * (STEM[2] + out), STEM[1] - STEM[3] - out) for i in (-1, 1))])


def _shortest_ways(corners: torch.Tensor, goals: torch.Tensor) -> torch.Tensor:
    """Return (K, G): the length of the shortest way from each corner to each goal that touches nothing."""
    stops = torch.cat((corners, goals))
    legs = torch.linalg.vector_norm(stops - corners[:, None], dim=-1)
    legs = legs + 9.0 * _blocked(corners[:, None], stops[None], legs.new_tensor(_PUCK_M + _MARGIN_M))
    between, ways = legs[:, : len(corners)], legs[:, len(corners) :]
    for _ in corners:  # Bellman and Ford
        ways = torch.minimum(ways, (between[:, :, None] + ways).amin(dim=1))
    return ways


def _blocked(start: torch.Tensor, end: torch.Tensor, room: torch.Tensor) -> torch.Tensor:
    """Return whether the straight way from `start` to `end` (..., 2), in the T's frame, comes nearer to the T than
    `room` (...), measured along x and y: bool (...)."""
    along = end - start
    along = torch.where(along.abs() < 1e-9, 1e-9, along)
    blocked = torch.zeros(torch.broadcast_shapes(start.shape, end.shape)[:-1], dtype=torch.bool, device=start.device)
    for x, y, half_x, half_y in (BAR, STEM):
        half = along.new_tensor([half_x, half_y]) + room[..., None]
        centre = along.new_tensor([x, y])
        first, last = (centre - half - start) / along, (centre + half - start) / along
        enters = torch.minimum(first, last).amax(dim=-1).clamp(min=0.0)
        leaves = torch.maximum(first, last).amin(dim=-1).clamp(max=1.0)
        blocked |= enters < leaves
    return blocked


def _nearest(puck: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vector from the nearest point of the T to the puck's centre (N, 2), and its length (N,)."""
    excess = []
    for x, y, half_x, half_y in (BAR, STEM):
        offset = puck - puck.new_tensor([x, y])
        half = puck.new_tensor([half_x, half_y])
        excess.append(offset - torch.minimum(torch.maximum(offset, -half), half))
    bar, stem = excess
    distances = torch.linalg.vector_norm(torch.stack((bar, stem)), dim=-1)
    return torch.where((distances[0] < distances[1])[:, None], bar, stem), distances.amin(dim=0)


def _clearance(puck: torch.Tensor) -> torch.Tensor:
    """Return (N,): how far the puck's centre lies outside the T along x or y, whichever is more."""
    outside = []
    for x, y, half_x, half_y in (BAR, STEM):
        outside.append(((puck - puck.new_tensor([x, y])).abs() - puck.new_tensor([half_x, half_y])).amax(dim=-1))
    return torch.minimum(*outside)


def _into(heading: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Turn world vectors (..., 2) into the frame of a body with `heading` (cos, sin)."""
    c, s = heading.unbind(-1)
    return torch.stack((c * vector[..., 0] + s * vector[..., 1], c * vector[..., 1] - s * vector[..., 0]), dim=-1)


def _out_of(heading: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return the inverse of `_into`."""
    c, s = heading.unbind(-1)
    return torch.stack((c * vector[..., 0] - s * vector[..., 1], s * vector[..., 0] + c * vector[..., 1]), dim=-1)
