"""How fast an arm task can be solved: by its expert in a hurry, at the very least, and how near a policy comes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.experts import make_expert
from robolearn.envs.interface import Observation
from robolearn.envs.make import make
from robolearn.evaluation.evaluate import evaluate
from robolearn.policies.policy import Policy
from robolearn.seeds import REPORT_SEED
from robolearn.tasks.task import Task

SEEDS = range(REPORT_SEED, REPORT_SEED + 100)
PACED = ("Lift", "PickPlace", "Stack", "PegInsert")
"""Tasks that have such bounds."""
REACH_M = 0.02
"""How far from its middle a cube or a handle can be grasped."""


def hurried_seconds(name: str) -> float:
    """Return the expert's median time to success on the fresh seeds without what makes demonstrations slow: at full
    pace, straight, no higher than needed, and without waiting, tremor or drift."""
    with make(name, 50) as env:
        expert: Any = make_expert("auto", env)

        class Hurried:
            def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
                expert.reset(seeds, mask)
                for style in (expert._tremor, expert._drift, expert._bow, expert.patience):
                    style.zero_()
                expert._pace.fill_(math.sqrt(3.0))  # the limits are those of each axis
                expert.hover.fill_(0.03)

            def act(self, obs: Observation) -> torch.Tensor:
                return expert.act(obs)

        result = evaluate(Hurried(), env, SEEDS, name=f"{name} hurried")
    print(result, flush=True)
    assert result.median_time_to_success_s is not None
    return result.median_time_to_success_s


def least_seconds(name: str) -> float:
    """Return the median over the fresh seeds of a time that no controller can beat: every leg of the way at top speed
    along its longest axis and the steps that success must last, with nothing for starting, braking and the fingers."""
    with make(name, len(SEEDS)) as env:
        steps = torch.ceil(_least_way(name, env.reset(SEEDS)) / env.action_spec.high[0]) + Task.hold_steps - 1
        return float(np.median(steps.numpy())) / env.control_hz


def top_speed_share(policy: Policy, task: TaskConfig, episodes: int) -> float:
    """Return the tool's speed along its fastest axis over the limit of its actions: the mean over all steps, those held
    included, of at most so many of the fresh seeds."""
    seeds = SEEDS[:episodes]
    with make(task, min(50, len(seeds))) as env:
        result = evaluate(policy, env, seeds, record="trajectory", record_limit=len(seeds))
        limit = env.action_spec.high[0]
    tools = [episode.trajectory.obs["proprio"][:, :3] for episode in result.episodes if episode.trajectory is not None]
    moved = np.concatenate([np.abs(np.diff(tool, axis=0)).max(axis=-1) for tool in tools])
    return float(np.minimum(moved / limit, 1.0).mean())


def _least_way(name: str, obs: Observation) -> torch.Tensor:
    """Return (N,) metres."""
    body = obs["object"]
    grasp = _longest(body[:, :3] - obs["proprio"][:, :3], REACH_M)
    match name:
        case "Lift":
            return grasp + 0.10
        case "PickPlace":  # into a bin of 8 cm
            return grasp + _longest(obs["goal"][:, :2] - body[:, :2], 0.04)
        case "Stack":  # within 15 mm
            return grasp + _longest(body[:, 12:14] - body[:, :2], 0.015)
        case "PegInsert":  # out of its stand as deep as into the hole, 30 mm
            return grasp + 0.03 + _longest(obs["goal"][:, :2] - body[:, 12:14], 0.004) + 0.03
        case _:
            raise ValueError(f"{name} has no known way")


def _longest(offset: torch.Tensor, slack: float) -> torch.Tensor:
    return (offset.abs().amax(-1) - slack).clamp(min=0.0)
