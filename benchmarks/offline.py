"""Learning from files that hold good and bad: cloning, implicit and conservative Q-learning on the same episodes.

    python -m benchmarks.offline [--seeds 3] [--studies mixed,stitching]

Both on a plane with places A, B, C, D at its corners, where a point is to go to D:

mixed      from anywhere in the left half: 30 episodes that go to D, and 30 that go to B instead, with heavy noise
stitching  40 ways from A to B (no reward) and 20 from C to D (reward at D) cross in the middle; asked is the way from
           A to D, which nobody went

Every method trains the same tanh-Gaussian from the same file, by success alone, and is evaluated on the same fresh
seeds. Plane and settings were picked by looking at other training seeds (0 to 7) and other evaluation seeds than those
of the table. Finished runs are kept in benchmarks/results/raw/offline.json and not run again.
Writes benchmarks/results/offline.json.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch

from benchmarks._report import SuccessRow, load_runs, save_runs, write
from robolearn.cli.verbs.train import learner_of
from robolearn.configuration.cloning import TrainConfig
from robolearn.configuration.parts.algorithms import CriticConfig, QConfig
from robolearn.configuration.parts.loop import LoopConfig, OptimiserConfig
from robolearn.configuration.parts.offline import CloningMethod, CQLConfig, DataMethod, IQLConfig
from robolearn.configuration.parts.policy import GaussianHeadConfig, MLPConfig, PolicyConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.experts import NoisyExpert
from robolearn.envs.make import make
from robolearn.episodes.disturbances import Disturbances
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.episodes.record import ExpertDriver, open_writer
from robolearn.episodes.recorder import EpisodeRecorder, record_episodes
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.statistics import PairedCounts, mcnemar
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.seeds import REPORT_SEED
from robolearn.specs import Observation

RUNS = Path("runs/offline")
EPISODES = 100
"""Of each evaluation."""
FIRST_TRAINING_SEED, FIRST_SEED = 20, REPORT_SEED + 600
"""Training and evaluation seeds that nothing was picked on begin here."""
CORNERS = {"A": (-1.0, 1.0), "B": (1.0, -1.0), "C": (-1.0, -1.0), "D": (1.0, 1.0)}
PLANE = "gym:benchmarks.offline:robolearn/Plane-v0"


class Plane(gym.Env[np.ndarray, np.ndarray]):
    """A point within walls at 1.1 that moves by 0.2 of its action; solved at D."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": [], "render_fps": 5}

    def __init__(self, start: str = "anywhere") -> None:
        """
        Args:
            start: anywhere in the left half, or `corners`: near A with even seeds, near C with odd ones.
        """
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.start = start

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        if self.start == "corners":
            corner = CORNERS["C" if (seed or 0) % 2 else "A"]
            self.position = np.array(corner) + self.np_random.uniform(-0.1, 0.1, 2)
        else:
            self.position = self.np_random.uniform((-1.0, -1.0), (0.0, 1.0))
        return self.position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.position = np.clip(self.position + 0.2 * np.asarray(action), -1.1, 1.1)
        solved = bool(np.linalg.norm(self.position - CORNERS["D"]) < 0.3)
        return self.position.astype(np.float32), float(solved), solved, False, {"is_success": solved}


gym.register("robolearn/Plane-v0", entry_point="benchmarks.offline:Plane", max_episode_steps=40)


class Wayfarer:
    """Goes straight to a corner, at most at half of the full speed."""

    def __init__(self, goal: str, num_envs: int) -> None:
        self.goals = torch.tensor(CORNERS[goal]).expand(num_envs, 2)

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        """Nothing changes from episode to episode."""

    def act(self, obs: Observation) -> torch.Tensor:
        return ((self.goals - obs["state"].float()) / 0.2).clamp(-0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Recording:
    """Some episodes of a study's file."""

    goal: str
    noise: float
    """Standard deviation, in units of the action."""
    seeds: range


@dataclass(frozen=True, kw_only=True)
class Study:
    """A task, what its file holds, and the seeds of the evaluation."""

    task: TaskConfig
    recordings: tuple[Recording, ...]
    seeds: range
    steps: int
    """Updates of every method."""


STUDIES = {
    "mixed": Study(
        task=TaskConfig(id=PLANE, worker_kind="sync"),
        recordings=(
            Recording(goal="D", noise=0.2, seeds=range(30)),
            Recording(goal="B", noise=0.5, seeds=range(1000, 1030)),
        ),
        seeds=range(FIRST_SEED, FIRST_SEED + EPISODES),
        steps=1000,
    ),
    "stitching": Study(
        task=TaskConfig(id=PLANE, worker_kind="sync", kwargs={"start": "corners"}),
        recordings=(
            Recording(goal="B", noise=0.25, seeds=range(0, 80, 2)),
            Recording(goal="D", noise=0.25, seeds=range(1, 41, 2)),
        ),
        seeds=range(FIRST_SEED, FIRST_SEED + 2 * EPISODES, 2),  # even: all from A
        steps=1000,
    ),
}
VALUES: dict[str, Any] = {"gamma": 0.9, "tau": 0.05}
CRITIC = QConfig(hidden_sizes=(64, 64), layer_norm=True)
METHODS: dict[str, DataMethod] = {
    "bc": CloningMethod(),
    "iql": IQLConfig(
        **VALUES,
        expectile=0.9,
        beta=30.0,
        learning_rate=1e-3,
        critic=CRITIC,
        value=CriticConfig(hidden_sizes=(64, 64), activation="relu", layer_norm=True),
    ),
    "cql": CQLConfig(
        **VALUES,
        num_actions=2,
        cloning_steps=200,
        learning_rate=1e-3,
        critic_learning_rate=1e-3,
        critic=CRITIC,
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of training seeds")
    parser.add_argument("--studies", default=",".join(STUDIES))
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, rows = time.perf_counter(), []
    for name in options.studies.split(","):
        outcomes = {}
        data = recorded(name)
        for method in METHODS:
            outcomes[method] = [
                run(name, method, seed, data)
                for seed in range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + options.seeds)
            ]
        rows += rows_of(name, outcomes)
    write("offline", rows, seconds=time.perf_counter() - began)


def recorded(name: str) -> Path:
    """Return the study's file, recorded where it is not there yet."""
    path = RUNS / f"{name}.hdf5"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with make(STUDIES[name].task, 8) as env, open_writer(path, env) as writer:
        for part in STUDIES[name].recordings:
            expert = NoisyExpert(Wayfarer(part.goal, env.num_envs), part.noise)
            calm = Disturbances(0.0, control_hz=env.control_hz, num_envs=env.num_envs)
            loop = EpisodeLoop(env, ExpertDriver(expert, calm), part.seeds)
            recorder = EpisodeRecorder(writer, describe={"source": "demo"})
            solved = sum(attempt.success for attempt in record_episodes(loop, recorder))
            print(f"{name}: {len(part.seeds)} episodes to {part.goal}, {solved} at D")
    return path


def run(name: str, method: str, seed: int, data: Path) -> list[bool]:
    """Train and evaluate once, unless that is done; return the outcome of each evaluation seed."""
    key, study = f"{name},{method},{seed}", STUDIES[name]
    if key in (done := load_runs("offline")):
        return [bool(value) for value in done[key]["solved"]]
    folder, began = RUNS / name / f"{method}_{seed}", time.perf_counter()
    config = TrainConfig(
        dataset=(str(data),),
        method=METHODS[method],
        policy=PolicyConfig(backbone=MLPConfig(hidden_sizes=(64, 64)), head=GaussianHeadConfig()),
        valid_mask=None,
        batch_size=64,
        optimiser=OptimiserConfig(learning_rate=2e-3),
        loop=LoopConfig(total_steps=study.steps, evaluate_every=0, checkpoint_every=0, tensorboard=False),
        output=str(folder),
        device="cpu",
        seed=seed,
    )
    result = train_bc(config, folder, learner=learner_of(config), resume=True)
    with make(study.task, 16) as env:
        evaluated = evaluate(load_policy(result.policy), env, study.seeds)
    solved = [episode.success for episode in sorted(evaluated.episodes, key=lambda episode: episode.seed)]
    save_runs("offline", {key: {"solved": [int(s) for s in solved], "seconds": round(time.perf_counter() - began)}})
    print(f"{key}: {sum(solved)}/{len(solved)}", flush=True)
    return solved


def rows_of(name: str, outcomes: dict[str, list[list[bool]]]) -> list[SuccessRow]:
    """Return a row for each method: all training seeds together, beside cloning on the same evaluation seeds."""
    rows, together = [], {method: [s for seed in runs for s in seed] for method, runs in outcomes.items()}
    cloned = together["bc"]
    for method, solved in together.items():
        each = ", ".join(str(sum(seed)) for seed in outcomes[method])
        p = "" if method == "bc" else f"; against cloning p {mcnemar(PairedCounts.of(cloned, solved)):.2g}"
        rows.append(
            SuccessRow.of(
                f"{name}, {method}",
                sum(solved),
                len(solved),
                STUDIES[name].seeds,
                peer=None if method == "bc" else sum(cloned) / len(cloned),
                peer_name="" if method == "bc" else "bc",
                note=f"training seeds {each}{p}",
            )
        )
    return rows


if __name__ == "__main__":
    main()
