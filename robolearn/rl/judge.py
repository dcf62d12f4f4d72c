"""The judge of fine-tuning: the same held-out seeds before, during and after, and a paired test on fresh ones.

The best of many evaluations on the same seeds is a little better there than it is: whether the policy got better is
asked on seeds that picked nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import env_for
from robolearn.evaluation.compare import Comparison, compare
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EvaluationResult
from robolearn.policies.policy import Policy
from robolearn.rl.critic_check import CriticCheck
from robolearn.storage import write_json
from robolearn.training.seeding import untouched_rng

START_FILE = "start.json"
"""Evaluation before any update, so that a resumed run need not make it again."""
TEST_FOLDER = "test"
"""Episodes of the final test, `start.json` and `fine-tuned.json`."""
SIGNIFICANT = 0.05
"""Largest p-value of a difference that is called one."""


class Judge:
    """Evaluates policies on held-out seeds; the environments are made at the first use and kept."""

    def __init__(
        self,
        config: FinetuneConfig,
        task: TaskConfig,
        device: torch.device,
        run_dir: Path,
        told: Callable[[int, Mapping[str, float]], None],
    ) -> None:
        """
        Args:
            told: of each evaluation, with the update that it came after.
        """
        self.config, self.task, self.device, self.run_dir, self.told = config, task, device, run_dir, told
        self.env: VectorEnv | None = None

    def __call__(self, policy: Policy, update: int, check: CriticCheck | None = None) -> dict[str, float]:
        """Return success rate, mean steps, and a score by which the time of whole episodes weighs a tenth of success:
        one in a hundred episodes more is worth a tenth of the time limit.

        Args:
            check: asks the critics about the episodes; what they said goes into the metrics and the run's folder.
        """
        honest: dict[str, float] = {}
        if check is None:
            result = self._evaluate(policy, self.config.eval_seeds, "evaluation")
        else:
            with untouched_rng():
                result, report = check.evaluate(policy, env_for(policy, self._env()), list(self.config.eval_seeds))
            report.append_to(self.run_dir, update)
            honest = report.metrics()
        success, steps = result.success_rate, result.mean_steps
        worth = success if self.config.reward == "success" else result.mean_return
        metrics = {"eval_success": success, "eval_steps": steps, "eval_return": result.mean_return}
        self.told(update, metrics)
        return metrics | honest | {"score": worth - 0.1 * steps / self._env().max_steps}

    def start(self, policy: Policy, *, resume: bool) -> dict[str, float]:
        """Return the metrics before any update, remembered in the run folder; none where nothing is evaluated.

        Args:
            resume: whether what the folder remembers is of this run.
        """
        path = self.run_dir / START_FILE
        if not self.config.eval_episodes:
            return {}
        if resume and path.exists():
            return json.loads(path.read_text(encoding="utf-8"))
        metrics = self(policy, 0)
        write_json(path, metrics)
        return metrics

    def test(self, start: Policy, tuned: Policy) -> Comparison | None:
        """Return the paired comparison of two policies on fresh seeds, written to the run folder too.

        None where no seeds are set apart for it, or where no seed repeats an episode.
        """
        if not self.config.test_episodes:
            return None
        before = self._evaluate(start, self.config.test_seeds, "start")
        after = self._evaluate(tuned, self.config.test_seeds, "fine-tuned")
        folder = self.run_dir / TEST_FOLDER
        folder.mkdir(exist_ok=True)
        for result in (before, after):
            result.save(folder / f"{result.name}.json")
        return compare(before, after) if before.repeatable and after.repeatable else None

    def close(self) -> None:
        if self.env is not None:
            self.env.close()

    def _evaluate(self, policy: Policy, seeds: range, name: str) -> EvaluationResult:
        with untouched_rng():
            return evaluate(policy, self._env(), list(seeds), name=name)

    def _env(self) -> VectorEnv:
        if self.env is None:
            side_by_side = min(self.config.num_envs, max(self.config.eval_episodes, self.config.test_episodes))
            self.env = make(self.task, side_by_side, device=self.task.physics_device(self.device))
        return self.env


def got_worse(comparison: Comparison | None) -> bool:
    """Return whether a paired test says that fine-tuning made the policy worse."""
    return comparison is not None and comparison.difference.estimate < 0.0 and comparison.p_value < SIGNIFICANT
