"""A task in the browser: its expert at work, paused, stepped or restarted from a panel. Drawn by viser and mjviser."""

from __future__ import annotations

import time
from typing import Any

import torch

from robolearn.envs.interface import Expert
from robolearn.envs.make import make_task
from robolearn.envs.task_env import TaskEnv
from robolearn.errors import TaskError
from robolearn.tasks import registry

_DRIVERS = ("expert", "random", "still")


class TaskViewer:
    """One environment, its driver, and the page that shows them."""

    def __init__(self, name: str, *, port: int = 8080, seed: int = 0):
        """Raises TaskError on an unknown task, a missing viewer package, or a port that is taken."""
        env = make_task(name)
        if not isinstance(env, TaskEnv):
            raise TaskError(f"{name} is not one of robolearn's own kind of task; only those can be viewed")
        self.env, self.seed, self.paused = env, seed, False
        self._expert: Expert = env.expert()
        self._server, self._scene = _page(env, port)
        self._build_panel(name)
        self._restart_asked = False
        self.restart()

    @property
    def port(self) -> int:
        """The port that the page is served on, the next free one where the wanted one was taken."""
        return self._server.get_port()

    def restart(self) -> None:
        """Begin the episode of the present seed."""
        self._obs = self.env.reset([self.seed])
        self._expert.reset([self.seed])
        self._steps = 0
        self._show("")

    def tick(self) -> None:
        """One control step, or nothing while paused; solved and timed-out episodes are followed by the next seed."""
        if self._restart_asked:
            self._restart_asked = False
            self.seed += 1
            self.restart()
        if self.paused:
            return
        step = self.env.step(self._action())
        self._obs, self._steps = step.obs, self._steps + 1
        self._show("solved" if bool(step.success[0]) else "")
        if bool(step.done[0]):
            self._restart_asked = True

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

    def _action(self) -> torch.Tensor:
        if self._driver.value == "expert":
            return self._expert.act(self._obs)
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
        self._status.content = f"seed {self.seed}, step {self._steps} of {self.env.max_steps} {remark}"


def view(name: str, *, port: int, seed: int) -> None:
    """Serve the task's page until interrupted."""
    viewer = TaskViewer(name, port=port, seed=seed)
    print(f"{name} at http://localhost:{viewer.port} (Ctrl-C ends)")
    try:
        viewer.run()
    finally:
        viewer.close()


def _page(env: TaskEnv, port: int) -> tuple[Any, Any]:
    try:
        import viser
        from mjviser import ViserMujocoScene
    except ImportError as error:
        raise TaskError(f"the viewer needs {error.name}; install it with: pip install 'robolearn[teleop]'") from None
    server = viser.ViserServer(port=port, verbose=False)
    scene = ViserMujocoScene(server, env.task.model, num_envs=1)
    scene.create_visualization_gui()
    return server, scene
