"""What an elector tells the log: each state that lasts once, and its end once."""

from collections.abc import Mapping
from typing import Literal

import structlog

from reconciler.clock import format_utc
from reconciler.errors import Forbidden, KubeError, NotFound, ProtocolError

log = structlog.get_logger()

Way = Literal["watch", "write"]
"""How the Lease is reached; each can be in trouble alone, as for want of one right."""

_REFUSED, _UNREACHABLE = "lease_refused", "lease_unreachable"


class ElectionLog:
    """Says a trouble when it begins on either way, and when it has ended on both.

    Args:
        needs: The rights that an elector needs, in words.
    """

    def __init__(self, needs: str) -> None:
        self._needs = needs
        self._troubles: dict[Way, str] = {}
        self._is_stalled = False
        self._is_leaving = False
        self._leader = ""
        self._edited: tuple[str, int] | None = None

    def failed(self, way: Way, error: KubeError | ProtocolError) -> None:
        """A request was not answered as it should be."""
        is_refusal = isinstance(error, Forbidden | NotFound)
        trouble = _REFUSED if is_refusal else _UNREACHABLE
        is_known = trouble in self._troubles.values()
        self._troubles[way] = trouble
        if is_known:
            return
        facts: Mapping[str, str] = {"needs": self._needs} if is_refusal else {}
        log.warning(trouble, error=str(error), **facts)

    def answered(self, way: Way) -> None:
        """A request was answered as it should be: the server is there, whichever way it was."""
        left = {
            other: trouble
            for other, trouble in self._troubles.items()
            if other != way and trouble != _UNREACHABLE
        }
        if self._troubles and not left:
            log.info("lease_recovered")
        self._troubles = left

    def stalled(self, seconds: float) -> None:
        """The main loop has given no sign of life for this long."""
        if not self._is_stalled:
            self._is_stalled = True
            log.warning("main_loop_stalled", seconds=round(seconds))

    def loop_recovered(self) -> None:
        """The main loop has given a sign of life."""
        if self._is_stalled:
            self._is_stalled = False
            log.info("main_loop_recovered")

    def leaves(self) -> None:
        """The Lease that is ours is renewed no more, as we get no token."""
        if not self._is_leaving:
            self._is_leaving = True
            log.warning("lease_left", why="no token for too long; another replica may get one")

    def stays(self) -> None:
        """The Lease that is ours is renewed again, or was taken again."""
        if self._is_leaving:
            self._is_leaving = False
            log.info("lease_kept")

    def edited(self, holder: str, duration_s: int, waits_s: float, until_s: float) -> None:
        """Take note of a duration that somebody edited; said once for each holder and duration.

        Args:
            waits_s: How long the holder is waited for unless it renews.
            until_s: The same as an instant, epoch seconds by our wall clock.
        """
        if self._edited == (holder, duration_s):
            return
        self._edited = holder, duration_s
        log.info(
            "lease_duration_edited",
            holder=holder,
            duration_s=duration_s,
            waits_s=round(waits_s, 1),
            until=format_utc(until_s),
        )

    def leads(self, holder: str, *, ours: bool) -> None:
        """Take note of who leads; said where it is another one than before, and not us."""
        if holder and holder != self._leader:
            self._leader = holder
            if not ours:
                log.info("leader_observed", leader=holder)
