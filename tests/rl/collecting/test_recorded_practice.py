"""Practice out of a file that grows: what is drawn of it, what was taken back, and the end of its recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.algorithms import SACConfig
from robolearn.configuration.parts.policy import (
    DenoisingMLPConfig,
    FlowHeadConfig,
    GaussianHeadConfig,
    HeadConfig,
    MLPConfig,
    PolicyConfig,
)
from robolearn.contract import Interface
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.deploy.runner import PolicyRunner
from robolearn.errors import DatasetError
from robolearn.policies.build import build_policy
from robolearn.policies.residual import BASE_ACTION
from robolearn.rl.collecting import recorded_practice
from robolearn.rl.collecting.demonstrations import Shape
from robolearn.rl.collecting.macro_steps import EpisodeDriver, SeedStream
from robolearn.rl.collecting.recorded_practice import RecordedPractice
from robolearn.rl.collecting.replay_buffer import Share, sample_as_one
from robolearn.rl.collecting.replay_collector import ReplayCollector
from robolearn.rl.networks import QEnsemble
from robolearn.rl.sac import SAC
from robolearn.specs import ActionMode, ActionSpec, ArraySpec, ObservationSpec
from tests.rl.test_off_policy import SMALL, make_policy
from tests.rl.toys import Ledger

OBSERVATION, ACTION = ObservationSpec({"state": ArraySpec(shape=(3,))}), ActionSpec(low=(-1.0,), high=(1.0,))
NEEDS = Interface(name="the learner", observation_spec=OBSERVATION, action_spec=ACTION)
SHAPE = Shape(obs_keys=("state",), pred_steps=2, exec_steps=2, gamma=0.9)
FLOW = FlowHeadConfig(network=DenoisingMLPConfig(width=8, num_blocks=1), inference_steps=2)
ENV_ARGS: dict[str, Any] = {"env_name": "toy", "type": 3, "env_kwargs": {}}


def writer(path: Path, **options: Any) -> DatasetWriter:
    return DatasetWriter(
        path,
        task="toy",
        env_args=ENV_ARGS,
        control_hz=10.0,
        action_spec=ACTION,
        observation_spec=OBSERVATION,
        **options,
    )


def episode(to: DatasetWriter, first: int, by_hand: Sequence[int] = (), steps: int = 4, *, success: bool = True) -> Any:
    """Record states `first`, `first` + 1, ..., where the steps `by_hand` are somebody's; returns the live episode."""
    live = to.begin_episode(seed=first, source="rl")
    for t in range(steps):
        live.add_step(
            {"state": np.full(3, first + t, np.float32)},
            np.full(1, t / 100, np.float32),
            0.0,
            False,
            t == steps - 1 and not success,
            0.1 * t,
            mode=ActionMode.INTERVENTION if t in by_hand else ActionMode.POLICY,
        )
    return live


def keep(live: Any, first: int, steps: int = 4, *, success: bool = True) -> None:
    live.commit({"state": np.full(3, first + steps, np.float32)}, success=success, closed=True)


def states(shares: list[Share]) -> list[int]:
    """Return the states from which transitions may be drawn, sorted."""
    return sorted(
        int(state) for share in shares for state in share.gather(torch.arange(len(share))).obs["state"][:, 0, 0]
    )


def test_all_of_it_is_practice_and_what_somebody_did_is_demonstrated(tmp_path: Path) -> None:
    path = tmp_path / "c.hdf5"
    practice = RecordedPractice(path, NEEDS, SHAPE, reward="success")
    practice.look()
    assert practice.practice() == practice.demonstrated() == []
    with writer(path) as recording:
        keep(episode(recording, 100, by_hand=[2]), 100)
        practice.look()
        assert states(practice.practice()) == [100, 101, 102, 103]
        assert states(practice.demonstrated()) == [101, 102]  # macro-steps of two that hold the third step
        keep(episode(recording, 200, success=False), 200, success=False)
        practice.look()
        practice.look()
        assert states(practice.practice()) == [100, 101, 102, 103, 200, 201, 202, 203]
        assert states(practice.demonstrated()) == [101, 102]
    practice.look()
    assert len(practice.practice()[0]) == 8, "that it was finished is nothing new"
    assert (practice.episodes, practice.steps, practice.corrected_steps, practice.rewarded) == (2, 8, 1, 1)
    (share,) = practice.practice()
    batch = share.gather(torch.arange(8))
    solved = batch.next_obs["state"][:, 0, 0] == 104
    # The reward comes with the episode's last step, which ends it; it is the first or the second of a macro-step.
    assert batch.rewards[solved].tolist() == pytest.approx([0.9, 1.0])
    assert batch.rewards[~solved].tolist() == [0.0] * 6
    assert batch.discounts[solved].tolist() == [0.0, 0.0]
    assert (batch.discounts[~solved] > 0.0).all(), "a failure was cut, its end is worth what comes after"


def test_what_was_taken_back_is_never_drawn_again(tmp_path: Path) -> None:
    path = tmp_path / "c.hdf5"
    practice = RecordedPractice(path, NEEDS, SHAPE, reward="success")
    with writer(path) as recording:
        for first in (100, 200, 300):
            keep(episode(recording, first, by_hand=[0]), first)
        practice.look()
        recording.remove_last()
        recording.remove_last()
        keep(episode(recording, 400, by_hand=[3]), 400)  # takes the name of 200
        practice.look()
        assert states(practice.practice()) == [*range(100, 104), *range(400, 404)]
        assert states(practice.demonstrated()) == [100, 402, 403]
        recording.remove_last()
        recording.remove_last()
        practice.look()
        assert states(practice.practice()) == states(practice.demonstrated()) == []


def test_the_end_of_the_recording_and_what_was_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is finished, and its parts are removed, while somebody reads; what was in progress is in it."""
    path = tmp_path / "c.hdf5"
    practice = RecordedPractice(path, NEEDS, SHAPE, reward="success")
    recording = writer(path)
    keep(episode(recording, 100), 100)
    episode(recording, 200, by_hand=[1])
    read = recorded_practice._practised

    def late(*arguments: Any) -> Any:
        recording.close()
        monkeypatch.setattr(recorded_practice, "_practised", read)
        raise DatasetError("demo_0.hdf5 is gone")

    monkeypatch.setattr(recorded_practice, "_practised", late)
    practice.look()
    assert practice.episodes == 0
    practice.look()
    assert practice.episodes == 2
    assert states(practice.practice()) == [*range(100, 104), *range(200, 203)], "up to the last thing that was seen"
    with writer(path, append=True) as again:
        keep(episode(again, 300), 300)
        practice.look()
    practice.look()
    assert practice.episodes == 3
    fresh = RecordedPractice(path, NEEDS, SHAPE, reward="success")
    fresh.look()
    assert states(fresh.practice()) == states(practice.practice())


def test_a_file_that_stays_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "c.hdf5"
    path.write_bytes(b"nothing")
    practice = RecordedPractice(path, NEEDS, SHAPE, reward="success")
    practice.look()
    assert practice.practice() == []
    monkeypatch.setattr(recorded_practice, "PATIENCE_S", 0.0)
    with pytest.raises(DatasetError, match=r"c\.hdf5"):
        practice.look()


def test_there_is_always_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded_practice, "FIRST_ROOM", 5)
    path = tmp_path / "c.hdf5"
    practice = RecordedPractice(path, NEEDS, SHAPE, reward="success")
    with writer(path) as recording:
        for first in range(100, 1200, 100):
            keep(episode(recording, first, by_hand=[0]), first)
            practice.look()
    assert states(practice.practice()) == [first + t for first in range(100, 1200, 100) for t in range(4)]
    assert states(practice.demonstrated()) == list(range(100, 1200, 100))
    (share,) = practice.practice()
    batch = share.gather(torch.arange(len(share)))
    gone = batch.next_obs["state"][:, 0, 0] - batch.obs["state"][:, 0, 0]
    assert set(gone.tolist()) == {1.0, 2.0}, "no successor is another episode's"


@pytest.mark.parametrize("head", [GaussianHeadConfig(), FLOW])
def test_the_bases_plans_are_those_of_then(head: HeadConfig, tmp_path: Path) -> None:
    """Drawn by the episode's own seed, and anew after every step that somebody made."""
    torch.manual_seed(0)
    config = PolicyConfig(head=head, backbone=MLPConfig(hidden_sizes=(8,)), pred_steps=4, exec_steps=4)
    base = build_policy(config, OBSERVATION, ACTION).eval()
    path, by_hand = tmp_path / "c.hdf5", (1, 2)
    with writer(path) as recording:
        keep(episode(recording, 3, by_hand=by_hand, steps=6), 3, steps=6)
    shape = Shape(obs_keys=("state", BASE_ACTION), gamma=0.9)
    practice = RecordedPractice(path, NEEDS, shape, reward="success", base=base)
    practice.look()
    runner = PolicyRunner(base, 1, inference_rows=1)
    runner.reset([3])
    proposed = []
    for t in range(7):
        if t - 1 in by_hand:
            runner.replan()
        proposed.append(runner.act({"state": torch.full((1, 3), 3.0 + t)}))
    (share,) = practice.practice()
    batch = share.gather(torch.arange(6))
    torch.testing.assert_close(batch.obs[BASE_ACTION][:, 0], torch.cat(proposed[:6]))
    torch.testing.assert_close(batch.next_obs[BASE_ACTION][:, 0], torch.cat(proposed[1:]))


def test_several_shares_are_drawn_from_as_one(tmp_path: Path) -> None:
    practice = RecordedPractice(tmp_path / "c.hdf5", NEEDS, SHAPE, reward="success")
    with writer(tmp_path / "c.hdf5") as recording:
        for first in (100, 200, 300):
            keep(episode(recording, first), first)
    practice.look()
    (whole,) = practice.practice()
    assert whole.ages is None
    shares = [
        Share(whole.replay, torch.tensor([8, 9])),
        Share(whole.replay, torch.tensor([], dtype=torch.int64)),
        whole,
    ]
    batch = sample_as_one(shares, 14_000, torch.Generator().manual_seed(0))
    drawn = batch.obs["state"][:, 0, 0].round()
    ages = torch.tensor([float(whole.gather(torch.tensor([age])).obs["state"][0, 0, 0]) for age in range(12)])
    found = torch.tensor([int((drawn == state).sum()) for state in ages])
    # 14 places, two of which are twice the same: 3000 draws of each side for those, 1000 for the others.
    expected = torch.full((12,), 1000.0)
    expected[8:10] = 2000.0
    assert ((found - expected).abs() < 5 * expected.sqrt()).all(), found
    assert set(drawn[:1500].tolist()) <= set(ages[8:10].tolist()), "the first share's come first"


def test_batches_hold_it_as_practice_and_as_demonstrations(tmp_path: Path) -> None:
    """Learning begins without; from the next batch on both halves draw what was recorded, as one with their own."""
    path = tmp_path / "c.hdf5"
    config = SACConfig(random_steps=20, batch_size=400, critic=SMALL, collect_steps=1)
    env = Ledger(2, max_steps=5)
    policy = make_policy(env)
    shape = Shape(obs_keys=("state",), gamma=config.gamma, n_step=config.n_step)
    collector = ReplayCollector(
        EpisodeDriver(env, seeds=SeedStream(0, 50), gamma=config.gamma),
        SAC(policy, QEnsemble.beside(policy, config.critic), config),
        config,
        recorded=RecordedPractice(path, NEEDS, shape, reward="success"),
    )
    assert not collector.saw_reward
    before = collector.next()[0]
    assert (before.obs["state"][:, 0, 0] < 50).all()
    assert collector.take_metrics()["recorded_episodes"] == 0
    with writer(path) as recording:
        keep(episode(recording, 1000, by_hand=[5, 6], steps=20), 1000, steps=20)
        batch = collector.next()[0]
    recorded = batch.obs["state"][:, 0, 0] >= 1000
    own, demonstrated = recorded[:200], batch.obs["state"][200:, 0, 0]
    assert set(demonstrated.tolist()) == {1005.0, 1006.0}
    share = 20 / (20 + len(collector.replay))
    assert abs(float(own.float().mean()) - share) < 5 * (share * (1 - share) / 200) ** 0.5
    metrics = collector.take_metrics()
    assert (metrics["recorded_episodes"], metrics["demonstrated"], metrics["corrected"]) == (1, 2, 0.1)
