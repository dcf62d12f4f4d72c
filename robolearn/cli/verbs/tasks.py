"""`robolearn tasks`: list the tasks, write a contact sheet of them, or look at one in the browser."""

from __future__ import annotations

from pathlib import Path

from robolearn.cli.parsing.help import terminal_width, two_columns
from robolearn.configuration.workspace_verbs import TasksConfig

CONFIG = TasksConfig


def run(config: TasksConfig) -> int:
    from robolearn.tasks import registry

    if config.action == "view":
        from robolearn.teleop.task_viewer import view

        assert config.name is not None
        view(config.name, host=config.host, port=config.port, seed=config.seed)
        return 0
    if config.render:
        from robolearn.evaluation.contact_sheet import write_contact_sheet

        path = Path(config.output)
        write_contact_sheet([config.name] if config.name else registry.own_names(), path, seed=config.seed)
        print(f"wrote {path}")
        return 0
    rows = [(name, registry.summary(name)) for name in registry.names()]
    print("\n".join(two_columns(rows, terminal_width())))
    return 0
