"""What the tests of distributed training run under torchrun: `python -m torch.distributed.run ... FOLDER DATA`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from robolearn.config import from_dict
from robolearn.imitation.bc import train_bc
from robolearn.imitation.config import BCConfig
from robolearn.training import distributed


def bc_config(data: Path, steps: int = 24) -> BCConfig:
    """Chunks at the ends of short episodes are padded, so that shares of a batch weigh differently; 33 is odd."""
    policy = {
        "obs_steps": 3,
        "pred_steps": 12,
        "backbone": {"name": "lstm", "hidden_size": 16},
        "head": {"name": "gaussian"},
    }
    loop = {"total_steps": steps, "log_every": 4, "evaluate_every": 8, "checkpoint_every": 0, "tensorboard": False}
    optimiser = {"schedule": "constant", "max_grad_norm": 1.0}
    values = {"dataset": [str(data)], "policy": policy, "loop": loop, "optimiser": optimiser, "batch_size": 33}
    return from_dict(BCConfig, values | {"device": "cpu"})


def run_bc(folder: Path, data: Path) -> None:
    config = bc_config(data)
    train_bc(config, folder / "whole")
    train_bc(replace(config, loop=replace(config.loop, total_steps=10)), folder / "parts")
    torch.manual_seed(99)
    train_bc(config, folder / "parts", resume=True)


def main(folder: Path, data: Path) -> None:
    with distributed.process_group():
        run_bc(folder / "bc", data)
        facts = {"rank": distributed.rank(), "world": distributed.world_size()}
        (folder / f"facts_{distributed.rank()}.json").write_text(json.dumps(facts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
