"""Say a thing once: what stays wrong for hours must not fill the log."""

from cachetools import TTLCache

from reconciler.clock import Clock

AGAIN_S = 600.0
"""The same fact is said again after this long, for whoever reads only the log's end."""

MAX_FACTS = 4096


class LogDedup:
    """Bounded memory of what was already said."""

    def __init__(self, clock: Clock) -> None:
        self._said: TTLCache[tuple[str, ...], bool] = TTLCache(
            MAX_FACTS, AGAIN_S, timer=clock.monotonic
        )

    def should_log(self, *fact: str) -> bool:
        """Return True if this fact was not said within `AGAIN_S`, and remember it."""
        if fact in self._said:
            return False
        self._said[fact] = True
        return True

    def reset(self, *fact: str) -> bool:
        """Forget a fact, because it is over; True if it had been said."""
        return self._said.pop(fact, False)
