"""The seam to the platform: what the controller asks of it, whoever answers.

Two implementations: the REST client, and the stand-in of the simulations on virtual time.
"""

from typing import Protocol

from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.models import PlatformProject, PlatformSession
from reconciler.platform.pagination import ListResult


class Platform(Protocol):
    """Reads only. Each call ends within a limit of its own; each failure is a `RemoteError`."""

    @property
    def breaker(self) -> CircuitBreaker:
        """The platform's, shared: told of every answer and every silence."""
        ...

    async def list_projects(self) -> ListResult[PlatformProject]:
        """Read the projects; a page that fails after the first leaves a partial listing."""
        ...

    async def list_running(self, project: str | None) -> ListResult[PlatformSession]:
        """Read a project's running sessions, or (None) those of all projects."""
        ...

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        """Return one session, or None where the platform itself says that there is none."""
        ...

    async def probe(self) -> None:
        """Return if the platform answers at all; raises `RemoteError` otherwise."""
        ...
