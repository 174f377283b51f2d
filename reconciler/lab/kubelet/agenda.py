"""One heap of instants for everything that a node has to do; no timer or task per pod."""

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Agenda(Generic[K]):
    """A set of keys, each with one instant; moving a key leaves a stale entry that is skipped.

    Cost: O(log n) a call; `due` pays for the stale entries that it meets.
    """

    def __init__(self) -> None:
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0

    def __repr__(self) -> str:
        return f"<Agenda {len(self._at)} keys>"

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def set(self, key: K, at: float) -> None:
        """Put the key at this instant, wherever it was."""
        self._at[key] = at
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, key))

    def hasten(self, key: K, at: float) -> None:
        """Put the key at this instant unless it is due earlier anyway."""
        if key not in self._at or at < self._at[key]:
            self.set(key, at)

    def drop(self, key: K) -> None:
        """Forget the key, if it is there."""
        self._at.pop(key, None)

    def due(self, now_at: float, *, limit: int) -> list[K]:
        """Take out up to `limit` keys whose instant has come, earliest first."""
        taken: list[K] = []
        while len(taken) < limit and (at := self.next_at()) is not None and at <= now_at:
            _, _, key = heapq.heappop(self._heap)
            del self._at[key]
            taken.append(key)
        return taken

    def next_at(self) -> float | None:
        """Return the earliest instant, or None when nothing is to be done."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None
