"""A tiny learner and a source of batches whose every number can be recomputed."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.loop import OptimiserConfig
from robolearn.training.optim import MovingAverage, Optimiser


class Regression:
    """Fits a linear map with noise on its inputs, so that the global generator matters."""

    def __init__(self, total_steps: int = 100, **optimiser: Any) -> None:
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        config = OptimiserConfig(**{"warmup_steps": 3, "ema_every": 2, "max_grad_norm": 1.0} | optimiser)
        self.optimiser = Optimiser(self.network, config, total_steps)
        self.average = MovingAverage(self.network, config)

    def update(self, batch: dict[str, Tensor]) -> dict[str, Tensor | float]:
        noisy = batch["x"] + 0.1 * torch.randn_like(batch["x"])
        loss = (self.network(noisy)[:, 0] - batch["y"]).square().mean()
        norm = self.optimiser.step(loss)
        self.average.update()
        return {"loss": loss.detach(), **norm, "constant": 2.0}

    def state_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "average": self.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.average.load_state_dict(state["average"])

    def weights(self) -> Tensor:
        parameters = [*self.network.parameters(), *self.average.module.parameters()]
        return torch.cat([p.detach().flatten() for p in parameters])


class Counting:
    """Batch n is a function of n."""

    def __init__(self, *, poison_at: int | None = None, delay_s: float = 0.0) -> None:
        self.count, self.poison_at, self.delay_s = 0, poison_at, delay_s

    def next(self) -> dict[str, Tensor]:
        time.sleep(self.delay_s)
        self.count += 1
        generator = torch.Generator().manual_seed(self.count)
        x = torch.randn(16, 3, generator=generator)
        if self.count == self.poison_at:
            x[5, 1] = float("inf")
        return {"x": x, "y": x.sum(1)}

    def describe(self, batch: dict[str, Tensor]) -> str:
        return f"Row {int((~batch['x'].isfinite()).any(1).nonzero()[0])} is odd"

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = int(state["count"])
