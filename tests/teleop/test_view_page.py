"""The viewer's page in a real browser: found, filtered, scrubbed, marked, trimmed and saved as a person would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from robolearn.datasets.dataset import Dataset
from robolearn.specs import ArraySpec, Episode, ObservationSpec
from robolearn.teleop.view.app import PAGE, Viewer
from robolearn.teleop.web.server import WebServer
from tests.datasets.factory import episode, writer
from tests.teleop.browser import chromium, open_page

SPEC = ObservationSpec({"state": ArraySpec(shape=(3,)), "wrist": ArraySpec(shape=(24, 32, 3), dtype="uint8")})
STEPS = 20


def grey(seed: int) -> Episode:
    """An episode whose picture at step t is of the grey 10 t, so that a script can read the step off the screen."""
    recorded = episode(seed, STEPS, SPEC)
    recorded.obs["wrist"][:] = (10 * np.arange(STEPS))[:, None, None, None]
    recorded.obs["state"][:] = np.arange(3) + np.arange(STEPS)[:, None]
    return recorded.with_info(success=seed % 3 != 0, operator="Bo" if seed % 2 else "Åsa", source="demo", round=0)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as running:
        yield running


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with writer(tmp_path / "demos.hdf5", SPEC) as recorder:
        recorder.write_episodes([grey(i) for i in range(60)])
    return tmp_path / "demos.hdf5"


@pytest.fixture
def link(path: Path) -> Iterator[str]:
    viewer = Viewer(str(path))
    with WebServer(viewer.routes(), static=PAGE, port=0) as server:
        yield server.link
    viewer.close()


SHADE = """(image) => { const canvas = document.createElement("canvas"); canvas.width = canvas.height = 1;
  const pen = canvas.getContext("2d"); pen.drawImage(image, 0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data[0]; }"""


def wait_for_step(page: Any, step: int) -> None:
    """Until the picture on the screen is that of the step."""
    page.wait_for_function(
        f"(step) => {{ const image = document.querySelector('.picture canvas'); return image && image.width "
        f"&& Math.abs(({SHADE})(image) - 10 * step) <= 3; }}",
        arg=step,
    )


def test_a_person_filters_scrubs_marks_trims_and_saves(browser: Any, link: str, path: Path) -> None:
    with open_page(browser, link) as page:
        page.get_by_text("60 of 60 episodes").wait_for()
        assert page.locator(".rows .row").count() < 60  # only those in sight are in the document
        page.get_by_label("Outcome").select_option("no")
        page.get_by_label("Operator").select_option("Åsa")
        page.get_by_text("10 of 60 episodes").wait_for()
        assert page.locator(".rows .row .name").all_inner_texts()[:3] == ["demo_0", "demo_6", "demo_12"]
        page.get_by_role("button", name="episode").click()
        assert page.locator(".rows .row .name").first.inner_text() == "demo_54"
        page.locator(".rows .row").nth(1).click()

        page.get_by_role("heading", name="demo_48").wait_for()
        wait_for_step(page, 0)
        box = page.get_by_role("slider", name="Step").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.3, box["y"] + 10)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * (12.5 / STEPS), box["y"] + 10, steps=5)
        page.mouse.up()
        wait_for_step(page, 12)
        assert "step 12 of 19" in page.locator(".read").inner_text()
        assert page.locator("[aria-label='obs/state'] .legend b").all_inner_texts() == ["12.000", "13.000", "14.000"]

        page.get_by_role("button", name="Success").click()
        page.get_by_role("button", name="End here").click()
        for _ in range(10):
            page.keyboard.press("ArrowLeft")
        wait_for_step(page, 2)
        page.get_by_role("button", name="Begin here").click()
        page.get_by_text("keeps steps 2 to 12").wait_for()
        page.keyboard.press("v")
        page.keyboard.press("j")
        page.get_by_role("heading", name="demo_42").wait_for()
        page.keyboard.press("x")
        page.get_by_text("2 marked").wait_for()

        page.get_by_role("button", name="Save").click()
        page.get_by_label("Name of the new file").fill("mine.hdf5")
        page.get_by_role("button", name="Save new file").click()
        page.locator(".toast.good", has_text="mine.hdf5").wait_for()
    with Dataset(path.with_name("mine.hdf5")) as saved:
        assert len(saved) == 59
        assert saved.masks == {"valid": (47,)}  # demo_42 before it is gone
        cut = saved.read(47)
        assert cut.info.success
        assert len(cut) == 11
        assert cut.obs["wrist"][:, 0, 0, 0].tolist() == [10 * t for t in range(2, 13)]
    with Dataset(path) as old:
        assert len(old) == 60


def test_the_time_line_is_dragged_as_often_as_one_likes(browser: Any, link: str) -> None:
    """A selection that the first drags left behind must not be what the next ones drag."""
    with open_page(browser, link + "#/demo_1/0") as page:
        wait_for_step(page, 0)
        box = page.get_by_role("slider", name="Step").bounding_box()
        for step in (12, 5, 17, 3, 12):
            page.mouse.move(box["x"] + 1, box["y"] + 10)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * (step + 0.5) / STEPS, box["y"] + 10, steps=20)
            page.mouse.up()
            wait_for_step(page, step)


def test_everything_is_reached_by_keyboard_alone(browser: Any, link: str) -> None:
    with open_page(browser, link) as page:
        page.get_by_text("60 of 60 episodes").wait_for()
        for key in ("ArrowDown", "ArrowDown", "f", "Enter"):
            page.keyboard.press(key)
        page.get_by_role("heading", name="demo_2").wait_for()
        wait_for_step(page, 0)
        page.locator(".toolbar .pill", has_text="failure").wait_for()
        page.keyboard.press("End")
        wait_for_step(page, 19)
        page.keyboard.press("u")
        page.locator(".toolbar .pill", has_text="success").wait_for()
        page.keyboard.press("?")
        page.get_by_role("dialog").get_by_text("play or pause").wait_for()
        page.keyboard.press("Escape")
        page.get_by_role("dialog").wait_for(state="hidden")
        page.keyboard.press("Escape")
        page.get_by_text("60 of 60 episodes").wait_for()


def test_a_late_address_of_a_step_brings_nobody_back(browser: Any, link: str) -> None:
    """The step's turn to be noted comes between leaving the episode and the browser's word of it."""
    with open_page(browser, link + "#/demo_2/0") as page:
        wait_for_step(page, 0)
        page.evaluate(
            """() => { const later = window.setTimeout;
              window.setTimeout = (run, time) => time === 150 ? (window.late = run, 0) : later(run, time); }"""
        )
        page.keyboard.press("End")
        wait_for_step(page, 19)
        page.evaluate("() => { dispatchEvent(new KeyboardEvent('keydown', { key: 'j' })); window.late(); }")
        page.get_by_role("heading", name="demo_3").wait_for()
        assert page.evaluate("location.hash") == "#/demo_3/0"
        page.keyboard.press("End")
        wait_for_step(page, 19)
        page.evaluate("window.late()")
        assert page.evaluate("location.hash") == "#/demo_3/19"


def test_playing_shows_the_steps_in_their_time(browser: Any, link: str) -> None:
    with open_page(browser, link + "#/demo_1/0") as page:
        wait_for_step(page, 0)
        page.get_by_label("Speed").select_option("0.25")
        page.get_by_role("button", name="Play").click()
        page.get_by_role("button", name="Pause").wait_for()
        wait_for_step(page, 19)  # and it stops there
        page.get_by_role("button", name="Play").wait_for()


def test_a_link_opens_an_episode_at_its_step(browser: Any, link: str) -> None:
    with open_page(browser, link + "#/demo_7/9") as page:
        page.get_by_role("heading", name="demo_7").wait_for()
        wait_for_step(page, 9)
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**/#/demo_7/10")


def test_marks_outlive_a_reload_and_bulk_marks_are_undone_at_once(browser: Any, link: str) -> None:
    with open_page(browser, link) as page:
        page.get_by_text("60 of 60 episodes").wait_for()
        page.get_by_label("Search").fill("bo")
        page.get_by_text("30 of 60 episodes").wait_for()
        page.get_by_role("button", name="Mark all shown").click()
        page.get_by_role("button", name="Split at random").click()
        page.get_by_text("30 marked").wait_for()
        page.reload()
        page.get_by_text("30 marked").wait_for()
        page.get_by_label("Marks").select_option("valid")
        page.get_by_text("3 of 60 episodes").wait_for()
        page.get_by_label("Marks").select_option("")
        page.get_by_role("button", name="Mark all shown").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        page.get_by_text("60 marked").wait_for()
        page.get_by_role("button", name="Undo").click()
        page.get_by_text("30 marked").wait_for()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_screen(browser: Any, link: str, width: int) -> None:
    with open_page(browser, link, viewport={"width": width, "height": 844}) as page:
        page.get_by_text("60 of 60 episodes").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.goto(link + "#/demo_3/4")
        wait_for_step(page, 4)
        page.get_by_text("No 3-D scene").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_texts_of_a_file_are_never_read_as_html(browser: Any, tmp_path: Path) -> None:
    bad = "<img src=x onerror=document.title='taken'>"
    with writer(tmp_path / "bad.hdf5", SPEC) as recorder:
        recorder.write_episodes([grey(1).with_info(operator=bad)])
    viewer = Viewer(str(tmp_path / "bad.hdf5"))
    with WebServer(viewer.routes(), static=PAGE, port=0) as server, open_page(browser, server.link) as page:
        page.locator(".rows").get_by_text(bad).wait_for()
        page.locator(".rows .row").first.click()
        page.locator(".facts").get_by_text(bad).wait_for()
        assert page.title().startswith("demo_0")
    viewer.close()


def test_the_token_in_the_link_lets_the_page_in(browser: Any, path: Path) -> None:
    viewer = Viewer(str(path))
    with WebServer(viewer.routes(), static=PAGE, host="0.0.0.0", port=0) as server:
        address = f"http://127.0.0.1:{server.port}/"
        with open_page(browser, address) as page:
            assert "holds the token" in page.content()
        with open_page(browser, f"{address}?token={server.token}#/demo_5/3") as page:
            wait_for_step(page, 3)
            assert "token" not in page.url
    viewer.close()
