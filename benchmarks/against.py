"""The same work by this tree and by another checkout of the project, in turns: did a change cost speed?

    git worktree add ../before 40d5e53 && make -C ../before setup
    python -m benchmarks.against ../before [--python ../before/.venv/bin/python] [--cases ppo8 sac ...] [--blocks 25]

Each side has a process per case that stays, warm and compiled; blocks of about a second alternate between them, so that
whatever else the machine does meets both. The ratio is the median over the pairs of blocks, with its quartiles. The
work is what both trees' benchmarks measure (`rl_speed`, `train_bc`, `sampler`, `vector_env`), taken by the names that
these have had since commit 40d5e53.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks._report import ROOT, Row, quartiles, write

GOAL = 0.97
WORKER = """
import sys, tempfile, time
from pathlib import Path
import benchmarks
assert Path(benchmarks.__path__[0]).parent == Path(sys.argv[1]), benchmarks.__path__
try:
    from robolearn.training.threads import start_thread_pool  # as a run does; it was done at import once
    start_thread_pool()
except ImportError:
    pass
scratch = tempfile.TemporaryDirectory()
{setup}
for line in sys.stdin:
    for _ in range({warm_up} if line == "warm up\\n" else 1):
        start = time.perf_counter()
        rate = block()
        rate = 1 / (time.perf_counter() - start) if rate is None else rate
    print("rate", rate, flush=True)
"""
"""A process of one side: `setup` makes `block`, which works for about a second and returns its speed, or None."""

BC = """
from benchmarks import train_bc
path = train_bc.write_dataset(Path(scratch.name) / "data.hdf5")
values = list(train_bc.CASES.values())[{case}]
config = train_bc.from_dict(train_bc.BCConfig, {{"dataset": [str(path)], "loop": {{"checkpoint_every": 0}}, **values}})
dataset = train_bc.Dataset(config.dataset)
bench = train_bc.Bench.make(config, dataset)
def block():
    with train_bc.fitting_threads(bench.policy, rows=bench.config.batch_size):
        return {steps} / bench.loop({steps})
"""

SAMPLER = """
import torch
torch.set_num_threads(1)
from benchmarks import sampler
path = Path(scratch.name) / "data.hdf5"
sampler.make(path, sampler.{spec})
dataset = sampler.Dataset(path)
stream = iter(sampler.WindowSampler(dataset, seed=0, {options}).forever())
def block():
    for _ in range({batches}):
        next(stream)
"""

STEPPING = """
import torch
try:
    from robolearn.configuration.parts.task import TaskConfig
except ImportError:  # the other tree
    from robolearn.envs.config import TaskConfig
from robolearn.envs.make import make
env = make(TaskConfig(id="{name}"), {worlds})
generator = torch.Generator().manual_seed(0)
actions = torch.rand(100, {worlds}, env.action_spec.size, generator=generator) * 2 - 1
def block():
    env.reset(seeds=list(range({worlds})))
    for action in actions:
        env.step(action)
"""

CHEETAH = """
from benchmarks import vector_env
bench = vector_env.Bench(64, 2, 300)
def block():
    return 1 / bench.ours()
"""

RECORD = """
import contextlib, itertools, os
from robolearn.cli.main import main
names = itertools.count()
def block():
    path = os.path.join(scratch.name, f"{{next(names)}}.hdf5")
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        amount = ["--episodes", "{episodes}", "--num_envs", "{worlds}"]
        assert main(["record", "--task", "Lift", *amount, "--output", path]) == 0
"""

RL = """
from benchmarks import rl_speed
turn = rl_speed.{call}
def block():
    done = turn()
    return getattr(done, "speed", done)  # a bare number in the other tree
"""

CASES: dict[str, tuple[str, str, int]] = {
    "ppo8": ("PPO, 8 environments", RL.format(call="our_ppo(8, 64, 3, recompute=True)"), 2),
    "ppo64": ("PPO, 64 environments", RL.format(call="our_ppo(64, 512, 1, recompute=True)"), 2),
    "sac": ("SAC in float32", RL.format(call="our_sac(150, bf16=False)"), 2),
    "sac_bf16": ("SAC in bfloat16", RL.format(call="our_sac(200, bf16=True)"), 2),
    "bc256": ("cloning, MLP 2x256", BC.format(case=0, steps=250), 2),
    "bc1024": ("cloning, MLP 2x1024", BC.format(case=1, steps=50), 2),
    "bclstm": ("cloning, LSTM 2x400", BC.format(case=2, steps=8), 2),
    "state": (
        "sampling states, To=1 Tp=1",
        SAMPLER.format(spec="STATE, 100, 500", options="obs_steps=1, pred_steps=1, batch_size=256", batches=4000),
        1,
    ),
    "windows": (
        "sampling states, To=2 Tp=16",
        SAMPLER.format(spec="STATE, 100, 500", options="obs_steps=2, pred_steps=16, batch_size=256", batches=1000),
        1,
    ),
    "pictures": (
        "sampling pictures in memory",
        SAMPLER.format(spec="CAMERA, 10, 200", options="obs_steps=2, pred_steps=16, batch_size=64", batches=300),
        1,
    ),
    "streamed": (
        "sampling pictures from the file",
        SAMPLER.format(
            spec="CAMERA, 10, 200", options="obs_steps=2, pred_steps=16, batch_size=64, image_memory=0", batches=40
        ),
        1,
    ),
    "record1": ("recording Lift, 1 world", RECORD.format(worlds=1, episodes=10), 1),
    "record8": ("recording Lift, 8 worlds", RECORD.format(worlds=8, episodes=40), 1),
    "cheetah": ("stepping HalfCheetah's model, 64 worlds", CHEETAH, 1),
    "lift8": ("stepping Lift, 8 worlds", STEPPING.format(name="Lift", worlds=8), 1),
    "pusht32": ("stepping PushT, 32 worlds", STEPPING.format(name="PushT", worlds=32), 1),
}
"""Name: title, setup of the worker, blocks of warming up."""


class Side:
    """One tree's process of one case."""

    def __init__(self, tree: Path, python: str, setup: str, warm_up: int) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        code = WORKER.format(setup=setup, warm_up=warm_up)
        self.process = subprocess.Popen(
            [python, "-c", code, str(tree)],
            cwd=tree,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.block("warm up")

    def block(self, request: str = "go") -> float:
        """Return the speed of one block of work, in the case's own unit."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{request}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("rate "):
                return float(line.split()[1])
        raise RuntimeError(f"the worker ended with exit status {self.process.wait()}")

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="folder of the other checkout")
    parser.add_argument("--python", default="", help="its interpreter, where it is not .venv/bin/python there")
    parser.add_argument("--cases", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--blocks", type=int, default=25)
    args = parser.parse_args()
    before = args.before.resolve()
    python = args.python or str(before / ".venv" / "bin" / "python")
    found = subprocess.run(
        ["git", "-C", str(before), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    if found.returncode or not (before / "benchmarks").is_dir():
        parser.error(f"{before} is no checkout of this project; make one: git worktree add {before} COMMIT")
    if not Path(python).exists():
        parser.error(f"{python} does not exist; make it: make -C {before} setup, or name another with --python")
    commit = found.stdout.strip()
    began = time.perf_counter()
    rows = [measure(name, before, python, commit, args.blocks) for name in args.cases]
    write("against", rows, seconds=time.perf_counter() - began)


def measure(name: str, before: Path, python: str, commit: str, blocks: int) -> Row:
    """One row: the median over pairs of blocks, whose order alternates."""
    title, setup, warm_up = CASES[name]
    old, new = Side(before, python, setup, warm_up), Side(ROOT, sys.executable, setup, warm_up)
    ratios = []
    for i in range(blocks):
        first, second = (old, new) if i % 2 == 0 else (new, old)
        speeds = {first: first.block(), second: second.block()}
        ratios.append(speeds[new] / speeds[old])
    old.close()
    new.close()
    middle, note = statistics.median(ratios), quartiles(ratios, "pairs of blocks")
    print(f"{title}: {middle:.3f} of {commit} ({note})", flush=True)
    return Row(
        case=title,
        unit=f"ratio of speed to commit {commit}",
        ours=middle,
        peer=1.0,
        peer_name=commit,
        goal=GOAL,
        note=note,
    )


if __name__ == "__main__":
    main()
