"""Where requests hang, and how many workers may wait there."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from reconciler.clock import Clock
from reconciler.errors import PlatformUnavailable, ServerError, TransportError, WireError

SLOW_S = 1.0
"""A request that fails later than this has hung: in a webhook, whose usual limit is 10 s."""

SHARE = 0.25
"""Part of the workers that may wait where requests hang; the others go on to write tokens."""


def most_waiting(workers: int) -> int:
    """Return how many of so many workers may wait where requests hang."""
    return max(1, int(SHARE * workers))


class Hanging:
    """Keeps workers for the places where requests are answered.

    A session whose write hangs gets ever more urgent, and so does the next one there: without a
    bound a webhook on one namespace's Secrets would hold every worker, and the others' tokens die.

    Args:
        workers: Number of those who call `at` at the same time.
    """

    def __init__(self, clock: Clock, *, workers: int) -> None:
        self._clock = clock
        self._most = most_waiting(workers)
        self._places: set[str] = set()
        self._busy: Counter[str] = Counter()

    def is_full(self, place: str) -> bool:
        """Tell whether requests hang there and no more workers may wait for them."""
        if place not in self._places:
            return False
        return sum(self._busy[name] for name in self._places) >= self._most

    @contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Note a request there; an answer, of whatever kind, shows that it hangs no more."""
        began_at = self._clock.monotonic()
        self._busy[place] += 1
        try:
            yield
        except (TransportError, ServerError, PlatformUnavailable, WireError):
            if self._clock.monotonic() - began_at > SLOW_S:
                self._places.add(place)
            raise
        except Exception:  # a refusal is an answer, too
            self._places.discard(place)
            raise
        else:
            self._places.discard(place)
        finally:
            self._busy[place] -= 1
            if not self._busy[place]:
                del self._busy[place]
