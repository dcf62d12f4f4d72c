"""The guide's code, as it stands there, drives a simulated robot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import robolearn
from robolearn.configuration.parts.policy import DiffusionHeadConfig, MLPConfig, PolicyConfig, UNetConfig
from robolearn.policies.build import build_policy
from robolearn.policies.folder import save_policy

GUIDE = Path(__file__).parents[2] / "docs" / "deployment.md"


def test_the_guide_drives_a_robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = UNetConfig(channels=(16, 32), num_groups=4, time_size=16)
    config = PolicyConfig(
        obs_steps=2,
        pred_steps=16,
        exec_steps=8,
        backbone=MLPConfig(hidden_sizes=(32,)),
        head=DiffusionHeadConfig(network=network, inference_steps=4),
    )
    with robolearn.make("Lift", num_envs=1) as env:
        save_policy(build_policy(config, env.observation_spec, env.action_spec), tmp_path / "policies" / "lift")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    blocks = [block.split("\n", 1)[1] for block in GUIDE.read_text(encoding="utf-8").split("```python")[1:]]
    for block in blocks:
        exec(compile(block.split("```", 1)[0], str(GUIDE), "exec"), names)
    assert len(blocks) == 4
    assert names["command"].shape == (names["policy"].action_spec.size,)
    assert names["action"].abs().max() <= 1.0
    assert names["timing"].ticks == names["stats"].ticks == 40
    assert names["stats"].chunks >= 2, "the thread predicted while the robot moved"
    names["robot"].env.close()
