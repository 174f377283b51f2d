"""A heap in which an item can be moved or dropped without searching for it (pure)."""

from collections.abc import Hashable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

R = TypeVar("R", float, tuple[float, ...])
T = TypeVar("T", bound=Hashable)

SPARE = 8
"""Stale slots that are always tolerated, so that a heap of three items is not rebuilt each time."""


class LazyHeap(Generic[R, T]):
    """Items by rank, least first, equal ranks in the order of their pushes.

    Each push is a new generation of its item and only the newest counts; older slots stay where
    they are, stale, until they surface or are more than half of the heap, which is then rebuilt.

    Cost: O(log n) amortised for each method; never more than 2 x live + `SPARE` + 1 slots.
    """

    def __init__(self) -> None:
        self._slots: list[tuple[R, int, T]] = []
        self._live: dict[T, int] = {}
        self._generation = 0

    def __len__(self) -> int:
        return len(self._live)

    @property
    def slots(self) -> int:
        """Slots held, live and stale."""
        return len(self._slots)

    def push(self, item: T, *, rank: R) -> None:
        """Put an item at `rank`; where it is held already it moves there."""
        self._generation = generation = self._generation + 1
        self._live[item] = generation
        heappush(self._slots, (rank, generation, item))
        if len(self._slots) > 2 * len(self._live) + SPARE:
            self._compact()

    def discard(self, item: T) -> None:
        """Drop an item, if it is held."""
        self._live.pop(item, None)
        if len(self._slots) > 2 * len(self._live) + SPARE:
            self._compact()

    def peek(self) -> tuple[R, T] | None:
        """Return the least rank and its item, or None where nothing is held."""
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
            IndexError: Nothing is held.
        """
        head = self.peek()
        if head is None:
            raise IndexError("pop from an empty heap")
        heappop(self._slots)
        del self._live[head[1]]
        return head

    def _compact(self) -> None:
        # Each rebuild is paid for by the live + SPARE pushes or drops that made it necessary.
        live = self._live
        self._slots = [slot for slot in self._slots if live.get(slot[2]) == slot[1]]
        heapify(self._slots)

    def __repr__(self) -> str:
        return f"<LazyHeap {len(self)} live in {self.slots} slots>"
