"""A session as a state machine: every button in every state, and whatever happens the file holds what was kept."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from robolearn.configuration.parts.session import SessionConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.specs import Episode, EventKind
from robolearn.teleop.devices.device import BUTTONS, Command
from robolearn.teleop.session import Session, State
from tests.teleop.session_parts import MAX_STEPS, Hand, hand_of, session_at, solve, tick


def episodes(path: Path) -> list[Episode]:
    assert validate(path) == []
    with Dataset(path) as dataset:
        return [dataset.read(i) for i in range(len(dataset)) if not dataset.interrupted[i]]


def events(episode: Episode) -> list[tuple[int, EventKind, str]]:
    return [(event.step, event.kind, event.reason) for event in episode.events]


def bring(session: Session, state: State) -> None:
    """Into a state, with one episode kept and some steps of another where there can be any."""
    solve(session)
    tick(session, 20)
    if state is State.COUNTDOWN:
        tick(session, 1, "start")
    elif state is not State.READY:
        tick(session, 14, "start")  # the countdown takes ten
        if state is State.PAUSED:
            tick(session, 1, "pause")
        elif state is State.REVIEW:
            tick(session, MAX_STEPS)
    assert session.state is state


R, C, G, P, V, D = State.READY, State.COUNTDOWN, State.RECORDING, State.PAUSED, State.REVIEW, State.DONE
TABLE: dict[State, dict[str, State]] = {
    R: {"start": C, "discard": R, "undo": R, "quit": D},
    C: {"start": R, "pause": R, "discard": R, "rerecord": R, "undo": C, "quit": D},
    G: {
        "start": P,
        "pause": P,
        "success": R,
        "failure": R,
        "discard": R,
        "rerecord": R,
        "mark": G,
        "undo": G,
        "quit": P,
    },
    P: {
        "start": G,
        "pause": G,
        "success": R,
        "failure": R,
        "discard": R,
        "rerecord": R,
        "mark": P,
        "undo": P,
        "quit": D,
    },
    V: {"start": R, "success": R, "failure": R, "discard": R, "rerecord": R, "undo": V, "quit": D},
}


@pytest.mark.parametrize("state", TABLE)
@pytest.mark.parametrize("button", BUTTONS)
@pytest.mark.long
def test_every_button_in_every_state(tmp_path: Path, state: State, button: str) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(countdown_s=1.0)) as session:
        bring(session, state)
        offered = button in session.status()["buttons"]
        assert offered == (button in TABLE[state])
        session.press(button)
        assert session.state is TABLE[state].get(button, state)
        if not offered:
            assert session.message == f"{button} means nothing while {state}"
        json.dumps(session.status(), allow_nan=False)
        kept = list(session.kept_now)
    assert [(e.info.seed) for e in episodes(tmp_path / "d.hdf5")] == [seed for _, seed in kept]


class AnyOrder(RuleBasedStateMachine):
    """Whatever is pressed in whatever order, the file holds the episodes that were kept, and is valid."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.path = Path(self.stack.enter_context(tempfile.TemporaryDirectory())) / "d.hdf5"
        config = SessionConfig(countdown_s=0.2, idle_pause_s=0.7)
        self.open = ExitStack()
        self.session = self.open.enter_context(session_at(self.path, config, target=3))
        self.hand = hand_of(self.session)

    @precondition(lambda self: self.session.state is not State.DONE)
    @rule(button=st.sampled_from([button for button in BUTTONS if button != "quit"]))
    def press(self, button: str) -> None:
        tick(self.session, 1, button)

    @precondition(lambda self: self.session.state is not State.DONE)
    @rule(several=st.lists(st.sampled_from(BUTTONS), max_size=4))
    def press_several_at_once(self, several: list[str]) -> None:
        tick(self.session, 1, *several)

    @precondition(lambda self: self.session.state is not State.DONE)
    @rule(count=st.integers(1, 15), moving=st.booleans())
    def wait(self, count: int, moving: bool) -> None:
        self.hand.twist = np.array([0.3 if moving else 0.0, 0, 0, 0, 0, 0])
        for _ in range(count):
            if self.session.state is not State.DONE:
                tick(self.session)

    @precondition(lambda self: self.session.state is State.RECORDING and self.hand.there and self.hand.engaged)
    @rule()
    def solve(self) -> None:
        solve(self.session)

    @rule()
    def unplug_or_plug_in(self) -> None:
        self.hand.there = not self.hand.there

    @rule()
    def let_go_or_take_hold(self) -> None:
        self.hand.engaged = not self.hand.engaged

    @rule(seconds=st.floats(0.0, 30.0))
    def stall(self, seconds: float) -> None:
        self.hand.clock.now += seconds

    @invariant()
    def status_is_plain(self) -> None:
        json.dumps(self.session.status(), allow_nan=False)

    def teardown(self) -> None:
        kept = list(self.session.kept_now)
        recording = self.session.state in (State.RECORDING, State.PAUSED, State.REVIEW)
        # What is under way when a session is torn down is kept, but for the step whose outcome nobody saw.
        rescued = recording and self.session.status()["step"] > 1
        self.open.close()
        if kept or rescued:
            assert validate(self.path) == []
            with Dataset(self.path) as dataset:
                found = [(name, info.seed) for name, info in zip(dataset.episodes, dataset.info)]
                assert found[: len(kept)] == kept
                assert list(dataset.interrupted) == [False] * len(kept) + [True] * rescued
        self.stack.close()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))


def test_a_solved_episode_is_kept_with_who_and_what(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", notes="Übung №1 ✓", device_name="hand") as session:
        tick(session, 5)
        assert session.status()["step"] == 0, "nothing moves before the start"
        solve(session)
        assert session.state is State.REVIEW
        assert session.outcome
        tick(session, 10)
        assert session.state is State.READY
    (episode,) = episodes(tmp_path / "d.hdf5")
    info = episode.info
    assert (info.success, info.operator, info.device, info.notes) == (True, "Åsa", "hand", "Übung №1 ✓")
    # The hand's own arithmetic, by hand: each step moves by at most 0.1 along each axis.
    state = episode.obs["state"].astype(np.float64)
    np.testing.assert_allclose(state[1:, :2], state[:-1, :2] + 0.1 * episode.actions[:-1], atol=1e-5)
    assert bool(episode.terminated[-1])


def test_operator_and_notes_may_change_between_episodes(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        solve(session)
        tick(session, 10)
        session.operator, session.notes = "Bo", "left hand"
        solve(session)
        tick(session, 10)
    assert [(e.info.operator, e.info.notes) for e in episodes(tmp_path / "d.hdf5")] == [
        ("Åsa", ""),
        ("Bo", "left hand"),
    ]


def test_rerecord_gives_the_same_scene_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", first_seed=5) as session:
        before = session.obs["state"].clone()
        tick(session, 4, "start")
        tick(session, 1, "rerecord")
        assert session.status()["seed"] == 5
        assert torch.equal(session.obs["state"], before)
        solve(session)
        tick(session, 10)
        assert session.status()["seed"] == 6
        assert session.discarded == 1
    assert [e.info.seed for e in episodes(tmp_path / "d.hdf5")] == [5]


def test_undo_takes_the_last_one_back_also_while_another_is_recorded(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        for _ in range(2):
            solve(session)
            tick(session, 10)
        tick(session, 3, "start")
        tick(session, 1, "undo")
        assert session.message == "took demo_1 back"
        assert session.state is State.RECORDING
        solve(session)
        tick(session, 10)
        assert session.kept == 2
    assert [e.info.seed for e in episodes(tmp_path / "d.hdf5")] == [0, 2]


def test_countdown_waits_and_start_stops_it(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(countdown_s=1.0)) as session:
        tick(session, 5, "start")
        assert session.state is State.COUNTDOWN
        assert 0.4 < session.status()["countdown_s"] < 0.7
        tick(session, 1, "start")
        assert session.state is State.READY
        tick(session, 12, "start")
        assert session.state is State.RECORDING


def test_start_by_motion(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(start="motion")) as session:
        tick(session, 10)
        assert session.state is State.READY
        hand_of(session).twist = np.array([0.5, 0, 0, 0, 0, 0])
        tick(session)
        assert session.state is State.RECORDING
        assert session.status()["step"] == 1, "the first motion itself is recorded"


def test_idle_pauses_end_with_motion_and_are_noted_and_not_recorded(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(idle_pause_s=1.0)) as session:
        hand = hand_of(session)
        hand.twist = np.array([0.5, 0, 0, 0, 0, 0])
        tick(session, 3, "start")
        hand.twist = np.zeros(6)
        tick(session, 30)
        assert session.state is State.PAUSED
        steps = session.status()["step"]
        assert steps == 3 + 10
        hand.twist = np.array([0.5, 0, 0, 0, 0, 0])
        tick(session, 1)
        assert session.status()["step"] == steps + 1
        tick(session, 1, "success")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert events(episode) == [(13, "pause", "idle"), (13, "resume", "motion")]


def test_a_pause_of_the_operator_does_not_end_with_motion(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(idle_pause_s=1.0)) as session:
        hand_of(session).twist = np.array([0.5, 0, 0, 0, 0, 0])
        tick(session, 3, "start")
        tick(session, 30, "pause")
        assert session.state is State.PAUSED


@pytest.mark.parametrize(
    ("review", "solved", "asked", "kept"),
    [
        ("failures", True, False, True),
        ("failures", False, True, None),
        ("always", True, True, None),
        ("never", False, False, False),
        ("never", True, False, True),
    ],
)
def test_review(tmp_path: Path, review: str, solved: bool, asked: bool, kept: bool | None) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(review=review)) as session:  # type: ignore[arg-type]
        if solved:
            solve(session)
        else:
            tick(session, MAX_STEPS, "start")
        assert session.status()["asked"] == asked
        tick(session, 50)
        assert (session.state is State.REVIEW) == asked
        if kept is not None:
            assert (session.kept, session.discarded) == ((1, 0) if kept else (0, 1))


def test_failures_are_kept_where_they_are_wanted(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(review="never"), keep_failures=True) as session:
        tick(session, MAX_STEPS + 20, "start")
        assert session.kept == 1
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert not episode.info.success
    assert bool(episode.truncated[-1])


def test_a_lost_device_pauses_and_is_taken_back(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        hand = hand_of(session)
        hand.twist = np.array([0.5, 0, 0, 0, 0, 0])
        tick(session, 4, "start")
        hand.there = False
        tick(session, 30)
        assert session.state is State.PAUSED
        assert session.status()["device_lost"]
        assert session.status()["step"] == 4
        hand.there = True
        tick(session, 11)
        assert not session.status()["device_lost"]
        assert session.message == "the device is back"
        tick(session, 2, "start")
        assert session.status()["step"] == 6
        tick(session, 1, "success")
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert events(episode) == [(4, "pause", "device lost"), (4, "resume", "operator")]


def test_a_countdown_does_not_go_on_without_a_device(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(countdown_s=1.0)) as session:
        tick(session, 2, "start")
        hand_of(session).there = False
        tick(session, 20)
        assert session.state is State.READY


def test_letting_go_holds_the_robot_still_and_is_noted(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        hand = hand_of(session)
        hand.twist = np.array([1.0, 0, 0, 0, 0, 0])
        tick(session, 3, "start")
        hand.engaged = False
        tick(session, 4)
        hand.engaged = True
        tick(session, 2)
        tick(session, 1, "success")
    (episode,) = episodes(tmp_path / "d.hdf5")
    np.testing.assert_array_equal(episode.actions[:, 0], [1, 1, 1, 0, 0, 0, 0, 1, 1])
    assert events(episode) == [(3, "mark", "operator let go"), (7, "mark", "operator is back")]


def test_an_action_of_the_wrong_size_holds_the_robot_and_says_so(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        tick(session, 1, "start")
        hand_of(session).action = np.ones(7, np.float32)
        tick(session, 2)
        assert "takes 2 finite numbers" in session.message
        hand_of(session).action = np.array([1.0, 0.0], np.float32)
        tick(session, 1)
        tick(session, 1, "success")
    (episode,) = episodes(tmp_path / "d.hdf5")
    np.testing.assert_array_equal(episode.actions[:, 0], [0, 0, 0, 1])


def test_late_steps_are_those_of_the_episode_alone(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        clock = hand_of(session).clock
        tick(session, 2)
        clock.now += 0.5  # before it begins
        tick(session)
        tick(session, 3, "start")
        for _ in range(2):
            clock.now += 0.3
            tick(session)
        tick(session, 1, "pause")
        clock.now += 0.9  # the world stands still
        tick(session, 1)
        tick(session, 1, "start")
        tick(session, 1, "success")
        assert session.pacer.late == 4
    (episode,) = episodes(tmp_path / "d.hdf5")
    assert episode.info.late_steps == 2


def test_quit_asks_twice_while_an_episode_is_recorded(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session:
        tick(session, 3, "start")
        tick(session, 1, "quit")
        assert session.state is State.PAUSED
        assert "quit again" in session.message
        tick(session, 1, "quit")
        assert session.state is State.DONE
        assert session.discarded == 1


def test_quit_in_review_keeps_what_is_solved(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(review="always")) as session:
        solve(session)
        tick(session, 1, "quit")
    assert len(episodes(tmp_path / "d.hdf5")) == 1


def test_beyond_the_target_the_operator_decides(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", target=1) as session:
        for _ in range(2):
            solve(session)
            tick(session, 10)
        assert session.state is State.READY
        assert session.message.startswith("all 1 are recorded")
        assert session.kept == 2


@dataclass
class Automaton(Hand):
    """A device that sees and needs nobody."""

    def __init__(self) -> None:
        self.obs: dict[str, torch.Tensor] = {}
        self.solves = True

    def connect(self) -> None: ...

    def reset(self, seed: int) -> None:
        self.solves = seed % 2 == 1

    def see(self, obs: dict[str, torch.Tensor]) -> None:
        self.obs = obs

    def read(self) -> Command:
        x, y, goal_x, goal_y = self.obs["state"][0].tolist()
        action = np.clip([(goal_x - x) / 0.1, (goal_y - y) / 0.1], -1, 1).astype(np.float32) * self.solves
        return Command(twist=np.zeros(6), gripper=None, buttons=(), engaged=True, sampled_at=0.0, action=action)


def test_a_device_that_needs_nobody_is_never_asked_and_ends_at_the_target(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", device=Automaton(), target=3) as session:
        session.run()
        assert (session.kept, session.discarded) == (3, 3)
    assert [e.info.seed for e in episodes(tmp_path / "d.hdf5")] == [1, 3, 5]


def test_beyond_the_target_a_motion_begins_nothing_and_the_button_does(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5", SessionConfig(start="motion"), target=1, kept=1) as session:
        hand_of(session).twist = np.array([1.0, 0, 0, 0, 0, 0])
        tick(session, 3)
        assert session.state == "ready"
        tick(session, 1, "start")
        assert session.state == "recording"
