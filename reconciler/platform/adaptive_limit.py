"""Limits the requests to the platform at one time, by how fast it answers (pure).

The platform serves the runners' own calls from the same connections to its database: our requests
must leave most of them free, and more of them while it is slow.
"""

from collections import deque
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

from reconciler.clock import Instant

T = TypeVar("T", bound=Hashable)

SLOW_S = 1.0
"""An answer that takes longer shows that the platform is busy; a page of 100 sessions takes about
50 ms. Each request to its API server holds two connections to the database."""


class RequestKind(Enum):
    """The kind of a request; both kinds take turns, however many of the other kind wait."""

    SINGLE = "single"
    """One session, or a probe: a worker waits for it."""
    LIST = "list"
    """A page of a list, one of many."""


class AdaptiveLimit(Generic[T]):
    """Additive increase, multiplicative decrease, between 1 and `most`.

    A full round of prompt answers raises the limit by one. A slow or failed one halves it, unless
    its request began before the limit was last halved: it is no measure of the new limit.

    Args:
        most: Most requests in progress; the limit starts there.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"at least one request must be allowed, not {most}")
        self.most = most
        self.allowed = most
        """Requests that may be in progress now."""
        self.under_way = 0
        self._prompt = 0
        self._halved_at: Instant | None = None
        self._waiting: dict[RequestKind, deque[T]] = {kind: deque() for kind in RequestKind}
        self._next = RequestKind.SINGLE

    def ask(self, waiter: T, kind: RequestKind) -> None:
        """Add a waiter for a turn."""
        self._waiting[kind].append(waiter)

    def drop(self, waiter: T) -> bool:
        """Remove a waiter; False if it does not wait any more."""
        for queue in self._waiting.values():
            if waiter in queue:
                queue.remove(waiter)
                return True
        return False

    def admit(self) -> list[T]:
        """Return the waiters that have a turn now, in order; `ended` or `given_up` follows each."""
        admitted = []
        while self.under_way < self.allowed and (queue := self._turn()):
            admitted.append(queue.popleft())
            self.under_way += 1
        return admitted

    def ended(self, *, began_at: Instant, now_at: Instant, failed: bool) -> None:
        """End a request that was admitted.

        Args:
            failed: It had no answer, or one that shows a failure of the platform.
        """
        self.under_way -= 1
        if failed or now_at - began_at > SLOW_S:
            self._prompt = 0
            if self._halved_at is None or began_at >= self._halved_at:
                self._halved_at = now_at
                self.allowed = max(1, self.allowed // 2)
            return
        self._prompt += 1
        if self._prompt >= self.allowed:
            self._prompt = 0
            self.allowed = min(self.most, self.allowed + 1)

    def given_up(self) -> None:
        """End a request that was admitted, and whose result is unknown (cancelled)."""
        self.under_way -= 1

    def __len__(self) -> int:
        """Return the number of waiters."""
        return sum(len(queue) for queue in self._waiting.values())

    def _turn(self) -> deque[T]:
        """Return the queue that has the turn: both take turns while both have waiters."""
        first = self._next
        other = RequestKind.LIST if first is RequestKind.SINGLE else RequestKind.SINGLE
        kind = first if self._waiting[first] else other
        self._next = RequestKind.LIST if kind is RequestKind.SINGLE else RequestKind.SINGLE
        return self._waiting[kind]

    def __repr__(self) -> str:
        return f"<Limit {self.under_way} of {self.allowed} in progress, {len(self)} wait>"
