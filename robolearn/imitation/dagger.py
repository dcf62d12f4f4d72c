"""DAgger (Ross et al., 2011): roll out the policy, have every visited state labelled, aggregate, train on.

Round i mixes the two per step: the expert acts with probability beta_i, the policy otherwise. What the policy
proposed, what the expert would have done, who acted and when control changed hands are all in the file. Every round
is a file of its own, so aggregating never rewrites one; rounds, and an interrupted round, resume where they stopped.

    run/rounds/01/episodes.hdf5   what round 1 collected
    run/rounds/01/train/          its training run
    run/rounds/01/report.json     written last: the round is complete
    run/policy/                   the policy after the last round
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robolearn.configuration.dagger import DaggerConfig
from robolearn.configuration.parts.task import TaskConfig
from robolearn.configuration.tree import write_yaml
from robolearn.datasets.dataset import Dataset
from robolearn.deploy.runner import PolicyRunner
from robolearn.envs.experts import make_expert
from robolearn.envs.interface import Actor, Observation, VectorEnv
from robolearn.envs.make import make
from robolearn.episodes.actor import Decision
from robolearn.episodes.record import model_name, open_writer, recorded
from robolearn.episodes.recorder import EpisodeRecorder, record_episodes
from robolearn.episodes.run import EpisodeLoop
from robolearn.imitation.bc import train_bc
from robolearn.policies.folder import load_policy
from robolearn.specs import ActionMode, Episode, EventKind
from robolearn.storage import atomic_folder, write_json
from robolearn.training.progress import Progress
from robolearn.training.threads import start_thread_pool


class BetaDriver:
    """At each step the expert acts with probability beta, the policy otherwise; the expert labels every state.

    Who acts is a function of (episode seed, step) alone, so a round repeats whatever the number of environments.
    """

    def __init__(self, policy: PolicyRunner, expert: Actor, beta: float, num_envs: int) -> None:
        self.policy, self.expert, self.beta = policy, expert, beta
        self._coins: list[np.random.Generator] = [np.random.default_rng(0)] * num_envs
        self._last = np.full(num_envs, int(ActionMode.POLICY), np.int8)

    def reset(self, *, seeds: Sequence[int], mask: Tensor) -> None:
        self.policy.reset(seeds, mask)
        self.expert.reset(seeds, mask)
        for index, seed in zip(mask.nonzero().flatten().tolist(), seeds, strict=True):
            self._coins[index] = np.random.default_rng([seed, 0xDA66E5])
            self._last[index] = ActionMode.POLICY

    def decide(self, obs: Observation) -> Decision:
        proposals, labels = self.policy.act(obs), self.expert.act(obs)
        expert_acts = np.array([coin.random() < self.beta for coin in self._coins])
        modes = np.where(expert_acts, ActionMode.EXPERT, ActionMode.POLICY).astype(np.int8)
        events: list[tuple[int, EventKind, str]] = [
            (int(i), "takeover" if modes[i] == ActionMode.EXPERT else "release", f"beta={self.beta:g}")
            for i in np.flatnonzero(modes != self._last)
        ]
        self._last = modes
        chosen = torch.as_tensor(expert_acts, device=labels.device)[:, None]
        return Decision(
            actions=torch.where(chosen, labels, proposals),
            modes=torch.from_numpy(modes),
            policy_actions=proposals,
            expert_actions=labels,
            events=tuple(events),
        )


def dagger(
    config: DaggerConfig,
    run_dir: Path,
    *,
    resume_hint: str = "run DAgger again",
) -> Path:
    """Run all rounds that are not yet complete and return the folder of the final policy.

    Args:
        resume_hint: what to tell someone who interrupts the run.
    """
    start_thread_pool()
    task = config.task or TaskConfig.from_env_args(_env_args(config.dataset))
    with make(task, 1) as env:  # refused before there is a run folder
        load_policy(config.policy)
        make_expert(config.expert, env)
    run_dir.mkdir(parents=True, exist_ok=True)
    write_yaml(config, run_dir / "config.yaml")
    policy, files = Path(config.policy), list(config.dataset)
    for number in range(1, config.rounds + 1):
        folder = run_dir / "rounds" / f"{number:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        report, episodes = folder / "report.json", folder / "episodes.hdf5"
        files.append(str(episodes))
        if not report.exists():
            statistics = collect_round(config, task, policy, number, episodes)
            training = config.training(tuple(files), str(policy), load_policy(policy).config)
            label = f"train round {number}"
            train_bc(training, folder / "train", resume=True, label=label, resume_hint=resume_hint)
            write_json(report, {"round": number, "beta": config.beta(number), **statistics}, indent=2)
        policy = folder / "train" / "policy"
    final = run_dir / "policy"
    with atomic_folder(final) as fresh:
        shutil.copytree(policy, fresh, dirs_exist_ok=True)
    return final


def collect_round(config: DaggerConfig, task: TaskConfig, policy: Path, number: int, path: Path) -> dict[str, Any]:
    """Collect what is still missing of round `number` into `path`; returns the round's figures over the whole file."""
    first = config.seed + (number - 1) * config.episodes_per_round
    have, _ = recorded(path)
    with make(task, config.num_envs) as env:
        if have < config.episodes_per_round:
            seeds = range(first + have, first + config.episodes_per_round)
            driver = BetaDriver(
                PolicyRunner(load_policy(policy), env.num_envs, deterministic=config.deterministic),
                make_expert(config.expert, env),
                config.beta(number),
                env.num_envs,
            )
            _record_round(env, driver, seeds, number, path, have, config.episodes_per_round)
    with Dataset(path) as dataset:
        return _figures([dataset.read(i) for i in range(len(dataset))])


def _record_round(
    env: VectorEnv, driver: BetaDriver, seeds: range, number: int, path: Path, have: int, total: int
) -> None:
    loop = EpisodeLoop(env, driver, seeds, states=True)
    with (
        open_writer(path, env, append=have > 0) as writer,
        Progress(f"dagger round {number}", total, unit="episode", start=have) as progress,
    ):
        describe = {"source": "dagger", "round": number, "operator": "expert", "device": "script"}
        recorder = EpisodeRecorder(writer, describe=describe, model=model_name(env))
        for count, _ in enumerate(record_episodes(loop, recorder), start=have + 1):
            progress.update(count)


def _figures(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What the round's file says about how much the policy still needed the expert."""
    modes = np.concatenate([episode.action_modes for episode in episodes if episode.action_modes is not None])
    gaps = [np.abs(e.policy_actions - e.expert_actions).mean(1) for e in episodes if e.policy_actions is not None]
    return {
        "episodes": len(episodes),
        "successes": sum(e.info.success for e in episodes),
        "steps": len(modes),
        "expert_steps": int(np.isin(modes, (ActionMode.EXPERT, ActionMode.INTERVENTION)).sum()),
        "takeovers": sum(event.kind == "takeover" for e in episodes for event in e.events),
        "mean_disagreement": float(np.nanmean(np.concatenate(gaps))),
    }


def _env_args(paths: Sequence[str]) -> dict[str, Any]:
    with Dataset(paths[0]) as dataset:
        return dict(dataset.env_args)
