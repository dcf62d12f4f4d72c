"""Cloning alone: 100 demonstrations of pick-place-v3 with action noise 0.1, the shipped recipe, 100 fresh seeds.

python -m benchmarks.clone [--training-seeds 3] [--folder runs/clone]

The peer is robomimic 0.5's BC-GMM on the same task, number of demonstrations and noise: 45 of 50 episodes.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

from benchmarks._report import Row, SuccessRow, write
from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.demo import PICK_PLACE
from robolearn.configuration.record import RecordConfig
from robolearn.configuration.tree import from_dict, read_yaml
from robolearn.envs.make import make
from robolearn.episodes.record import record
from robolearn.evaluation.evaluate import evaluate
from robolearn.evaluation.results import EvaluationResult
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.seeds import REPORT_SEED

RECIPE = Path(__file__).parents[1] / "configs" / "train" / "pick_place.yaml"
PEER = 45 / 50
EPISODES = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--training-seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("runs/clone"))
    arguments = parser.parse_args()
    began = time.monotonic()
    rows: list[Row] = []
    for seed in range(arguments.training_seeds):
        result = one_run(arguments.folder / f"seed_{seed}", seed)
        rows.append(
            SuccessRow.of(
                f"mixture, 100 demonstrations, training seed {seed}",
                result.successes,
                EPISODES,
                result.seeds,
                goal=0.85,
                peer=PEER,
                peer_name="robomimic 0.5 BC-GMM, 45/50",
            )
        )
    write("clone", rows, seconds=time.monotonic() - began)


def one_run(folder: Path, seed: int) -> EvaluationResult:
    """Record (other episodes for each seed), clone and evaluate; complete parts are kept."""
    data = folder / "demonstrations.hdf5"
    demonstrations = RecordConfig(
        task=PICK_PLACE, output=str(data), episodes=100, action_noise=0.1, seed=1000 * seed, num_envs=4, resume=True
    )
    record(demonstrations)
    recipe = from_dict(BCConfig, {key: value for key, value in read_yaml(RECIPE).items() if key != "output"})
    train_bc(replace(recipe, dataset=(str(data),), seed=seed), folder, resume=True)
    with make(PICK_PLACE, 8) as env:
        return evaluate(load_policy(folder / "policy"), env, range(REPORT_SEED, REPORT_SEED + EPISODES), name="clone")


if __name__ == "__main__":
    main()
