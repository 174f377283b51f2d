"""De-duplication of log lines: a fault that lasts for hours must not fill the log."""

from cachetools import TTLCache

from reconciler.clock import Clock

REPEAT_S = 600.0
"""The same fact is logged again after this time, for a reader of the log's last lines."""

MAX_FACTS = 4096


class LogDedup:
    """Bounded memory of the facts that were logged."""

    def __init__(self, clock: Clock) -> None:
        self._logged: TTLCache[tuple[str, ...], bool] = TTLCache(
            MAX_FACTS, REPEAT_S, timer=clock.monotonic
        )

    def should_log(self, *fact: str) -> bool:
        """Return True if this fact was not logged within `REPEAT_S`, and record it."""
        if fact in self._logged:
            return False
        self._logged[fact] = True
        return True

    def reset(self, *fact: str) -> bool:
        """Forget a fact that has ended; True if it was logged."""
        return self._logged.pop(fact, False)
