"""What the controller sees of the election: whether this replica leads and may write."""

import asyncio
from collections.abc import Awaitable, Callable
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
        """Holder of the Lease as last observed, "" for none."""
        ...

    @property
    def has_lapsed(self) -> bool:
        """True where the Lease as last observed has ended, and no other holder is known."""
        ...

    @property
    def transitions(self) -> int:
        """Number of leader changes, as the Lease counts them."""
        ...

    @property
    def fenced_total(self) -> int:
        """Number of writes that were blocked."""
        ...

    def may_write(self, need_s: float) -> bool:
        """Return whether this replica may write for the next `need_s` seconds."""
        ...

    def check(self) -> None:
        """Raise `NotLeaderError` unless this replica may write at this moment."""
        ...


class Candidate(Protocol):
    """What the election asks of its replica, from another thread."""

    @property
    def has_had_token(self) -> bool:
        """True once the token source has returned a token in this process."""
        ...

    @property
    def lacks_token(self) -> bool:
        """True while no token has come for so long that another replica may have one."""
        ...

    @property
    def token_life_s(self) -> float:
        """Whole lifetime of the last token; inf before the first."""
        ...

    def not_synced(self) -> str:
        """Return what is missing in the stores, "" once they hold a first list."""
        ...


class AlwaysOpenFence:
    """The fence of the only replica: always open."""

    is_open = True
    has_lapsed = False
    transitions = 0
    fenced_total = 0

    def __init__(self, replica: str) -> None:
        self.term = self.holder = replica

    def may_write(self, need_s: float) -> bool:
        return True

    def check(self) -> None:
        return None


class Leadership(Protocol):
    """Standbys keep their stores and deadlines up to date; the leader works."""

    @property
    def leads(self) -> bool: ...

    async def wait_started(self) -> None:
        """Return while this replica leads."""
        ...

    async def wait_stopped(self) -> None:
        """Return after leadership has ended, even if this replica leads again by then."""
        ...

    async def release(self) -> None:
        """Stop leading and let another replica lead at once; no write may be in flight."""
        ...


class NoElection:
    """Leadership of the only replica: it always leads; nothing prevents a second one."""

    leads = True

    async def wait_started(self) -> None:
        return

    async def wait_stopped(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        return


class LeadershipState:
    """Implements `Leadership` from the elector's calls, in their order.

    `started` and `stopped` are called on the main loop.

    Args:
        release: Releases the Lease; returns when that is done.
    """

    def __init__(self, release: Callable[[], Awaitable[None]]) -> None:
        self._release = release
        self._started = asyncio.Event()
        self._stopped = asyncio.Event()
        self._stopped.set()

    @property
    def leads(self) -> bool:
        return self._started.is_set()

    def started(self, _term: str) -> None:
        self._stopped.clear()
        self._started.set()

    def stopped(self, _reason: str) -> None:
        self._started.clear()
        self._stopped.set()

    async def wait_started(self) -> None:
        await self._started.wait()

    async def wait_stopped(self) -> None:
        await self._stopped.wait()

    async def release(self) -> None:
        await self._release()
