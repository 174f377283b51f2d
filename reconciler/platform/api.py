"""The interface to the platform, as the controller uses it.

It has two implementations: the REST client, and the fake of the simulations on virtual time.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.models import PlatformProject, PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page

OnPage = Callable[[list[PlatformSession]], None]
"""Takes the rows of one page."""

Bearer = Callable[[bool], Awaitable[str]]
"""Returns the token for a request; called with True after the last one was refused."""


class Platform(Protocol):
    """Read-only calls. Each has a time limit; each failure is a `RemoteError`."""

    @property
    def breaker(self) -> CircuitBreaker:
        """The platform's circuit breaker, shared; it gets the result of every request."""
        ...

    @property
    def allowed(self) -> int | None:
        """Requests that may be in progress at one time now; None: there is no limit."""
        ...

    async def list_projects(self) -> ListResult[PlatformProject]:
        """Read the projects; if a page after the first fails, the result is partial."""
        ...

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        """Read a project's running sessions, or (None) those of all projects.

        Args:
            on_page: Called with the rows of each page as it comes; a row may come again. The result
                has all rows, whether the pages were shown or not.
        """
        ...

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        """Return one session, or None where the platform answers that it does not exist."""
        ...

    async def probe(self) -> None:
        """Return if the platform answers at all; raises `RemoteError` otherwise."""
        ...
