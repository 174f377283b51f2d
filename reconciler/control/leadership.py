"""Whether this replica leads: what the controller waits for, whoever decides it."""

import asyncio
from typing import Protocol


class Leadership(Protocol):
    """Followers keep their stores and deadlines; the leader works."""

    @property
    def leads(self) -> bool: ...

    @property
    def exclusive(self) -> bool:
        """True if no other replica writes while this one leads."""
        ...

    async def wait_began(self) -> None:
        """Return while this replica leads."""
        ...

    async def wait_ended(self) -> None:
        """Return once it leads no more, even if it leads again by now."""
        ...

    async def resign(self) -> None:
        """Lead no more, and let another lead at once; called with no write in flight."""
        ...


class Alone:
    """A replica that is meant to be the only one leads always; nothing keeps a second one out."""

    leads = True
    exclusive = False

    async def wait_began(self) -> None:
        return

    async def wait_ended(self) -> None:
        await asyncio.Event().wait()

    async def resign(self) -> None:
        return
