"""Drive with a policy: observation history, chunk queue, ensembling and noise, per environment.

With To=2, Tp=4 and Ta=3 (queue: what is left of the chunk predicted at the marked steps):

    time         t0   t1   t2   t3   t4
    history      0 0  0 1  1 2  2 3  3 4     the first frame is repeated
    predicts     *              *
    executes     a0   a1   a2   b0   b1      a3 is dropped
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from robolearn.errors import PolicyError
from robolearn.policies.noise import RowNoise
from robolearn.policies.policy import Policy

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
        Tp = policy.config.pred_steps
        self.exec_steps = policy.config.exec_steps if exec_steps is None else exec_steps
        if not 1 <= self.exec_steps <= Tp:
            raise PolicyError(f"exec_steps must be between 1 and the policy's pred_steps {Tp}, received {exec_steps}")
        if inference_rows < 1 or num_envs < 1:
            raise PolicyError(f"num_envs and inference_rows must be positive, received {num_envs}, {inference_rows}")
        self.policy, self.num_envs, self.deterministic = policy, num_envs, deterministic
        self.temporal_ensemble, self.inference_rows = temporal_ensemble, inference_rows
        self.device = next(policy.parameters()).device
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
    def window(self) -> dict[str, Tensor]:
        """(N, To, ...) per key, the observations up to those of the last `act`."""
        return self._history

    def plan(self, row: int) -> Tensor:
        """Return (T, A), what environment `row` is meant to do after the last `act`, as far as that is predicted.

        T may be 0, and steps beyond Ta will be predicted again.
        """
        if self.temporal_ensemble is None:
            return self._chunks[row, self._next[row] :]
        live = self._weights[row] > 0
        return self._chunks[row, live] / self._weights[row, live, None]

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor]) -> Tensor:
        """Return what the policy proposes, (N, A) in [-1, 1], on its device, given observations (N, ...).

        To be called once per control step, also while somebody else drives, so that the history is complete.
        """
        self._remember(obs)
        if self.temporal_ensemble is not None:
            return self._ensemble(self._predict(list(range(self.num_envs))))
        due = [row for row, index in enumerate(self._next) if index >= self.exec_steps]
        if due:
            self._chunks[due] = self._predict(due)
            for row in due:
                self._next[row] = 0
        rows = torch.arange(self.num_envs, device=self.device)
        actions = self._chunks[rows, torch.tensor(self._next, device=self.device)]
        self._next = [index + 1 for index in self._next]
        return actions

    def _rows(self, mask: Tensor | None) -> list[int]:
        return list(range(self.num_envs)) if mask is None else torch.as_tensor(mask).nonzero()[:, 0].tolist()

    def _remember(self, obs: Mapping[str, Tensor]) -> None:
        """Append observations to the history, (N, To, ...) per key."""
        for key, spec in self.policy.observation_spec.items():
            if key not in obs:
                raise PolicyError(f"the policy needs observation {key!r}; the environment gives {list(obs)}")
            value = obs[key]
            if value.shape != (self.num_envs, *spec.shape):
                raise PolicyError(
                    f"observation {key!r} must have shape {(self.num_envs, *spec.shape)} for this policy, "
                    f"received {tuple(value.shape)}"
                )
            value = value.to(self.device).unsqueeze(1)
            To = self.policy.config.obs_steps
            repeated = value.expand(-1, To, *spec.shape)
            if key not in self._history:
                self._history[key] = repeated.clone()
                continue
            moved = torch.cat([self._history[key][:, 1:], value], dim=1)
            fresh = self._fresh.to(self.device).view(-1, *[1] * (moved.ndim - 1))
            self._history[key] = torch.where(fresh, repeated, moved)
        self._fresh.zero_()

    def _predict(self, rows: list[int]) -> Tensor:
        """Predict chunks (len(rows), Tp, A), in passes of `inference_rows` rows each, the last one padded."""
        was_training = self.policy.training
        if was_training:
            self.policy.eval()
        chunks = []
        for start in range(0, len(rows), self.inference_rows):
            part = rows[start : start + self.inference_rows]
            padding = self.inference_rows - len(part)
            index = torch.tensor(part + part[:1] * padding, device=self.device)
            generators = [self._generators[row] for row in part] + [self._padding] * padding
            window = {key: value[index] for key, value in self._history.items()}
            noise = RowNoise(generators, self.device)
            chunks.append(self.policy.act(window, deterministic=self.deterministic, noise=noise)[: len(part)])
        if was_training:
            self.policy.train()
        return torch.cat(chunks)

    def _ensemble(self, chunks: Tensor) -> Tensor:
        """Add the newest chunks (N, Tp, A) to the running weighted sums and take the first step of their mean."""
        assert self.temporal_ensemble is not None
        weights = torch.exp(-self.temporal_ensemble * self._ages)
        self._chunks = torch.where(self._weights[..., None] > 0, self._chunks, 0.0) + weights[..., None] * chunks
        self._weights = self._weights + weights
        self._ages = self._ages + 1
        actions = self._chunks[:, 0] / self._weights[:, :1]
        self._chunks, self._weights, self._ages = (
            torch.cat([x[:, 1:], torch.zeros_like(x[:, :1])], dim=1) for x in (self._chunks, self._weights, self._ages)
        )
        return actions
