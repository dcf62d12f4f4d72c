"""A session's timing on loopback: input to action, input to picture, jitter with and without pictures, memory.

python -m benchmarks.teleop [--minutes 5] [--presses 200]
python -m benchmarks.teleop --soak_minutes 60

The recorder runs as users start it, in a process of its own that measures its own loop; this process is the page, over
the same WebSockets. Both read one monotonic clock, so that their times compare.

- input to command: from the page's message being sent to a command that holds it being readable by the control loop;
- input to action: to the action being handed to the physics, which waits for the next control step: up to a whole
  period of what is measured is that wait;
- input to picture: to the first JPEG that shows the motion having arrived here;
- jitter: how far the time between the beginnings of two control steps is from whole periods;
- memory: growth of the resident memory of recorder and picture process together, after the first sixth of the time.

The machine's load average before each measurement stands beside it: on a shared machine only the quiet ones count.
`--own_cores` (Linux, root) takes the processor before all other programs, which shows what a machine of its own would:
recorder, drawing process and page are scheduled in real time, and the control loop, which any scheduler wakes before
those that never sleep, above the others.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from benchmarks._report import ROOT, Row, load_now, own_cores, write

TASK = "Lift"
SIZE = (240, 320)
GREY_LEVELS, PIXELS = 20, 12
"""The arm has moved where more pixels than these differ by more than that from a picture of it at rest."""
REST_S, SHOWN_S = 0.6, 1.5
"""For how long the arm rests before a press, and how long a press waits to be seen."""
BLOCK_S = 30.0
LOOP_PRIORITY = 20
GOAL_INPUT_MS, GOAL_JITTER_MS, GOAL_JITTER_PICTURES_MS = 15.0, 2.0, 5.0


# ---- in the recorder's process


def serve(folder: Path, hz: float, pictures: bool, own_cores: bool) -> None:
    """Run one session that records; print what happened, one JSON line for each measurement, when it is quit."""
    from robolearn.configuration.parts.session import SessionConfig
    from robolearn.envs.make import make
    from robolearn.episodes.record import open_writer
    from robolearn.teleop.devices.browser import BrowserDevice
    from robolearn.teleop.devices.known_devices import make_device
    from robolearn.teleop.live_pictures import LivePictures, make_pictures
    from robolearn.teleop.page import SessionPage
    from robolearn.teleop.session import Session

    config = SessionConfig(rate=hz, image_size=SIZE, port=0)
    readable: list[tuple[float, float]] = []
    executed: list[tuple[float, float]] = []
    began = array("d")  # eight bytes a step: an hour of them is not seen in the memory
    fresh: list[int] = []
    memory: list[tuple[float, float]] = []

    def nothing() -> Iterator[LivePictures]:
        yield LivePictures()

    drawn = make_pictures if pictures else lambda *_: contextmanager(nothing)()
    with make(TASK, 1) as env, drawn(env, config) as shown, open_writer(folder / "d.hdf5", env) as writer:
        device = make_device("browser", None, env)
        assert isinstance(device, BrowserDevice)
        session = Session(
            env, device, writer, task=TASK, config=config, target=10**6, pictures=shown, keep_failures=True
        )

        def on_tick(session: Session) -> None:
            if session.pacer.ticks % int(10 * hz) == 0:
                memory.append((time.monotonic(), sum(map(resident_mb, [os.getpid(), *children()]))))
            page.publish(session)

        wait = session.pacer.wait

        def timed_wait() -> None:
            wait()
            began.append(time.monotonic())

        session.pacer.wait = timed_wait  # type: ignore[method-assign]
        restart = session.pacer.restart

        def noted_restart() -> None:
            fresh.append(len(began))
            restart()

        session.pacer.restart = noted_restart  # type: ignore[method-assign]
        advance = session._loop.advance

        def timed_advance() -> Any:
            pushing = bool(np.abs(session._driver.action[:3]).max() > 0.5)
            if not executed or executed[-1][1] != pushing:
                executed.append((time.monotonic(), pushing))
            return advance()

        session._loop.advance = timed_advance  # type: ignore[method-assign]
        feed = device.feed

        def timed_feed(message: Any) -> None:
            before = bool(device._values)
            feed(message)
            if bool(device._values) != before:
                readable.append((time.monotonic(), not before))

        device.feed = timed_feed  # type: ignore[method-assign]
        with SessionPage(session, config) as page:
            if own_cores:
                take_cores(LOOP_PRIORITY)
            session.run(on_tick)
    for name, rows in {"readable": readable, "executed": executed, "memory": memory}.items():
        print(json.dumps({name: rows}))
    print(
        json.dumps({"began": began.tolist(), "fresh": fresh, "late": session.pacer.late, "ticks": session.pacer.ticks})
    )


def take_cores(priority: int) -> None:
    """Schedule this thread, and those and the processes that it starts from now on, before every ordinary program."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


def resident_mb(process: int) -> float:
    for line in Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1]) / 1024
    return 0.0


def children() -> list[int]:
    """The processes that this one started: the one that draws."""
    lists = Path("/proc/self/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text(encoding="utf-8").split()]


# ---- in this one


class Page:
    """The page's side: keeps its inputs alive, acknowledges statuses and pictures, notes when pictures change."""

    def __init__(self, port: int, pictures: bool) -> None:
        self.keys: list[str] = []
        self.status: dict[str, Any] = {}
        self.resting: np.ndarray | None = None
        """The picture of the first camera to compare with: the last one, until the arm is told to move."""
        self.moved_at: float | None = None
        """When the first picture arrived that shows the arm elsewhere."""
        self.comparing = False
        self._lock = threading.Lock()
        self.control: ClientConnection = connect(f"ws://127.0.0.1:{port}/control?page=benchmark")
        self.pictures = connect(f"ws://127.0.0.1:{port}/pictures") if pictures else None
        self._run(self._listen)
        self._run(self._speak)
        if self.pictures is not None:
            self._run(self._watch)

    def send(self, **told: Any) -> float:
        """Send the inputs as they are now; returns when."""
        with self._lock:
            now = time.monotonic()
            self.control.send(json.dumps({"input": {"keys": self.keys, **told}}))
        return now

    def hold(self, *keys: str) -> float:
        self.keys = list(keys)
        return self.send()

    def wait(self, state: str) -> None:
        deadline = time.monotonic() + 60.0
        while self.status.get("state") != state:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the session is {self.status.get('state')}, waited for {state}")
            time.sleep(0.005)

    def press(self, button: str) -> None:
        self.send(buttons=[button])

    def _run(self, work: Any) -> None:
        def until_closed() -> None:
            try:
                work()
            except ConnectionClosed:
                return

        threading.Thread(target=until_closed, daemon=True).start()

    def _listen(self) -> None:
        for text in self.control:
            message = json.loads(text)
            if "hello" not in message:
                self.status = message
                with self._lock:
                    self.control.send(json.dumps({"seen": message["n"]}))

    def _speak(self) -> None:
        while True:
            time.sleep(0.05)
            self.send()

    def _watch(self) -> None:
        assert self.pictures is not None
        for data in self.pictures:
            assert isinstance(data, bytes)
            now = time.monotonic()
            self.pictures.send(str(data[0]))
            if data[0] != 0:
                continue
            picture = cv2.imdecode(np.frombuffer(data, np.uint8, offset=5), cv2.IMREAD_GRAYSCALE).astype(np.int16)
            if not self.comparing:
                self.resting = picture
            elif (
                self.resting is not None
                and self.moved_at is None
                and (np.abs(picture - self.resting) > GREY_LEVELS).sum() > PIXELS
            ):
                self.moved_at = now


@contextmanager
def session(hz: float, pictures: bool) -> Iterator[tuple[Page, dict[str, Any]]]:
    """Yield a page, and what its recorder measured once it has been quit."""
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.teleop", "--serve", folder, "--hz", str(hz)]
        command += ["--pictures"] if pictures else []
        command += ["--own_cores"] if own_cores() else []
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment) as process:
            assert process.stdout is not None
            port = next(int(line.rsplit(":", 1)[1].strip(" /\n")) for line in process.stdout if "http://" in line)
            page = Page(port, pictures)
            page.wait("ready")
            yield page, measured
            if page.status["state"] == "recording":
                page.press("pause")
                page.wait("paused")
            page.press("quit")
            for line in process.stdout:
                if line.startswith("{"):
                    measured |= json.loads(line)


def latencies(presses: int, hz: float, pictures: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Milliseconds from input to command, to action and to picture, of key presses at random moments."""
    rng = np.random.default_rng(0)
    sent, seen = [], []
    with session(hz, pictures) as (page, measured):
        for number in range(presses):
            # A scene for each press: the arm stands, so that the first picture that differs shows this press.
            page.press("start")
            page.wait("recording")
            time.sleep(REST_S + rng.uniform(0.0, 2.0 / hz))
            page.moved_at, page.comparing = None, pictures
            at = page.hold("KeyW" if number % 2 else "KeyS")
            while time.monotonic() < at + (SHOWN_S if pictures and page.moved_at is None else 0.1):
                time.sleep(0.005)
            sent.append(at)
            seen.append(np.nan if page.moved_at is None else page.moved_at)
            page.comparing = False
            page.hold()
            page.press("rerecord")
            page.wait("ready")
    moments = [[_first([t for t, on in measured[name] if on], at) for at in sent] for name in ("readable", "executed")]
    return tuple(1e3 * (np.array(times) - sent) for times in (*moments, seen))  # type: ignore[return-value]


def _first(times: Sequence[float], after: float) -> float:
    """Return the first of `times` after a moment, within a second."""
    found = [at for at in times if after < at < after + 1.0]
    return found[0] if found else float("nan")


def run(hz: float, pictures: bool, minutes: float) -> dict[str, Any]:
    """Record for so long, episode after episode, of which every other one is kept; returns what was measured."""
    with session(hz, pictures) as (page, measured):
        ends = time.monotonic() + 60.0 * minutes
        while time.monotonic() < ends:
            page.hold("KeyW" if int(time.monotonic()) % 2 else "KeyS")
            state = page.status["state"]
            if state == "review":
                page.press("failure" if page.status["discarded"] > page.status["kept"] else "discard")
            elif state in ("ready", "paused"):
                page.press("start")
            time.sleep(0.1)
        page.hold()
    return measured | {"kept": page.status["kept"]}


def jitter(hz: float, pictures: bool, minutes: float) -> tuple[np.ndarray, float]:
    """Milliseconds of each step from its schedule, and the share of late steps."""
    measured = run(hz, pictures, minutes)
    # New scenes take their own time and begin a new schedule; steps within one are a whole period apart.
    within = np.isin(np.arange(1, len(measured["began"])), measured["fresh"], invert=True)
    steps = np.diff(np.array(measured["began"]))[within]
    return 1e3 * np.abs(steps - np.round(steps * hz).clip(1) / hz), measured["late"] / measured["ticks"]


def soak(minutes: float) -> list[Row]:
    """Growth of memory in a long session with two streams; its first sixth is left out."""
    load, measured = load_now(), run(20.0, True, minutes)
    memory = np.array(measured["memory"])
    memory = memory[len(memory) // 6 :]
    growth = 3600.0 * np.polyfit(memory[:, 0], memory[:, 1], 1)[0]
    began, ended = (float(np.median(part)) for part in (memory[:30, 1], memory[-30:, 1]))
    note = (
        f"{began:.1f} MB, then {ended:.1f} MB, recorder and picture process; {measured['kept']} episodes kept; "
        f"24 hours so would be {24 * growth:.0f} MB; {load}"
    )
    return [Row(case=f"memory growth over {minutes:g} min", unit="MB/h", ours=growth, better="lower", note=note)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="of each of the four measurements of jitter")
    parser.add_argument("--presses", type=int, default=200)
    parser.add_argument("--soak_minutes", type=float, default=0.0, help="measure only the memory, for so long")
    parser.add_argument("--own_cores", action="store_true", help="before all other programs; see above")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--hz", type=float, default=20.0, help=argparse.SUPPRESS)
    parser.add_argument("--pictures", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.hz, arguments.pictures, arguments.own_cores)
        return
    if arguments.own_cores:
        take_cores(LOOP_PRIORITY - 1)
    started = time.perf_counter()
    if arguments.soak_minutes:
        write("teleop_soak", soak(arguments.soak_minutes), seconds=time.perf_counter() - started)
        return
    rows: list[Row] = []

    def add(case: str, values: np.ndarray, goal: float | None = None, note: str = "") -> None:
        for name, share, limit in (("p50", 50, None), ("p99", 99, goal)):
            figure = float(np.nanpercentile(values, share))
            rows.append(Row(case=f"{case}, {name}", unit="ms", ours=figure, goal=limit, better="lower", note=note))
        print(case, *(f"{row.ours:.2f}" for row in rows[-2:]), note, flush=True)

    load = load_now()
    command, action, picture = latencies(arguments.presses, 50.0, pictures=True)
    unseen = f"{int(np.isnan(picture).sum())} of {len(picture)} presses unseen within {SHOWN_S:g} s; {load}"
    add("input to command", command, GOAL_INPUT_MS, load)
    add("input to action at 50 Hz", action, note=f"of which up to 20 ms wait for the control step; {load}")
    add("input to picture at 50 Hz", picture, note=unseen)
    load = load_now()
    _, action, _ = latencies(arguments.presses, 100.0, pictures=False)
    add("input to action at 100 Hz", action, GOAL_INPUT_MS, f"of which up to 10 ms wait for the control step; {load}")
    for hz, shown in itertools.product((20.0, 50.0), (False, True)):
        load = load_now()
        off, late = jitter(hz, shown, arguments.minutes)
        name = f"{hz:g} Hz {'with two 320x240 streams' if shown else 'without pictures'}, {arguments.minutes:g} min"
        steps = int(BLOCK_S * hz)
        blocks = [np.percentile(off[i : i + steps], 99) for i in range(0, max(1, len(off) - steps + 1), steps)]
        note = f"p99 of {BLOCK_S:g} s: median {np.median(blocks):.2f} of {len(blocks)}; {100 * late:.2f}% late; {load}"
        add(f"jitter at {name}", off, GOAL_JITTER_PICTURES_MS if shown else GOAL_JITTER_MS, note)
    write("teleop", rows, seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
