"""What the tests of distributed training run under torchrun: `python -m torch.distributed.run ... FOLDER DATA`."""

from __future__ import annotations

import sys
import weakref
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist

from robolearn.configuration.cloning import BCConfig
from robolearn.configuration.parts.algorithms import CriticConfig, DQNConfig, PPOConfig, QConfig, SACConfig, TD3Config
from robolearn.configuration.rl import RLConfig
from robolearn.configuration.tree import from_dict
from robolearn.imitation.bc import train_bc
from robolearn.rl.collecting.macro_steps import EpisodeDriver
from robolearn.rl.collecting.replay_buffer import ReplayBatch
from robolearn.rl.collecting.rollout_collector import Rollout, RolloutCollector
from robolearn.rl.collecting.shared_seeds import SharedSeeds
from robolearn.rl.dqn import DQN
from robolearn.rl.finetune import finetune
from robolearn.rl.from_scratch import train_rl
from robolearn.rl.networks import ValueNetwork
from robolearn.rl.ppo import PPO
from robolearn.training import distributed
from tests.rl import test_finetune as finetune_tests, test_ppo as ppo_tests
from tests.rl.toys import Ledger, Steer, small_run, value_policy


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


def own_columns(rollout: Rollout) -> Rollout:
    """This process's environments of a rollout: an uneven cut would be no share of a batch, an even one is."""
    per = distributed.share_of(rollout.num_envs, "num_envs")
    first = per * distributed.rank()
    mine = slice(first, first + per)
    column, row = rollout.final_index % rollout.num_envs, rollout.final_index // rollout.num_envs
    kept = (column >= first) & (column < first + per)
    fields = {
        name: getattr(rollout, name)[:, mine]
        for name in ("actions", "executed", "log_probs", "rewards", "discounts", "terminated", "truncated")
    }
    return Rollout(
        obs={key: value[:, mine] for key, value in rollout.obs.items()},
        last_obs={key: value[mine] for key, value in rollout.last_obs.items()},
        final_obs={key: value[kept] for key, value in rollout.final_obs.items()},
        final_index=row[kept] * per + column[kept] - first,
        **fields,
    )


def ppo_steps() -> dict[str, torch.Tensor]:
    """Four updates from rollouts that are the same in every process, of which each learns from its own columns."""
    config = PPOConfig(num_steps=16, epochs=3, batch_size=0, normalise_obs=True, normalise_returns=True, target_kl=10.0)
    collector, learner = ppo_tests.make(Ledger(4, max_steps=5), config)
    for rollout in [collector.next() for _ in range(4)]:
        metrics = learner.update(own_columns(rollout))
    assert learner.statistics is not None
    assert learner.return_scale is not None
    return {
        "actor": learner.actor_optimiser.adam.vector,
        "critic": learner.critic_optimiser.adam.vector,
        "observation": learner.statistics.moments["state"].std,
        "return": learner.return_scale.moments.std,
        "env_steps": torch.tensor(metrics["env_steps"]),
    }


def dqn_steps() -> dict[str, torch.Tensor]:
    """Likewise from batches, whose halves are the shares."""
    torch.manual_seed(0)
    dqn = DQN(value_policy(3, 4, hidden=16), DQNConfig(max_grad_norm=0.1))
    g = torch.Generator().manual_seed(3)
    for _ in range(5):
        actions = torch.randint(4, (32, 1), generator=g)
        rewards, discounts = torch.randn(32, generator=g), torch.rand(32, generator=g)
        obs, following = ({"state": torch.randn(32, 1, 3, generator=g)} for _ in range(2))
        whole = ReplayBatch(obs, actions, rewards, discounts, following)
        dqn.update([whole.map(lambda x: x.chunk(distributed.world_size())[distributed.rank()])])
    return {"values": dqn.optimiser.adam.vector, "target": dqn.target_update.vector}


def ppo_learns() -> dict[str, torch.Tensor]:
    """Steering to zero with four environments in each process and minibatches in random order; rewards per update."""
    config = PPOConfig(num_steps=32, epochs=10, batch_size=64, normalise_obs=True, normalise_returns=True, gamma=0.9)
    config = replace(config, learning_rate=3e-3)
    env = Steer(distributed.share_of(8, "num_envs"), max_steps=20)
    policy = ppo_tests.make_policy(env, seed=distributed.rank())  # broadcast makes the ranks equal all the same
    driver = EpisodeDriver(env, seeds=SharedSeeds(0, 1000), gamma=config.gamma)
    generator = torch.Generator().manual_seed(distributed.own_seed(0))
    collector = RolloutCollector(driver, policy, config.num_steps, generator=generator)
    learner = PPO(policy, ValueNetwork.beside(policy, CriticConfig(hidden_sizes=(16,))), config)
    rewards = []
    for _ in range(25):
        rollout = collector.next()
        learner.update(rollout)
        rewards.append(rollout.rewards.mean())
    seeds = torch.tensor(driver.episode_seeds)
    vectors = {"actor": learner.actor_optimiser.adam.vector, "critic": learner.critic_optimiser.adam.vector}
    return {**vectors, "rewards": torch.stack(rewards), "seeds": seeds}


SMALL = QConfig(hidden_sizes=(16,))
ALGORITHMS = {
    "ppo": PPOConfig(num_steps=16, epochs=2, batch_size=32, normalise_obs=True, normalise_returns=True),
    "sac": SACConfig(random_steps=24, batch_size=16, critic=SMALL, n_step=2, overlap=True),
    "td3": TD3Config(random_steps=24, batch_size=16, critic=SMALL),
}


def rl_config(algorithm: str, folder: Path, env_steps: int = 160) -> RLConfig:
    return small_run(ALGORITHMS[algorithm], folder, env_steps, num_envs=4)


def run_rl(folder: Path) -> None:
    for algorithm in ALGORITHMS:
        train_rl(rl_config(algorithm, folder / algorithm / "whole"))
        train_rl(rl_config(algorithm, folder / algorithm / "parts", 96))
        torch.manual_seed(99)
        train_rl(rl_config(algorithm, folder / algorithm / "parts"), resume=True)


def run_finetune(folder: Path) -> None:
    start = Path(distributed.from_main(lambda: str(finetune_tests.half_taught_policy(folder / "start"))))
    for name, updates in (("whole", 4), ("parts", 2), ("parts", 4)):
        config = replace(finetune_tests.config(start, folder / name, updates), export="last")
        finetune(config, folder / name, resume=updates == 4)


def main(folder: Path, data: Path) -> None:
    with distributed.process_group():
        group = weakref.ref(dist.group.WORLD)
        run_bc(folder / "bc", data)
        run_rl(folder)
        run_finetune(folder / "finetune")
        found = {"ppo_steps": ppo_steps(), "dqn_steps": dqn_steps(), "ppo_learns": ppo_learns()}
        torch.save(found, folder / f"found_{distributed.rank()}.pt")
    assert group() is None, "the threads of a group that outlives its block can abort the process at exit"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
