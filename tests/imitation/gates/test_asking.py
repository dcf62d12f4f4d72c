"""Gates by which the robot asks, on a walk with known faults and on a chain with known chances of success."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robolearn.configuration.parts.gates import EnsembleGateConfig, LikelihoodGateConfig, ThriftyGateConfig
from robolearn.configuration.parts.policy import DiffusionHeadConfig, MixtureHeadConfig, MLPConfig, PolicyConfig
from robolearn.datasets.dataset import Dataset
from robolearn.errors import DatasetError, PolicyError, TaskError
from robolearn.evaluation.statistics import auroc
from robolearn.imitation.gates.asking import AskingGate
from robolearn.imitation.gates.critic import TRACE, Critic, returns
from robolearn.imitation.gates.ensemble import EnsembleGate, Novelty, rehearsal
from robolearn.imitation.gates.gate import View
from robolearn.imitation.gates.likelihood import LikelihoodGate
from robolearn.imitation.gates.records import Record, read_records
from robolearn.imitation.gates.thrifty import ThriftyGate
from robolearn.policies.build import build_policy
from robolearn.specs import ActionMode
from tests.imitation.gates import toy


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy.demonstrations(tmp_path_factory.mktemp("asking") / "demos.hdf5")


class Unaided(EnsembleGate):
    """Scores, but never asks."""

    def judge(self, view: View):
        return replace(super().judge(view), correct=np.zeros(len(view.correcting), bool))


@pytest.fixture(scope="module")
def failed(shown: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round in which the robot walked alone; half of its walks failed."""
    gate = Unaided(EnsembleGateConfig(budget=0.0, updates=20), toy.setting())
    gate.prepare(toy.make_policy(), [shown], 1)
    return toy.write(tmp_path_factory.mktemp("asking") / "round.hdf5", toy.walk(gate, range(30), 1))


def view(place: np.ndarray, **changes: object) -> View:
    N = len(place)
    obs = torch.from_numpy(place.astype(np.float32))
    given = {
        "obs": {"place": obs},
        "proposals": torch.zeros(N, 2),
        "labels": torch.full((N, 2), torch.nan),
        "correcting": np.zeros(N, bool),
        "window": {"place": obs[:, None]},
    }
    return View(**(given | changes))  # type: ignore[arg-type]


def test_disagreement_tells_states_off_the_data_from_those_on_it(shown: Path) -> None:
    rng = np.random.default_rng(0)
    records = read_records([shown], ["place"])
    novelty = Novelty(records[:6], members=5, updates=800, seed=(0, 1))
    seen = np.concatenate([record.obs for record in records[6:]])  # other episodes of the same law
    angle = rng.uniform(0, 2 * np.pi, 200)
    off = np.array([1.5, 0.0]) + np.stack([4 * np.cos(angle), 2 * np.sin(angle)], 1)
    scores = np.concatenate([novelty.score(seen), novelty.score(off)])
    assert auroc(scores, np.arange(len(scores)) >= len(seen)) > 0.95


def test_novelty_is_the_variance_of_what_the_members_learned(shown: Path) -> None:
    """On the way all members have learned what the expert does there."""
    novelty = Novelty(read_records([shown], ["place"]), members=4, updates=1500, seed=(0, 1))
    place = np.stack([np.linspace(0.2, 2.8, 20), np.zeros(20)], 1)
    predicted = novelty._network(torch.from_numpy(place).float()).detach().numpy()
    np.testing.assert_allclose(predicted.mean(0), toy.expert(place) * [0.95, 1.0], atol=0.06)
    np.testing.assert_allclose(novelty.score(place), predicted.var(0, ddof=1).mean(-1), rtol=1e-4)


def test_labels_are_the_experts_and_never_the_policys(failed: Path, shown: Path) -> None:
    assert not any(np.isfinite(record.labels).any() for record in read_records([failed], ["place"]))
    for record in read_records([shown], ["place"]):
        np.testing.assert_array_equal(record.labels, record.actions)
    assert len(rehearsal(read_records([shown, failed], ["place"]))) == _steps(failed)
    with pytest.raises(DatasetError, match="30 without any"):
        Novelty(read_records([failed], ["place"]), members=2, updates=1, seed=(0,))


def test_returns_by_hand() -> None:
    """Two episodes of 3 and 1 steps; at step 2 of the first somebody else acted, so the outcome does not pass it."""
    values, own = np.array([0.5, 0.6, 0.7, 0.2]), np.array([True, True, False, True])
    made = returns(values, own, [3, 1], np.array([True, False]), gamma=0.9)
    second = 0.9 * 0.7  # the policy's own value at step 2, not the success of whoever acted
    first = 0.9 * ((1 - TRACE) * 0.6 + TRACE * second)
    np.testing.assert_allclose(made, [first, second, 1.0, 0.0])


def chain(episodes: int, seed: int) -> list[Record]:
    """Return walks on places 1 to 5, a fair step to the left or right each time; 6 is success and 0 is failure."""
    rng, records = np.random.default_rng(seed), []
    for _ in range(episodes):
        places = [int(rng.integers(1, 6))]
        while 0 < places[-1] < 6:
            places.append(places[-1] + int(rng.choice([-1, 1])))
        obs = np.array(places[:-1], np.float64)[:, None]
        action = np.zeros((len(obs), 1), np.float32)
        modes = np.full(len(obs), ActionMode.POLICY)
        success = places[-1] == 6
        records.append(
            Record(
                obs=obs, actions=action, proposals=action, labels=action, modes=modes, success=success, complete=True
            )
        )
    return records


def test_risk_is_the_chance_of_ruin() -> None:
    """From place i of a fair walk the chance of reaching 6 before 0 is i / 6 (the gambler's ruin)."""
    critic = Critic(chain(600, 0), gamma=0.9999, members=5, updates=1500, seed=(0, 1))
    places = np.arange(1.0, 6.0)[:, None]
    np.testing.assert_allclose(critic.risk(places, np.zeros((5, 1))), 1.0 - places[:, 0] / 6.0, atol=0.08)


def test_a_rescue_says_nothing_good_about_the_policy() -> None:
    """The policy wants down (to failure); whenever the expert acted in its stead it went up, and well."""
    records = []
    for number in range(200):
        up = number % 2 == 0
        action = np.full((1, 1), 1.0 if up else -1.0, np.float32)
        start = {"obs": np.array([[0.0], [1.0 if up else -1.0]]), "labels": np.zeros((2, 1)), "complete": True}
        records.append(
            Record(
                **start,  # type: ignore[arg-type]
                actions=np.concatenate([action, action]),
                proposals=np.full((2, 1), -1.0, np.float32),
                modes=np.full(2, ActionMode.INTERVENTION if up else ActionMode.POLICY),
                success=up,
            )
        )
    critic = Critic(records, gamma=0.999, members=3, updates=800, seed=(0, 1))
    assert critic.risk(np.zeros((1, 1)), -np.ones((1, 1)))[0] > 0.9


GATES: dict[str, Callable[..., AskingGate]] = {
    "ensemble": lambda budget, setting: EnsembleGate(EnsembleGateConfig(budget=budget, updates=300), setting),
    "thrifty": lambda budget, setting: ThriftyGate(ThriftyGateConfig(budget=budget, updates=300), setting),
    "likelihood": lambda budget, setting: LikelihoodGate(LikelihoodGateConfig(budget=budget), setting),
}

BRIEF: dict[str, Callable[..., AskingGate]] = {
    "ensemble": lambda setting: EnsembleGate(EnsembleGateConfig(updates=60), setting),
    "thrifty": lambda setting: ThriftyGate(ThriftyGateConfig(updates=60), setting),
    "likelihood": lambda setting: LikelihoodGate(LikelihoodGateConfig(), setting),
}


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.long
def test_the_budget_is_met_in_a_walk(name: str, num_envs: int, shown: Path, failed: Path) -> None:
    gate = GATES[name](0.2, toy.setting(num_envs=num_envs, round=2))
    gate.prepare(toy.make_policy(), [shown, failed], 2)
    assert toy.share(toy.walk(gate, range(200, 240), num_envs)) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize("name", ["ensemble", "thrifty"])
def test_help_is_asked_for_where_it_is_needed(name: str, shown: Path, failed: Path) -> None:
    """Half the walks would fail; what the budget allows is spent on these."""
    gate = GATES[name](0.2, toy.setting(num_envs=2, round=2))
    gate.prepare(toy.make_policy(), [shown, failed], 2)
    episodes = toy.walk(gate, range(300, 340), 2)
    faulty = np.array([toy.begin(episode.info.seed, 0.5).faulty for episode in episodes])
    asked = np.array([(episode.action_modes != ActionMode.POLICY).sum() for episode in episodes])  # type: ignore[union-attr]
    assert np.mean([e.info.success for e in episodes]) > 0.7
    assert asked[faulty].mean() > 2 * asked[~faulty].mean()


@pytest.mark.parametrize("name", GATES)
def test_nothing_is_asked_without_a_budget_and_all_with_all(name: str, shown: Path) -> None:
    for budget in (0.0, 1.0):
        gate = GATES[name](budget, toy.setting())
        gate.prepare(toy.make_policy(), [shown], 1)
        assert toy.share(toy.walk(gate, range(3), 1)) == budget


def test_the_reason_is_what_asked(shown: Path, failed: Path) -> None:
    """On the way all is known, and turning off there has always failed; far from it nothing is known."""
    gate = ThriftyGate(ThriftyGateConfig(updates=300), toy.setting(round=2))
    gate.prepare(toy.make_policy(), [shown, failed], 2)
    gate.budget.threshold = -0.5
    turns_off = gate.judge(view(np.array([[1.5, 0.0]]), proposals=torch.tensor([[0.2, 0.9]])))
    assert turns_off.reasons[0].startswith("risk ")
    gate.critic = None
    gate.budget.threshold = -0.5
    assert gate.judge(view(np.array([[-9.0, 5.0]]))).reasons[0].startswith("novelty ")


def test_before_anything_has_failed_novelty_decides(shown: Path) -> None:
    gate = ThriftyGate(ThriftyGateConfig(updates=50), toy.setting())
    gate.prepare(toy.make_policy(), [shown], 1)
    assert gate.critic is None
    assert np.isfinite(gate.scores(view(np.zeros((3, 2))))).all()


def test_control_returns_where_the_policy_agrees(shown: Path) -> None:
    gate = EnsembleGate(EnsembleGateConfig(release=0.15, updates=50), toy.setting(num_envs=3))
    gate.prepare(toy.make_policy(), [shown], 1)
    gate.budget.threshold = 1e9
    labels = torch.tensor([[0.1, 0.1], [0.4, 0.0], [torch.nan, torch.nan]])
    verdict = gate.judge(view(np.zeros((3, 2)), labels=labels, correcting=np.array([True, True, False])))
    np.testing.assert_array_equal(verdict.correct, [False, True, False])
    assert verdict.reasons == {0: "disagreement 0.1 below 0.15"}


def test_the_likelihood_is_the_heads_own() -> None:
    """A head of one Gaussian has its mode at its mean: -log p = log std + log(2 pi) / 2."""
    policy = toy.make_policy()
    gate = LikelihoodGate(LikelihoodGateConfig(), toy.setting())
    gate.policy = policy.eval()
    place = np.random.default_rng(0).normal(size=(4, 2))
    with torch.no_grad():
        inner = policy.distribution(view(place).window)
        std = torch.distributions.Normal(0, 1)  # an independent density, at the mode of a unit Gaussian
        spread = -inner.log_prob(inner.mode()) / 2 - (-std.log_prob(torch.tensor(0.0)))
    made = gate.scores(view(place))
    np.testing.assert_allclose(made, spread.numpy() + 0.5 * np.log(2 * np.pi), rtol=1e-5)


@pytest.mark.parametrize("obs_steps", [1, 3])
def test_chunks_are_scored_by_what_is_executed(obs_steps: int, shown: Path) -> None:
    config = PolicyConfig(
        head=MixtureHeadConfig(num_modes=1),
        backbone=MLPConfig(hidden_sizes=(8,)),
        obs_steps=obs_steps,
        pred_steps=4,
        exec_steps=2,
    )
    policy = build_policy(config, toy.OBSERVATION, toy.ACTION)
    gate = LikelihoodGate(LikelihoodGateConfig(), toy.setting())
    gate.prepare(policy, [shown], 1)
    window = {"place": torch.randn(3, obs_steps, 2, generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        std = policy.head.distribution(policy.features(window)).std  # type: ignore[attr-defined]
    expected = (std[:, 0, :2].log() + 0.5 * np.log(2 * np.pi)).mean((1, 2))
    np.testing.assert_allclose(gate.scores(view(np.zeros((3, 2)), window=window)), expected.numpy(), rtol=1e-4)


def test_heads_without_a_likelihood_are_refused(shown: Path) -> None:
    config = PolicyConfig(head=DiffusionHeadConfig(), backbone=MLPConfig(hidden_sizes=(8,)), pred_steps=4)
    gate = LikelihoodGate(LikelihoodGateConfig(), toy.setting())
    with pytest.raises(PolicyError, match=r"gaussian, mixture or autoregressive\), received diffusion on mlp"):
        gate.prepare(build_policy(config, toy.OBSERVATION, toy.ACTION), [shown], 1)


@pytest.mark.parametrize("name", ["ensemble", "thrifty"])
def test_the_same_files_and_seed_make_the_same_gate(name: str, shown: Path, failed: Path) -> None:
    place, policy, made = np.random.default_rng(0).normal(size=(5, 2)), toy.make_policy(), []
    for seed, around in ((0, 1), (0, 2), (1, 1)):
        torch.manual_seed(around)
        gate = BRIEF[name](toy.setting(seed=seed))
        gate.prepare(policy, [shown, failed], 2)
        made.append(gate.scores(view(place)))
    np.testing.assert_array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])


def test_preparing_leaves_the_global_generator_alone(shown: Path, failed: Path) -> None:
    policy = toy.make_policy()
    for make in BRIEF.values():
        gate, state = make(toy.setting()), torch.get_rng_state()
        gate.prepare(policy, [shown, failed], 2)
        gate.judge(view(np.zeros((1, 2))))
        assert torch.equal(torch.get_rng_state(), state)


def test_what_is_not_finite_is_named(shown: Path, failed: Path) -> None:
    gate = ThriftyGate(ThriftyGateConfig(updates=50), toy.setting(num_envs=2))
    gate.prepare(toy.make_policy(), [shown, failed], 2)
    place = np.zeros((2, 2))
    with pytest.raises(TaskError, match=r"observation 'place' of environment 1 is not finite"):
        gate.judge(view(np.array([[0.0, 0.0], [0.0, np.inf]])))
    with pytest.raises(PolicyError, match=r"thrifty gate's score of environment 1 is nan"):
        gate.judge(view(place, proposals=torch.tensor([[0.0, 0.0], [0.0, torch.nan]])))
    with pytest.raises(TaskError, match=r"environment 0: expected finite actions .* received \[0.0, 0.0\] and \[nan"):
        gate.judge(view(place, correcting=np.array([True, False])))


def _steps(path: Path) -> int:
    with Dataset(path) as dataset:
        return sum(dataset.lengths)
