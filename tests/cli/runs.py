"""A small file of the workspace and the shortest training on it, for tests of commands."""

from __future__ import annotations

from pathlib import Path

DATA = Path(__file__).parents[2] / "datasets" / "sample" / "pick_place.hdf5"
SMALL = (
    *("--dataset", str(DATA), "--policy.backbone.hidden_sizes", "8", "--policy.head", "gaussian"),
    *("--batch_size", "8", "--loop.evaluate_every", "0"),
)
