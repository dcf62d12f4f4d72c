"""An evaluation as one command."""

from __future__ import annotations

import sys

from tests.commands import forks


def exit_with_what_commands_loaded() -> None:
    sys.exit("matplotlib" in sys.modules)


def test_matplotlib_is_loaded_where_something_is_drawn_and_not_before() -> None:
    """In a fork of a process that has imported what `eval`, `dagger` and `finetune` import."""
    process = forks.Process(target=exit_with_what_commands_loaded)
    process.start()
    process.join(60)
    assert process.exitcode == 0
