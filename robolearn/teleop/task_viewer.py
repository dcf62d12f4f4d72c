"""A task in the browser: its expert at work, paused, stepped or restarted from a panel. Drawn by viser and mjviser."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import torch

from robolearn.envs.interface import Actor, Observation
from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.episodes.actor import ActorDriver
from robolearn.episodes.episode_loop import EpisodeLoop
from robolearn.errors import TaskError
from robolearn.tasks import registry

_DRIVERS = ("expert", "random", "still")


class TaskViewer:
    """One environment, its driver, and the page that shows them."""

    def __init__(self, name: str, *, host: str = "127.0.0.1", port: int = 8080, seed: int = 0):
        """Serve on `host`, this machine alone unless told otherwise.

        Raises TaskError on an unknown task, a missing viewer package, or a port that is taken."""
        env = make_task(name)
        if not isinstance(env, TaskEnv):
            raise TaskError(f"{name} is not one of robolearn's own kind of task; only those can be viewed")
        self.env, self.paused = env, False
        self._expert: Actor = env.expert()
        self._loop = EpisodeLoop(env, ActorDriver(self, 1), itertools.count(seed))
        self._server, self._scene = _page(env, host, port)
        self._build_panel(name)
        self._restart_asked = False
        self.restart()

    @property
    def port(self) -> int:
        """The port that the page is served on, the next free one where the wanted one was taken."""
        return self._server.get_port()

    @property
    def seed(self) -> int:
        """The seed of the episode shown."""
        return self._slot.seed

    def restart(self) -> None:
        """Begin the next seed's episode, the first one at the start."""
        for slot in self._loop.running:
            self._loop.end(slot)
        (self._slot,) = self._loop.begin()
        self._show("")

    def tick(self) -> None:
        """Make one control step, or none while paused; an episode that has ended is followed by the next seed's."""
        if self._restart_asked or not self._loop.running:
            self._restart_asked = False
            self.restart()
        if not self.paused:
            tick = self._loop.advance()
            self._show("solved" if bool(tick.step.success[0]) else "")

    def run(self) -> None:
        """Tick at the task's control rate until interrupted."""
        period = 1.0 / self.env.control_hz
        due = time.monotonic()
        while True:
            self.tick()
            due = max(due + period, time.monotonic() - period)
            time.sleep(max(0.0, due - time.monotonic()))

    def close(self) -> None:
        self._server.stop()
        self.env.close()

    def reset(self, seeds: Sequence[int], mask: torch.Tensor | None = None) -> None:
        self._expert.reset(seeds, mask)

    def act(self, obs: Observation) -> torch.Tensor:
        """Return (1, A) of whoever the panel says."""
        if self._driver.value == "expert":
            return self._expert.act(obs)
        size = (1, self.env.action_spec.size)
        return torch.zeros(size) if self._driver.value == "still" else 2.0 * torch.rand(size) - 1.0

    def _build_panel(self, name: str) -> None:
        gui = self._server.gui
        gui.add_markdown(f"**{name}**: {registry.summary(name)}")
        self._status = gui.add_markdown("")
        self._driver = gui.add_dropdown("driver", _DRIVERS, initial_value="expert")
        pause, following = gui.add_button("pause / go on"), gui.add_button("next episode")

        def toggle(_: Any) -> None:
            self.paused = not self.paused

        def ask(_: Any) -> None:
            self._restart_asked = True

        pause.on_click(toggle)
        following.on_click(ask)

    def _show(self, remark: str) -> None:
        self._scene.update_from_mjdata(self.env.simulation.world(0)[1])
        self._status.content = f"seed {self._slot.seed}, step {self._slot.steps} of {self.env.max_steps} {remark}"


def view(name: str, *, host: str, port: int, seed: int) -> None:
    """Serve the task's page until interrupted."""
    viewer = TaskViewer(name, host=host, port=port, seed=seed)
    print(f"{name} at http://{host}:{viewer.port} (Ctrl-C ends)", flush=True)
    try:
        viewer.run()
    finally:
        viewer.close()


def _page(env: TaskEnv, host: str, port: int) -> tuple[Any, Any]:
    try:
        import viser
        from mjviser import ViserMujocoScene
    except ImportError as error:
        raise TaskError(f"the viewer needs {error.name}; install it with: pip install 'robolearn[teleop]'") from None
    server = viser.ViserServer(host=host, port=port, verbose=False)
    scene = ViserMujocoScene(server, env.task.model, num_envs=1)
    scene.create_visualization_gui()
    return server, scene
