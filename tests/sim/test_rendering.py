"""Finding an OpenGL back end."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

from robolearn.errors import TaskError
from robolearn.sim import rendering


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch):
    rendering.find_backend.cache_clear()
    yield
    rendering.find_backend.cache_clear()


def test_the_first_that_works_is_taken_and_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(rendering, "_works", lambda name: asked.append(name) or name == "glfw")
    assert rendering.find_backend() == rendering.find_backend() == "glfw"
    assert asked == ["egl", "osmesa", "glfw"]


def test_a_choice_by_hand_is_the_only_one_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(rendering, "_works", lambda name: asked.append(name) or False)
    assert rendering.find_backend() is None
    assert asked == ["osmesa"]


def test_without_any_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_works", lambda name: False)
    with pytest.raises(TaskError, match="apt-get install libegl1 libgl1-mesa-dri libosmesa6"):
        rendering.prepare()


def test_a_probe_that_fails_or_hangs_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "_PROBE", "raise SystemExit(1)")
    assert not rendering._works("egl")
    monkeypatch.setattr(rendering, "_PROBE", "import time; time.sleep(60)")
    monkeypatch.setattr(rendering, "_PROBE_S", 0.2)
    assert not rendering._works("egl")


def test_prepared_after_mujoco_was_imported_a_picture_is_drawn() -> None:
    code = """
import mujoco
from robolearn.sim import rendering
if rendering.find_backend() is None:
    raise SystemExit(77)
rendering.prepare()
exec(rendering._PROBE)
renderer.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode == 77:
        pytest.skip("no OpenGL here")
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(rendering.find_backend() is None, reason=rendering.ADVICE)
@pytest.mark.long
def test_compilers_can_be_loaded_after_a_picture() -> None:
    """Triton's LLVM after Mesa's ended in a segmentation fault, as in recording with cameras and then training."""
    pytest.importorskip("triton", reason="comes with torch's CUDA wheels")
    code = """
        from robolearn.envs.task_env import TaskEnv
        from robolearn.tasks.arm.lift import Lift
        env = TaskEnv.of(Lift, 1, cameras=("front",))
        env.reset([0])
        import torch._dynamo
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
