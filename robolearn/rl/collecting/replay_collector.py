"""Off-policy collection: step the environments, fill the replay, hand out batches.

One after the other:   collect 1 | update 1 | collect 2 | update 2 | ...
With `overlap`:        collect 1 | update 1 | update 2 | ...
                                 | collect 2 | collect 3 | ...          by the policy from before the update beside it
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from robolearn.configuration.parts.algorithms import OffPolicyConfig
from robolearn.envs.interface import Observation
from robolearn.rl.collecting.macro_steps import EpisodeDriver, FinishedEpisode, Transition, episode_metrics
from robolearn.rl.collecting.recorded_practice import RecordedPractice
from robolearn.rl.collecting.replay_buffer import Replay, ReplayBatch, Share, joined, sample_as_one
from robolearn.rl.running_statistics import ObservationStatistics
from robolearn.training import distributed


class ExplorationPolicy(Protocol):
    """Chooses the actions that collect data: SAC, TD3 or DQN with its noise."""

    @property
    def network(self) -> nn.Module:
        """The network that decides."""
        ...

    def explore(self, window: Observation, generator: torch.Generator | None = None, network: Any = None) -> Tensor:
        """Choose actions (N, Tp, A), or (N, 1) int64, for windows (N, To, ...).

        Args:
            network: an older copy of `network` to decide by; None takes the network as it is now.
        """
        ...


Step = tuple[Observation, Tensor, Transition]
"""Windows (N, To, ...), the actions chosen there, and the transition that followed."""


class ReplayCollector:
    """A source of the training loop: each `next` collects `collect_steps` macro-steps and draws their share of batches.

    The share is exact in the long run: `utd` 0.25 gives a batch at every fourth transition. Where several processes
    train together, each has environments and a replay of its own; the configuration counts those of all.

    With `config.overlap` a thread collects the steps of the next `next` while the algorithm learns from the batches of
    this one. It acts by a copy of the network, so that runs are as repeatable as without.
    """

    def __init__(
        self,
        driver: EpisodeDriver,
        exploration: ExplorationPolicy,
        config: OffPolicyConfig,
        *,
        exec_steps: int = 1,
        seed: int = 0,
        statistics: ObservationStatistics | None = None,
        demonstrations: Replay | None = None,
        first_actions: Literal["uniform", "policy"] = "uniform",
        recorded: RecordedPractice | None = None,
    ) -> None:
        """
        Args:
            statistics: set from the random steps, where `config.normalise_obs` asks for it.
            demonstrations: of which, and of what a corrector did in practice, `config.demonstration_share` of each
                batch is drawn; never written to.
            first_actions: who acts in the `config.random_steps` before learning begins, nobody or the policy.
            recorded: practice of somebody else, which is drawn with this one's own.
        """
        self.recorded = recorded
        self.demonstrations, self.first_actions = demonstrations, first_actions
        self.statistics = statistics
        self.driver, self.exploration, self.config, self.exec_steps = driver, exploration, config, exec_steps
        self.processes = distributed.world_size()
        self.batch_size = distributed.share_of(config.batch_size, "batch_size")
        self.generator = torch.Generator(driver.device).manual_seed(distributed.own_seed(seed))
        sample = exploration.explore(driver.window, torch.Generator(driver.device).manual_seed(0))
        self.replay = Replay(
            -(-config.capacity // self.processes),
            driver.window,
            sample,
            n_step=config.n_step,
            device=driver.device,
            directory=self._directory(),
        )
        self.owed, self.scaled = 0.0, False
        self.control_steps = 0
        self._steps = self._corrected = 0
        self.episodes: list[FinishedEpisode] = []
        self._acting = copy.deepcopy(exploration.network).requires_grad_(False) if config.overlap else None
        self._thread = ThreadPoolExecutor(1, "collect")
        self._ahead: Future[list[Step]] | None = None
        self._pending: list[Step] | None = None

    def next(self) -> list[ReplayBatch]:
        """Collect, look for what others recorded, and return the batches that are due."""
        if self.recorded is not None:
            self.recorded.look()
        while self.driver.control_steps * self.processes < self.config.random_steps:
            self._collect(self._first_actions(), self._add)
        if self.statistics is not None and not self.scaled:
            every = torch.arange(len(self.replay), device=self.driver.device)
            self.statistics.observe(self.replay.gather(every).obs, once=True)
            self.scaled = True
        if (ahead := self._take_ahead()) is None:
            self._refresh()
            self._walk(self._add)
        else:
            for step in ahead:
                self._add(*step)
        self.control_steps = self.driver.control_steps
        self.episodes += self.driver.take_finished()
        self.owed += self.config.utd * self.config.collect_steps * self.driver.num_envs * self.processes
        due, self.owed = int(self.owed), self.owed - int(self.owed)
        batches = [self._sample() for _ in range(due)]
        if self.config.overlap:
            self._refresh()
            self._ahead = self._thread.submit(self._walk_ahead)
        return batches

    @property
    def env_steps(self) -> int:
        """Control steps of all processes in the replay; they collect in step."""
        return self.control_steps * self.processes

    def settle(self) -> None:
        """Wait until nobody steps the environments any more."""
        if self._ahead is not None:
            wait([self._ahead])

    def take_metrics(self) -> dict[str, float]:
        """Return means over the episodes that ended since the last call, and the steps so far.

        Where somebody may take over, also the share of the steps since then that a corrector did, and how many
        demonstrated transitions there are; of recorded practice the share is that of all steps, and its number of
        episodes is told.
        """
        episodes, self.episodes = self.episodes, []
        metrics = {"env_steps": self.env_steps, **episode_metrics(episodes)}
        if self.driver.corrections is not None:
            metrics |= {"corrected": self._corrected / max(self._steps, 1), "demonstrated": self.demonstrated}
            self._steps = self._corrected = 0
        if (recorded := self.recorded) is not None:
            metrics |= {
                "corrected": recorded.corrected_steps / max(recorded.steps, 1),
                "demonstrated": self.demonstrated,
                "recorded_episodes": recorded.episodes,
            }
        return metrics

    @property
    def demonstrated(self) -> int:
        """Transitions that the demonstrations' share of a batch is drawn from: recorded, and a corrector's."""
        return sum(map(len, self._demonstrated()))

    @property
    def saw_reward(self) -> bool:
        """Return whether any episode of practice has had a reward."""
        return self.driver.saw_reward or (self.recorded is not None and self.recorded.rewarded > 0)

    def describe(self, batch: list[ReplayBatch]) -> str:
        """Return the largest reward and observation of the batches, for error messages."""
        rewards = max(float(b.rewards.abs().nan_to_num(torch.inf).max()) for b in batch)
        largest = max(float(v.float().abs().nan_to_num(torch.inf).max()) for b in batch for v in b.obs.values())
        return f"Its largest reward is {rewards:g}, its largest observation {largest:g}"

    def state_dict(self) -> dict[str, Any]:
        self._pending = self._take_ahead()
        return {
            "driver": self.driver.state_dict(),
            "replay": self.replay.state_dict(),
            "generator": self.generator.get_state(),
            "owed": self.owed,
            "scaled": self.scaled,
            "control_steps": self.control_steps,
            "pending": None if self._pending is None else [(w, a, vars(t)) for w, a, t in self._pending],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.driver.load_state_dict(state["driver"])
        self.replay.load_state_dict(state["replay"])
        self.generator.set_state(state["generator"])
        self.owed, self.scaled = float(state["owed"]), bool(state["scaled"])
        self.control_steps = int(state["control_steps"])
        pending = state["pending"]
        self._pending = None if pending is None else [(w, a, Transition(**t)) for w, a, t in pending]

    def _directory(self) -> Path | None:
        """Return the folder of the replay's files, each process's own; None keeps it in memory."""
        if not self.config.replay_directory:
            return None
        folder = Path(self.config.replay_directory)
        return folder if self.processes == 1 else folder / f"rank_{distributed.rank()}"

    def _take_ahead(self) -> list[Step] | None:
        """Return the steps that were collected beside the last update; None where none were."""
        if self._ahead is not None:
            self._pending, self._ahead = self._ahead.result(), None
        pending, self._pending = self._pending, None
        return pending

    @torch.no_grad()
    def _refresh(self) -> None:
        """Copy the weights of the network that learns to the one that acts."""
        if self._acting is not None:
            pair = (itertools.chain(m.parameters(), m.buffers()) for m in (self._acting, self.exploration.network))
            for old, new in zip(*pair):
                old.copy_(new)

    def _walk_ahead(self) -> list[Step]:
        """Collect as `_walk` does, but keep the steps for later."""
        steps: list[Step] = []

        def keep(window: Observation, actions: Tensor, transition: Transition) -> None:
            following = {k: v.clone() for k, v in transition.next_obs.items()}
            steps.append((window, actions, replace(transition, next_obs=following)))

        self._walk(keep)
        return steps

    def _walk(self, keep: Callable[[Observation, Tensor, Transition], None]) -> None:
        for _ in range(self.config.collect_steps):
            self._collect(self.exploration.explore(self.driver.window, self.generator, self._acting), keep)

    def _collect(self, actions: Tensor, keep: Callable[[Observation, Tensor, Transition], None]) -> None:
        window = {k: v.clone() for k, v in self.driver.window.items()}
        transition = self.driver.advance(actions[:, : self.exec_steps])
        keep(window, transition.done_of(actions), transition)
        self.driver.restart(transition.done)

    def _add(self, window: Observation, actions: Tensor, transition: Transition) -> None:
        """Put a macro-step into the replay, and count who did its steps."""
        self.replay.add(window, actions, transition)
        if transition.instead is not None:
            self._steps += int(transition.executed.sum())
            self._corrected += int(transition.instead.isfinite().all(-1).sum())

    def _sample(self) -> ReplayBatch:
        """Draw a batch: the practised transitions first, then the demonstrated ones."""
        practice, demonstrated = self._practice(), self._demonstrated()
        rows = round(self.batch_size * self.config.demonstration_share) if any(map(len, demonstrated)) else 0
        own = sample_as_one(practice, self.batch_size - rows, self.generator)
        return joined(own, sample_as_one(demonstrated, rows, self.generator)) if rows else own

    def _practice(self) -> list[Share]:
        recorded = [] if self.recorded is None else self.recorded.practice()
        return [Share(self.replay), *recorded]

    def _demonstrated(self) -> list[Share]:
        """Return the recorded demonstrations and what a corrector did in practice."""
        shown = [] if self.demonstrations is None else [Share(self.demonstrations)]
        recorded = [] if self.recorded is None else self.recorded.demonstrated()
        return [*shown, Share(self.replay, self.replay.corrected()), *recorded]

    def _first_actions(self) -> Tensor:
        """Choose actions (N, Tp, A) before anything was learned: uniform ones, or the exploration's own; discrete ones
        are always that, random at first."""
        actions = self.replay.arrays["actions"]
        if actions.is_floating_point() and self.first_actions == "uniform":
            shape = (self.driver.num_envs, *actions.shape[2:])
            return torch.rand(shape, generator=self.generator, device=self.driver.device) * 2.0 - 1.0
        return self.exploration.explore(self.driver.window, self.generator)
