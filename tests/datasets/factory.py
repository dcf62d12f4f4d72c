"""Random but reproducible specs and episodes for the dataset tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from robolearn.datasets.recording.writer import DatasetWriter
from robolearn.specs import ActionSpec, ArraySpec, Episode, EpisodeInfo, Event, ObservationSpec

STATE = ObservationSpec({"state": ArraySpec(shape=(39,)), "gripper": ArraySpec(shape=())})
CAMERA = ObservationSpec({"state": ArraySpec(shape=(5,)), "wrist": ArraySpec(shape=(12, 16, 3), dtype="uint8")})
ACTION = ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0), names=("x", "grip"))
ENV_ARGS: dict[str, Any] = {"env_name": "Reach-v1", "type": 2, "env_kwargs": {"seed": None}}


def writer(path: Path, spec: ObservationSpec = CAMERA, **options: Any) -> DatasetWriter:
    settings: dict[str, Any] = {"task": "reach", "env_args": ENV_ARGS, "control_hz": 50.0, "action_spec": ACTION}
    return DatasetWriter(path, **(settings | {"observation_spec": spec} | options))


def random_array(rng: np.random.Generator, spec: ArraySpec, lead: tuple[int, ...] = ()) -> np.ndarray:
    """Any representable values: full integer ranges, floats of many magnitudes, negative zero."""
    dtype, shape = np.dtype(spec.dtype), lead + spec.shape
    if dtype.kind == "f":
        values = rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)
        return np.where(rng.random(shape) < 0.05, -0.0, values).astype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


def episode(
    seed: int, steps: int = 7, spec: ObservationSpec = CAMERA, *, full: bool = True, actions: int = ACTION.size
) -> Episode:
    """An episode whose every value is a function of `seed`; `full` adds the optional arrays and events."""
    rng = np.random.default_rng(seed)
    optional: dict[str, Any] = {}
    if full:
        labels = rng.uniform(-1, 1, (steps, actions)).astype(np.float32)
        labels[rng.random(steps) < 0.5] = np.nan
        optional = {
            "states": rng.normal(size=(steps, 11)),
            "action_modes": rng.integers(-1, 2, steps),
            "policy_actions": rng.uniform(-1, 1, (steps, actions)),
            "expert_actions": labels,
            "gate": rng.random(steps),
            "events": (
                Event(step=0, time_s=0.0, kind="mark"),
                Event(step=steps - 1, time_s=1.5, kind="takeover", reason="grip lost — retry"),
            ),
        }
    ended = bool(rng.random() < 0.5)
    last = np.arange(steps) == steps - 1
    return Episode(
        info=EpisodeInfo(
            success=ended,
            seed=int(rng.integers(2**40)),
            source="dagger" if full else "demo",
            round=int(rng.integers(5)),
            operator="Åsa" if full else "",
            device="keyboard",
            started_at="2026-01-02T03:04:05+01:00",
        ),
        obs={key: random_array(rng, array, (steps,)) for key, array in spec.items()},
        final_obs={key: random_array(rng, array) for key, array in spec.items()},
        actions=rng.uniform(-1, 1, (steps, actions)),
        rewards=rng.normal(size=steps),
        terminated=last & ended,
        truncated=last & (not ended),
        timestamps=np.cumsum(rng.uniform(0.01, 0.03, steps)),
        **optional,
    )


def record(recorder: DatasetWriter, source: Episode, *, commit: bool = True) -> Any:
    """Record an episode step by step, as a session would; returns the name, or the live episode."""
    info = source.info
    live = recorder.begin_episode(
        seed=info.seed,
        source=info.source,
        round=info.round,
        operator=info.operator,
        device=info.device,
        started_at=info.started_at,
        model=info.model,
    )
    for t in range(len(source)):
        add_step(live, source, t)
    return live.commit(source.final_obs, success=info.success) if commit else live


def add_step(live: Any, source: Episode, t: int) -> None:
    """Step t and the events before it, through buffers that are poisoned right after the call."""
    for event in source.events:
        if event.step == t:
            live.add_event(event)
    obs = {key: np.array(value[t]) for key, value in source.obs.items()}
    action = source.actions[t].copy()
    assert source.policy_actions is not None
    assert source.expert_actions is not None
    assert source.action_modes is not None
    live.add_step(
        obs,
        action,
        float(source.rewards[t]),
        bool(source.terminated[t]),
        bool(source.truncated[t]),
        float(source.timestamps[t]),
        state=None if source.states is None else source.states[t],
        mode=int(source.action_modes[t]),
        policy_action=source.policy_actions[t],
        expert_action=source.expert_actions[t],
        gate=None if source.gate is None else float(source.gate[t]),
    )
    for value in obs.values():
        value.fill(1)
    action.fill(np.nan)


def assert_same(first: Episode, second: Episode) -> None:
    """Bit for bit, with dtypes; NaN equals NaN."""
    assert first.info == second.info
    assert first.events == second.events
    assert list(first.obs) == list(second.obs)
    for name in ("obs", "final_obs"):
        for key, value in getattr(first, name).items():
            assert_same_array(value, getattr(second, name)[key], f"{name}/{key}")
    for name in (
        "actions",
        "rewards",
        "terminated",
        "truncated",
        "timestamps",
        "states",
        "action_modes",
        "policy_actions",
        "expert_actions",
        "gate",
    ):
        assert_same_array(getattr(first, name), getattr(second, name), name)


def assert_same_array(first: np.ndarray | None, second: np.ndarray | None, name: str) -> None:
    if first is None or second is None:
        assert first is second, name
        return
    assert (first.dtype, first.shape) == (second.dtype, second.shape), name
    assert first.tobytes() == second.tobytes(), name
