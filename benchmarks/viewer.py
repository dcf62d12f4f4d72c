"""The dataset viewer on loopback in a real browser: opening a file of 10,000 episodes, and scrubbing.

    python -m benchmarks.viewer [--episodes 10000] [--file FILE]

`--file` keeps the long file for the next run; making it takes minutes. The viewer runs as users start it, in a process
of its own; the pointer moves as often as a usual mouse tells of it. Browser and viewer share the machine's cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks._report import ROOT, Row, load_now, write
from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, ObservationSpec
from tests.teleop.browser import chromium, open_page

ACTION = ActionSpec(low=(-1.0,) * 4, high=(1.0,) * 4)
STEPS, SHAPE, CAMERAS = 300, (240, 320, 3), ("front", "wrist")
BATCH = 250
SCRUB_S, ROUNDS, MOUSE_HZ = 5.0, 3, 60.0

READY = """(count) => [...document.querySelectorAll(".picture canvas")]
  .filter((screen) => screen.width).length === count"""
COUNT = """() => {
  const count = ({ target: { ariaLabel: name } }) => { window.shown[name] = (window.shown[name] ?? 0) + 1; };
  const watch = new MutationObserver((changes) => changes.forEach(count));
  for (const screen of document.querySelectorAll(".picture canvas"))
    watch.observe(screen, { attributeFilter: ["data-step"] }); }"""


def make_episode(seed: int, steps: int, spec: ObservationSpec) -> Episode:
    """Smooth pictures with noise, as a simulator's camera gives them."""
    rng = np.random.default_rng(seed)
    obs: dict[str, np.ndarray] = {}
    for key, array in spec.items():
        if array.is_image:
            small = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            scene = cv2.resize(small, array.shape[1::-1], interpolation=cv2.INTER_CUBIC)
            obs[key] = np.stack([np.roll(scene, 2 * t, axis=1) for t in range(steps)])
        else:
            obs[key] = rng.normal(size=(steps, *array.shape)).astype(np.float32)
    return Episode(
        info=EpisodeInfo(success=seed % 4 != 0, seed=seed, operator=f"operator {seed % 7}"),
        obs=obs,
        final_obs={key: value[-1] for key, value in obs.items()},
        actions=rng.uniform(-1, 1, (steps, ACTION.size)),
        rewards=np.zeros(steps),
        terminated=np.arange(steps) == steps - 1,
        truncated=np.zeros(steps, bool),
        timestamps=np.arange(steps) / 30.0,
    )


def record(path: Path, spec: ObservationSpec, episodes: int, steps: int) -> None:
    env_args = {"env_name": "bench", "type": 3, "env_kwargs": {}}
    with DatasetWriter(
        path, task="bench", env_args=env_args, control_hz=30.0, action_spec=ACTION, observation_spec=spec
    ) as writer:
        for start in range(0, episodes, BATCH):
            seeds = range(start, min(start + BATCH, episodes))
            writer.write_episodes([make_episode(seed, steps, spec) for seed in seeds])


@contextmanager
def viewer(path: Path) -> Iterator[tuple[str, float]]:
    """Yield the link that `robolearn view` prints, and when it was asked for it."""
    command = [sys.executable, "-m", "robolearn", "view", str(path), "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    began = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            line = next(line for line in process.stdout if "http://" in line)
            yield line.split()[-1], began
        finally:
            process.terminate()


def opening(browser: Any, path: Path, episodes: int) -> list[Row]:
    """Seconds until rows are on the screen, and until every row is known to the filters."""
    with viewer(path) as (link, began), open_page(browser, link) as page:
        page.locator(".rows .row .pill").first.wait_for()
        usable = time.perf_counter() - began
        page.wait_for_function(
            "() => !document.querySelector('.count').textContent.includes('reading')", timeout=120_000
        )
        complete = time.perf_counter() - began
        began = time.perf_counter()
        page.get_by_label("Outcome").select_option("no")
        page.get_by_text(f"{(episodes + 3) // 4:,} of").wait_for()
        filtered = time.perf_counter() - began
    case = f"{episodes:,} episodes"
    note = f"from the command, Python's start and the browser's page included; {load_now()}"
    return [
        Row(case=f"{case}: opened, rows shown", unit="s", ours=usable, goal=2.0, better="lower", note=note),
        Row(case=f"{case}: all rows read", unit="s", ours=complete, better="lower", note="filters are exact from then"),
        Row(case=f"{case}: a filter applied", unit="s", ours=filtered, better="lower"),
    ]


def scrubbing(browser: Any, path: Path) -> list[Row]:
    """Pictures per second on the screen while the pointer is dragged over the time line; the slower of two cameras."""
    rates = []
    with viewer(path) as (link, _), open_page(browser, f"{link}#/demo_0/0") as page:
        page.wait_for_function(READY, arg=len(CAMERAS))
        page.evaluate(COUNT)
        for _ in range(ROUNDS):
            page.evaluate("() => { window.shown = {}; }")
            began = drag(page)
            rates.append(min(page.evaluate("() => Object.values(window.shown)")) / (time.perf_counter() - began))
    note = (
        f"median of {ROUNDS} drags, {min(rates):.0f} to {max(rates):.0f}; two cameras of {SHAPE[1]}x{SHAPE[0]}; "
        f"new pictures on the screen; {load_now()}"
    )
    return [Row(case="scrubbing", unit="pictures/s per camera", ours=float(np.median(rates)), goal=30.0, note=note)]


def drag(page: Any) -> float:
    """Drag to and fro over the time line for SCRUB_S; returns when it began."""
    box = page.get_by_role("slider", name="Step").bounding_box()
    left, top, width = box["x"] + 1, box["y"] + 10, int(box["width"] - 2)
    page.mouse.move(left, top)
    page.mouse.down()
    began = time.perf_counter()
    for number in range(int(SCRUB_S * MOUSE_HZ)):
        time.sleep(max(0.0, began + number / MOUSE_HZ - time.perf_counter()))
        place = 3 * number % (2 * width)
        page.mouse.move(left + min(place, 2 * width - place), top)
    page.mouse.up()
    return began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, chromium() as browser:
        long = options.file or Path(scratch) / "long.hdf5"
        if not long.exists():
            small = ObservationSpec(
                {"state": ArraySpec(shape=(16,)), "front": ArraySpec(shape=(48, 64, 3), dtype="uint8")}
            )
            record(long, small, options.episodes, 3)
        film = Path(scratch) / "film.hdf5"
        cameras = {key: ArraySpec(shape=SHAPE, dtype="uint8") for key in CAMERAS}
        record(film, ObservationSpec({"state": ArraySpec(shape=(16,)), **cameras}), 1, STEPS)
        rows = [*opening(browser, long, options.episodes), *scrubbing(browser, film)]
    write("viewer", rows, seconds=time.perf_counter() - began)


if __name__ == "__main__":
    main()
