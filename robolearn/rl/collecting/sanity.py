"""Refuses observations that no network learns from: not finite, or of a magnitude that drowns everything else.

The bounds that an environment declares are no test of this: MuJoCo tasks declare infinite ones and stay near one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from robolearn.envs.interface import Observation
from robolearn.errors import TrainingError

LARGEST = 1e6
"""Magnitude beyond which float32 cannot tell changes of a tenth apart, and any first layer saturates."""


def check_observation(
    obs: Observation,
    keys: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: Tensor,
    mask: Tensor | None = None,
    largest: float = LARGEST,
) -> None:
    """Raise TrainingError naming environment, episode, step and key of the first value beyond `largest`.

    Args:
        obs: (N, ...) per key. On a GPU nothing is looked at: it would stall the stream at every step, and the finite
            losses that the training loop insists on find it there.
        keys: those that the learner reads.
        seeds: of the N running episodes.
        steps: (N,) control steps that led to `obs`.
        mask: (N,) bool, the rows that count; None means all.
        largest: infinity where observations are normalised on the way into the networks.
    """
    for key in keys:
        value = obs[key]
        if value.device.type != "cpu" or not value.is_floating_point():
            continue
        limit = min(largest, torch.finfo(value.dtype).max)
        # A NaN is the largest value of its tensor and no comparison with it holds.
        if float(value.abs().max()) <= limit:
            continue
        bad = ~(value.unsqueeze(-1).flatten(1).abs().amax(1) <= limit)
        if mask is not None:
            bad &= mask
        if bad.any():
            i = int(bad.nonzero()[0, 0])
            raise TrainingError(_message(key, i, value[i], seeds[i], int(steps[i]), largest))


def no_reward(env_steps: int, reward: str) -> str:
    """Return what a run says that never saw a reward, and what helps.

    Args:
        reward: whose rewards they are: "success" or "env", as for fine-tuning.
    """
    wanted = "no episode was solved" if reward == "success" else "every reward was zero"
    return (
        f"no reward was seen in {env_steps} steps of practice ({wanted}), so nothing was learned. What helps: a policy "
        "that solves the task now and then (more demonstrations, DAgger), longer episodes (max_steps), more of them, "
        "or a reward that tells better from worse (finetune: --reward env); check that success is read from where the "
        "task says it (--task.success_key)"
    )


def _message(key: str, env: int, value: Tensor, seed: int, step: int, largest: float) -> str:
    flat = value.flatten()
    place = f"observation {key!r} of environment {env} at step {step} of the episode with seed {seed}"
    broken = ~flat.isfinite()
    if broken.any():
        where = int(broken.nonzero()[0, 0])
        return (
            f"{place} has entry {where} {flat[where].item()}; observations must be finite. Mend the task, or leave the "
            "key out (task.obs_keys)"
        )
    where = int(flat.abs().argmax())
    return (
        f"{place} has entry {where} {flat[where].item():g}, beyond {largest:g}: too large to learn from as it is. "
        "Normalise observations (algorithm.normalise_obs true), scale it in the task, or leave the key out "
        "(task.obs_keys)"
    )
