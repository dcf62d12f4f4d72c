"""A head from another package: the worked example of docs/policies.md, cloned, corrected and fine-tuned by commands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
QUICK = "--loop.evaluate_every 0 --loop.checkpoint_every 0 --loop.tensorboard false"


def documented(language: str) -> list[str]:
    """The code blocks of the worked example in a language."""
    example = (ROOT / "docs" / "policies.md").read_text(encoding="utf-8").split("## A head of your own", 1)[1]
    return [block.split("\n", 1)[1] for block in example.split("```")[1::2] if block.startswith(language)]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The worked example laid out as an installed package."""
    folder = tmp_path_factory.mktemp("package")
    for name, code in zip(("my_heads_config", "my_heads"), documented("python"), strict=True):
        (folder / f"{name}.py").write_text(code, encoding="utf-8")
    info = folder / "my_heads-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-heads\nVersion: 1.0\n", encoding="utf-8")
    entry = documented("toml")[0].split('"robolearn.policies"]\n', 1)[1].replace('"', "")
    (info / "entry_points.txt").write_text(f"[robolearn.policies]\n{entry}", encoding="utf-8")
    return folder


def robolearn(line: str, folder: Path, package: Path, code: int = 0) -> str:
    """Run a command in a process that finds the package; what it printed."""
    path = os.pathsep.join(map(str, (package, ROOT)))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "robolearn", *line.split()]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def head_of(policy: Path) -> dict[str, object]:
    return yaml.safe_load((policy / "config.yaml").read_text())["policy"]["head"]


@pytest.mark.long
def test_a_head_from_outside_goes_all_the_way(package: Path, tmp_path: Path) -> None:
    def run(line: str) -> str:
        return robolearn(line, tmp_path, package)

    network = "--policy.backbone.hidden_sizes 64 64 --policy.pred_steps 2 --policy.exec_steps 2"
    run("record reach.hdf5 --task Reach --episodes 4 --action_noise 0.05")
    run(f"train --dataset reach.hdf5 --output clone --policy.head laplace {network} --loop.total_steps 60 {QUICK}")
    assert head_of(tmp_path / "clone/policy") == {"name": "laplace", "min_scale": 1e-3}
    rounds = "--rounds 1 --episodes_per_round 2 --task.id Reach --task.max_steps 20 --loop.total_steps 20"
    run(f"dagger --policy clone/policy --dataset reach.hdf5 --output dagger {rounds} {QUICK}")
    settings = "--method.num_steps 8 --method.batch_size 8 --method.critic_warmup 0"
    practice = f"--num_envs 2 --eval_episodes 4 --max_steps 20 {settings}"
    dense = (
        "--reward env --task.id Reach --task.kwargs.reward dense"  # practice that never saw a reward is not exported
    )
    budget = f"--export last --loop.total_steps 2 {QUICK}"
    run(f"finetune dagger/policy --output finetune {practice} {dense} {budget}")
    tuned = head_of(tmp_path / "finetune/policy")
    assert tuned["min_scale"] == pytest.approx(0.1 / 2**0.5), "fine-tuning raised the floor through the head"
    weights = [tmp_path / stage / "policy/policy.safetensors" for stage in ("clone", "dagger", "finetune")]
    assert len({path.read_bytes() for path in weights}) == 3, "every stage learned"
    run("eval finetune/policy --output eval --episodes 4 --videos 0")
    assert list((tmp_path / "eval").rglob("*.json")), "the task is that of the demonstrations"


def test_its_own_limits_are_stated_by_name(package: Path, tmp_path: Path) -> None:
    assert "--policy.head.min_scale" in robolearn("completion bash", tmp_path, package)
    line = "train --dataset none.hdf5 --policy.head laplace --policy.action_normalisation mean_std"
    assert "head laplace bounds its mean" in robolearn(line, tmp_path, package, code=2)
