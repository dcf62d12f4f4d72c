"""The name of an environment: one torch-free dataclass for YAML, the command line and dataset files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from robolearn.configuration.tree.bounds import MAX_ENVS, MAX_STEPS, check_range
from robolearn.errors import ConfigError

GYM_PREFIX = "gym:"
GYM_TYPE, ROBOSUITE_TYPE = 2, 1
"""robomimic's environment types, as its tools expect them under `env_args`."""
OWN_KEY = "robolearn"
"""Of `env_args`: what only robolearn knows, which robomimic does not look at."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """A task by name, with everything that changes what its episodes are."""

    id: str
    """A task of robolearn's own (`robolearn tasks` lists them), or `gym:` and a Gymnasium id."""
    kwargs: dict[str, Any] = field(default_factory=dict)
    """Passed to the environment's constructor: `--task.kwargs.env_name pick-place-v3`."""
    max_steps: int | None = None
    """Steps until an episode is truncated; none takes the environment's own limit."""
    success_key: str | None = None
    """Entry of `info` that says whether the task is solved; none looks for `is_success` and `success`."""
    score_key: str | None = None
    """Entry of `info` that says how well it stands (gym-pusht: coverage): evaluations report its largest value, too."""
    success_threshold: float | None = None
    """Return or reward (see `success_measure`) from which an episode counts as solved, instead of `success_key`."""
    success_measure: Literal["return", "reward"] = "return"
    """What `success_threshold` is compared with: the return so far, or the reward of a single step."""
    terminate_on_success: bool = True
    """End an episode where the task is solved, also where the environment would go on."""
    action_limit: float | None = None
    """Limit of the action dimensions that the environment leaves unbounded."""
    obs_keys: tuple[str, ...] = ()
    """Observation keys to keep, in this order; none keeps all."""
    rename: dict[str, str] = field(default_factory=dict)
    """Other names for observation keys, own: other, so that a policy or a file that calls them otherwise fits:
    `--task.rename '{state: observation}'`."""
    picture_layout: Literal["auto", "hwc", "chw"] = "auto"
    """Where the channels of a Gymnasium environment's pictures are, where their shape does not tell."""
    depth_range: tuple[float, ...] = ()
    """Smallest and largest distance, in the environment's unit: its depth pictures are scaled by them to 8 bits."""
    backend: Literal["cpu", "warp"] = "cpu"
    """Physics of robolearn's own tasks: MuJoCo on processor cores, or MuJoCo Warp on the GPU for thousands of
    environments (without a GPU, slowly, on the processor)."""
    workers: int | None = None
    """How many worker processes or threads (threads for robolearn's own tasks and native forms) share the environments;
    none takes one for each processor core."""
    worker_kind: Literal["auto", "native", "process", "thread", "sync", "ray", "vector"] = "auto"
    """Of `gym:` tasks (our own run in threads). Gymnasium's code in worker processes, threads (where it releases the
    GIL), no workers at all, or Ray actors on the machines of a cluster; native: our own batched form with the same
    results; vector: the environment's own vector form, by `gymnasium.make_vec`; auto: native where there is one, else
    worker processes."""

    def __post_init__(self) -> None:
        if not self.id or self.id == GYM_PREFIX:
            raise ConfigError(f"the task id must name a task, received {self.id!r}; `robolearn tasks` lists them")
        check_range(self, "max_steps", low=1, high=MAX_STEPS)
        check_range(self, "workers", low=1, high=MAX_ENVS)
        if self.gym_id is None and self.worker_kind not in ("auto", "thread"):
            raise ConfigError(
                f"worker_kind is for Gymnasium's environments, received {self.worker_kind!r} for {self.id}, whose "
                "environments share threads; leave worker_kind out"
            )
        if self.workers is not None and (alone := self._undivided):
            raise ConfigError(f"workers have no part in {alone}, received {self.workers}; leave workers out")
        if self.action_limit is not None and not 0.0 < self.action_limit < float("inf"):
            raise ConfigError(f"action_limit must be positive and finite, received {self.action_limit}")
        if self.depth_range and not (len(self.depth_range) == 2 and self.depth_range[0] < self.depth_range[1]):
            raise ConfigError(f"depth_range must be two numbers, smaller first, received {list(self.depth_range)}")
        if self.success_key is not None and self.success_threshold is not None:
            raise ConfigError(
                f"success is read from success_key or from success_threshold, received both "
                f"({self.success_key!r} and {self.success_threshold}); drop one"
            )

    @property
    def gym_id(self) -> str | None:
        """The Gymnasium id, or None for a task of robolearn's own."""
        return self.id.removeprefix(GYM_PREFIX) if self.id.startswith(GYM_PREFIX) else None

    @property
    def _undivided(self) -> str | None:
        """Return the option by which the environments are not shared among workers, if there is one."""
        if self.backend == "warp":
            return "backend warp"
        return f"worker_kind {self.worker_kind}" if self.worker_kind in ("sync", "vector") else None

    def in_this_process(self) -> TaskConfig:
        """Return the same task without workers: for one environment, stepped where its pictures are drawn."""
        stays = self.gym_id is None or self.worker_kind == "vector"
        return replace(self, workers=None, worker_kind=self.worker_kind if stays else "sync")

    def physics_device(self, networks: object) -> str:
        """Return where the physics run beside networks on a device: Warp's on the same, all other on the processor."""
        return str(networks) if self.backend == "warp" else "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """Return what was set besides `id`, `kwargs`, the back end and the workers: the part that changes the
        episodes, to which an environment's own vector form belongs."""
        plain = {"id", "kwargs", "backend", "workers"} | ({"worker_kind"} if self.worker_kind != "vector" else set())
        changed = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in plain}
        # Fields whose default is made anew each time (a tuple, a dict) are empty by default.
        return {name: value for name, value in changed.items() if value != getattr(TaskConfig, name, type(value)())}

    def env_args(self) -> dict[str, Any]:
        """The task as robomimic's `env_args` (JSON-serialisable); inverse of `from_env_args`.

        robomimic's own keys come first; what only robolearn knows is under `robolearn`. A task of robolearn's own goes
        by the id under which it is registered with Gymnasium.
        """
        gym_id = self.gym_id
        args = {
            "env_name": gym_id or f"robolearn/{self.id}-v0",
            "type": GYM_TYPE,
            "env_kwargs": dict(self.kwargs),
        }
        options = {k: list(v) if isinstance(v, tuple) else v for k, v in self.options.items()}
        own = options if gym_id else {"task": self.id, **options}
        return args | ({OWN_KEY: own} if own else {})

    @classmethod
    def from_env_args(cls, env_args: Mapping[str, Any]) -> TaskConfig:
        """The task that a dataset file or a policy names in its `env_args`.

        Raises ConfigError on malformed ones, and where the environment is robosuite's, which has no Gymnasium id.
        """
        try:
            name, kwargs = str(env_args["env_name"]), dict(env_args.get("env_kwargs") or {})
            options = dict(env_args.get(OWN_KEY) or {})
            kind = int(env_args["type"])
            if kind == ROBOSUITE_TYPE:
                raise ConfigError(
                    f"the environment is {name} of robosuite, which robolearn cannot make from its name; wrap it as a "
                    "Gymnasium environment in a module of yours and name that: --task gym:MODULE:ID"
                )
            own = str(options.pop("task", "" if kind == GYM_TYPE else name))
            for key in ("obs_keys", "depth_range"):
                options[key] = tuple(options.get(key, ()))
            return cls(id=own or GYM_PREFIX + name, kwargs=kwargs, **options)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"env_args must hold env_name, type and env_kwargs, received {dict(env_args)} ({error!r})"
            ) from None


def environment_name(env_args: Mapping[str, Any]) -> str:
    """Return how people call the environment that `env_args` name: a task of our own, or a Gymnasium id."""
    own = env_args.get(OWN_KEY)
    return str(own["task"] if isinstance(own, Mapping) and "task" in own else env_args.get("env_name", ""))
