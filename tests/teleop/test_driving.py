"""A person corrects a policy: who drives when, what is executed, and what the file says of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.session import CorrectionConfig, SessionConfig
from robolearn.configuration.teleop import Profile
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.make import make
from robolearn.episodes.record import open_writer
from robolearn.policies.build import build_policy
from robolearn.policies.policy import Policy
from robolearn.specs import ActionMode, ActionSpec, ArraySpec, Episode, ObservationSpec
from robolearn.teleop.devices.browser import BrowserDevice
from robolearn.teleop.devices.device import Command
from robolearn.teleop.devices.files import load_profile
from robolearn.teleop.devices.signals import Interpreter, Signals
from robolearn.teleop.driving import Asker, CorrectedPolicy
from robolearn.teleop.session import Session
from tests.teleop.session_parts import MAX_STEPS, Clock, Hand, hand_of, session_at, tick
from tests.teleop.test_session import episodes

CHUNK = 4
RIGHT = np.array([0.5, 0, 0, 0, 0, 0])
OWN, POLICY = int(ActionMode.INTERVENTION), int(ActionMode.POLICY)


def toy_policy(observation: int = 4, actions: int = 2) -> Policy:
    """An untrained policy that executes chunks of CHUNK steps."""
    torch.manual_seed(0)
    config = PolicyConfig(
        head=GaussianHeadConfig(), backbone=MLPConfig(hidden_sizes=(16,)), pred_steps=CHUNK, exec_steps=CHUNK
    )
    numbers = {"state": observation, "actions": actions}
    statistics = {
        key: {
            "mean": np.zeros(n),
            "std": np.ones(n),
            "min": -np.ones(n),
            "max": np.ones(n),
            "q01": -np.ones(n),
            "q99": np.ones(n),
        }
        for key, n in numbers.items()
    }
    spec = ObservationSpec({"state": ArraySpec(shape=(observation,))})
    return build_policy(config, spec, ActionSpec(low=(-1.0,) * actions, high=(1.0,) * actions), statistics).eval()


@contextmanager
def correcting(
    folder: Path,
    correction: CorrectionConfig | None = None,
    config: SessionConfig | None = None,
    asker: Asker | None = None,
    **options: Any,
) -> Iterator[Session]:
    runner = PolicyRunner(toy_policy(), 1)
    driver = CorrectedPolicy(runner, correction or CorrectionConfig(), rate=10.0, asker=asker)
    describe = {"source": "dagger", "round": 3, "policy": "abc"}
    with session_at(
        folder / "d.hdf5",
        config,
        driver=driver,
        describe=describe,
        device_name="hand",
        keep_failures=True,
        **options,
    ) as session:
        yield session


def chunk(episode: Episode, step: int) -> np.ndarray:
    """(Tp, A), what the policy means to do from a step on, asked anew."""
    with torch.no_grad():
        window = {"state": torch.as_tensor(episode.obs["state"][step], dtype=torch.float32)[None, None]}
        return toy_policy().act(window, deterministic=True)[0].numpy()


def parts(episode: Episode) -> tuple[list[int], np.ndarray, np.ndarray]:
    """(T,) modes, (T, A) proposals, (T, A) labels."""
    assert episode.action_modes is not None
    assert episode.policy_actions is not None
    assert episode.expert_actions is not None
    return episode.action_modes.tolist(), episode.policy_actions, episode.expert_actions


def hand_overs(episode: Episode) -> list[tuple[int, str, str]]:
    return [(e.step, e.kind, e.reason) for e in episode.events if e.kind in ("takeover", "release")]


def test_the_step_of_the_button_is_the_operators_and_the_file_says_all_of_it(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        tick(session, 6, "start")
        assert session.status()["driver"] == "policy"
        hand_of(session).twist = RIGHT
        tick(session, 1, "takeover")
        assert session.status()["driver"] == "operator"
        tick(session, 3)
        tick(session, 1, "release")  # the hand moves on, and does not take over again by that
        tick(session, 4)
        assert session.status()["driver"] == "policy"
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    info = episode.info
    assert (info.source, info.round, info.policy, info.operator, info.device) == ("dagger", 3, "abc", "Åsa", "hand")
    assert not info.success
    modes, proposals, labels = parts(episode)
    assert modes == [POLICY] * 6 + [OWN] * 4 + [POLICY] * 5
    own = np.array(modes) == OWN
    np.testing.assert_allclose(episode.actions[own], np.tile([0.5, 0.0], (4, 1)))
    np.testing.assert_array_equal(labels[own], episode.actions[own])
    assert np.isnan(labels[~own]).all()
    np.testing.assert_array_equal(episode.actions[~own], proposals[~own])
    assert hand_overs(episode) == [(6, "takeover", "button"), (10, "release", "button")]
    # Chunks of 4 at 0 and 4; the takeover drops the rest, each of the operator's steps is answered afresh.
    asked = [(0, 0), (0, 1), (0, 2), (0, 3), (4, 0), (4, 1), (4, 2), (7, 0), (8, 0), (9, 0)]
    asked += [(10, 0), (10, 1), (10, 2), (10, 3), (14, 0)]
    expected = np.stack([chunk(episode, at)[index] for at, index in asked])
    np.testing.assert_allclose(proposals, expected, atol=1e-5)


def test_the_first_motion_takes_over_and_rest_hands_back(tmp_path: Path) -> None:
    with correcting(tmp_path, CorrectionConfig(rest_s=0.5)) as session:
        tick(session, 5, "start")
        hand_of(session).twist = RIGHT
        tick(session, 3)
        hand_of(session).twist = np.zeros(6)
        tick(session, 8)
        hand_of(session).twist = RIGHT
        tick(session, 1)
        tick(session, 1, "success")
    (episode,) = episodes(tmp_path / "d.hdf5")
    # Motion in 5, 6, 7; the fifth step of rest (at 10 Hz) is the policy's again; moved once more in 16.
    assert hand_overs(episode) == [(5, "takeover", "motion"), (12, "release", "rest"), (16, "takeover", "motion")]
    assert parts(episode)[0] == [POLICY] * 5 + [OWN] * 7 + [POLICY] * 4 + [OWN]
    np.testing.assert_array_equal(episode.actions[8:12], np.zeros((4, 2)))


def test_without_takeovers_by_motion_only_the_button_counts(tmp_path: Path) -> None:
    with correcting(tmp_path, CorrectionConfig(by_motion=False)) as session:
        tick(session, 3, "start")
        hand_of(session).twist = RIGHT
        tick(session, 3)
        assert session.status()["driver"] == "policy"
        tick(session, 1, "takeover")
        assert session.status()["driver"] == "operator"


def test_a_human_who_never_comes_leaves_an_autonomous_episode(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        hand_of(session).engaged = False
        tick(session, MAX_STEPS, "start")
        tick(session, 1, "start")
        assert session.kept == 1
    (episode,) = episodes(tmp_path / "d.hdf5")
    modes, proposals, labels = parts(episode)
    assert modes == [POLICY] * len(episode.actions)
    assert np.isnan(labels).all()
    assert not episode.events, "nobody had taken hold, so nobody let go"
    expected = np.concatenate([chunk(episode, at) for at in range(0, len(modes), CHUNK)])[: len(modes)]
    np.testing.assert_allclose(episode.actions, expected, atol=1e-5)
    np.testing.assert_array_equal(episode.actions, proposals)


def test_a_human_who_never_releases_drives_to_the_end_and_the_next_episode_is_the_policys(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        tick(session, 2, "start")
        tick(session, MAX_STEPS - 2, "takeover")
        assert session.state == "review"
        tick(session, 1, "start")
        assert session.status()["driver"] == "policy"
        tick(session, 3, "start")
        tick(session, 1, "failure")
    first, second = episodes(tmp_path / "d.hdf5")
    assert parts(first)[0] == [POLICY] * 2 + [OWN] * (MAX_STEPS - 2)
    assert hand_overs(first) == [(2, "takeover", "button")]
    assert parts(second)[0] == [POLICY] * 3


def test_quitting_in_mid_episode_asks_and_keeps_what_was_kept(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        tick(session, 3, "start")
        tick(session, 1, "success")
        tick(session, 3, "start")
        tick(session, 2, "takeover")
        tick(session, 1, "quit")
        assert session.state == "paused"
        tick(session, 1, "quit")
        assert session.state == "done"
    assert [e.info.success for e in episodes(tmp_path / "d.hdf5")] == [True]


def test_a_takeover_in_a_pause_counts_from_the_next_step_and_one_taken_back_leaves_no_trace(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        tick(session, 3, "start")
        tick(session, 2, "pause")
        tick(session, 1, "takeover", "release")
        tick(session, 1, "takeover")
        tick(session, 2, "start")
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert hand_overs(episode) == [(3, "takeover", "button")]
    assert parts(episode)[0] == [POLICY] * 3 + [OWN] * 2


def test_the_idle_pause_waits_for_the_operator_alone(tmp_path: Path) -> None:
    with correcting(tmp_path, config=SessionConfig(idle_pause_s=0.5)) as session:
        tick(session, 15, "start")
        assert session.state == "recording", "the policy drives"
        tick(session, 10, "takeover")
        assert session.state == "paused"


def test_takeover_means_nothing_outside_an_episode_and_release_nothing_while_the_policy_drives(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        tick(session, 1, "takeover")
        assert session.message == "takeover means nothing while ready"
        tick(session, 1, "start")
        tick(session, 1, "release")
        assert session.message == "release means nothing while recording"


def test_the_status_tells_the_plan(tmp_path: Path) -> None:
    with correcting(tmp_path) as session:
        assert session.status()["plan"] == []
        tick(session, 2, "start")
        plan = session.status()["plan"]
        json.dumps(plan, allow_nan=False)
        tick(session, 3)
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    np.testing.assert_allclose(plan, episode.actions[2:4], atol=6e-4)  # two of the chunk of four are done


class Closing(CorrectedPolicy):
    """A policy that closes the gripper, to some part."""

    def decide(self, obs: Any) -> Any:
        self.policy.act = lambda obs: torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.6]])  # type: ignore[method-assign]
        self.policy.plan = lambda row: torch.zeros(0, 5)  # type: ignore[method-assign]
        return super().decide(obs)


def test_the_gripper_starts_from_where_the_policy_has_it(tmp_path: Path) -> None:
    clock = Clock()
    hand = Hand(clock)
    with make("Lift", 1) as env, open_writer(tmp_path / "d.hdf5", env) as writer:
        size = env.action_spec.size
        driver = Closing(PolicyRunner(toy_policy(actions=size), 1), CorrectionConfig(), rate=20.0)
        session = Session(
            env,
            hand,
            writer,
            task="Lift",
            config=SessionConfig(),
            target=1,
            driver=driver,
            clock=clock,
            sleep=clock.sleep,
        )
        tick(session, 3, "start")
        assert session.status()["gripper"] == 0.6
        tick(session, 2, "takeover")
        tick(session, 1, "success")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert size == 5
    np.testing.assert_allclose(episode.actions[:, -1], 0.6, atol=1e-6)


def test_a_toggle_opens_a_gripper_that_the_policy_has_closed() -> None:
    profile: Profile = load_profile("browser")
    meaning = Interpreter(profile)
    toggled = Signals(values={"Space": 1.0}, pressed=("Space",), buttons=(), live=True, sampled_at=0.0)
    meaning.follow_gripper(1.0)
    assert meaning.command(toggled).gripper == -1.0
    assert meaning.command(toggled).gripper == 1.0
    BrowserDevice(profile).follow_gripper(1.0)


class Watched(Hand):
    """Tells of every takeover that it brings to a session."""

    taken: Callable[[], None]

    def read(self) -> Command:
        command = super().read()
        if "takeover" in command.buttons:
            self.taken()
        return command


def test_in_real_time_the_first_tick_after_the_button_is_the_operators(tmp_path: Path) -> None:
    """At 20 Hz: between button and executed action lies the wait for the next tick, and the tick's own work."""
    hand = Watched(Clock())
    pressed: list[float] = []
    taken: list[int] = []
    done: list[tuple[float, str]] = []
    with correcting(tmp_path, CorrectionConfig(by_motion=False), SessionConfig(rate=20.0), device=hand) as session:
        session.pacer = type(session.pacer)(20.0, clock=time.monotonic, sleep=time.sleep)
        # A person who is stalled presses when the episode has ended, where the button means nothing.
        hand.taken = lambda: taken.append(len(done)) if is_under_way() else None

        def is_under_way() -> bool:
            return session.state == "recording" and session.status()["step"] < MAX_STEPS - 1

        def person() -> None:
            rng = np.random.default_rng(0)
            for _ in range(12):
                time.sleep(rng.uniform(0.1, 0.2))
                while session.state != "recording" or session.status()["step"] > MAX_STEPS - 5:
                    time.sleep(0.003)
                ticks = len(done)
                pressed.append(time.perf_counter())
                hand.buttons.append("takeover")
                while len(done) < ticks + 3:  # by the clock, a stalled machine would read both buttons in one tick
                    time.sleep(0.003)
                hand.buttons.append("release")
            time.sleep(0.2)
            hand.buttons.extend(("pause", "quit"))

        def on_tick(session: Session) -> None:
            done.append((time.perf_counter(), session.status()["driver"]))
            if session.state in ("ready", "review"):
                hand.buttons.append("start")

        acting = threading.Thread(target=person, daemon=True)
        acting.start()
        session.run(on_tick)
        acting.join()
    assert len(taken) > 6
    assert {done[tick][1] for tick in taken} == {"operator"}
    waits = [next(when for when, _ in done if when > at) - at for at in pressed]
    assert np.median(waits) < 0.15


class Doubts:
    """Asks before the steps that the test names, and remembers what it was told."""

    def __init__(self, *steps: int) -> None:
        self.steps, self.step = steps, 0
        self.heard: list[list[bool]] = []
        """Who made the steps of each episode."""
        self.own: list[list[float] | None] = []

    def reset(self, seed: int) -> None:
        self.step = 0
        self.heard.append([])

    def judge(self, obs: Any, window: Any, proposal: torch.Tensor, action: torch.Tensor | None) -> tuple[float, str]:
        self.own.append(None if action is None else action[0].tolist())
        return 0.5 * self.step, "novelty 3" if self.step in self.steps else ""

    def made(self, *, by_hand: bool) -> None:
        self.heard[-1].append(by_hand)
        self.step += 1

    def rewind(self, step: int) -> None:
        self.step = step
        del self.heard[-1][step:]

    def finish(self) -> None: ...


def story(episode: Episode) -> list[tuple[int, str, str]]:
    return [(event.step, event.kind, event.reason) for event in episode.events]


def test_where_the_robot_asks_it_holds_still_until_somebody_takes_over(tmp_path: Path) -> None:
    doubts = Doubts(3)
    with correcting(tmp_path, asker=doubts) as session:
        tick(session, 4, "start")
        assert (session.state, session.status()["question"]) == ("paused", "novelty 3")
        before = {key: value.clone() for key, value in session.obs.items()}
        tick(session, 20)
        assert session.status()["step"] == 3
        assert all(torch.equal(value, before[key]) for key, value in session.obs.items())
        hand_of(session).twist = RIGHT
        tick(session, 2, "takeover")
        assert (session.state, session.status()["question"]) == ("recording", "")
        tick(session, 2, "release")
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    modes, proposals, _ = parts(episode)
    assert modes == [POLICY] * 3 + [OWN] * 2 + [POLICY] * 2
    assert story(episode) == [
        (3, "ask", "novelty 3"),
        (3, "resume", "answered"),
        (3, "takeover", "button"),
        (5, "release", "button"),
    ]
    assert doubts.heard[0] == [mode == OWN for mode in modes]
    assert [own for own in doubts.own if own is not None] == [[0.5, 0.0]], "who answers need not be judged again"
    assert episode.gate is not None
    np.testing.assert_array_equal(episode.gate, 0.5 * np.arange(7, dtype=np.float32))
    np.testing.assert_allclose(proposals[3], chunk(episode, 0)[3], atol=1e-5)  # asked once, in the course of its chunk


def test_motion_answers_too(tmp_path: Path) -> None:
    with correcting(tmp_path, asker=Doubts(3)) as session:
        tick(session, 6, "start")
        hand_of(session).twist = RIGHT
        tick(session, 1)
        assert session.status()["driver"] == "operator"
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert story(episode)[-1] == (3, "takeover", "motion")


def test_a_question_that_is_declined_lets_the_policy_go_on_until_there_is_a_new_one(tmp_path: Path) -> None:
    with correcting(tmp_path, asker=Doubts(3, 4, 5, 8)) as session:
        tick(session, 5, "start")
        tick(session, 6, "start")
        assert session.state == "paused"
        assert session.status()["step"] == 8
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert parts(episode)[0] == [POLICY] * 8
    assert story(episode) == [(3, "ask", "novelty 3"), (3, "resume", "declined"), (8, "ask", "novelty 3")]


def test_asked_and_unanswered_the_attempt_ends_and_says_so(tmp_path: Path) -> None:
    with correcting(tmp_path, CorrectionConfig(patience_s=1.0), asker=Doubts(3)) as session:
        tick(session, 4, "start")
        tick(session, 9)
        assert session.state == "paused"
        tick(session, 2)
        assert session.state == "ready"
        assert "nobody answered" in session.message
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert not episode.info.success
    assert parts(episode)[0] == [POLICY] * 3
    assert story(episode) == [(3, "ask", "novelty 3"), (3, "mark", "unanswered")]


class Wandering(CorrectedPolicy):
    """A policy that moves as it pleases, each step otherwise."""

    step = 0

    def _propose(self, obs: Any) -> torch.Tensor:
        if self._proposals is None:
            self.step += 1
            self._proposals = torch.tensor([[0.1 * np.sin(self.step), 0.3, -0.1, 0.0, -1.0]], dtype=torch.float32)
        return self._proposals


@contextmanager
def wandering(path: Path, *, asker: Asker | None = None) -> Iterator[Session]:
    clock = Clock()
    with make("Lift", 1) as env, open_writer(path, env) as writer:
        runner = PolicyRunner(toy_policy(actions=env.action_spec.size), 1)
        yield Session(
            env,
            Hand(clock),
            writer,
            task="Lift",
            config=SessionConfig(),
            target=1,
            keep_failures=True,
            driver=Wandering(runner, CorrectionConfig(rewind_s=0.5), rate=20.0, asker=asker),
            clock=clock,
            sleep=clock.sleep,
        )


def test_the_last_seconds_are_taken_back_as_if_they_had_not_been(tmp_path: Path) -> None:
    with wandering(tmp_path / "whole.hdf5") as session:
        tick(session, 30, "start")
        tick(session, 1, "failure")
    doubts = Doubts()
    with wandering(tmp_path / "d.hdf5", asker=doubts) as session:
        assert "rewind" not in session.status()["buttons"]
        tick(session, 24, "start")
        tick(session, 6, "mark")
        tick(session, 4, "rewind")
        assert (session.state, session.status()["step"]) == ("paused", 20)
        hand_of(session).twist = RIGHT
        tick(session, 3)  # the first motion goes on, by hand
        assert session.status()["driver"] == "operator"
        tick(session, 1, "failure")
    assert validate(tmp_path / "d.hdf5") == []
    with Dataset(tmp_path / "d.hdf5") as dataset, Dataset(tmp_path / "whole.hdf5") as whole:
        assert len(dataset) == 1
        episode, other = dataset.read(0), whole.read(0)
    assert parts(episode)[0] == [POLICY] * 20 + [OWN] * 3
    assert episode.states is not None
    assert other.states is not None
    np.testing.assert_array_equal(episode.actions[:20], other.actions[:20])
    # Bit for bit where it was: the state before the operator's first step is the one from which the policy went on.
    np.testing.assert_array_equal(episode.states[:21], other.states[:21])
    for key in episode.obs:
        np.testing.assert_array_equal(episode.obs[key][:21], other.obs[key][:21])
    assert not np.array_equal(episode.states[21], other.states[21])
    assert story(episode) == [(20, "rewind", "10 steps"), (20, "resume", "motion"), (20, "takeover", "rewind")]
    assert (np.diff(episode.timestamps) > 0).all()
    assert doubts.heard[0] == [False] * 20 + [True] * 3
    assert not list(tmp_path.glob("**/*.journal"))


def test_an_episode_that_ends_where_it_was_taken_back_to_ends_with_that_observation(tmp_path: Path) -> None:
    with wandering(tmp_path / "d.hdf5") as session:
        tick(session, 30, "start")
        tick(session, 1, "rewind")
        shown = {key: value[0].numpy().copy() for key, value in session.obs.items()}
        tick(session, 1, "failure")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert len(episode) == 20
    for key, value in episode.final_obs.items():
        np.testing.assert_array_equal(value, shown[key])


def test_without_memory_of_states_there_is_nothing_to_take_back_to(tmp_path: Path) -> None:
    with correcting(tmp_path, CorrectionConfig(rewind_s=0.0)) as session:
        tick(session, 10, "start")
        tick(session, 1, "rewind")
        assert session.message == "rewind means nothing while recording"
