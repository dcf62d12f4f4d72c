"""Third parties by id: who is found, who is not, and what finding them costs."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.providers.lookup import PROVIDERS, expert_of, provider_of
from robolearn.evaluation.video import film_task


@pytest.mark.parametrize(
    ("gym_id", "package"),
    [
        ("Meta-World/MT1", "metaworld"),
        ("metaworld:Meta-World/MT1", "metaworld"),
        ("FetchReach-v4", "gymnasium_robotics"),
        ("AntMaze_UMaze-v5", "gymnasium_robotics"),
        ("Ant-v5", ""),
        ("", ""),
    ],
)
def test_ids_lead_to_their_package(gym_id: str, package: str) -> None:
    assert provider_of(gym_id).package == package


def test_prefixes_are_told_apart() -> None:
    prefixes = [prefix for provider in PROVIDERS for prefix in provider.prefixes]
    assert not [(a, b) for a in prefixes for b in prefixes if a is not b and a.startswith(b)]


def test_experts_know_some_tasks_of_their_package() -> None:
    found = {name: expert_of(name) for name in ("FetchPickAndPlace-v4", "FetchSlide-v4", "Meta-World/MT1", "Lift")}
    names = {name: expert.name if expert else None for name, expert in found.items()}
    assert names == {
        "FetchPickAndPlace-v4": "fetch",
        "FetchSlide-v4": None,
        "Meta-World/MT1": "metaworld",
        "Lift": None,
    }


def test_a_video_takes_the_providers_camera_unless_another_is_asked_for() -> None:
    kwargs = {"env_name": "reach-v3", "height": 100}
    filmed = film_task(TaskConfig(id="gym:Meta-World/MT1", kwargs=kwargs)).kwargs
    assert filmed == {"camera_name": "corner2", "width": 480, "height": 100, "env_name": "reach-v3"}
    assert film_task(TaskConfig(id="gym:Ant-v5")).kwargs == film_task(TaskConfig(id="Lift")).kwargs == {}


def test_the_end_effector_is_found_where_the_observation_holds_it() -> None:
    obs = {"state": np.arange(78.0).reshape(2, 39)}
    path = provider_of("Meta-World/MT1").end_effector(obs)
    assert path is not None
    assert path.tolist() == [[0, 1, 2], [39, 40, 41]]
    assert provider_of("Ant-v5").end_effector(obs) is None


def test_workers_that_import_it_load_neither_torch_nor_the_packages() -> None:
    code = "import sys, robolearn.envs.providers.lookup; print({'torch', 'metaworld', 'mujoco'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
