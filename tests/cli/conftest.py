from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from robolearn.cli.main import main


@pytest.fixture(scope="session")
def reach(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `demos.hdf5`, four demonstrations of Reach, and `run`, a policy of chunks of 4 hardly trained."""
    folder = tmp_path_factory.mktemp("with space")
    data, run = str(folder / "demos.hdf5"), str(folder / "run")
    assert main(["record", data, "--task", "Reach", "--episodes", "4"]) == 0
    small = ["--policy.backbone.hidden_sizes", "8", "--policy.pred_steps", "4", "--batch_size", "8"]
    assert main(["train", "--dataset", data, *small, "--loop.total_steps", "2", "--output", run]) == 0
    return folder


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command; returns all that it printed."""

    def run(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        found = main([str(word) for word in words])
        output = capsys.readouterr()
        assert found == code, output.err + output.out
        return output.out + output.err

    return run
