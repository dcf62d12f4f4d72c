"""Drive with a policy: observation history, chunk queue, ensembling and noise, per environment.

With To=2, Tp=4 and Ta=3 (queue: what is left of the chunk predicted at the marked steps):

    time         t0   t1   t2   t3   t4
    history      0 0  0 1  1 2  2 3  3 4     the first frame is repeated
    predicts     *              *
    executes     a0   a1   a2   b0   b1      a3 is dropped

Where the policy is a correction of another one, the chunks are the other's, and each action is corrected as it is due.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from robolearn.deploy.still_dimensions import StillDimensions
from robolearn.errors import PolicyError
from robolearn.policies.noise import RowNoise
from robolearn.policies.policy import Policy
from robolearn.policies.residual import BASE_ACTION

INFERENCE_ROWS = 16
"""Matrix products over this many rows give each row the same bits wherever it stands (tests hold this), which products
over 8 rows do not always: small edges take other kernels."""


class PolicyRunner:
    """Drives N environments with one policy.

    An episode's actions depend on its observations and its seed alone, bit for bit: not on N, not on which other
    episodes run beside it, not on when those ask for new chunks.
    """

    def __init__(
        self,
        policy: Policy,
        num_envs: int,
        *,
        deterministic: bool = True,
        exec_steps: int | None = None,
        temporal_ensemble: float | None = None,
        inference_rows: int = INFERENCE_ROWS,
    ) -> None:
        """
        Args:
            deterministic: take the policy's mode instead of a sample.
            exec_steps: Ta, at most Tp; None takes the policy's own.
            temporal_ensemble: predict at every step and average what all live chunks say about it with weights
                exp(-m i), i = 0 for the oldest (Zhao et al. 2023 use m = 0.01); None executes chunks in turn.
            inference_rows: rows of each forward pass, padded; 1 has the least latency with a single environment.
        """
        self.policy, self.num_envs, self.deterministic = policy, num_envs, deterministic
        self.planner, self.corrections = policy.planner, policy.corrections
        Tp = self.planner.config.pred_steps
        self.exec_steps = policy.config.exec_steps if exec_steps is None else exec_steps
        if not 1 <= self.exec_steps <= Tp:
            raise PolicyError(f"exec_steps must be between 1 and the policy's pred_steps {Tp}, received {exec_steps}")
        if inference_rows < 1 or num_envs < 1:
            raise PolicyError(f"num_envs and inference_rows must be positive, received {num_envs}, {inference_rows}")
        self.temporal_ensemble, self.inference_rows = temporal_ensemble, inference_rows
        self.device = next(policy.parameters()).device
        self._still = StillDimensions(policy.planner)
        self._generators = [torch.Generator() for _ in range(num_envs)]
        self._padding = torch.Generator()
        self._history: dict[str, Tensor] = {}
        self._fresh = torch.ones(num_envs, dtype=torch.bool)
        self._chunks = torch.zeros(num_envs, Tp, policy.action_spec.size, device=self.device)
        self._weights = torch.zeros(num_envs, Tp, device=self.device)
        self._ages = torch.zeros(num_envs, Tp, device=self.device)
        self._next = [self.exec_steps] * num_envs

    def reset(self, seeds: Sequence[int] | None = None, mask: Tensor | None = None) -> None:
        """Begin new episodes: forget history and chunks, and seed the noise.

        Args:
            seeds: one per masked environment, in order; None draws them from torch's global generator.
            mask: (N,) bool, which environments; None means all.
        """
        rows = self._rows(mask)
        if seeds is None:
            seeds = torch.randint(2**62, (len(rows),)).tolist()
        if len(seeds) != len(rows):
            raise PolicyError(f"reset needs one seed for each of {len(rows)} environments, received {len(seeds)}")
        for row, seed in zip(rows, seeds):
            self._generators[row].manual_seed(int(seed))
        self._fresh[rows] = True
        self.replan(mask)

    def replan(self, mask: Tensor | None = None) -> None:
        """Drop what is left of the chunks, but keep the history: after someone else has driven."""
        rows = self._rows(mask)
        for row in rows:
            self._next[row] = self.exec_steps
        self._weights[rows] = 0.0
        self._ages[rows] = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences on what was odd while driving, for people; each is warned of as well."""
        return tuple(self._still.notes)

    @property
    def window(self) -> dict[str, Tensor]:
        """(N, To, ...) per key, the observations up to those of the last `act`."""
        return self._history

    def plan(self, row: int) -> Tensor:
        """Return (T, A), what environment `row` is meant to do after the last `act`, as far as that is predicted.

        Before corrections, where there are any. T may be 0, and steps beyond Ta will be predicted again.
        """
        if self.temporal_ensemble is None:
            return self._chunks[row, self._next[row] :]
        live = self._weights[row] > 0
        return self._chunks[row, live] / self._weights[row, live, None]

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], mask: Tensor | None = None) -> Tensor:
        """Return what the policy proposes, (N, A) in [-1, 1], on its device, given observations (N, ...).

        To be called once per control step, also while somebody else drives, so that the history is complete.

        Args:
            mask: (N,) bool, the environments that made a step; rows of the others mean nothing. None means all.
        """
        rows = self._rows(mask)
        self._remember(obs, rows)
        actions = torch.zeros(self.num_envs, self.policy.action_spec.size, device=self.device)
        actions[rows] = self._due(rows) if self.temporal_ensemble is None else self._ensemble(rows)
        for correction in self.corrections:
            actions[rows] = self._corrected(correction, actions, rows)
        return actions

    def _rows(self, mask: Tensor | None) -> list[int]:
        return list(range(self.num_envs)) if mask is None else torch.as_tensor(mask).nonzero()[:, 0].tolist()

    def _due(self, rows: list[int]) -> Tensor:
        """Return the next actions (len(rows), A) of the chunks, of new ones where the old are used up."""
        used_up = [row for row in rows if self._next[row] >= self.exec_steps]
        if used_up:
            self._chunks[used_up] = self._plan(used_up)
            for row in used_up:
                self._next[row] = 0
        actions = self._chunks[rows, [self._next[row] for row in rows]]
        for row in rows:
            self._next[row] += 1
        return actions

    def _remember(self, obs: Mapping[str, Tensor], rows: list[int]) -> None:
        """Append the rows' observations to the history, (N, To, ...) per key."""
        moving = torch.zeros(self.num_envs, dtype=torch.bool)
        moving[rows] = True
        for key, spec in self.policy.observation_spec.items():
            if key not in obs:
                raise PolicyError(f"the policy needs observation {key!r}; the environment gives {list(obs)}")
            value = obs[key]
            if value.shape != (self.num_envs, *spec.shape):
                raise PolicyError(
                    f"observation {key!r} must have shape {(self.num_envs, *spec.shape)} for this policy, "
                    f"received {tuple(value.shape)}"
                )
            self._still.look(key, value)
            value = value.to(self.device).unsqueeze(1)
            To = self.planner.config.obs_steps
            repeated = value.expand(-1, To, *spec.shape)
            if key not in self._history:
                self._history[key] = repeated.clone()
                continue
            moved = torch.cat([self._history[key][:, 1:], value], dim=1)
            moved = torch.where(_wide(self._fresh, moved), repeated, moved)
            everyone = len(rows) == self.num_envs
            self._history[key] = moved if everyone else torch.where(_wide(moving, moved), moved, self._history[key])
        self._fresh[rows] = False

    def _plan(self, rows: list[int]) -> Tensor:
        """Return new chunks (len(rows), Tp, A) of the planner."""
        keys = tuple(self.planner.observation_spec)
        return self._predict(self.planner, rows, lambda index: {key: self._history[key][index] for key in keys})

    def _corrected(self, correction: Policy, actions: Tensor, rows: list[int]) -> Tensor:
        """Return the rows' actions (len(rows), A) corrected, given all actions (N, A)."""
        keys = [key for key in correction.observation_spec if key != BASE_ACTION]

        def window(index: Tensor) -> dict[str, Tensor]:
            return {key: self._history[key][index, -1:] for key in keys} | {BASE_ACTION: actions[index, None]}

        return self._predict(correction, rows, window)[:, 0]

    def _predict(self, policy: Policy, rows: list[int], window: Callable[[Tensor], dict[str, Tensor]]) -> Tensor:
        """Predict chunks (len(rows), Tp, A), in passes of `inference_rows` rows each, the last one padded.

        Args:
            window: gives the windows (B, To, ...) of environments (B,).
        """
        was_training = policy.training
        if was_training:
            policy.eval()
        chunks = []
        for start in range(0, len(rows), self.inference_rows):
            part = rows[start : start + self.inference_rows]
            padding = self.inference_rows - len(part)
            index = torch.tensor(part + part[:1] * padding, device=self.device)
            generators = [self._generators[row] for row in part] + [self._padding] * padding
            noise = RowNoise(generators, self.device)
            chunks.append(policy.act(window(index), deterministic=self.deterministic, noise=noise)[: len(part)])
        if was_training:
            policy.train()
        return torch.cat(chunks)

    def _ensemble(self, rows: list[int]) -> Tensor:
        """Add the newest chunks to the rows' running weighted sums; return the first step of their mean, (rows, A)."""
        assert self.temporal_ensemble is not None
        sums, total, ages = self._chunks[rows], self._weights[rows], self._ages[rows]
        weights = torch.exp(-self.temporal_ensemble * ages)
        sums = torch.where(total[..., None] > 0, sums, 0.0) + weights[..., None] * self._plan(rows)
        total, ages = total + weights, ages + 1
        actions = sums[:, 0] / total[:, :1]
        for kept, moved in zip((self._chunks, self._weights, self._ages), (sums, total, ages)):
            kept[rows] = torch.cat([moved[:, 1:], torch.zeros_like(moved[:, :1])], dim=1)
        return actions


def _wide(rows: Tensor, like: Tensor) -> Tensor:
    """Return (N,) flags in the shape (N, 1, ...) and on the device of `like`."""
    return rows.to(like.device).view(-1, *[1] * (like.ndim - 1))
