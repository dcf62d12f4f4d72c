"""Names of tasks, and a task from another package: one file, one MJCF, one entry point, all in a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robolearn.errors import TaskError
from robolearn.tasks import registry

ROOT = Path(__file__).parents[2]


def documented(language):
    """The code blocks of docs/tasks.md's worked example in a language."""
    text = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    example = text.split("## Adding a task", 1)[1]
    return [block.split("\n", 1)[1] for block in example.split("```")[1::2] if block.startswith(language)]


def run(code, *paths):
    path = os.pathsep.join([*map(str, paths), str(ROOT)])
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_listing_needs_no_torch():
    code = "import sys; from robolearn.tasks import registry; registry.names(); print('torch' in sys.modules)"
    done = run(code)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("name", "hint"),
    [("lift", "did you mean 'Lift'"), ("PegInser", "did you mean 'PegInsert'"), ("zzz", "known: Fork")],
)
def test_unknown_names(name, hint):
    with pytest.raises(TaskError, match=hint):
        registry.load(name)


def test_summaries_are_the_tasks_own():
    for name in registry.own_names():
        task = registry.load(name)
        assert task.name == name
        assert registry.summary(name)


@pytest.fixture
def package(tmp_path):
    """The worked example of docs/tasks.md, laid out as an installed package."""
    (tmp_path / "my_tasks.py").write_text(documented("python")[0], encoding="utf-8")
    (tmp_path / "poke.xml").write_text(documented("xml")[0], encoding="utf-8")
    info = tmp_path / "my_tasks-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tasks\nVersion: 1.0\n", encoding="utf-8")
    toml = documented("toml")[0]
    entry = toml.split('[project.entry-points."robolearn.tasks"]\n', 1)[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[robolearn.tasks]\n{entry}", encoding="utf-8")
    return tmp_path


def test_a_task_from_outside_the_package(package):
    code = """
import json, torch, robolearn
from robolearn.tasks import registry
env = robolearn.make("Poke", num_envs=16)
expert, obs = env.expert(), env.reset(range(16))
expert.reset(range(16))
running, success = torch.ones(16, dtype=torch.bool), torch.zeros(16, dtype=torch.bool)
while running.any():
    step = env.step(expert.act(obs), running)
    obs, success = step.obs, success | (step.success & running)
    running &= ~step.done
import robolearn.envs.gymnasium.registration, gymnasium
single = gymnasium.make("robolearn/Poke-v0")
single.reset(seed=1)
print(json.dumps({"names": registry.names(), "solved": int(success.sum()), "args": env.env_args}))
"""
    done = run(code, package)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert "Poke" in result["names"]
    assert result["solved"] == 16
    assert result["args"]["env_name"] == "robolearn/Poke-v0"


def test_a_broken_package_is_named(package):
    (package / "my_tasks.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    code = """
from robolearn.tasks import registry
try:
    registry.load("Poke")
except Exception as error:
    print(repr(error))
"""
    done = run(code, package)
    assert "TaskError" in done.stdout
    assert "nothing_of_that_name" in done.stdout
