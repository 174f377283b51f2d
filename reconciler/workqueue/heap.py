"""A heap in which an item can be moved or removed without a search (pure)."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Any, Generic, Protocol, TypeVar


class Rank(Protocol):
    """What can be ordered: an instant, or a tuple of comparable parts."""

    def __lt__(self, other: Any, /) -> bool: ...


R = TypeVar("R", bound=Rank)
T = TypeVar("T", bound=Hashable)

MIN_STALE_SLOTS = 8
"""Stale slots that are always allowed, so that a heap of three items is not rebuilt each time."""


class LazyHeap(Generic[R, T]):
    """Items by rank, least first, equal ranks in the order of their pushes.

    Each push is a new generation of its item, and only the newest counts. Older slots stay in the
    heap, stale, until they reach its top or are more than half of it; then it is rebuilt.

    Cost: O(log n) amortised for each method; never more than 2 x live + `MIN_STALE_SLOTS` + 1
        slots.
    """

    def __init__(self) -> None:
        self._slots: list[tuple[R, int, T]] = []
        self._live: dict[T, int] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._live)

    @property
    def slots(self) -> int:
        """Number of slots, live and stale."""
        return len(self._slots)

    def push(self, item: T, *, rank: R) -> None:
        """Put an item at `rank`; an item that is in the heap moves there."""
        self._generation = generation = self._generation + 1
        self._live[item] = generation
        heappush(self._slots, (rank, generation, item))
        if len(self._slots) > 2 * len(self._live) + MIN_STALE_SLOTS:
            self._compact()

    def discard(self, item: T) -> None:
        """Remove an item, if it is in the heap."""
        self._live.pop(item, None)
        self._release()
        if len(self._slots) > 2 * len(self._live) + MIN_STALE_SLOTS:
            self._compact()

    def peek(self) -> tuple[R, T] | None:
        """Return the least rank and its item, or None if the heap is empty."""
        slots = self._slots
        while slots:
            rank, generation, item = slots[0]
            if self._live.get(item) == generation:
                return rank, item
            heappop(slots)
        return None

    def pop(self) -> tuple[R, T]:
        """Remove the least rank and its item, and return them.

        Raises:
            IndexError: The heap is empty.
        """
        head = self.peek()
        if head is None:
            raise IndexError("pop from an empty heap")
        heappop(self._slots)
        del self._live[head[1]]
        self._release()
        return head

    def _release(self) -> None:
        """Give up the table of an empty heap: that of 100,000 items has 5 MB, and never shrinks."""
        if not self._live:
            self._live = {}

    def _compact(self) -> None:
        # Each rebuild follows live + MIN_STALE_SLOTS pushes or removals: O(1) amortised.
        live = self._live
        self._slots = [slot for slot in self._slots if live.get(slot[2]) == slot[1]]
        heapify(self._slots)

    def __repr__(self) -> str:
        return f"<LazyHeap {len(self)} live in {self.slots} slots>"
