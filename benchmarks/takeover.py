"""A short DAgger round through the real page in headless Chromium: from key to executed action at every takeover.

python -m benchmarks.takeover [--episodes 10] [--takeovers 20]     needs Playwright and Chromium

`robolearn dagger run --device browser` runs as users start it, at the task's 20 Hz with pictures, in a process of its
own that notes when a takeover's message reached the device and when the first corrected action went to the physics.
Here a browser presses keys at random moments. Both read the machine's clock.

- device to action: from the message at the device to the action, which waits for the next control step;
- key to action: from the browser's own event; the way through page and socket comes on top.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._report import ROOT, Row, write
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.loop import LoopConfig
from robolearn.configuration.parts.policy import MixtureHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.record import RecordConfig
from robolearn.episodes.record import record
from robolearn.imitation.bc import train_bc

HZ = 20.0
MAX_STEPS = 2000
NOTES = "notes.json"
KEYS = """addEventListener("keydown", (e) => {
  if (e.code === "KeyT") (window.keys ??= []).push(performance.timeOrigin + e.timeStamp);
}, true)"""


# ---- in the round's process


def serve(arguments: Sequence[str]) -> int:
    """Run `robolearn` with these arguments; write when takeovers arrived and were executed into NOTES."""
    from robolearn.cli.main import main as robolearn
    from robolearn.teleop.devices.browser import BrowserDevice
    from robolearn.teleop.driving import CorrectedPolicy

    arrived: list[float] = []
    executed: list[float] = []
    held = False
    feed, decide = BrowserDevice.feed, CorrectedPolicy.decide

    def timed_feed(self: BrowserDevice, message: Any) -> None:
        nonlocal held
        before, held = held, "KeyT" in message.get("keys", ())
        if held and not before:  # a key that stays down is said again
            arrived.append(time.time())
        feed(self, message)

    def timed_decide(self: CorrectedPolicy, obs: Any) -> Any:
        decision = decide(self, obs)
        if any(kind == "takeover" for _, kind, _ in decision.events):
            executed.append(time.time())
        return decision

    BrowserDevice.feed, CorrectedPolicy.decide = timed_feed, timed_decide  # type: ignore[method-assign]
    code = robolearn(list(arguments))
    Path(NOTES).write_text(json.dumps({"arrived": arrived, "executed": executed}), encoding="utf-8")
    return code


# ---- in this one


def prepare(folder: Path) -> None:
    """Record two demonstrations, and clone a policy that has hardly learned from them."""
    task = TaskConfig(id="Lift", max_steps=MAX_STEPS)
    record(RecordConfig(task=task, output=str(folder / "demos.hdf5"), episodes=2, num_envs=1))
    policy = PolicyConfig(
        backbone=MLPConfig(hidden_sizes=(256, 256)), head=MixtureHeadConfig(), pred_steps=8, exec_steps=4
    )
    loop = LoopConfig(total_steps=50, evaluate_every=0, checkpoint_every=0, tensorboard=False)
    train_bc(BCConfig(dataset=(str(folder / "demos.hdf5"),), policy=policy, loop=loop), folder / "clone")


@contextmanager
def round_of(folder: Path, episodes: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the process of a round of so many episodes, and the link of its page."""
    given = ["run", "--device", "browser", "--policy", "clone", "--dataset", "demos.hdf5", "--output", "run"]
    given += ["--rounds", "1", "--episodes_per_round", str(episodes), "--eval_episodes", "2", "--session.port", "0"]
    given += ["--correction.by_motion", "false", "--loop.total_steps", "200", "--loop.tensorboard", "false"]
    command = [sys.executable, "-m", "benchmarks.takeover", "--serve", "dagger", *given]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        link = next(found.group() for line in process.stdout if (found := re.search(r"http://\S+", line)))
        try:
            yield process, link
        finally:
            process.kill()


def correct(link: str, process: subprocess.Popen[str], episodes: int, takeovers: int) -> list[float]:
    """Take over and hand back at random moments until the round is complete; returns when keys went down, seconds."""
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(0)
    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as running:
        browser = running.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.set_default_timeout(30_000)
        page.goto(link)
        page.evaluate(KEYS)
        for episode in range(episodes):
            page.locator("#state[data-state=ready]").wait_for()
            page.keyboard.press("Enter")
            for _ in range(takeovers):
                page.locator("#state-name", has_text="The policy drives").wait_for()
                page.wait_for_timeout(100 + 1e3 * rng.uniform(0.0, 2.0 / HZ))
                page.keyboard.press("KeyT")
                page.locator("#state-name", has_text="You drive").wait_for()
                page.keyboard.press("KeyG")
            page.locator("#state-name", has_text="The policy drives").wait_for()
            page.keyboard.press("Digit2")
            page.locator("#kept", has_text=f"{episode + 1} of {episodes} kept").wait_for()
        page.locator("#state[data-state=ready]").wait_for()
        keys = [at / 1e3 for at in page.evaluate("window.keys")]
        page.keyboard.press("Escape")
        process.wait(300)
        browser.close()
    return keys


def waits(given: Sequence[float], executed: Sequence[float]) -> np.ndarray:
    """Milliseconds from each moment to the first execution after it."""
    done = np.asarray(executed)
    return np.array([1e3 * (done[done >= at][0] - at) for at in given])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--takeovers", type=int, default=20, help="in each episode")
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        prepare(folder)
        with round_of(folder, args.episodes) as (process, link):
            keys = correct(link, process, args.episodes, args.takeovers)
        assert process.returncode == 0, f"the round ended with {process.returncode}"
        notes = json.loads((folder / NOTES).read_text(encoding="utf-8"))
        facts = json.loads((folder / "run/rounds/01/round.json").read_text(encoding="utf-8"))
    wanted = args.episodes * args.takeovers
    rows = [
        Row(
            case="takeovers through the page of a round that then trained and measured",
            unit="takeovers",
            ours=facts["takeovers"],
            goal=wanted,
            note=f"{facts['episodes']} episodes of {facts['steps']} steps, {facts['expert_steps']} of them corrected",
        )
    ]
    for case, given in (("device to action", notes["arrived"]), ("key to action", keys)):
        found = waits(given, notes["executed"])
        for name, share in (("p50", 50), ("p99", 99)):
            rows.append(
                Row(
                    case=f"{case} at a takeover, {HZ:g} Hz, {name}",
                    unit="ms",
                    ours=float(np.percentile(found, share)),
                    goal=1e3 / HZ if (case, name) == ("device to action", "p99") else None,
                    better="lower",
                    note=f"{len(found)} takeovers at random moments",
                )
            )
    write("takeover", rows, seconds=time.perf_counter() - began)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        sys.exit(serve(sys.argv[2:]))
    main()
