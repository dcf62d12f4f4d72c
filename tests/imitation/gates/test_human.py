"""The simulated human on a walk along a line: when it sees trouble, takes over, and lets go, to the step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from robolearn.configuration.parts.gates import HumanGateConfig
from robolearn.datasets.dataset import Dataset
from robolearn.errors import DatasetError, TaskError
from robolearn.imitation.gates.gate import View
from robolearn.imitation.gates.human import SimulatedHuman, Tube
from tests.imitation.gates import toy


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.demonstrations(tmp_path_factory.mktemp("human") / "demos.hdf5")


def human(shown: Path, num_envs: int = 1, **config: float) -> SimulatedHuman:
    gate = SimulatedHuman(HumanGateConfig(**config), toy.setting(num_envs=num_envs))  # type: ignore[arg-type]
    gate.prepare(toy.make_policy(), [shown], 1)
    gate.reset([0] * num_envs, torch.ones(num_envs, dtype=torch.bool))
    return gate


def see(gate: SimulatedHuman, places: np.ndarray) -> tuple[list[bool], list[str]]:
    """Show (T, 2) places one after the other; returns who drives at each step, and the reasons of changes."""
    correcting, driven, reasons = np.zeros(1, bool), [], []
    for place in places:
        view = View(
            obs={"place": torch.from_numpy(place[None].astype(np.float32))},
            proposals=torch.zeros(1, 2),
            labels=torch.full((1, 2), torch.nan),
            correcting=correcting,
            window={},
        )
        verdict = gate.judge(view)
        correcting = verdict.correct.copy()
        driven.append(bool(correcting[0]))
        reasons += verdict.reasons.values()
    return driven, reasons


def line(steps: int) -> np.ndarray:
    """(T, 2) on the way, at the pace of the demonstrations."""
    return np.stack([0.5 + 0.075 * np.arange(steps), np.zeros(steps)], axis=1)


@pytest.mark.parametrize(("reaction_s", "steps"), [(0.0, 0), (0.1, 1), (0.4, 4)])
def test_the_reaction_takes_its_time(shown: Path, reaction_s: float, steps: int) -> None:
    """Off the line from step 10 to 19: the human drives `steps` later, and lets go `steps` after all is well."""
    places = line(30)
    places[10:20, 1] = 3.0
    driven, reasons = see(human(shown, reaction_s=reaction_s, least_s=0.0), places)
    np.testing.assert_array_equal(np.flatnonzero(driven), np.arange(10 + steps, 20 + steps))
    assert [reason.split()[-1] for reason in reasons] == ["tube", "back"]


def test_a_moment_of_trouble_passes_unseen(shown: Path) -> None:
    places = line(30)
    places[[10, 11, 12, 14, 15, 16], 1] = 3.0  # three steps in a row, twice
    assert not any(see(human(shown, reaction_s=0.3), places)[0])
    places[13, 1] = 3.0
    assert any(see(human(shown, reaction_s=0.3), places)[0])


def test_a_correction_has_its_least_length(shown: Path) -> None:
    places = line(40)
    places[10, 1] = 3.0
    driven, _ = see(human(shown, reaction_s=0.0, least_s=0.7), places)
    np.testing.assert_array_equal(np.flatnonzero(driven), np.arange(10, 17))


def test_standing_still_is_being_stuck(shown: Path) -> None:
    """At step 10 the point stops. A second later, less a fifth of the way of that time, it counts as stuck."""
    places = line(60)
    places[10:] = places[10]
    driven, reasons = see(human(shown, reaction_s=0.2, stall_s=1.0), places)
    first = int(np.argmax(driven))
    # The way over 10 steps falls below a fifth of 10 steps' when fewer than 2 of them moved: at step 19, seen 2 later.
    assert first in (20, 21, 22)
    assert reasons[0] == "stuck"
    assert not any(see(human(shown, reaction_s=0.2, stall_s=1.0), line(30))[0])


def test_trembling_on_the_spot_is_being_stuck(shown: Path) -> None:
    places = line(60)
    places[10:] = places[10] + 0.1 * np.where(np.arange(50) % 2, 1.0, -1.0)[:, None] * np.array([1.0, 0.0])
    assert see(human(shown, reaction_s=0.2, stall_s=1.0), places)[1][0] == "stuck"


def test_who_takes_over_from_a_stuck_robot_makes_up_for_it(shown: Path) -> None:
    """Still from step 10 to 24, taken over on the way; the line goes on from there, half a second's progress first."""
    still, on = line(10), line(30)
    places = np.concatenate([still, np.repeat(still[-1:], 15, axis=0), on[10:]])
    driven, _ = see(human(shown, reaction_s=0.0, stall_s=1.0, least_s=0.0), places)
    taken, back = int(np.argmax(driven)), int(len(driven) - np.argmax(driven[::-1]))
    assert 17 <= taken <= 20
    assert 24 + 4 <= back <= 24 + 8


def test_after_a_release_the_robot_has_time_to_move(shown: Path) -> None:
    places = np.repeat(line(1), 60, axis=0)
    driven, _ = see(human(shown, reaction_s=0.0, stall_s=1.0, least_s=0.0), places)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], np.array(driven, int)])) == 1)
    assert (np.diff(starts) > 10).all()


def test_distances_are_those_of_brute_force(shown: Path) -> None:
    with Dataset(shown) as dataset:
        states = [episode.obs["place"].astype(np.float64) for episode in dataset]
    tube = Tube(states)
    deviation = np.concatenate(states).std(0)
    scaled = [(s - np.concatenate(states).mean(0)) / deviation for s in states]
    gaps = [cdist(s, np.concatenate(scaled[:i] + scaled[i + 1 :])).min(1) for i, s in enumerate(scaled)]
    assert tube.unit == pytest.approx(np.quantile(np.concatenate(gaps), 0.99))
    query = np.random.default_rng(0).normal(size=(5, 2))
    np.testing.assert_allclose(tube.distance(query), cdist(query, np.concatenate(scaled)).min(1) / tube.unit)


def test_a_human_saves_the_walk_whatever_runs_beside_it(shown: Path) -> None:
    alone = toy.walk(human(shown), range(20), 1)
    together = sorted(toy.walk(human(shown, num_envs=4), range(20), 4), key=lambda episode: episode.info.seed)
    for a, b in zip(alone, together, strict=True):
        np.testing.assert_array_equal(a.action_modes, b.action_modes)
        np.testing.assert_array_equal(a.actions, b.actions)
    assert all(episode.info.success for episode in alone)
    faulty = [bool((episode.action_modes == 1).any()) for episode in alone]  # type: ignore[union-attr]
    assert faulty == [toy.begin(seed, 0.5).faulty for seed in range(20)]


def test_it_needs_demonstrations_and_numbers(shown: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"at least 2 successful demonstrations, received 1"):
        human(toy.demonstrations(tmp_path / "one.hdf5", episodes=1))
    with pytest.raises(TaskError, match=r"observation 'place' of environment 0 is not finite"):
        see(human(shown), np.array([[np.nan, 0.0]]))


def test_a_correction_recovers_once_and_then_shows_the_way_on(shown: Path) -> None:
    """Off the line from step 10 to 19 and at 22: taken over at 12, back at 20, which is said once."""
    places = line(40)
    places[10:20, 1] = places[22, 1] = 3.0
    gate, correcting, recovered = human(shown, reaction_s=0.2, least_s=2.0), np.zeros(1, bool), []
    for step, place in enumerate(places):
        obs = {"place": torch.from_numpy(place[None].astype(np.float32))}
        nothing = torch.full((1, 2), torch.nan)
        view = View(obs=obs, proposals=torch.zeros(1, 2), labels=nothing, correcting=correcting, window={})
        verdict = gate.judge(view)
        correcting = verdict.correct.copy()
        recovered += [step] * len(verdict.recovered)
    assert recovered == [20]
