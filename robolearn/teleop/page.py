"""The page of a session: what it shows, and who may drive."""

from __future__ import annotations

from types import TracebackType

from robolearn.configuration.parts.session import SessionConfig
from robolearn.teleop.session import Session


class SessionPage:
    """Serves one session's page while it runs."""

    def __init__(self, session: Session, config: SessionConfig) -> None:
        self.session, self.config = session, config

    def publish(self, session: Session) -> None:
        """Show the session's present state; called by the control loop at every tick, and never makes it wait."""

    def __enter__(self) -> SessionPage:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """Stop serving."""
