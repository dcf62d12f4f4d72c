"""Off-policy collection: step the environments, fill the replay, hand out batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from robolearn.envs.base import Observation
from robolearn.rl.config import OffPolicyConfig
from robolearn.rl.episodes import EpisodeDriver, FinishedEpisode
from robolearn.rl.replay import Replay, ReplayBatch
from robolearn.rl.statistics import ObservationStatistics
from robolearn.training import distributed


class Explorer(Protocol):
    """What decides while data is collected: SAC, TD3 or DQN."""

    def act(self, window: Observation, generator: torch.Generator | None = None) -> Tensor: ...


class ReplayCollector:
    """A source of the training loop: each `next` collects `collect_steps` macro-steps and draws their share of batches.

    The share is exact in the long run: `utd` 0.25 gives a batch at every fourth transition. Where several processes
    train together, each has environments and a replay of its own; the configuration counts those of all.
    """

    def __init__(
        self,
        driver: EpisodeDriver,
        explorer: Explorer,
        config: OffPolicyConfig,
        *,
        exec_steps: int = 1,
        seed: int = 0,
        statistics: ObservationStatistics | None = None,
    ) -> None:
        """
        Args:
            statistics: those that the random steps set, where `config.normalise_obs` asks for it.
        """
        self.statistics = statistics
        self.driver, self.explorer, self.config, self.exec_steps = driver, explorer, config, exec_steps
        self.processes = distributed.world_size()
        self.batch_size = distributed.share_of(config.batch_size, "batch_size")
        self.generator = torch.Generator(driver.device).manual_seed(distributed.own_seed(seed))
        sample = explorer.act(driver.window, torch.Generator(driver.device).manual_seed(0))
        self.replay = Replay(
            -(-config.capacity // self.processes),
            driver.window,
            sample,
            n_step=config.n_step,
            device=driver.device,
            directory=self._directory(),
        )
        self.owed, self.scaled = 0.0, False
        self.episodes: list[FinishedEpisode] = []

    def next(self) -> list[ReplayBatch]:
        while self.env_steps < self.config.random_steps:
            self._collect(self._random_actions())
        if self.statistics is not None and not self.scaled:
            every = torch.arange(len(self.replay), device=self.driver.device)
            self.statistics.observe(self.replay.gather(every).obs, once=True)
            self.scaled = True
        for _ in range(self.config.collect_steps):
            self._collect(self.explorer.act(self.driver.window, self.generator))
        self.owed += self.config.utd * self.config.collect_steps * self.driver.num_envs * self.processes
        due, self.owed = int(self.owed), self.owed - int(self.owed)
        return [self.replay.sample(self.batch_size, self.generator) for _ in range(due)]

    @property
    def env_steps(self) -> int:
        """Control steps of all processes, which collect in step."""
        return self.driver.control_steps * self.processes

    def take_metrics(self) -> dict[str, float]:
        """Of the episodes that ended since the last call, and the steps so far."""
        metrics: dict[str, float] = {"env_steps": self.env_steps}
        episodes = self.driver.take_finished()
        if episodes:
            metrics["return"] = sum(e.ret for e in episodes) / len(episodes)
            metrics["episode_length"] = sum(e.length for e in episodes) / len(episodes)
            metrics["success"] = sum(e.success for e in episodes) / len(episodes)
        return metrics

    def describe(self, batch: list[ReplayBatch]) -> str:
        """The largest reward and observation of the batches, for error messages."""
        rewards = max(float(b.rewards.abs().nan_to_num(torch.inf).max()) for b in batch)
        largest = max(float(v.float().abs().nan_to_num(torch.inf).max()) for b in batch for v in b.obs.values())
        return f"Its largest reward is {rewards:g}, its largest observation {largest:g}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "driver": self.driver.state_dict(),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
            "owed": self.owed,
            "scaled": self.scaled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.driver.load_state_dict(state["driver"])
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"])
        self.owed, self.scaled = float(state["owed"]), bool(state["scaled"])

    def _directory(self) -> Path | None:
        """Where the replay's files lie, those of each process apart."""
        if not self.config.replay_directory:
            return None
        folder = Path(self.config.replay_directory)
        return folder if self.processes == 1 else folder / f"rank_{distributed.rank()}"

    def _collect(self, actions: Tensor) -> None:
        window = {k: v.clone() for k, v in self.driver.window.items()}
        transition = self.driver.advance(actions[:, : self.exec_steps])
        self.replay.add(window, actions, transition)
        self.driver.restart(transition.done)

    def _random_actions(self) -> Tensor:
        actions = self.replay.arrays["actions"]
        if actions.is_floating_point():
            shape = (self.driver.num_envs, *actions.shape[2:])
            return torch.rand(shape, generator=self.generator, device=self.driver.device) * 2.0 - 1.0
        return self.explorer.act(self.driver.window, self.generator)
