"""Gates by configuration: our own, those of a package of its own, and what cannot be made."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import pytest

from robolearn.configuration.parts.gates import BetaGateConfig, GateConfig
from robolearn.configuration.parts.plugins import BaseGateConfig
from robolearn.errors import ConfigError
from robolearn.imitation.gates.build import MEMBERS, make_gate

ROOT = Path(__file__).parents[3]
WHERE = {"control_hz": 20.0, "num_envs": 2, "seed": 0, "round": 1, "rounds": 2}


@pytest.mark.parametrize("config", get_args(GateConfig), ids=lambda kind: kind.__name__)
def test_every_configuration_makes_its_gate(config: type[BaseGateConfig]) -> None:
    gate = make_gate(config(), **WHERE)  # type: ignore[arg-type]
    assert all(hasattr(gate, member) for member in MEMBERS)


@dataclass(frozen=True, kw_only=True)
class Other(BaseGateConfig):
    name: str = "other"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("", "Other names no gate to make; give it a class attribute `module`"),
        ("no.such:Gate", "'no.such:Gate', which does not import: No module named 'no'"),
        ("robolearn.imitation.gates.beta:Gone", "does not import: .* has no attribute 'Gone'"),
        ("robolearn.specs:EpisodeInfo", "lacks"),
    ],
)
def test_what_cannot_be_made_is_named(module: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Other, "module", module)
    if message == "lacks":
        monkeypatch.setattr("robolearn.specs.EpisodeInfo", lambda config, setting: object())
    with pytest.raises(ConfigError, match=message):
        make_gate(Other(), **WHERE)  # type: ignore[arg-type]


def test_rounds_must_fit() -> None:
    with pytest.raises(ConfigError, match=r"1 <= round <= rounds, received 20.0, 2, 3 and 2"):
        make_gate(BetaGateConfig(), **(WHERE | {"round": 3}))  # type: ignore[arg-type]


CONFIGURATION = """
from dataclasses import dataclass
from typing import Literal
from robolearn.configuration.parts.plugins import BaseGateConfig

@dataclass(frozen=True, kw_only=True)
class EveryNthConfig(BaseGateConfig):
    module = "my_gate:EveryNth"
    name: Literal["every_nth"] = "every_nth"
    n: int = 3
"""
GATE = """
import numpy as np
from robolearn.imitation.gates.gate import BaseGate, Verdict

class EveryNth(BaseGate):
    def __init__(self, config, setting):
        self.n, self.step = config.n, 0

    def judge(self, view):
        self.step += 1
        return Verdict(correct=np.full(len(view.correcting), self.step % self.n == 0))
"""


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "my_gate_config.py").write_text(CONFIGURATION, encoding="utf-8")
    (tmp_path / "my_gate.py").write_text(GATE, encoding="utf-8")
    info = tmp_path / "my_gate-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-gate\nVersion: 1.0\n", encoding="utf-8")
    entry = "[robolearn.gates]\nevery_nth = my_gate_config:EveryNthConfig\n"
    (info / "entry_points.txt").write_text(entry, encoding="utf-8")
    return tmp_path


def run(code: str, package: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(package), str(ROOT)]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_gate_from_outside_the_package(package: Path) -> None:
    code = """
import sys
from typing import get_args
from robolearn.configuration.parts.gates import GateConfig
kind = next(k for k in get_args(GateConfig) if k.__name__ == "EveryNthConfig")
assert "torch" not in sys.modules
import numpy as np, torch
from robolearn.imitation.gates.build import make_gate
from robolearn.imitation.gates.gate import View
gate = make_gate(kind(n=2), control_hz=20.0, num_envs=1, seed=0, round=1, rounds=1)
view = View(obs={}, proposals=torch.zeros(1, 1), labels=torch.zeros(1, 1), correcting=np.zeros(1, bool), window={})
print([bool(gate.judge(view).correct[0]) for _ in range(4)], int(gate.mode))
"""
    done = run(code, package)
    assert done.stdout.strip() == "[False, True, False, True] 1", done.stderr


def test_a_broken_package_is_named(package: Path) -> None:
    (package / "my_gate_config.py").write_text("import nothing_of_that_name\n", encoding="utf-8")
    done = run("import robolearn.configuration.parts.gates", package)
    assert "ConfigError: every_nth is registered as my_gate_config:EveryNthConfig, which does not load" in done.stderr
