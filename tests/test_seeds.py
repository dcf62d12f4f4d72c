"""The map of seeds: what is trained or tuned on is never what is reported, and the defaults keep to the map."""

from __future__ import annotations

from itertools import combinations

import pytest

from robolearn import seeds
from robolearn.configuration.cloning import TrainConfig
from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.demo import PipelineConfig
from robolearn.configuration.evaluation import EvalConfig
from robolearn.configuration.finetune import FinetuneConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.rl import RLConfig

TASK = TaskConfig(id="Lift")


def within(inner: range, outer: range) -> bool:
    return len(inner) > 0 and inner[0] in outer and inner[-1] in outer


def test_no_two_ranges_overlap() -> None:
    parts = [seeds.RECORDING, seeds.TUNING, seeds.REPORTING, seeds.CORRECTING, *map(seeds.run_seeds, (0, 1, 2, 99))]
    assert not [(a, b) for a, b in combinations(parts, 2) if a.start < b.stop and b.start < a.stop]
    assert all(len(part) >= 10_000 for part in parts)


def test_they_are_where_the_published_figures_were_made() -> None:
    assert (seeds.RECORDING.start, seeds.TUNING.start, seeds.REPORTING.start) == (0, 10_000, 20_000)
    assert seeds.CORRECTING.start == 100_000
    assert seeds.run_seeds(0) == range(1_000_000, 2_000_000)
    assert seeds.run_seeds(7).start == 8_000_000


def test_each_verb_keeps_to_its_range() -> None:
    record = RecordConfig(task=TASK)
    assert within(range(record.seed, record.seed + record.attempts), seeds.RECORDING)
    dagger = DaggerConfig(policy="p", dataset=("d",))
    assert within(range(dagger.seed, dagger.seed + dagger.rounds * dagger.episodes_per_round), seeds.CORRECTING)
    evaluation = EvalConfig(policies=("p",))
    assert within(range(evaluation.seed, evaluation.seed + evaluation.episodes), seeds.REPORTING)
    train = TrainConfig(dataset=("d",), rollouts=100)
    assert within(range(seeds.ROLLOUT_SEED, seeds.ROLLOUT_SEED + train.rollouts), seeds.TUNING)
    rl = RLConfig(task=TASK)
    assert within(range(seeds.RL_EVAL_SEED, seeds.RL_EVAL_SEED + rl.eval_episodes), seeds.RECORDING)


def test_fine_tuning_holds_its_last_practice_seeds_out() -> None:
    finetune = FinetuneConfig(policy="p")
    practice = range(finetune.first_seed, finetune.first_seed + finetune.num_seeds)
    assert within(practice, seeds.TUNING)
    assert finetune.eval_seeds == practice[-finetune.eval_episodes :]
    assert [*finetune.practice_seeds, *finetune.test_seeds, *finetune.eval_seeds] == list(practice)


@pytest.mark.parametrize("seed", [0, 1, 50])
def test_the_demo_keeps_to_the_map(seed: int) -> None:
    demo = PipelineConfig(task=TASK, seed=seed)
    assert within(range(demo.record.seed, demo.record.seed + demo.record.attempts), seeds.RECORDING)
    rounds = demo.correct.rounds * demo.correct.episodes_per_round
    assert within(range(demo.correct.seed, demo.correct.seed + rounds), seeds.CORRECTING)
    assert within(range(demo.eval_seeds[0], demo.eval_seeds[-1] + 1), seeds.REPORTING)
