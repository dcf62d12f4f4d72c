"""DAgger (Ross et al. 2011) and its descendants: roll out the policy, correct it, aggregate, train, measure, again.

Who corrects and when is a gate's business (`robolearn.imitation.gates`). Every round is a file of its own, so that
aggregating never rewrites one; rounds, and an interrupted round, go on where they stopped.

    run/rounds/00/evaluation.json   how the policy that the run starts from does without help
    run/rounds/01/episodes.hdf5     what round 1 collected: whole attempts, autonomous and corrected steps together
    run/rounds/01/train/            its training run
    run/rounds/01/evaluation.json   its policy, on the same episodes
    run/rounds/01/round.json        written last: the round is complete; names data, policies and configuration
    run/policy/                     the policy after the last round
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2s
from pathlib import Path
from typing import Any

import numpy as np

from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.reading import DATA_LIMITS
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.provenance import check_same_inputs
from robolearn.configuration.tree import from_dict, read_yaml, write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.interface import VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.episodes.record import model_name, open_writer, recorded
from robolearn.episodes.recorder import EpisodeRecorder, record_episodes
from robolearn.errors import TrainingError, hint
from robolearn.evaluation.evaluate import evaluate
from robolearn.imitation.agreement import env_for_rounds
from robolearn.imitation.asker import GateAsker
from robolearn.imitation.bc import train_bc
from robolearn.imitation.corrector import make_corrector
from robolearn.imitation.drift import write_drift
from robolearn.imitation.gates.build import make_gate
from robolearn.imitation.gates.gate import Gate
from robolearn.imitation.intervention import InterventionDriver
from robolearn.imitation.round_figures import figures
from robolearn.imitation.weights import has_interventions
from robolearn.policies.folder import WEIGHTS_FILE, load_policy
from robolearn.policies.policy import Policy
from robolearn.policies.residual import check_clonable
from robolearn.specs import ActionMode
from robolearn.storage import atomic_folder, write_json
from robolearn.teleop.correct import correct_round, device_for_correcting
from robolearn.training.progress import Progress
from robolearn.training.threads import start_thread_pool

EPISODES, ROUND, EVALUATION = "episodes.hdf5", "round.json", "evaluation.json"


@dataclass(frozen=True)
class Rounds:
    """The rounds of a run, in its folder."""

    folder: Path

    def round(self, number: int) -> Path:
        return self.folder / "rounds" / f"{number:02d}"

    def complete(self) -> list[int]:
        """Return the numbers of the complete rounds, from 1 on without a gap."""
        numbers = []
        while (self.round(len(numbers) + 1) / ROUND).exists():
            numbers.append(len(numbers) + 1)
        return numbers

    def policy(self, number: int, start: str | Path) -> Path:
        """Return the policy folder after round `number`; 0 is the one that the run starts from."""
        return self.round(number) / "train" / "policy" if number else Path(start)


def dagger(config: DaggerConfig, run_dir: Path, *, resume_hint: str = "run DAgger again") -> Path:
    """Run all rounds that are not yet complete and return the folder of the final policy.

    Args:
        resume_hint: what to tell someone who interrupts the run.

    Raises ConfigError where the folder holds another run, TrainingError where it has more rounds; TaskError or
    PolicyError, before anything is collected, where policy, task, expert and gate do not fit each other.
    """
    start_thread_pool()
    task = config.task or TaskConfig.from_env_args(_env_args(config))
    check_same_inputs(config, run_dir / "config.yaml", output=run_dir)
    _check_rounds_left(config, run_dir)
    with make(task, 1) as env:  # refused before there is a run folder
        policy = load_policy(config.policy)
        if not config.from_scratch:
            check_clonable(policy, config.policy)
        with Dataset(config.dataset, reading=config.reading) as demonstrations:
            env_for_rounds(policy, env, demonstrations, config.policy)
            spec = demonstrations.action_spec
        _check_correctors(config, task, env)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_yaml(config, run_dir / "config.yaml")
    if config.limits == (DATA_LIMITS,):  # those of the demonstrations, also in the rounds' files
        config = replace(config, limits=tuple(f"{limit:.9g}" for pair in zip(spec.low, spec.high) for limit in pair))
    rounds = Rounds(run_dir)
    _measure(config, task, rounds, 0)
    for number in range(1, config.rounds + 1):
        if not (rounds.round(number) / ROUND).exists():
            _run_round(config, task, rounds, number, resume_hint)
    return _export(rounds.policy(config.rounds, config.policy), run_dir / "policy")


def _check_rounds_left(config: DaggerConfig, run_dir: Path) -> None:
    """Raise TrainingError where a run has more rounds than it is to make: its record would be false."""
    if (made := len(Rounds(run_dir).complete())) > config.rounds:
        raise TrainingError(
            f"{run_dir} has {made} complete rounds, more than the {config.rounds} asked for; take back the last one "
            f"({hint('dagger', 'undo', run_dir)}), ask for more, or name another output"
        )


def undo(run_dir: Path) -> tuple[int, Path]:
    """Take the last complete round back; returns its number and where its files are kept now.

    Raises TrainingError where no round is complete.
    """
    rounds = Rounds(run_dir)
    complete = rounds.complete()
    if not complete:
        raise TrainingError(f"{run_dir} has no complete round to take back")
    config = from_dict(DaggerConfig, read_yaml(run_dir / "config.yaml"))
    last = complete[-1]
    taken = sum(path.name.startswith(f"{last:02d}.taken_back") for path in (run_dir / "rounds").iterdir())
    aside = run_dir / "rounds" / f"{last:02d}.taken_back{taken or ''}"
    rounds.round(last).rename(aside)
    _export(rounds.policy(last - 1, config.policy), run_dir / "policy")
    return last, aside


def _run_round(config: DaggerConfig, task: TaskConfig, rounds: Rounds, number: int, resume_hint: str) -> None:
    folder = rounds.round(number)
    folder.mkdir(parents=True, exist_ok=True)
    start = rounds.policy(number - 1, config.policy)
    before = [*config.dataset, *(str(rounds.round(n) / EPISODES) for n in range(1, number))]
    if config.device:
        _collect_by_hand(config, task, start, before, number, folder / EPISODES, resume_hint)
    else:
        _collect(config, task, start, before, number, folder / EPISODES)
    files = (*before, str(folder / EPISODES))
    if config.weights != "plain":
        with Dataset(files, reading=config.reading) as dataset:
            weighs = has_interventions(dataset)
        if not weighs:
            print(f"note: nobody took over yet, so weights {config.weights} have nothing to weigh", file=sys.stderr)
            config = replace(config, weights="plain")
    training = config.training(files, str(start), load_policy(start).config)
    train_bc(training, folder / "train", resume=True, label=f"train round {number}", resume_hint=resume_hint)
    _measure(config, task, rounds, number)
    with Dataset(folder / EPISODES) as dataset:
        facts = figures(dataset)
    links = {"policy_before": str(start), "policy_after": str(folder / "train" / "policy"), "data": list(files)}
    write_json(folder / ROUND, {"round": number, **facts, **links}, indent=2)


def _collect(
    config: DaggerConfig, task: TaskConfig, policy_folder: Path, before: Sequence[str], number: int, path: Path
) -> None:
    """Collect what is still missing of a round into `path`."""
    have, _ = recorded(path)
    seeds = config.seeds(number)[have:]
    if not seeds:
        return
    policy = load_policy(policy_folder)
    with make(task, config.num_envs) as made, Dataset(config.dataset, reading=config.reading) as demonstrations:
        env, name = env_for_rounds(policy, made, demonstrations, policy_folder), demonstrations.task
        gate = _prepared_gate(config, policy, before, number, path, control_hz=env.control_hz, num_envs=env.num_envs)
        runner = PolicyRunner(policy, env.num_envs, deterministic=config.deterministic)
        driver = InterventionDriver(runner, make_corrector(config.expert, env), gate, env.num_envs)
        describe = {"source": "dagger", "round": number, "operator": f"expert:{config.expert}", "device": "script"}
        describe["policy"] = fingerprint(policy_folder)
        _record(env, driver, seeds, describe, path, have, number, name)


def _prepared_gate(
    config: DaggerConfig,
    policy: Policy,
    before: Sequence[str],
    number: int,
    path: Path,
    *,
    control_hz: float,
    num_envs: int,
) -> Gate:
    """Return a round's gate, which has learned from the files before it and knows what `path` holds of the round."""
    gate = make_gate(
        config.gate,
        control_hz=control_hz,
        num_envs=num_envs,
        seed=config.seed,
        round=number,
        rounds=config.rounds,
        reading=config.reading,
    )
    gate.prepare(policy, [Path(file) for file in before], number)
    _recall(gate, path)
    return gate


def _collect_by_hand(
    config: DaggerConfig,
    task: TaskConfig,
    policy_folder: Path,
    before: Sequence[str],
    number: int,
    path: Path,
    resume_hint: str,
) -> None:
    """Let a person correct what is still missing of a round into `path`."""
    policy, name = load_policy(policy_folder), fingerprint(policy_folder)
    with Dataset(config.dataset, reading=config.reading) as demonstrations:
        file_task, control_hz = demonstrations.task, demonstrations.control_hz
    asker = None
    if config.robot_asks:
        asker = GateAsker(_prepared_gate(config, policy, before, number, path, control_hz=control_hz, num_envs=1))
    have = correct_round(config, task, policy, path, round=number, fingerprint=name, file_task=file_task, asker=asker)
    if have < config.episodes_per_round:
        raise TrainingError(
            f"round {number} has {have} of {config.episodes_per_round} episodes, which are kept in {path}; to record "
            f"the others and train on them, {resume_hint}"
        )


def _recall(gate: Gate, path: Path) -> None:
    """Tell the gate of what an interrupted round has recorded, so that its budget goes on."""
    if not path.exists():
        return
    with Dataset(path) as dataset:
        for index in range(len(dataset)):
            modes = dataset.arrays(index, ["action_modes"])["action_modes"]
            scored = "gate" in dataset.array_names(index)
            scores = dataset.arrays(index, ["gate"])["gate"] if scored else np.full(len(modes), np.nan)
            gate.told(modes != ActionMode.POLICY, scores, None)


def _record(
    env: VectorEnv,
    driver: InterventionDriver,
    seeds: range,
    describe: dict[str, Any],
    path: Path,
    have: int,
    number: int,
    task: str,
) -> None:
    """Record a round's episodes.

    Args:
        task: what the demonstrations call the task, so that the files read as one.
    """
    loop = EpisodeLoop(env, driver, seeds, states=True)
    with (
        open_writer(path, env, append=path.exists(), task=task) as writer,
        Progress(f"dagger round {number}", have + len(seeds), unit="episode", start=have) as progress,
    ):
        recorder = EpisodeRecorder(writer, describe=describe, model=model_name(env))
        attempts = record_episodes(loop, recorder, on_tick=lambda tick: driver.finish([s.index for s in tick.ended]))
        for count, _ in enumerate(attempts, start=have + 1):
            progress.update(count)
    for note in (*loop.watch.notes, *driver.policy.notes):
        print(f"note: {note}", file=sys.stderr)


def _measure(config: DaggerConfig, task: TaskConfig, rounds: Rounds, number: int) -> None:
    """Evaluate a round's policy without help, unless that is done or not asked for."""
    folder = rounds.round(number)
    if not config.eval_episodes or (folder / EVALUATION).exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    policy: Policy = load_policy(rounds.policy(number, config.policy))
    seeds = list(config.eval_seeds)
    with (
        make(task, min(config.num_envs, len(seeds))) as env,
        Progress(f"measure round {number}", len(seeds), unit="episode") as progress,
    ):
        done = 0

        def on_episode(_: object) -> None:
            nonlocal done
            done += 1
            progress.update(done)

        result = evaluate(
            policy,
            env,
            seeds,
            name=f"round {number}",
            record="trajectory",
            record_limit=len(seeds),
            on_episode=on_episode,
        )
    result.save(folder / EVALUATION)
    write_drift(folder, result, config.dataset, config.reading)


def _check_correctors(config: DaggerConfig, task: TaskConfig, env: VectorEnv) -> None:
    """Raise where who corrects, or who decides when, cannot be had for the task."""
    if config.device:
        device_for_correcting(config, task, env)
    else:
        make_corrector(config.expert, env)
    make_gate(config.gate, control_hz=env.control_hz, num_envs=1, seed=config.seed, round=1, rounds=config.rounds)


def _export(policy: Path, target: Path) -> Path:
    with atomic_folder(target) as fresh:
        shutil.copytree(policy, fresh, dirs_exist_ok=True)
    return target


def fingerprint(policy: Path) -> str:
    """Return a fingerprint of a policy's weights, by which files name who acted."""
    folder = policy / "policy" if (policy / "policy").is_dir() else policy
    weights = b"".join(path.read_bytes() for path in sorted(folder.rglob(WEIGHTS_FILE)))  # of what it corrects as well
    return blake2s(weights, digest_size=8).hexdigest()


def _env_args(config: DaggerConfig) -> dict[str, Any]:
    with Dataset(config.dataset[0], reading=config.reading) as dataset:
        return dict(dataset.env_args)
