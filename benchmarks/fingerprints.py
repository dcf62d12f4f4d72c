"""Fingerprints of short runs with fixed seeds: record, train every head, DAgger, fine-tuning, RL and evaluation.

A change that is meant to change no results leaves every line as it was. To compare two states of the repository:

    python -m benchmarks.fingerprints before.json      # in one of them
    python -m benchmarks.fingerprints after.json --against before.json

Weights are hashed as bytes, so only runs on one machine with the same packages compare. What is measured (times, rates)
is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

MEASURED = {*("timestamps", "time", "started_at", "created_at", "seconds", "wall", "date"), *("device", "versions")}
SMALL_NETWORK = "--policy.head.network mlp --policy.head.network.width 64 --policy.head.network.num_blocks 1"
HEADS = {
    "deterministic": "",
    "gaussian": "",
    "mixture": "",
    "autoregressive": "--policy.head.width 32 --policy.head.num_layers 1",
    "diffusion": SMALL_NETWORK,
    "flow": SMALL_NETWORK,
    "act": (
        "--policy.head.width 32 --policy.head.num_heads 2 --policy.head.encoder_layers 1 --policy.head.decoder_layers 1"
    ),
}
FAST = "--loop.evaluate_every 0 --loop.checkpoint_every 0 --loop.log_every 5"
TRAIN = f"--batch_size 32 --policy.backbone mlp --policy.backbone.hidden_sizes 64 64 --loop.total_steps 30 {FAST}"
RL = "--num_envs 4 --eval_episodes 4 --seed 3"


def commands() -> Iterator[tuple[str, str]]:
    """Yield (label, command line after `robolearn`), in the order they depend on each other; all paths are relative."""
    yield "record lift", "record lift.hdf5 --task Lift --episodes 6 --action_noise 0.05 --num_envs 3"
    yield "record push_t", "record push_t.hdf5 --task PushT --episodes 2 --keep_failures"
    yield "record fork", "record fork.hdf5 --task Fork --episodes 4 --task.kwargs.random_physics 0.5"
    door = "--task gym:Meta-World/MT1 --task.kwargs.env_name door-open-v3"
    yield "record metaworld", f"record mw.hdf5 {door} --episodes 2 --action_noise 0.1"
    chunks = "--policy.pred_steps 4 --policy.exec_steps 2"
    for head, more in HEADS.items():
        line = f"train --dataset lift.hdf5 --output train_{head} {TRAIN} {chunks} --policy.head {head} {more}"
        yield f"train {head}", line
    start = "--policy train_mixture/policy"
    rounds = f"--rounds 2 --episodes_per_round 3 --task.id Lift --task.max_steps 60 --loop.total_steps 20 {FAST}"
    yield "dagger", f"dagger {start} --dataset lift.hdf5 --output dagger {rounds}"
    practice = "--num_envs 4 --eval_episodes 4 --max_steps 40 --method.num_steps 16 --method.batch_size 32"
    yield "finetune", f"finetune {start} --output finetune {practice} --loop.total_steps 3 --loop.evaluate_every 2"
    dense = "--task Reach --task.kwargs.reward dense"
    on = "--algorithm.num_steps 32 --algorithm.normalise_obs true --algorithm.normalise_returns true"
    yield "rl ppo", f"rl {dense} --output rl_ppo --algorithm ppo {on} --env_steps 512 {RL} --evaluate_every 256"
    off = "--algorithm.random_steps 100 --algorithm.capacity 2000 --algorithm.batch_size 32 --env_steps 400"
    for name in ("sac", "td3"):
        yield f"rl {name}", f"rl {dense} --output rl_{name} --algorithm {name} {off} {RL} --evaluate_every 200"
    yield "rl dqn", f"rl --task gym:CartPole-v1 --output rl_dqn --algorithm dqn {off} {RL} --evaluate_every 200"
    policies = "train_mixture train_diffusion dagger"
    end = "--episodes 6 --expert auto --videos 0 --num_envs 3 --task.id Lift --task.max_steps 60"
    yield "eval", f"eval {policies} --output eval {end}"


def digest_hdf5(path: Path) -> str:
    """Hash of every array and attribute that is not measured."""
    total = hashlib.sha256()

    def visit(name: str, item: Any) -> None:
        leaf = name.rsplit("/", 1)[-1]
        if leaf in MEASURED or leaf == "events":
            return
        total.update(name.encode())
        for key in sorted(set(item.attrs) - MEASURED):
            total.update(f"{key}={item.attrs[key]}".encode())
        if isinstance(item, h5py.Dataset):
            total.update(np.ascontiguousarray(item[()]).tobytes())

    with h5py.File(path, "r") as file:
        names: list[str] = []
        file["data"].visit(names.append)
        for name in sorted(names):
            visit(name, file["data"][name])
    return total.hexdigest()[:16]


def strip(value: Any) -> Any:
    """A JSON value without what was measured."""
    if isinstance(value, dict):
        measured = lambda k: k in MEASURED or k.endswith(("_s", "per_s", "seconds"))  # noqa: E731
        return {k: strip(v) for k, v in value.items() if not measured(k)}
    return [strip(v) for v in value] if isinstance(value, list) else value


def digest(path: Path) -> str:
    if path.suffix == ".hdf5":
        return digest_hdf5(path)
    if path.suffix == ".safetensors":
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    text = json.dumps([strip(json.loads(line)) for line in lines], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("output", type=Path)
    parser.add_argument("--against", type=Path, help="fingerprints to compare with")
    arguments = parser.parse_args()
    found: dict[str, str] = {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", str(Path.cwd()))}
    with tempfile.TemporaryDirectory() as folder:
        for label, line in commands():
            command = [sys.executable, "-m", "robolearn", *line.split()]
            run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if run.returncode:
                print(f"{label} failed ({run.returncode}): {run.stderr.strip()[-2000:]}", file=sys.stderr)
            found[f"{label}: exit"] = str(run.returncode)
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix in (".hdf5", ".safetensors", ".jsonl", ".json"):
                found[str(path.relative_to(folder))] = digest(path)
    arguments.output.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{len(found)} fingerprints in {arguments.output}")
    if arguments.against is None:
        return 0
    before = json.loads(arguments.against.read_text())
    changed = [name for name in sorted({*before, *found}) if before.get(name) != found.get(name)]
    print("\n".join(f"changed: {name}: {before.get(name)} -> {found.get(name)}" for name in changed) or "all the same")
    return bool(changed)


if __name__ == "__main__":
    sys.exit(main())
