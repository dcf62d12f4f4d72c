"""The page of a session: what it lets pass, who drives, and a person at it, whom a real browser plays."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from robolearn.cli.main import main
from robolearn.configuration.parts.session import SessionConfig
from robolearn.datasets.dataset import Dataset
from robolearn.datasets.tools.validate import validate
from robolearn.envs.make import make
from robolearn.evaluation.evaluate import evaluate
from robolearn.policies.folder import load_policy
from robolearn.seeds import REPORT_SEED
from robolearn.teleop.page import AHEAD, FRAME_HEAD, LONGEST, RATE, SessionPage
from robolearn.teleop.seat import PATIENCE_S, Seat
from tests.teleop.browser import chromium, open_page
from tests.teleop.recorder import Recorder, client, recorder
from tests.teleop.session_parts import Clock, session_at, tick
from tests.waiting import wait_until

SMALL = ("--loop.total_steps", "800", "--policy.obs_keys", "goal", "--policy.head.name", "deterministic")
SMALL += ("--policy.backbone.hidden_sizes", "32", "32")
"""What ten demonstrations are enough for; as in docs/teleoperation.md."""
QUIET = ("--task", "Reach", "--output", "d.hdf5", "--task.max_steps", "4000", "--episodes", "3")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def reach(tmp_path: Path) -> Iterator[Recorder]:
    with recorder(tmp_path, *QUIET) as running:
        yield running


@pytest.fixture
def blind(tmp_path: Path) -> Iterator[Recorder]:
    """The same without pictures, which begins sooner."""
    with recorder(tmp_path, *QUIET, pictures=False) as running:
        yield running


# ---- without a browser


def test_publishing_costs_the_control_loop_microseconds(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session, SessionPage(session, SessionConfig(port=0)) as page:
        with client(page.server.link):
            took = []
            for _ in range(300):
                began = time.thread_time()
                page.publish(session)
                took.append(time.thread_time() - began)
                time.sleep(0.002)
        assert np.median(took) < 100e-6
        assert np.percentile(took, 99) < 3e-3


def test_with_another_device_the_page_shows_the_session_and_its_buttons_work(tmp_path: Path) -> None:
    with (
        session_at(tmp_path / "d.hdf5", device_name="hand") as session,
        SessionPage(session, SessionConfig(port=0)) as page,
        client(page.server.link) as operator,
    ):
        assert operator.hello["drives"] is False
        assert operator.hello["keys"]["Enter"] == "start"
        operator.press("start")
        wait_until(lambda: page._buttons)
        page.publish(session)
        assert session.state == "recording"
        operator.say(notes="Übung ✓ 🤖\x00\x07", operator="Ömer")
        wait_until(lambda: len(page._texts) == 2)
        page.publish(session)
        assert (session.notes, session.operator) == ("Übung ✓ 🤖", "Ömer")
        tick(session, 4)
        tick(session, 1, "success")
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert dataset.info[0].notes == "Übung ✓ 🤖"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("{", "not JSON"),
        ("[" * 50_000, "not JSON"),
        ("[1]", "not an object"),
        ('{"hack": 1}', "unknown field"),
        ('{"input": 7}', "input is not an object"),
        ('{"input": {"buttons": ["explode"]}}', "unknown session button"),
        ('{"seen": 10000000}', "no such status"),
        ('{"seen": [1]}', "no such status"),
        (json.dumps({"notes": "x" * (LONGEST["notes"] + 1)}), "text too long or none"),
        ('{"operator": 5}', "text too long or none"),
        ('{"notes": "\\ud800"}', "text is not Unicode"),
        ('{"input": {"gamepad": {"axes": [NaN]}}}', None),
    ],
)
def test_malformed_messages_are_counted_and_change_nothing(tmp_path: Path, text: str, fault: str | None) -> None:
    with (
        session_at(tmp_path / "d.hdf5") as session,
        SessionPage(session, SessionConfig(port=0)) as page,
        client(page.server.link) as operator,
    ):
        operator.input = None
        before = session.status()
        operator.socket.send(text)
        if fault is not None:
            wait_until(lambda: page.counts[fault] == 1)
        page.publish(session)
        after = session.status()
        assert (after["state"], after["notes"], after["operator"]) == (
            before["state"],
            before["notes"],
            before["operator"],
        )
        page.publish(session)
        wait_until(lambda: operator.status["refused"] == page.counts.total())


def test_huge_and_binary_messages(tmp_path: Path) -> None:
    with (
        session_at(tmp_path / "d.hdf5") as session,
        SessionPage(session, SessionConfig(port=0)) as page,
        client(page.server.link) as operator,
    ):
        operator.socket.send(b"\x00\x01")
        wait_until(lambda: page.counts["not JSON"] == 1)
        operator.socket.send("x" * 1_000_000)
        assert operator.closed.wait(10.0), "the line of who sends so much is cut"
        wait_until(lambda: page.counts["too large"] == 1)
        with client(page.server.link) as other:
            assert other.status["state"] == "ready"


def test_ten_thousand_messages_a_second_are_counted_and_the_session_goes_on(tmp_path: Path) -> None:
    with (
        session_at(tmp_path / "d.hdf5") as session,
        SessionPage(session, SessionConfig(port=0)) as page,
        client(page.server.link) as operator,
    ):
        take, taken = page._take, Counter[str]()

        def counted(viewer: Any, text: str | None) -> None:
            take(viewer, text)
            taken["all"] += 1

        page._take = counted
        began = time.monotonic()
        for _ in range(20_000):
            operator.socket.send('{"input": {"keys": ["KeyW"]}}')
        wait_until(lambda: taken["all"] >= 20_000)
        assert page.counts["too many"] >= 20_000 - RATE * (2.0 + time.monotonic() - began)
        operator.press("start")
        wait_until(lambda: page._buttons or page.counts["too many"])
        page.publish(session)
        with client(page.server.link, "other") as other:
            assert other.status["pages"] == 2


def test_a_slow_page_gets_the_newest_status_and_no_queue(tmp_path: Path) -> None:
    with (
        session_at(tmp_path / "d.hdf5") as session,
        SessionPage(session, SessionConfig(port=0)) as page,
        connect(f"ws://127.0.0.1:{page.server.port}/control?page=slow") as socket,
    ):
        json.loads(socket.recv())
        session.message = "old"
        for _ in range(AHEAD):  # so many may be on their way unacknowledged
            time.sleep(0.04)
            page.publish(session)
            last = json.loads(socket.recv(timeout=60.0))["n"]
        for message in (*["old"] * 10, "new"):
            session.message = message
            time.sleep(0.04)
            page.publish(session)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.3)
        socket.send(json.dumps({"seen": last}))
        assert json.loads(socket.recv(timeout=60.0))["message"] == "new"


def test_two_pages_one_drives_and_hands_over(tmp_path: Path) -> None:
    with session_at(tmp_path / "d.hdf5") as session, SessionPage(session, SessionConfig(port=0)) as page:
        clock = Clock()
        page.seat = Seat(clock)

        def publish_until(condition: Callable[[], bool]) -> None:
            def published() -> bool:
                page.publish(session)
                return condition()

            wait_until(published)

        with client(page.server.link, "first") as first, client(page.server.link, "second") as second:
            first.input = second.input = None
            publish_until(lambda: first.status["you_drive"] and not second.status["you_drive"])
            second.press("start")
            wait_until(lambda: page.counts["only watching"])
            page.publish(session)
            assert session.state == "ready"
            second.say(ask=True)
            publish_until(lambda: first.status["asked_for"] and second.status["you_ask"])
            first.say(give=True)
            publish_until(lambda: second.status["you_drive"] and not first.status["you_drive"])
            second.press("start")
            publish_until(lambda: session.state == "recording")
            # Asked, and silent.
            first.say(ask=True)
            publish_until(lambda: first.status["you_ask"])
            clock.now += PATIENCE_S - 0.1
            told = first.status["n"]
            publish_until(lambda: first.status["n"] >= told + AHEAD)
            assert not first.status["you_drive"]
            clock.now += 0.2
            publish_until(lambda: first.status["you_drive"])
        with client(page.server.link, "first") as first:
            publish_until(lambda: first.status["you_drive"])


def test_strangers_are_refused(tmp_path: Path) -> None:
    with (
        session_at(tmp_path / "d.hdf5") as session,
        SessionPage(session, SessionConfig(host="0.0.0.0", port=0)) as page,
    ):
        port, token = page.server.port, page.server.token
        for path in ("control", "pictures"):
            with pytest.raises(InvalidStatus, match="401"):
                connect(f"ws://127.0.0.1:{port}/{path}")
            with pytest.raises(InvalidStatus, match="403"):
                connect(f"ws://127.0.0.1:{port}/{path}?token={token}", origin="http://evil.example")  # type: ignore[arg-type]
        with client(f"http://127.0.0.1:{port}/?token={token}") as operator:
            assert operator.status["you_drive"]
        with urlopen(
            Request(f"http://127.0.0.1:{port}/page.js", headers={"Authorization": f"Bearer {token}"})
        ) as answer:
            assert answer.status == 200


@pytest.mark.long
def test_pictures_wait_for_the_page_and_the_newest_comes_first(reach: Recorder) -> None:
    link = reach.link
    with client(link) as operator, connect(link.replace("http", "ws") + "pictures") as socket:
        assert operator.hello["cameras"] == ["front", "wrist"]
        operator.press("start")
        operator.input = {"keys": ["KeyW", "KeyD"]}

        def picture(line: ClientConnection) -> tuple[int, int]:
            """Which camera's, and its number."""
            data = line.recv(timeout=60.0)
            assert isinstance(data, bytes)
            assert data[FRAME_HEAD.size :].startswith(b"\xff\xd8")
            return FRAME_HEAD.unpack_from(data)

        newest = max(picture(socket)[1] for _ in range(2 * AHEAD))
        with pytest.raises(TimeoutError):  # no more of each camera, unacknowledged
            socket.recv(timeout=0.5)
        with connect(link.replace("http", "ws") + "pictures") as other:
            passed = 0
            while passed <= newest + 2:
                camera, passed = picture(other)
                other.send(str(camera))
        socket.send("0")
        camera, number = picture(socket)
        assert camera == 0
        assert number > newest, "those in between are gone"


@pytest.mark.long
def test_silence_holds_the_robot_still_and_the_recording_goes_on(blind: Recorder, tmp_path: Path) -> None:
    with client(blind.link) as operator:
        operator.press("start")
        operator.input = {"keys": ["KeyW"]}
        operator.wait_for_step(10)
        operator.input = None
        wait_until(lambda: operator.status["engaged"] is False)
        silent = operator.status["step"]
        operator.wait_for_step(silent + 10)
        assert operator.status["twist"] == [0.0] * 6
        operator.input = {"keys": ["KeyD"]}
        wait_until(lambda: operator.status["twist"][1] == -1.0)
        operator.wait_for_step(operator.status["step"] + 1)
        operator.press("success")
        operator.wait(kept=1)
        operator.press("quit")
        assert blind.wait() == 0
    with Dataset(tmp_path / "d.hdf5") as dataset:
        episode = dataset.read(0)
    assert [event.reason for event in episode.events][:2] == ["operator let go", "operator is back"]
    # A stall of this process is silence as well: that before `silent` is meant, until the first word after it.
    gone = max(event.step for event in episode.events if event.reason == "operator let go" and event.step <= silent)
    back = min(event.step for event in episode.events if event.reason == "operator is back" and event.step > silent)
    assert back - gone >= 10
    assert (episode.actions[gone:back] == 0).all()
    assert (episode.actions[back:, 1] == -1).any()


# ---- a person at the page


def state(page: Any) -> str:
    return page.locator("#state").get_attribute("data-state")


PERSON = """() => {
  const held = new Set();
  let until = 0;
  const press = (type, code) => dispatchEvent(new KeyboardEvent(type, { code }));
  const hold = (wanted) => {
    for (const key of [...held].filter((key) => !wanted.includes(key))) { held.delete(key); press("keyup", key); }
    for (const key of wanted.filter((key) => !held.has(key))) { held.add(key); press("keydown", key); }
  };
  // Who decides is another process: where it stalls, the keys are let go.
  window.hold = (wanted) => { hold(wanted); until = performance.now() + 400; };
  setInterval(() => { if (performance.now() > until) hold([]); }, 50);
  const shown = (key) => document.querySelector(`output[data-key=${key}]`).textContent.trim().split(/\\s+/).map(Number);
  window.look = () => [document.querySelector("#state").dataset.state, shown("proprio"), shown("object")];
}"""
"""Holds down just the keys that it is told, and reads what the page shows of the robot."""


def keys_towards(offset: np.ndarray, turn: float = 0.0, near_m: float = 0.03) -> set[str]:
    """Which keys a person would hold to move by that, in metres and radians."""
    keys = set()
    for value, (plus, minus) in zip(offset, (("KeyW", "KeyS"), ("KeyA", "KeyD"), ("KeyR", "KeyF"))):
        if abs(value) > 0.006:
            keys.add(plus if value > 0 else minus)
    if abs(turn) > 0.08:
        keys.add("KeyQ" if turn > 0 else "KeyE")
    if np.abs(offset).max() < near_m:
        keys.add("ShiftLeft")
    return keys


@pytest.mark.timeout(280)
def test_a_person_grasps_and_lifts_the_cube_with_the_keys(browser: Any, tmp_path: Path) -> None:
    """Sees the numbers that the page shows, in slow motion; the session notices the success by itself."""
    task = ("--task", "Lift", "--output", "d.hdf5", "--episodes", "1", "--session.rate", "4", "--task.max_steps", "600")
    with recorder(tmp_path, *task, "--operator", "Åsa") as running, open_page(browser, running.link) as page:
        page.locator("#state[data-state=ready]").wait_for()
        page.locator("[data-camera=front] img").wait_for()
        page.get_by_label("Notes").fill("первый раз ✓")
        page.keyboard.press("Tab")
        page.locator("body").click(position={"x": 5, "y": 400})
        page.keyboard.press("Enter")
        page.locator("#state[data-state=recording]").wait_for()
        page.evaluate(PERSON)
        closed = False
        while True:
            shown, *seen = page.evaluate("look()")
            if shown != "recording":
                break
            tool, cube = map(np.array, seen)
            offset = cube[9:12].copy()
            heading, wanted = math.atan2(tool[4], tool[3]), math.atan2(cube[4], cube[3])
            turn = (wanted - heading + math.pi / 4) % (math.pi / 2) - math.pi / 4
            if closed and (tool[6:8] > 0.05).all():
                page.evaluate("hold(['KeyR'])")
                continue
            beside = np.linalg.norm(offset[:2])
            if beside > 0.012 or abs(turn) > 0.12:
                offset[2] += 0.07  # above it first
            page.evaluate("(keys) => hold(keys)", list(keys_towards(offset, turn)))
            if not closed and beside < 0.012 and abs(offset[2]) < 0.012 and abs(turn) < 0.15:
                page.keyboard.press("Space")
                closed = True
        page.locator("#kept", has_text="1 of 1 kept").wait_for()
        page.locator("#state[data-state=ready]").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("The session is over").wait_for()
        assert running.wait() == 0
    assert validate(tmp_path / "d.hdf5") == []
    with Dataset(tmp_path / "d.hdf5") as dataset:
        assert len(dataset) == 1
        episode = dataset.read(0)
    assert episode.info.success
    assert (episode.info.operator, episode.info.device) == ("Åsa", "browser")
    assert episode.info.notes == "первый раз ✓"
    assert episode.obs["object"][-1, 2] > 0.1
    assert episode.actions[0, -1] == -1.0
    assert episode.actions[-1, -1] == 1.0


PAD = """() => {
  window.pad = { id: "Test pad (STANDARD GAMEPAD)", index: 0, connected: true, mapping: "standard", timestamp: 0,
    axes: [0, 0, 0, 0], buttons: Array.from({ length: 17 }, () => ({ pressed: false, touched: false, value: 0 })) };
  navigator.getGamepads = () => [window.pad];
}"""
REACHING = """() => {
  // A proportional hand that sees only the numbers on the page.
  const shown = (key) => document.querySelector(`output[data-key=${key}]`).textContent.trim();
  const read = (key) => shown(key).split(/\\s+/).map(Number);
  // Undoes the profile's dead zone and curve, as a practised thumb does.
  const bent = (v) => Math.abs(v) < 0.02 ? 0 : Math.sign(v) * (0.1 + 0.9 * Math.min(1, Math.abs(v)) ** (1 / 1.5));
  const step = () => {
    if (window.reaching && ["ready", "recording"].includes(document.querySelector("#state")?.dataset.state)) {
      const [x, y, z] = read("goal").slice(3, 6).map((metres) => bent(metres / 0.045));
      window.pad.axes = [-y, -x, 0, -z];
    } else window.pad.axes = [0, 0, 0, 0];
    requestAnimationFrame(step);
  };
  window.reaching = true;
  requestAnimationFrame(step);
}"""


def press_pad(page: Any, number: int, shown: Any) -> None:
    """Hold a button down until the page shows what it does."""
    page.evaluate("(n) => { window.pad.buttons[n] = { pressed: true, touched: true, value: 1 }; }", number)
    shown.wait_for()
    page.evaluate("(n) => { window.pad.buttons[n] = { pressed: false, touched: false, value: 0 }; }", number)
    page.evaluate("() => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))")


def record_reach_by_pad(browser: Any, folder: Path, count: int) -> Path:
    """Record so many demonstrations of Reach with a virtual gamepad; the first motion starts each of them."""
    task = ("--task", "Reach", "--output", "d.hdf5", "--episodes", str(count), "--session.rate", "8")
    task += ("--session.start", "motion")
    with recorder(folder, *task) as running, open_page(browser, running.link) as page:
        page.evaluate(PAD)
        page.locator("#state[data-state=ready]").wait_for()
        page.get_by_text("Gamepad: Test pad").wait_for()
        page.evaluate(REACHING)
        kept = "(n) => parseInt(document.querySelector('#kept').textContent) >= n"
        page.wait_for_function(kept, arg=count, timeout=200_000)
        page.evaluate("() => { window.reaching = false; }")
        over, paused = page.get_by_text("The session is over"), page.locator("#state[data-state=paused]")
        press_pad(page, 8, over.or_(paused).first)  # back: quit
        if paused.count():  # the hand had begun with another one
            press_pad(page, 8, over)
        over.wait_for()
        assert running.wait() == 0
    return folder / "d.hdf5"


@pytest.mark.timeout(280)
@pytest.mark.long
def test_a_gamepad_at_the_page_reaches(browser: Any, tmp_path: Path) -> None:
    path = record_reach_by_pad(browser, tmp_path, 2)
    assert validate(path) == []
    with Dataset(path) as dataset:
        assert [info.success for info in dataset.info] == [True, True]
        # A stick travels: actions between rest and the limit, which keys never give.
        actions = np.concatenate([dataset.read(i).actions for i in range(2)])
    assert ((np.abs(actions) > 0.05) & (np.abs(actions) < 0.9)).any()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_demonstrations_at_the_page_make_a_policy_that_reaches(browser: Any, tmp_path: Path) -> None:
    path = record_reach_by_pad(browser, tmp_path, 10)
    run = tmp_path / "run"
    assert main(["train", "--dataset", str(path), "--output", str(run), *SMALL]) == 0
    with make("Reach", 4) as env:
        result = evaluate(load_policy(run), env, range(REPORT_SEED, REPORT_SEED + 20))
    assert result.success_rate >= 0.7, result.success_rate


@pytest.mark.long
def test_a_lost_focus_holds_the_robot_and_the_page_says_so(browser: Any, reach: Recorder) -> None:
    with open_page(browser, reach.link) as page:
        page.locator("#state[data-state=ready]").wait_for()
        page.keyboard.press("Enter")
        page.keyboard.down("KeyW")
        page.locator("#state[data-state=recording]").wait_for()
        page.wait_for_function("() => document.querySelector('#legend b').textContent === '1.00'")
        page.evaluate("dispatchEvent(new Event('blur'))")
        page.get_by_text("The robot holds still").wait_for()
        page.wait_for_function("() => document.querySelector('#legend b').textContent === '0.00'")
        page.keyboard.up("KeyW")
        page.locator("#pictures").click(position={"x": 30, "y": 30})
        page.get_by_text("The robot holds still").wait_for(state="hidden")


def test_a_cut_line_in_mid_episode_holds_the_robot_and_comes_back(
    browser: Any, blind: Recorder, tmp_path: Path
) -> None:
    with open_page(browser, blind.link) as page:
        page.locator("#state[data-state=ready]").wait_for()
        page.keyboard.press("Enter")
        page.keyboard.down("KeyW")
        page.locator("#state[data-state=recording]").wait_for()
        page.wait_for_function("() => document.querySelector('#legend b').textContent === '1.00'")
        # What a network that is gone looks like: nothing goes through, nobody says so.
        page.evaluate("() => { window.line = WebSocket.prototype.send; WebSocket.prototype.send = () => {}; }")
        page.locator(".alert strong", has_text="The robot holds still").or_(
            page.locator(".alert strong", has_text="Connection lost")
        ).wait_for()
        page.keyboard.up("KeyW")
        with client(blind.link, "watcher") as watcher:
            wait_until(lambda: watcher.status["twist"][0] == 0.0)
            watcher.wait_for_step(watcher.status["step"] + 5)
            assert watcher.status["twist"][0] == 0.0
        page.evaluate("() => { WebSocket.prototype.send = window.line; }")
        page.reload()  # the same page comes back and drives on
        page.locator("#state[data-state=recording]").wait_for()
        page.wait_for_function("() => !document.querySelector('[data-button=success]').disabled")
        page.keyboard.press("Digit1")
        page.locator("#kept", has_text="1 of 3 kept").wait_for()
        page.keyboard.press("Escape")
        page.get_by_text("The session is over").wait_for()
    assert blind.wait() == 0
    with Dataset(tmp_path / "d.hdf5") as dataset:
        episode = dataset.read(0)
    reasons = [event.reason for event in episode.events]
    assert "operator let go" in reasons
    gone = next(event.step for event in episode.events if event.reason == "operator let go")
    assert (episode.actions[gone, :3] == 0).all()


def test_two_tabs_one_drives_and_hands_over(browser: Any, blind: Recorder) -> None:
    with open_page(browser, blind.link) as first, open_page(browser, blind.link) as second:
        second.get_by_text("You are watching").wait_for()
        assert second.locator("[data-button=start]").is_disabled()
        first.keyboard.down("KeyW")  # a driver who is silent for some seconds has the seat taken away
        second.get_by_role("button", name="Ask to drive").click()
        first.get_by_text("Somebody asks to drive").wait_for()
        first.get_by_role("button", name="Hand over").click()
        first.get_by_text("You are watching").wait_for()
        second.wait_for_function("() => !document.querySelector('[data-button=start]').disabled")
        second.keyboard.press("Enter")
        first.locator("#state[data-state=recording]").wait_for()


def test_the_whole_session_by_keyboard_and_screen_reader_names(browser: Any, blind: Recorder) -> None:
    with open_page(browser, blind.link) as page:
        page.locator("#state[data-state=ready]").wait_for()
        for name in ("Start", "Success", "Failure", "Skip", "Again", "Undo", "Mark", "Quit"):
            assert page.get_by_role("button", name=re.compile(f"^{name}")).count() == 1
        page.get_by_role("button", name=re.compile("^Start")).focus()
        page.keyboard.press("Space")  # presses the button and does not close the gripper
        page.locator("#state[data-state=recording]").wait_for()
        page.get_by_role("button", name=re.compile("^Discard")).wait_for()
        page.keyboard.press("KeyP")
        page.locator("#state[data-state=paused]").wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog", name="Keys").wait_for()
        page.keyboard.press("KeyX")
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        assert state(page) == "paused", "keys pressed in a dialog are not the session's"
        page.get_by_label("Notes").focus()
        page.keyboard.type("xxzz1")
        assert state(page) == "paused"
        page.keyboard.press("Tab")


@pytest.mark.long
def test_nothing_is_cut_off(browser: Any, reach: Recorder) -> None:
    for width, height, theme in ((1440, 900, "light"), (1440, 900, "dark"), (390, 844, "light")):
        options = {"viewport": {"width": width, "height": height}, "color_scheme": theme, "has_touch": width < 500}
        with open_page(browser, reach.link, **options) as page:
            page.locator("#state[data-state=ready]").wait_for()
            if width < 500:
                page.touchscreen.tap(5, 5)
                page.locator("#touch").wait_for()
            assert page.evaluate("document.documentElement.scrollWidth") == width
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, re.findall(r"\d+", colour))) > 380) == (theme == "light")


@pytest.mark.long
def test_sticks_on_a_phone_drive(browser: Any, reach: Recorder) -> None:
    options = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with open_page(browser, reach.link, **options) as page:
        page.locator("#state[data-state=ready]").wait_for()
        page.touchscreen.tap(5, 5)
        page.locator("[data-button=start]").tap()
        page.locator("#state[data-state=recording]").wait_for()
        box = page.locator(".stick[data-side=left]").bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 2)
        page.wait_for_function("() => Number(document.querySelector('#legend b').textContent) > 0.9")
        page.mouse.up()
        page.wait_for_function("() => document.querySelector('#legend b').textContent === '0.00'")
