"""Environments by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.gym_vector_env import GymVectorEnv
from robolearn.envs.make import make
from robolearn.errors import TaskError
from robolearn.tasks import registry
from tests.envs import toy


def factory(num_envs: int, *, backend: str, device: str, size: int = 3, max_steps: int = 5):
    """Stands for a task from outside the package."""
    return ("made", num_envs, backend, device, size, max_steps)


@pytest.fixture
def tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint(name, "tests.envs.test_make:factory", "robolearn.tasks") for name in ("Lift", "PushT")]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == "robolearn.tasks" else [])


def test_gym_ids_and_configurations(tasks: None) -> None:
    with make(toy.COUNTER, 2, end=3) as env:
        assert isinstance(env, GymVectorEnv)
        assert env.task.kwargs == {"end": 3}
    config = TaskConfig(id=toy.COUNTER, kwargs={"end": 3}, max_steps=4)
    with make(config, 1, end=2) as env:
        assert (env.task.kwargs, env.max_steps, config.kwargs) == ({"end": 2}, 4, {"end": 3})


def test_tasks_from_entry_points_get_their_arguments(tasks: None) -> None:
    assert make("Lift", 4, backend="warp", device="cuda", size=7) == ("made", 4, "warp", "cuda", 7, 5)
    assert make(TaskConfig(id="PushT", max_steps=9)) == ("made", 1, "cpu", "cpu", 3, 9)
    warp = TaskConfig(id="PushT", backend="warp")
    assert make(warp, 2, device="cuda") == ("made", 2, "warp", "cuda", 3, 5)
    assert make(warp, 2, backend="cpu") == ("made", 2, "cpu", "cpu", 3, 5)


def test_the_back_end_belongs_to_the_run_and_not_to_what_it_leaves_behind() -> None:
    plain, warp = TaskConfig(id="Lift"), TaskConfig(id="Lift", backend="warp")
    assert (plain.physics_device("cuda:1"), warp.physics_device("cuda:1")) == ("cpu", "cuda:1")
    assert warp.env_args() == plain.env_args()


@pytest.mark.parametrize(
    ("task", "kwargs", "words"),
    [
        ("Lft", {}, "did you mean 'Lift'"),
        ("pusht", {}, "did you mean 'PushT'"),
        ("HalfCheetah-v5", {}, "known: Lift, PushT.*gym:<id>"),
        ("Lift", {"sise": 3}, "does not take these arguments.*sise"),
        (TaskConfig(id="Lift", workers=2), {}, "does not take these arguments.*workers"),
        (TaskConfig(id="Lift", success_key="won"), {}, "does not take these arguments.*success_key"),
        ("gym:HalfCheeta-v5", {}, "HalfCheetah-v5"),
        ("gym:Ant-v9", {}, "v5"),
        ("gym:no_such_module:Ant-v9", {}, "no_such_module"),
        (toy.UNBOUNDED, {}, "action_limit"),
        ("gym:Meta-World/MT1", {}, "env_name"),
    ],
)
def test_errors_name_the_closest_and_the_remedy(tasks: None, task: str | TaskConfig, kwargs: dict, words: str) -> None:
    with pytest.raises(TaskError, match=words):
        make(task, **kwargs)


def test_gymnasium_has_no_gpu_back_end() -> None:
    with pytest.raises(TaskError, match="CPU only"):
        make("gym:HalfCheetah-v5", backend="warp")
    with pytest.raises(TaskError, match="CPU only"):
        make(TaskConfig(id="gym:HalfCheetah-v5", backend="warp"))


def test_a_missing_package_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "metaworld", None)
    monkeypatch.setattr("gymnasium.registry", {})
    with pytest.raises(TaskError, match=r'pip install "robolearn\[metaworld\]"'):
        make("gym:Meta-World/MT1", env_name="pick-place-v3")


def test_a_package_missing_below_gymnasium_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def constructor(*args, **kwargs):
        raise ModuleNotFoundError("No module named 'imageio'")

    monkeypatch.setattr("gymnasium.make", constructor)
    with pytest.raises(TaskError, match=r"imageio.*pip install \"gymnasium\[mujoco\]\""):
        make("gym:HalfCheetah-v5")


def test_unbounded_actions_work_with_a_limit() -> None:
    with make(TaskConfig(id=toy.UNBOUNDED, action_limit=4.0)) as env:
        assert env.action_spec.high == (4.0,)
