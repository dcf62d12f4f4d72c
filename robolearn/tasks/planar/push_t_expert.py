"""PushT's scripted expert: choose where to push by a quasi-static model, go there around the T, push, look again.

Model (Goyal et al. 1991, ellipsoidal limit surface): a frictionless push of length s along the inward normal n at p
moves the centre of mass by s n / (1 + t^2) and turns the T by s (t / c) / (1 + t^2), with t = (p x n) / c and c the
ratio of the largest torque to the largest force that friction under the T can take.
"""

from __future__ import annotations

import math

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
_RING_M = 0.15
_DONE_M = 0.0005
"""A push shorter than this is finished."""
_OVERSHOOT, _MOST_OVERSHOOT_M = 0.2, 0.012
"""Distance that a push goes past its own optimum: a share of the whole error, and never more than this."""


class PushTExpert(ScriptedExpert):
    """Remembers which contact it is working on, so that it does not dither between equals."""

    tremor = (0.01, 0.05)
    drift = (0.0, 0.05)

    def __init__(self, num_envs: int, action_size: int, device: torch.device):
        points, normals = _contacts()
        self._points, self._normals = points.to(device), normals.to(device)
        lever = points[:, 0] * normals[:, 1] - points[:, 1] * normals[:, 0]
        t = lever / _TORQUE_RATIO_M
        gain = 1.0 / (1.0 + t * t)
        motion = torch.cat((normals * gain[:, None], (gain * t / _TORQUE_RATIO_M)[:, None] * _LEVER_M), dim=-1)
        self._motion = motion.to(device)
        self._norms = (self._motion**2).sum(-1)
        self._contact = torch.full((num_envs,), -1, dtype=torch.int64, device=device)
        super().__init__(num_envs, action_size, device)

    def forget(self, mask: torch.Tensor) -> None:
        self._contact[mask] = -1

    def style(self, draw: Draw) -> None:
        self._pace = draw.uniform(0.7, 1.0).float()
        self._push_pace = draw.uniform(0.3, 0.45).float()
        self._laziness = draw.uniform(0.2, 0.7).float()
        self._taste = 1.0 + 0.08 * draw.normal(len(self._points)).float()
        self._sense = torch.where(draw.unit(1) < 0.5, -1.0, 1.0).float()

    def plan(self, obs: dict[str, torch.Tensor]) -> torch.Tensor:
        heading = obs["object"][:, 2:4]
        puck = _into(heading, -obs["object"][:, 4:6])
        turn = _LEVER_M * _angle(obs["goal"][:, 4:6])
        error = torch.cat((_into(heading, obs["goal"][:, 2:4]), turn[:, None]), dim=-1)
        wanted = self._choose(puck, error, self._reachable(obs["object"][:, :2], heading))
        return _out_of(heading, self._step(puck, wanted[:, None]))

    def _reachable(self, tee: torch.Tensor, heading: torch.Tensor) -> torch.Tensor:
        """Return (N, C) bool: the puck can stand at this contact without leaving its workspace."""
        c, s = heading[:, None, :1], heading[:, None, 1:]
        x, y = self._station()[..., :1], self._station()[..., 1:]
        where = tee[:, None] + torch.cat((c * x - s * y, s * x + c * y), dim=-1)
        low, high = (torch.tensor(corner, device=where.device) for corner in (LOW, HIGH))
        return ((where > low + 0.01) & (where < high - 0.01)).all(dim=-1)

    def _choose(self, puck: torch.Tensor, error: torch.Tensor, reachable: torch.Tensor) -> torch.Tensor:
        """Choose the contact to work on and return (N,) how far to push there.

        Args:
            puck: (N, 2) in the T's frame.
            error: (N, 3): what is left to move (metres, heading times lever).
            reachable: (N, C) bool.

        A contact is worth the share of the squared error that its best push removes, less the way there. The present
        one stays until its push is done; the push goes somewhat past its own optimum, because the next one, usually
        on the other side, undoes part of it.
        """
        size = torch.linalg.vector_norm(error, dim=-1, keepdim=True).clamp(min=1e-4)
        length = (error @ self._motion.T) / self._norms
        share = torch.clamp(length, min=0.0) ** 2 * self._norms / size**2
        way = torch.linalg.vector_norm(self._station() - puck[:, None], dim=-1)
        share = torch.where(reachable, share, torch.zeros_like(share))
        best = (share * self._taste - self._laziness * way - (~reachable).float()).argmax(dim=-1)
        current = self._contact.clamp(min=0)[:, None]
        wanted = length + torch.clamp(_OVERSHOOT * size, max=_MOST_OVERSHOOT_M)
        further = wanted.gather(1, current)[:, 0]
        worse = share.gather(1, current)[:, 0] < 0.35 * share.amax(dim=-1)
        begun = torch.linalg.vector_norm(self._station()[current[:, 0]] - puck, dim=-1) < 0.01
        stale = (self._contact < 0) | (further < _DONE_M) | (worse & ~begun)
        self._contact = torch.where(stale, best, self._contact)
        return wanted.gather(1, self._contact[:, None])[:, 0]

    def _station(self) -> torch.Tensor:
        """Return (C, 2): where the puck's centre is when it touches each contact."""
        return self._points - self._normals * _PUCK_M

    def _step(self, puck: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Return (N, 2) action in the T's frame: on the way to the contact, or pushing `wanted` (N, 1) metres on."""
        point, normal = self._points[self._contact], self._normals[self._contact]
        touch = point - normal * _PUCK_M
        before = touch - normal * _CLEAR_M
        relative = puck - touch
        ahead = (relative * normal).sum(-1, keepdim=True)
        beside = torch.linalg.vector_norm(relative - ahead * normal, dim=-1, keepdim=True)
        lined_up = (beside < 0.006) & (ahead < 0.004)
        advance = normal * torch.clamp(60.0 * wanted + 0.12, max=1.0) * self._push_pace
        centre = 20.0 * (ahead * normal - relative)
        approach = limit(normal * torch.clamp(-30.0 * ahead, 0.12, 1.0) + centre, self._pace)
        pushing = torch.where(ahead < -0.002, approach, advance + 0.5 * centre)
        travel = self._around(puck, before, normal)
        return torch.where(lined_up, pushing, travel)

    def _around(self, puck: torch.Tensor, target: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        """Return (N, 2) velocity towards `target`: straight where the way is free, else by way of a ring."""
        direct = limit(25.0 * (target - puck), self._pace)
        gate = target - normal * torch.clamp(_RING_M - torch.linalg.vector_norm(target, dim=-1, keepdim=True), min=0.02)
        inward = limit(25.0 * (gate - puck), self._pace)
        bearing, goal = _angle(puck), _angle(gate)
        turn = torch.remainder(goal - bearing + math.pi, 2 * math.pi) - math.pi
        # Opposite sides are equally far either way round; a person picks one.
        sense = torch.where(turn.abs() > 2.6, self._sense[:, 0], torch.sign(turn))
        ahead = bearing + sense * torch.clamp(turn.abs(), max=0.5)
        ring = _RING_M * torch.stack((torch.cos(ahead), torch.sin(ahead)), dim=-1)
        radial = puck / torch.linalg.vector_norm(puck, dim=-1, keepdim=True).clamp(min=1e-6)
        outside = torch.linalg.vector_norm(puck, dim=-1, keepdim=True) > _RING_M - 0.02
        circling = torch.where(outside, limit(25.0 * (ring - puck), self._pace), radial * self._pace)
        step = torch.where(_free(puck, gate)[:, None], inward, circling)
        return torch.where(_free(puck, target)[:, None], direct, step)


def _contacts(spacing: float = 0.012) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (C, 2) points on the T's outline and (C, 2) inward normals, in the frame of its centre of mass."""
    top, low = BAR[1] + BAR[3], BAR[1] - BAR[3]
    bottom, wide, narrow = STEM[1] - STEM[3], BAR[2], STEM[2]
    edges = [
        ((-wide, top), (wide, top), (0.0, -1.0)),
        ((-wide, low), (-wide, top), (1.0, 0.0)),
        ((wide, low), (wide, top), (-1.0, 0.0)),
        ((-wide, low), (-narrow - _PUCK_M, low), (0.0, 1.0)),
        ((narrow + _PUCK_M, low), (wide, low), (0.0, 1.0)),
        ((-narrow, bottom), (-narrow, low - _PUCK_M), (1.0, 0.0)),
        ((narrow, bottom), (narrow, low - _PUCK_M), (-1.0, 0.0)),
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


def _free(start: torch.Tensor, end: torch.Tensor) -> torch.Tensor:
    """Return (N,) bool: the puck can go straight from `start` to `end` (N, 2), in the T's frame, touching nothing."""
    share = torch.linspace(0.0, 1.0, 24, device=start.device)
    path = start[:, None] + share[:, None] * (end - start)[:, None]
    blocked = torch.zeros(path.shape[:2], dtype=torch.bool, device=start.device)
    for x, y, half_x, half_y in (BAR, STEM):
        centre = path.new_tensor([x, y])
        excess = ((path - centre).abs() - path.new_tensor([half_x, half_y])).clamp(min=0.0)
        blocked |= torch.linalg.vector_norm(excess, dim=-1) < _PUCK_M + 0.003
    # Where the puck touches already, leaving is free: what counts is the way after the first centimetre.
    leaving = torch.linalg.vector_norm(path - start[:, None], dim=-1) < 0.012
    return ~(blocked & ~leaving).any(dim=-1)


def _angle(vector: torch.Tensor) -> torch.Tensor:
    """Map (N, 2) -> (N,) radians."""
    return torch.atan2(vector[:, 1], vector[:, 0])


def _into(heading: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Turn world vectors (N, 2) in the frame of a body with `heading` (cos, sin)."""
    c, s = heading.unbind(-1)
    return torch.stack((c * vector[:, 0] + s * vector[:, 1], c * vector[:, 1] - s * vector[:, 0]), dim=-1)


def _out_of(heading: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """Return the inverse of `_into`."""
    c, s = heading.unbind(-1)
    return torch.stack((c * vector[:, 0] - s * vector[:, 1], s * vector[:, 0] + c * vector[:, 1]), dim=-1)
