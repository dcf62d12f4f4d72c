"""Videos, read back with the decoder, and the sentence where there can be none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.experts import make_expert
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.errors import RobolearnError
from robolearn.evaluation import video
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.video import film, film_task, write_video
from robolearn.sim import rendering
from tests.envs import toy


def frames_of(path: Path) -> tuple[list[np.ndarray], float, str]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, float(stream.average_rate), stream.codec_context.name


def test_frames_rate_and_codec_survive(tmp_path: Path) -> None:
    pytest.importorskip("av")
    levels = range(0, 250, 25)
    write_video(tmp_path / "v.mp4", [np.full((49, 65, 3), level, np.uint8) for level in levels], fps=20)
    frames, rate, codec = frames_of(tmp_path / "v.mp4")
    assert (len(frames), rate, codec, frames[0].shape) == (10, 20.0, "h264", (48, 64, 3))
    np.testing.assert_allclose([f.mean() for f in frames], levels, atol=4)
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_fast_control_is_thinned_out_to_real_time(tmp_path: Path) -> None:
    pytest.importorskip("av")
    write_video(tmp_path / "v.mp4", [np.zeros((16, 16, 3), np.uint8)] * 160, fps=80)
    frames, rate, _ = frames_of(tmp_path / "v.mp4")
    assert len(frames) / rate == pytest.approx(2.0, abs=0.05)
    assert rate <= 30


def test_an_episode_is_filmed_with_the_outcome_that_evaluation_finds(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with GymVectorEnv(TaskConfig(id=toy.POINT_REACH, worker_kind="sync"), 3) as env:
        expert = make_expert("tests.envs.toy:point_reach_expert", env)
        episodes = evaluate(expert, env, [5, 6]).episodes
        made = film(expert, env, [5, 6], tmp_path / "v.mp4")
    assert made.note == "seed 5 solved, seed 6 solved"
    assert made.path is not None
    frames, rate, _ = frames_of(made.path)
    assert rate == 10.0
    rest = 10  # a second on each last picture
    assert len(frames) == sum(e.steps + 1 + rest for e in episodes)


def test_no_frames_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(RobolearnError, match="at least one frame"):
        write_video(tmp_path / "v.mp4", [], fps=10)
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_note_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with GymVectorEnv(TaskConfig(id=toy.POINT_REACH), 1) as env:
        made = film(make_expert("tests.envs.toy:point_reach_expert", env), env, [0], tmp_path / "v.mp4")
    assert made.path is None
    assert 'pip install "robolearn[video]"' in made.note


def test_without_opengl_the_note_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_av", lambda: None)
    monkeypatch.setattr(rendering, "find_backend", lambda: None)
    with GymVectorEnv(TaskConfig(id="gym:HalfCheetah-v5"), 1) as env:

        class Still:
            def reset(self, *, seeds, mask) -> None: ...

            def act(self, obs):
                return obs["state"].new_zeros(1, 6)

        made = film(Still(), env, [0], tmp_path / "v.mp4")
    assert made.path is None
    assert "apt-get install libegl1" in made.note
    assert "\n" not in made.note


def test_meta_world_is_filmed_from_where_one_sees_something() -> None:
    task = TaskConfig(id="gym:Meta-World/MT1", kwargs={"env_name": "reach-v3", "width": 64}, workers=4)
    filmed = film_task(task)
    assert filmed.kwargs == {"env_name": "reach-v3", "camera_name": "corner2", "width": 64, "height": 360}
    assert filmed.workers is None
    assert film_task(TaskConfig(id="Lift", kwargs={"a": 1})).kwargs == {"a": 1}
