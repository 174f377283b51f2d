"""How many requests the platform is asked at one time, by how promptly it answers (pure).

It serves the runners' own calls from the same connections to its database: what we ask for must
leave most of them free, and more than that where it is slow.
"""

from collections import deque
from collections.abc import Hashable
from enum import Enum
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)

SLOW_S = 1.0
"""An answer that takes longer says that the platform is busy; a page of 100 sessions takes some
50 ms. Source: platform-contract of its API server, whose requests hold two connections each."""


class RequestKind(Enum):
    """What a request is; each kind has its turn, however much of the other waits."""

    SINGLE = "single"
    """One session, or a probe: somebody waits for it."""
    LIST = "list"
    """A page of a list, one of many."""


class AdaptiveLimit(Generic[T]):
    """Additive increase, multiplicative decrease, between 1 and `most`.

    A full round of prompt answers raises the limit by one. A slow or failed one halves it, but not
    if its request began before the limit was last halved: it says nothing of the new one.

    Args:
        most: Requests under way at most; where it begins.
    """

    def __init__(self, most: int) -> None:
        if most < 1:
            raise ValueError(f"at least one request must be allowed, not {most}")
        self.most = most
        self.allowed = most
        """Requests that may be under way now."""
        self.under_way = 0
        self._prompt = 0
        self._halved_at: float | None = None
        self._waiting: dict[RequestKind, deque[T]] = {kind: deque() for kind in RequestKind}
        self._next = RequestKind.SINGLE

    def ask(self, waiter: T, kind: RequestKind) -> None:
        """Have somebody wait for its turn."""
        self._waiting[kind].append(waiter)

    def drop(self, waiter: T) -> bool:
        """Forget one that waits; False if it does not wait any more."""
        for queue in self._waiting.values():
            if waiter in queue:
                queue.remove(waiter)
                return True
        return False

    def admit(self) -> list[T]:
        """Return those whose turn it is now, in order; each owes an `ended`."""
        admitted = []
        while self.under_way < self.allowed and (queue := self._turn()):
            admitted.append(queue.popleft())
            self.under_way += 1
        return admitted

    def ended(self, *, began_at: float, now_at: float, failed: bool) -> None:
        """End a request that was admitted.

        Args:
            failed: It had no answer, or one that says that the platform could not.
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
        """End a request that was admitted, and of which nothing is known."""
        self.under_way -= 1

    def __len__(self) -> int:
        """Return how many wait."""
        return sum(len(queue) for queue in self._waiting.values())

    def _turn(self) -> deque[T]:
        """Return the queue whose turn it is: the two take turns while both wait."""
        first = self._next
        other = RequestKind.LIST if first is RequestKind.SINGLE else RequestKind.SINGLE
        kind = first if self._waiting[first] else other
        self._next = RequestKind.LIST if kind is RequestKind.SINGLE else RequestKind.SINGLE
        return self._waiting[kind]

    def __repr__(self) -> str:
        return f"<Limit {self.under_way} of {self.allowed} under way, {len(self)} wait>"
