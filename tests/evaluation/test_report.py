"""The report: self-contained, escaped, and showing the numbers it was given (in a real browser where there is one)."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from robolearn.errors import RobolearnError
from robolearn.evaluation import plots
from robolearn.evaluation.report import MAX_EMBEDDED_VIDEO, Stage, write_report
from robolearn.evaluation.results import EpisodeRecord, EvaluationResult, Trajectory
from robolearn.evaluation.video import Film

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def result_of(name: str, solved: int, *, n: int = 20, key: str = "state", dims: int = 5) -> EvaluationResult:
    rng = np.random.default_rng(solved)
    episodes = tuple(
        EpisodeRecord(
            seed=100 + i,
            success=i < solved,
            steps=40 + i,
            episode_return=float(i < solved),
            time_to_success_s=0.5 + 0.01 * i if i < solved else None,
            terminated=i < solved,
            truncated=i >= solved,
            trajectory=Trajectory(
                obs={key: rng.normal(size=(9, dims)).cumsum(0).astype(np.float32)},
                actions=np.zeros((8, 2), np.float32),
                rewards=np.zeros(8, np.float32),
            )
            if i < 3
            else None,
        )
        for i in range(n)
    )
    return EvaluationResult(
        name=name, env_args={"env_name": "toy", "type": 2}, control_hz=20.0, deterministic=True, episodes=episodes
    )


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp_path = tmp_path_factory.mktemp("report")
    log = tmp_path / "run" / "metrics.jsonl"
    log.parent.mkdir()
    rows = [{"step": s, "loss": 1 / (1 + s), "valid_loss": 2 / (1 + s)} for s in range(50)]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step": 51, "lo')
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(b"\x00" * 100)
    stages = [
        Stage(name="cloned", result=result_of("x", 7), description="behaviour <cloning>", metrics=[log]),
        Stage(name="corrected", result=result_of("y", 13), film=Film(path=clip, note="seed 100 solved")),
        Stage(
            name="fine-tuned", result=result_of("z", 20), film=Film(path=None, note="No video: pictures need OpenGL")
        ),
    ]
    return write_report(
        tmp_path / "out",
        stages,
        title="A <test> & more",
        command="robolearn demo --seed 0",
        dataset={"episodes": "20 demonstrations"},
        facts={"cores": 2},
        reference=result_of("expert", 19),
    )


class Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        assert tag not in ("script", "link", "iframe", "object", "embed")


def test_nothing_is_loaded_from_anywhere(report: Path) -> None:
    text = report.read_text()
    links = Links()
    links.feed(text)
    assert links.found
    assert all(link.startswith("data:") for link in links.found)
    assert not re.search(r"https?://|url\(|@import", re.sub(r"data:[^\"]*", "", text))


def test_the_numbers_given_are_shown(report: Path) -> None:
    text = report.read_text()
    for shown in (
        "From 7 to 20 of 20 fresh episodes solved",
        "7/20 (35.0%)",
        "18.1% to 56.7%",  # Wilson, 7 of 20
        "20/20 (100.0%)",
        "83.9% to 100.0%",
        "19/20 (95.0%)",
        "+30.0",  # 7 -> 13 of 20, 6 seeds won
        "0.031",  # exact McNemar, 6 against 0: 2 / 2^6
        "0.53 s",  # the median of 0.50 ... 0.56
        "seed 119: not solved",
        "100 to 119 (20 episodes)",
        "robolearn demo --seed 0",
        "20 demonstrations",
        "No video: pictures need OpenGL",
        "behaviour &lt;cloning&gt;",
        "A &lt;test&gt; &amp; more",
    ):
        assert shown in text, shown
    assert "<test>" not in text


def test_the_json_beside_it_holds_the_same_figures(report: Path) -> None:
    data = json.loads((report.parent / "report.json").read_text())
    assert [s["successes"] for s in data["stages"]] == [7, 13, 20]
    assert data["comparisons"][0]["p_value"] == pytest.approx(0.03125)
    assert data["versions"]["robolearn"]


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_that_reaches_no_network_shows_all_of_it(report: Path, tmp_path: Path) -> None:
    assert BROWSER is not None
    command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND"]
    page = subprocess.run(
        [*command, "--dump-dom", report.as_uri()], capture_output=True, text=True, timeout=120, check=True
    ).stdout
    assert "7/20 (35.0%)" in page
    shot = tmp_path / "page.png"
    subprocess.run(
        [*command, f"--screenshot={shot}", "--window-size=1180,3000", report.as_uri()],
        capture_output=True,
        timeout=120,
        check=True,
    )
    cv2 = pytest.importorskip("cv2")
    picture = cv2.imread(str(shot)).reshape(-1, 3)
    for tint in plots.COLOURS[:3]:  # every stage's colour is on the page, so the figures were decoded and drawn
        red, green, blue = (int(tint[i : i + 2], 16) for i in (1, 3, 5))
        assert (np.abs(picture.astype(int) - (blue, green, red)).max(1) < 3).sum() > 500


def test_single_stages_and_other_observations_have_their_pictures(tmp_path: Path) -> None:
    text = write_report(tmp_path / "a", [Stage(name="only", result=result_of("x", 3))], title="t").read_text()
    assert "3 of 20 episodes solved." in text
    assert "McNemar" not in text
    assert "The first dimensions of the observation over time" in text
    paths = result_of("x", 3, key="ee_pos", dims=3)
    text = write_report(tmp_path / "b", [Stage(name="only", result=paths)], title="t").read_text()
    assert "Where the end effector goes, seeds 100, 101, 102" in text


def test_a_failing_stage_without_successes_has_no_times(tmp_path: Path) -> None:
    text = write_report(tmp_path, [Stage(name="only", result=result_of("x", 0))], title="t").read_text()
    assert "0/20 (0.0%)" in text
    assert "never" in text


def test_a_large_video_is_linked_beside_the_report(tmp_path: Path) -> None:
    clip = tmp_path / "videos" / "clip.mp4"
    clip.parent.mkdir()
    with clip.open("wb") as file:
        file.truncate(MAX_EMBEDDED_VIDEO + 1)
    stage = Stage(name="only", result=result_of("x", 3), film=Film(path=clip, note="seed 1 solved"))
    assert 'href="videos/clip.mp4"' in write_report(tmp_path, [stage], title="t").read_text()


def test_figures_are_the_same_bytes_each_time() -> None:
    results = [result_of("a", 3), result_of("b", 9)]
    assert plots.success_figure(results) == plots.success_figure(results)
    assert plots.time_figure(results) == plots.time_figure(results)


def test_only_metrics_worth_a_panel_are_drawn(tmp_path: Path) -> None:
    rows = [{"step": float(s), "train/loss": 1.0, "kl": 0.1, "grad_norm": 3.0} for s in range(2000)]
    assert [title for title, _ in plots.curve_figures([("run", rows)], "#000000")] == ["loss", "divergence"]
    for nothing in ({"grad_norm": 1.0}, {"loss": None}):
        assert plots.curve_figures([("run", [{"step": 1.0, **nothing}])], "#000000") == []


def test_misuse_is_explained(tmp_path: Path) -> None:
    with pytest.raises(RobolearnError, match="at least one evaluated stage"):
        write_report(tmp_path, [], title="t")
    other = [Stage(name="a", result=result_of("x", 3)), Stage(name="b", result=result_of("y", 3, n=21))]
    with pytest.raises(RobolearnError, match="a and b must be evaluated on the same seeds"):
        write_report(tmp_path, other, title="t")
