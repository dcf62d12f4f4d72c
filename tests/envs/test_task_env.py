"""The vector environment over a task: masks, options, pictures and complaints."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import mujoco
import numpy as np
import pytest
import torch

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make, make_task
from robolearn.envs.task_env import TaskEnv, TaskOptions
from robolearn.errors import TaskError
from robolearn.sim import pictures, rendering
from robolearn.sim.simulation import UnstableError
from robolearn.tasks.arm.lift import Lift
from robolearn.tasks.arm.pick_place import PickPlace
from robolearn.tasks.arm.reach import Reach

needs_opengl = pytest.mark.skipif(rendering.find_backend() is None, reason="no OpenGL here")
ZERO = torch.zeros(3, 5)


def test_it_is_a_vector_env():
    assert isinstance(TaskEnv.of(Lift, 2), VectorEnv)


def test_masked_steps_leave_the_others_alone():
    env, reference = TaskEnv.of(Lift, 3), TaskEnv.of(Lift, 3)
    for e in (env, reference):
        e.reset([1, 2, 3])
    before = env.get_states()
    mask = torch.tensor([True, False, True])
    poison = torch.full((3, 5), 0.5)
    poison[1] = torch.nan  # not stepped, so not looked at
    env.step(poison, mask)
    after = env.get_states()
    assert np.array_equal(after[1], before[1])
    reference.step(torch.full((3, 5), 0.5))
    assert np.array_equal(after[[0, 2]], reference.get_states()[[0, 2]])


def test_resetting_one_environment_leaves_the_others_alone():
    env = TaskEnv.of(Lift, 3)
    env.reset([1, 2, 3])
    env.step(ZERO)
    before = env.get_states()
    env.reset([9], torch.tensor([False, True, False]))
    after = env.get_states()
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert not np.array_equal(after[1], before[1])


def test_without_seeds_episodes_differ():
    env = TaskEnv.of(Reach, 2)
    first = env.reset()["goal"].clone()
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(env.reset()["goal"], first)


def test_observations_of_a_step_are_not_overwritten_by_the_next():
    env = TaskEnv.of(Lift, 2)
    obs = env.reset([0, 1])
    kept = {key: value.clone() for key, value in obs.items()}
    step = env.step(torch.full((2, 5), 0.7))
    kept_step = step.obs["proprio"].clone()
    env.step(torch.full((2, 5), -0.7))
    assert all(torch.equal(obs[key], kept[key]) for key in obs)
    assert torch.equal(step.obs["proprio"], kept_step)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.step(torch.zeros(3, 4)), r"must be \(3, 5\), received \(3, 4\)"),
        (lambda e: e.step(torch.zeros(2, 5)), r"received \(2, 5\)"),
        (
            lambda e: e.step(ZERO.index_fill(0, torch.tensor([1]), float("nan"))),
            "environment 1 is not finite at step 0",
        ),
        (lambda e: e.step(ZERO, torch.ones(3)), "mask must be"),
        (lambda e: e.reset([1, 2]), "one seed per environment that is reset: 3, received 2"),
        (lambda e: e.reset([1, 2, -3]), "seeds must be"),
        (lambda e: e.set_states(np.zeros((3, 4))), r"states of Lift must be \(3, "),
        (lambda e: e.render(3), r"index must lie in \[0, 3\)"),
    ],
)
def test_wrong_input_is_named(call, message):
    env = TaskEnv.of(Lift, 3)
    env.reset([0, 1, 2])
    with pytest.raises(TaskError, match=message):
        call(env)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reward": "shaped"}, "reward must be one of sparse, dense"),
        ({"random_physics": 2.0}, r"random_physics must lie in \[0, 1\]"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"cameras": ("rear",)}, "no camera 'rear'; it has front"),
        ({"cameras": "front,rear"}, "no camera 'rear'; it has front"),
        ({"image_size": "84,84,3"}, r"image_size must be one number or \(height, width\)"),
        ({"colour": 1}, "takes no option 'colour'"),
        ({"obs_keys": ("propio",)}, "propio"),
        ({"backend": "gpu"}, "backend must be 'cpu' or 'warp'"),
        ({"device": "cuda"}, "use backend='warp'"),
        ({"workers": 0}, "workers must be at least 1, received 0"),
        ({"backend": "warp", "workers": 2}, "workers are processor threads, which backend 'warp' has none of"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(TaskError, match=message):
        TaskEnv.of(Lift, 1, **options)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_are_the_threads_of_the_physics(workers):
    for env in (make(TaskConfig(id="Fork", workers=workers), 4), make("Fork", 4, workers=workers)):
        assert env.simulation._pool.size == workers
        assert env.env_args == make_task("Fork").env_args, "they change no episode"
        env.close()
    with pytest.raises(TaskError, match=r"workers is no argument of the task Fork: --task\.workers sets it"):
        make(TaskConfig(id="Fork", kwargs={"workers": workers}))


def test_the_expert_of_a_joint_controlled_task_is_refused():
    with pytest.raises(TaskError, match="control='ee'"):
        TaskEnv.of(Lift, 1, control="joint").expert()


def test_env_args_make_the_same_environment_again():
    env = TaskEnv.of(Lift, 1, reward="dense", max_steps=7, obs_keys=("object",))
    config = TaskConfig.from_env_args(env.env_args)
    again = TaskEnv.of(Lift, 1, **config.kwargs, **config.options)
    assert again.options == env.options
    assert list(again.observation_spec) == ["object"]


def test_an_unstable_world_is_named_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROBOLEARN_CRASH_DIR", str(tmp_path))
    env, reference = TaskEnv.of(Lift, 3), TaskEnv.of(Lift, 3)
    for e in (env, reference):
        e.reset([1, 2, 3])
        e.step(ZERO)
    states = env.get_states()
    states[1, env.simulation.layout["qvel"]] = 1e12
    env.set_states(states[1:2], torch.tensor([False, True, False]))
    with pytest.raises(UnstableError, match="environment 1 at step 2"):
        env.step(ZERO)
    reference.step(ZERO)
    physics = env.simulation.get_state().shape[1]
    assert np.array_equal(env.get_states()[[0, 2], :physics], reference.get_states()[[0, 2], :physics])
    env.reset([2], torch.tensor([False, True, False]))
    env.step(ZERO)


@needs_opengl
def test_pictures():
    env = TaskEnv.of(Lift, 2, cameras=("front", "wrist"), image_size=(48, 64))
    obs = env.reset([0, 1])
    for key in ("front", "wrist"):
        assert obs[key].shape == (2, 48, 64, 3)
        assert obs[key].dtype == torch.uint8
        assert env.observation_spec[key].is_image
        assert obs[key].float().std() > 10, "not a blank page"
    assert not torch.equal(obs["front"][0], obs["front"][1])
    red = obs["front"][0].float()
    assert ((red[..., 0] > 120) & (red[..., 1] < 80)).sum() > 5, "the red cube is in the picture"
    assert env.render(1).shape == (480, 640, 3)
    env.close()


@needs_opengl
def test_visual_randomisation_changes_pictures_only():
    plain, varied = TaskEnv.of(Lift, 2, cameras=("front",)), TaskEnv.of(Lift, 2, cameras=("front",), random_visuals=1.0)
    a, b = plain.reset([0, 1]), varied.reset([0, 1])
    assert torch.equal(a["object"], b["object"])
    assert not torch.equal(a["front"], b["front"])
    again = TaskEnv.of(Lift, 1, cameras=("front",), random_visuals=1.0).reset([1])
    assert torch.equal(again["front"][0], b["front"][1]), "looks belong to the seed"


@needs_opengl
def test_a_finer_shadow_is_not_worth_its_time(monkeypatch):
    coarse = TaskEnv.of(Lift, 1, cameras=("front",)).reset([0])["front"].float()
    monkeypatch.setattr(pictures.math, "log2", lambda _: 12)  # the scene's own 4096 texels
    fine = TaskEnv.of(Lift, 1, cameras=("front",)).reset([0])["front"].float()
    differ = (coarse - fine).abs().amax(-1) > 30
    assert differ.float().mean() < 0.005
    assert not torch.equal(coarse, fine), "this test is vacuous where both have the same shadow"


@needs_opengl
def test_forgetting_to_close_says_nothing_at_exit():
    code = """
        import weakref
        class Older: pass
        older = Older(); weakref.finalize(older, int)
        from robolearn.envs.task_env import TaskEnv
        from robolearn.tasks.arm.lift import Lift
        env = TaskEnv.of(Lift, 1, cameras=("front",)); env.reset([0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert "Exception ignored" not in done.stderr


def test_without_opengl_everything_but_pictures_works(monkeypatch):
    monkeypatch.setattr(rendering, "find_backend", lambda: None)
    env = TaskEnv.of(Lift, 1)
    env.reset([0])
    env.step(torch.zeros(1, 5))
    with pytest.raises(TaskError, match="apt-get install"):
        env.render()


def test_options_are_frozen():
    with pytest.raises(AttributeError):
        TaskOptions().reward = "dense"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(TaskEnv.of(Lift, 1), TaskEnv)


@needs_opengl
def test_a_small_picture_looks_as_if_drawn_with_all_care() -> None:
    """Some edges differ from those that MuJoCo's renderer draws at the model's own quality, and nothing else."""
    with TaskEnv.of(PickPlace, 1) as env:
        env.reset([3])
        model, data = env.simulation.world(0)
        ours = pictures.Pictures(model, 84, 84)
        theirs = mujoco.Renderer(model, 84, 84)
        for camera in env.task.cameras:
            theirs.update_scene(data, camera)
            difference = np.abs(ours.draw(model, data, camera).astype(int) - theirs.render().astype(int))
            assert difference.mean() < 1.0
            assert (difference.max(-1) > 16).mean() < 0.03
        assert model.vis.quality.numslices > 12, "the model itself is left alone"
        ours.close()
        theirs.close()
