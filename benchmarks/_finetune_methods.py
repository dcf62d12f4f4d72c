"""Policies and ways of `benchmarks.finetune`, and how long each runs on which task."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.imitation import POLICIES, STUDIES as IMITATION
from robolearn.configuration.tree import read_yaml

CONFIGS = Path(__file__).parents[1] / "configs" / "finetune"
GAUSSIAN: dict[str, Any] = {
    "backbone": {"name": "mlp", "hidden_sizes": [256, 256], "activation": "tanh"},
    "head": {"name": "gaussian", "squash": False},
    "obs_steps": 1,
}
CORRECTED: dict[str, Any] = {
    "obs_ranges": {"proprio": [0, 14]},  # without velocities and torques, which clones copy instead of looking
    "obs_clip": 5.0,
    "backbone": {"name": "mlp", "hidden_sizes": [128, 128, 128], "layer_norm": True},
    "head": {"name": "gaussian", "squash": False},
}
"""What DAgger learns well with (`benchmarks.dagger`)."""
PPO: dict[str, Any] = read_yaml(CONFIGS / "lift.yaml")["method"]
PRECISE: dict[str, Any] = read_yaml(CONFIGS / "precise.yaml")["method"]
"""Where a millimetre decides: less noise, and smaller steps from more episodes, the smallest at the end."""
CHAIN: dict[str, Any] = {
    "name": "chain_ppo",
    "num_steps": 32,
    "batch_size": 2048,
    "learning_rate": 1e-4,
    "clip": 0.05,
    "first_clip": 0.02,
    "gamma": 0.98,
    "min_std": 0.05,
    "critic_warmup": 4,
}
RESIDUAL: dict[str, Any] = {"name": "residual_ppo", "scale": 0.2, "critic_warmup": 4, "compile": True}
STEERING: dict[str, Any] = {
    "name": "steering",
    "share_steps": 5000,
    "algorithm": {
        "gamma": 0.98,
        "collect_steps": 4,
        "utd": 0.125,
        "critic_warmup": 2000,
        "batch_size": 128,
        "critic_learning_rate": 1e-3,
    },
}
CHUNKS: dict[str, Any] = {"action_normalisation": "min_max", "pred_steps": 4, "exec_steps": 2}


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a cloned policy becomes a good one."""

    way: dict[str, Any]
    """`method` of `robolearn finetune`."""
    policy: dict[str, Any] = field(default_factory=lambda: GAUSSIAN)
    clone_steps: int = 4000
    learning_rate: float = 1e-3
    """Of cloning."""
    rounds: int = 0
    """DAgger rounds whose episodes are cloned, too."""
    updates: int | None = None
    """None takes the task's."""

    @property
    def off_policy(self) -> bool:
        """Whether it learns from a replay, and so from the demonstrations, too."""
        return "algorithm" in self.way


@dataclass(frozen=True, kw_only=True)
class Study:
    """One task."""

    updates: int
    max_steps: int
    """Of a training episode; evaluations take the task's own limit."""
    num_envs: int = 128
    task: dict[str, Any] = field(default_factory=dict)
    """Empty for our own task of the study's name."""
    action_noise: float = 0.0
    """Of the recording."""
    ppo: dict[str, Any] = field(default_factory=dict)
    """What of the method `ppo` is different here."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much runs at once, and how long."""

    num_envs: int | None = None
    """None takes the task's."""
    way: dict[str, Any] = field(default_factory=dict)
    """What of the ways by PPO is different here."""
    algorithm: dict[str, Any] = field(default_factory=dict)
    """What of the algorithm of off-policy ways is."""
    updates: int | None = None
    """None takes the method's or the task's."""
    every: int = 25
    """Updates between evaluations."""
    held_out: int = 100
    """Seeds of these, and of the final test."""
    demonstrations: int = 20
    clone_steps: int | None = None
    max_steps: int | None = None
    """Of all episodes; None leaves the task's."""
    episodes: int = 500
    """Fresh seeds of the report."""


PROCESSOR = Scale()
CARD = Scale(num_envs=2048, way={"batch_size": 16_384}, updates=150, every=10)
"""A card takes hardly longer for thousands of worlds, or rows, than for a few, so both are many. Rollouts stay as long
as on a processor, since the first successes lie a whole episode away. There Lift took 125 updates of 20 gradient
steps; with 32 times the rows an update here has 40, on advantages with far less noise, while the KL still bounds how
far it goes. An evaluation takes about as many control steps as three updates."""
REHEARSAL = Scale(
    num_envs=2,
    way={"num_steps": 4, "batch_size": 4, "epochs": 1, "critic_warmup": 1, "compile": False},
    algorithm={"batch_size": 4, "random_steps": 4, "collect_steps": 2, "utd": 0.5, "critic_warmup": 1},
    updates=2,
    every=1,
    held_out=1,
    demonstrations=2,
    clone_steps=10,
    max_steps=6,
    episodes=2,
)
METHODS = {
    "ppo": Method(way=PPO),
    "dagger_ppo": Method(way=PRECISE, policy=CORRECTED, rounds=10, clone_steps=3500, learning_rate=3e-3),
    "gaussian": Method(way=PRECISE, policy=CORRECTED, rounds=3, clone_steps=3500, learning_rate=3e-3, updates=60),
    "mixture": Method(
        way=PRECISE,
        policy=CORRECTED | {"head": {"name": "mixture"}},
        rounds=3,
        clone_steps=3500,
        learning_rate=3e-3,
        updates=100,
    ),
    "autoregressive": Method(
        way=PRECISE | {"learning_rate": 5e-5},
        policy=CORRECTED | POLICIES["autoregressive"],
        rounds=10,  # three leave one in seven solved, by waiting where the expert may wait
        clone_steps=3500,
        updates=100,
    ),
    **{
        name: Method(
            way=CHAIN,
            policy=CORRECTED | CHUNKS | {"head": {"name": name, "inference_steps": 5}},
            rounds=3,
            clone_steps=6000,
            updates=100,
        )
        for name in ("diffusion", "flow")
    },
    "act": Method(
        way=RESIDUAL,
        policy=CORRECTED
        | {
            "head": {"name": "act", "width": 64, "num_heads": 4, "encoder_layers": 2, "decoder_layers": 2},
            "pred_steps": 4,
            "exec_steps": 2,
        },
        rounds=10,  # of three it makes too little for a correction to meet a reward
        clone_steps=4000,
        updates=100,
    ),
}
METHODS["flow_residual"] = replace(METHODS["flow"], way=RESIDUAL)
METHODS["flow_steering"] = replace(METHODS["flow"], way=STEERING, updates=160)
HEADLINE = ("ppo", "dagger_ppo")
"""Those that are to reach the goals; the kinds of policies are to get better."""
ROUNDS, EPISODES_PER_ROUND = 10, 40
STUDIES = {
    "Lift": Study(updates=300, max_steps=100, num_envs=64),
    "PickPlace": Study(updates=250, max_steps=150),
    "Stack": Study(updates=250, max_steps=150),
    "PegInsert": Study(updates=250, max_steps=150),
    **{
        name: Study(
            updates=150,
            max_steps=200,
            num_envs=32,  # slow to make, so few of them for longer
            ppo=PRECISE | {"num_steps": 256, "min_std": 0.05},
            task=IMITATION[name].task,
            action_noise=IMITATION[name].action_noise,
        )
        for name in ("peg-insert-side-v3", "assembly-v3")
    },
}
