"""Windows of demonstrations in memory, drawn beside the rows of a rollout: what a cloning loss is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from robolearn.configuration.parts.reading import NOTHING, Reading
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.windows import WindowSampler
from robolearn.imitation.agreement import check_init_policy
from robolearn.policies.policy import Policy
from robolearn.rl.engine.minibatches import split_observation
from robolearn.specs import Observation

READ_AT_ONCE = 1024


class Shown(NamedTuple):
    """B windows of demonstrations."""

    obs: Observation
    """(B, To, ...)."""
    actions: Tensor
    """(B, Tp, A) in [-1, 1]."""
    valid: Tensor
    """(B, Tp) bool."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Shown:
        """Apply a function to every tensor."""
        return Shown({k: function(v) for k, v in self.obs.items()}, function(self.actions), function(self.valid))

    def split(self, size: int) -> list[Shown]:
        """Cut into parts of `size` rows, the last one shorter where they do not come out even; parts are views."""
        parts = zip(split_observation(self.obs, size), self.actions.split(size), self.valid.split(size))
        return [Shown(*fields) for fields in parts]


class ShownWindows:
    """All windows of some files, as a policy sees them."""

    def __init__(self, windows: Shown, weight: float) -> None:
        """
        Args:
            weight: of the cloning loss.
        """
        self.windows, self.weight = windows, weight

    @classmethod
    def read(
        cls,
        paths: Sequence[str | Path],
        policy: Policy,
        *,
        weight: float,
        reading: Reading = NOTHING,
        place: object = "",
        device: torch.device | str = "cpu",
    ) -> ShownWindows:
        """Return the windows of recorded files; where there are labels they take the place of what was executed.

        Args:
            place: the policy's folder, for messages.

        Raises DatasetError where a file cannot be read, PolicyError where it is not for this policy.
        """
        config = policy.config
        with Dataset(paths, reading=reading) as dataset:
            check_init_policy(policy, dataset, place)
            sampler = WindowSampler(
                dataset,
                obs_steps=config.obs_steps,
                pred_steps=config.pred_steps,
                batch_size=READ_AT_ONCE,
                seed=0,
                obs_keys=tuple(policy.observation_spec),
                target="labels",
                drop_last=False,
                device=device,
            )
            parts = [Shown(b.obs, b.actions[:, b.obs_steps - 1 :], b.target_valid) for b in sampler]
        obs = {key: torch.cat([part.obs[key] for part in parts]) for key in parts[0].obs}
        return cls(Shown(obs, torch.cat([p.actions for p in parts]), torch.cat([p.valid for p in parts])), weight)

    def draw(self, count: int, generator: torch.Generator) -> Shown:
        """Return `count` windows, each drawn by itself."""
        device = self.windows.actions.device
        rows = torch.randint(len(self.windows.actions), (count,), generator=generator, device=generator.device)
        return self.windows.map(lambda field: field[rows.to(device)])
