from __future__ import annotations

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
