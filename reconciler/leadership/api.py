"""What the controller sees of the election: whether this replica leads and may write."""

import asyncio
from typing import Protocol


class WriteFence(Protocol):
    """Asked before each write, and once more as its bytes leave."""

    @property
    def term(self) -> str:
        """Name of the writer for `token-refreshed-by`: replica and lease term."""
        ...

    @property
    def is_open(self) -> bool:
        """True while this replica leads and may write."""
        ...

    @property
    def holder(self) -> str:
        """Who leads as far as was seen, "" for nobody."""
        ...

    @property
    def transitions(self) -> int:
        """How often the lead has changed hands, by the Lease's own count."""
        ...

    @property
    def fenced_total(self) -> int:
        """Number of writes that were not let through."""
        ...

    def may_write(self, need_s: float) -> bool:
        """Tell whether this replica may write for the next `need_s` seconds."""
        ...

    def check(self) -> None:
        """Raise `NotLeaderError` unless this replica may write at this moment."""
        ...


class AlwaysOpenFence:
    """The fence of the only replica: always open."""

    is_open = True
    transitions = 0
    fenced_total = 0

    def __init__(self, replica: str) -> None:
        self.term = self.holder = replica

    def may_write(self, need_s: float) -> bool:
        return True

    def check(self) -> None:
        return None


class Leadership(Protocol):
    """Followers keep their stores and deadlines; the leader works."""

    @property
    def leads(self) -> bool: ...

    @property
    def is_exclusive(self) -> bool:
        """True if no other replica writes while this one leads."""
        ...

    async def wait_began(self) -> None:
        """Return while this replica leads."""
        ...

    async def wait_ended(self) -> None:
        """Return once it leads no more, even if it leads again by now."""
        ...

    async def release(self) -> None:
        """Lead no more, and let another lead at once; called with no write in flight."""
        ...


class NoElection:
    """A replica that is meant to be the only one leads always; nothing keeps a second one out."""

    leads = True
    is_exclusive = False

    async def wait_began(self) -> None:
        return

    async def wait_ended(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        return
