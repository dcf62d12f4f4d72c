"""Imported once by the server of forks: what draws is found, and loaded, before a command asks for it."""

from contextlib import suppress

from robolearn.errors import TaskError
from robolearn.sim.rendering import prepare

with suppress(TaskError):
    prepare()
