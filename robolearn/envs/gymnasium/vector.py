"""Gymnasium's own vector environments, and those of other packages, with whatever they do at an episode's end.

Our contract has no hidden resets: `step` returns the true successor and the caller resets by mask. A vector environment
begins the next episode at a time of its own (its autoreset mode), which is undone here. Rows of one environment:

    our contract    step -> s_T, done     reset -> s'_0              step -> s'_1
    NEXT_STEP       step -> s_T, done     partial reset -> s'_0      step -> s'_1    its own reset is never reached
    SAME_STEP       step -> s'_0, done    s_T waits in info; partial reset, or s'_0 where there is none
    DISABLED        step -> s_T, done     partial reset -> s'_0      step -> s'_1

A partial reset is `reset(options={"reset_mask": mask})`, which Gymnasium's vector environments know in every mode.
Without it only SAME_STEP can serve, and its episodes are not those of our seeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

from robolearn.configuration.parts.task import TaskConfig
from robolearn.envs.gymnasium.calls import close_environment
from robolearn.envs.gymnasium.host import Command, Rows, describe_error
from robolearn.envs.gymnasium.single import asked_limit, find_spec, opening
from robolearn.envs.rules import EpisodeRules
from robolearn.envs.spaces import action_layout, describe_spaces, observation_leaves, picture_options
from robolearn.errors import TaskError

SAME_ENDS = 3
"""Ends in a row that look like begins, from which on it is no coincidence."""


class VectorWorkers:
    """N environments that are one object already; takes the place of `robolearn.envs.gymnasium.workers.Workers`.

    Such an environment cannot hold some rows still: a row that is left out of a step goes its own way, and must be
    reset before it is stepped again.
    """

    def __init__(self, task: TaskConfig, num_envs: int) -> None:
        self._task = task
        with opening(task):
            spec = find_spec(task)
            self._env: Any = gym.make_vec(spec.id, num_envs=num_envs, **_with_limit(task, spec))
        with ExitStack() as refused:
            refused.callback(self._env.close)
            self._mode = _autoreset_mode(self._env, task)
            self._partial = self._mode is not AutoresetMode.SAME_STEP or _knows_reset_masks(self._env)
            self._leaves = observation_leaves(self._env.single_observation_space, task.obs_keys, picture_options(task))
            self._action = action_layout(self._env.single_action_space, task.action_limit)
            self._rules = EpisodeRules.of(task, asked_limit(task), spec.max_episode_steps)
            self.facts = self._describe()
            refused.pop_all()
        layout = Rows.layout(num_envs, self.facts)
        self.rows = Rows.over(layout, bytearray(Rows.size(layout)))
        self._upcoming = {key: value.copy() for key, value in self.rows.obs.items()}
        self._elapsed, self._returns = np.zeros(num_envs, np.int64), np.zeros(num_envs)
        self._ended = np.ones(num_envs, bool)
        """By our reckoning: not to be stepped before a reset."""
        self._over = np.zeros(num_envs, bool)
        """By that of the environment, in its last step; in SAME_STEP these rows are at the next episode's begin."""
        self._started = False
        self._ends, self._same = 0, 0
        """Ends of episodes in SAME_STEP so far, and those that looked exactly like the next episode's begin."""

    def settle(self) -> None:
        """Do nothing: nobody works on the rows beyond a call."""

    def run(self, command: Command) -> list[dict[str, Any]]:
        """Carry out a command for the environments in `rows.mask`; returns the faults, as worker processes do."""
        mask = self.rows.mask.copy()
        try:
            if command == "step":
                self._step(mask)
            elif command == "reset":
                self._reset(mask)
            else:
                raise TaskError(f"{self._task.id} has no physics states as a vector environment")
        except (Exception, SystemExit) as error:  # whatever third-party code raises
            self._ended[:] = True
            return [{"index": int(mask.argmax()), "command": command} | describe_error(error)]
        return []

    def render(self, index: int) -> np.ndarray:
        pictures: Any = self._env.render() if self._env.render_mode == "rgb_array" else None
        if pictures is None:
            raise TaskError(
                f"{self._task.id} draws no pictures with render_mode {self._env.render_mode!r}; "
                "--task.kwargs.render_mode rgb_array asks a vector environment for them"
            )
        return np.ascontiguousarray(pictures[index][..., :3], np.uint8)

    def close(self) -> None:
        close_environment(self._env, self._task.id)

    def _describe(self) -> dict[str, Any]:
        return describe_spaces(self._leaves, self._action) | {
            "control_hz": float(self._env.metadata.get("render_fps") or 1.0),
            "max_steps": self._rules.max_steps,
            "state_size": None,
        }

    def _reset(self, mask: np.ndarray) -> None:
        rows = self.rows
        everything = bool(mask.all()) or not self._started
        if self._partial or everything:
            seeds = [int(seed) if chosen else None for seed, chosen in zip(rows.seeds, mask)]
            obs, _ = self._env.reset(seed=seeds, options=None if everything else {"reset_mask": mask.copy()})
            if not everything:
                self._check_others(obs, mask)
            self._write(obs, mask)
            self._started = True
        else:
            if not self._over[mask].all():
                raise TaskError(
                    f"{self._task.id} resets an environment only where its episode ends by itself, and environment "
                    f"{int((mask & ~self._over).argmax())} is to begin anew elsewhere; leave max_steps and "
                    "terminate_on_success as the environment has them, and execute one action at a time"
                )
            for key, value in rows.obs.items():
                value[mask] = self._upcoming[key][mask]
        self._elapsed[mask], self._returns[mask], self._ended[mask] = 0, 0.0, False
        rows.reward[mask] = 0.0
        for flags in (rows.terminated, rows.truncated, rows.success):
            flags[mask] = False

    def _step(self, mask: np.ndarray) -> None:
        rows, active = self.rows, mask & ~self._ended
        if self._mode is AutoresetMode.DISABLED and (waiting := self._over & self._ended).any():
            self._env.reset(options={"reset_mask": waiting})  # else the environment refuses to be stepped
        obs, reward, terminated, truncated, info = self._env.step(self._action.to_env(rows.actions))
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        over = terminated | truncated
        self._write(obs, active)
        if self._mode is AutoresetMode.SAME_STEP:
            self._take_finals(obs, info, over, active)
        self._over = over
        np.copyto(rows.reward, reward, where=active, casting="same_kind")
        rows.reward[mask & ~active] = 0.0
        self._elapsed += active
        np.add(self._returns, reward, out=self._returns, where=active)
        success = self._success(info, np.asarray(reward, np.float64), over)
        terminated, truncated = self._rules.ends(terminated, truncated, success, self._elapsed)
        np.copyto(rows.success, success, where=active)
        if (key := self._task.score_key) is not None:
            np.copyto(rows.score, self._scores(info, key, over), where=active)
        np.copyto(rows.terminated, terminated, where=active)
        np.copyto(rows.truncated, truncated, where=active)
        self._ended |= ~mask | ((terminated | truncated) & active)

    def _write(self, obs: Any, mask: np.ndarray) -> None:
        for leaf in self._leaves:
            np.copyto(self.rows.obs[leaf.key], leaf.read(obs, len(mask)), where=_wide(mask, leaf), casting="unsafe")

    def _take_finals(self, obs: Any, info: Mapping[str, Any], over: np.ndarray, active: np.ndarray) -> None:
        """Put the true last observations into the rows, and keep the first ones of the next episodes."""
        for leaf in self._leaves:
            np.copyto(self._upcoming[leaf.key], leaf.read(obs, len(over)), where=_wide(over, leaf), casting="unsafe")
        finals = info.get("final_obs", info.get("final_observation"))
        for i in np.flatnonzero(over & active):
            if finals is None:
                raise TaskError(
                    f"{self._task.id} resets within the step that ends an episode, but its info has no final_obs; "
                    "without the true last observation a truncated episode cannot be learned from"
                )
            row = {key: value[i] for key, value in self.rows.obs.items()}
            for leaf in self._leaves:
                leaf.write(_row(finals, int(i)), row[leaf.key])
            self._check_final(int(i), row)

    def _check_final(self, i: int, row: Mapping[str, np.ndarray]) -> None:
        """Raise TaskError where the first ends all look like the next episodes' begins: one buffer for both."""
        self._ends += 1
        self._same += all(np.array_equal(value, self._upcoming[key][i]) for key, value in row.items())
        if self._same == self._ends == SAME_ENDS:
            raise TaskError(
                f"{self._task.id}: the last observations of the first {SAME_ENDS} episodes are, number for number, the "
                "first ones of the next: the environment hands out one array again and again, and the next reset "
                "writes over it. Return copies (obs.copy()), or run its single environments (worker_kind process)"
            )

    def _success(self, info: Mapping[str, Any], reward: np.ndarray, over: np.ndarray) -> np.ndarray:
        """Return (N,) bool; where an episode ended in SAME_STEP, from its own last info."""
        if self._rules.measured:
            return self._rules.reached(self._returns, reward)
        success, told = np.zeros(len(reward), bool), np.zeros(len(reward), bool)
        final = info.get("final_info")
        sources = [(info, ~over), (final, over)] if isinstance(final, Mapping) else [(info, np.ones_like(told))]
        for source, where in sources:
            for key in self._rules.success_keys:
                if key in source:
                    self._check_truths(source[key], key)
                    present = np.asarray(source.get(f"_{key}", True), bool) & where & ~told
                    success |= np.asarray(source[key], bool) & present
                    told |= present
        self._rules.check_told(bool(told[over].all()), info)
        return success

    def _scores(self, info: Mapping[str, Any], key: str, over: np.ndarray) -> np.ndarray:
        """Return (N,) what `info` says under `key`; where an episode ended in SAME_STEP, its own last info."""
        final = info.get("final_info")
        scores = np.full(len(over), np.nan, np.float32)
        sources = [(info, ~over), (final, over)] if isinstance(final, Mapping) else [(info, np.ones_like(over))]
        for source, where in sources:
            if key in source:
                present = np.asarray(source.get(f"_{key}", True), bool) & where
                np.copyto(scores, np.asarray(source[key], np.float32), where=present)
        return scores

    def _check_truths(self, values: Any, key: str) -> None:
        """Raise TaskError where `info` says success in text or the like, which would all count as true."""
        array = np.asarray(values)
        plain = array.dtype.kind in "biuf" or all(isinstance(v, (bool, int, float, np.bool_)) for v in array.flat)
        if not plain:
            raise TaskError(
                f"{self._task.id}: info says {key!r} is {array.flat[0]!r}; it must be True or False, or a number"
            )

    def _check_others(self, obs: Any, mask: np.ndarray) -> None:
        """Raise TaskError where others moved: who does not know `reset_mask` resets all rows, without a word."""
        running = ~mask & ~self._ended
        for leaf in self._leaves:
            now, before = leaf.read(obs, len(mask))[running], self.rows.obs[leaf.key][running]
            if not np.array_equal(now.astype(before.dtype), before, equal_nan=before.dtype.kind == "f"):
                raise TaskError(
                    f"{self._task.id} does not know reset_mask: asked to reset some environments, it moved others. "
                    "Make it with autoreset mode SAME_STEP, or run its single environments (worker_kind process)"
                )


def _with_limit(task: TaskConfig, spec: Any) -> dict[str, Any]:
    """Return the task's kwargs with its own time limit in place of the environment's, which may end episodes earlier.

    A vector form that is registered without a limit need not know the name, so it is not told.
    """
    own_form = spec.vector_entry_point and task.kwargs.get("vectorization_mode") not in ("sync", "async")
    if task.max_steps is None or (own_form and spec.max_episode_steps is None):
        return task.kwargs
    return task.kwargs | {"max_episode_steps": task.max_steps}


def _autoreset_mode(env: Any, task: TaskConfig) -> AutoresetMode:
    mode = env.metadata.get("autoreset_mode")
    try:
        return AutoresetMode(mode)
    except ValueError:
        raise TaskError(
            f"{task.id} must say in metadata['autoreset_mode'] what it does at an episode's end "
            f"({', '.join(m.value for m in AutoresetMode)}), received {mode!r}"
        ) from None


def _knows_reset_masks(env: Any) -> bool:
    return isinstance(env.unwrapped, (SyncVectorEnv, AsyncVectorEnv))


def _row(batch: Any, index: int) -> Any:
    """Return one environment's part of a batched, nested or object-array observation."""
    if isinstance(batch, Mapping):
        return {key: _row(value, index) for key, value in batch.items() if not key.startswith("_")}
    if isinstance(batch, tuple):
        return tuple(_row(value, index) for value in batch)
    return batch[index]


def _wide(mask: np.ndarray, leaf: Any) -> np.ndarray:
    return mask.reshape(-1, *[1] * len(leaf.spec.shape))
