"""Log lines of the elector: one when a lasting state begins, one when it ends."""

from collections.abc import Mapping
from typing import Literal

import structlog

from reconciler.clock import LONG_AGO, EpochTime, Instant, format_utc
from reconciler.errors import Forbidden, KubeError, NotFound, ProtocolError

log = structlog.get_logger()

Channel = Literal["watch", "write"]
"""How the elector reaches the Lease. Each channel can fail alone, for example when a permission of
one verb is missing."""

_REFUSED, _UNREACHABLE = "lease_refused", "lease_unreachable"


class ElectionLog:
    """Logs each problem once from when it begins on either channel until both channels work.

    Args:
        needs: The permissions that an elector needs, as text.
        quiet_s: A channel works when nothing has failed on it for so long: of two API servers
            behind one address one may fail. It is longer than the time between two tries.
    """

    def __init__(self, needs: str, *, quiet_s: float) -> None:
        self._needs = needs
        self._quiet_s = quiet_s
        self._problems: dict[Channel, str] = {}
        self._failed_at: dict[Channel, Instant] = {}
        self._unanswered: set[Channel] = set()
        self._logged: set[str] = set()
        self._is_stalled = False
        self._is_yielding = False
        self._leader = ""
        self._edited: tuple[str, int] | None = None

    def failed(
        self, channel: Channel, error: KubeError | ProtocolError, *, now_at: Instant
    ) -> None:
        """Record that a request failed."""
        self._failed_at[channel] = now_at
        is_refusal = isinstance(error, Forbidden | NotFound)
        problem = _REFUSED if is_refusal else _UNREACHABLE
        self._problems[channel] = problem
        self._unanswered.add(channel)
        if problem in self._logged:
            return
        self._logged.add(problem)
        fields: Mapping[str, str] = {"needs": self._needs} if is_refusal else {}
        log.warning(problem, error=str(error), **fields)

    def paused(self, channel: Channel, *, until: Instant) -> None:
        """Record that nothing is tried on a failed channel before `until`."""
        self._failed_at[channel] = until

    def answered(self, channel: Channel, *, now_at: Instant) -> None:
        """Record that a request succeeded.

        An outage ends without an answer on its channel, too: the watch delivers writes whose own
        answers are lost, and a standby, which writes nothing, gets no answer to a write.
        """
        self._unanswered.discard(channel)
        remaining = {
            other: problem
            for other, problem in self._problems.items()
            if not self._is_quiet(other, now_at)
            or (problem == _REFUSED and other in self._unanswered)
        }
        if self._problems and not remaining:
            self._logged.clear()
            log.info("lease_recovered")
        self._problems = remaining

    def _is_quiet(self, channel: Channel, now_at: Instant) -> bool:
        return now_at - self._failed_at.get(channel, LONG_AGO) >= self._quiet_s

    def stalled(self, seconds: float) -> None:
        """Record that the main loop has had no heartbeat for `seconds`."""
        if not self._is_stalled:
            self._is_stalled = True
            log.warning("main_loop_stalled", seconds=round(seconds))

    def loop_recovered(self) -> None:
        """Record that the main loop has a heartbeat again."""
        if self._is_stalled:
            self._is_stalled = False
            log.info("main_loop_recovered")

    def yielded(self) -> None:
        """Record that this leader stops to renew the Lease, as it gets no token."""
        if not self._is_yielding:
            self._is_yielding = True
            log.warning("lease_left", reason="no token for too long; another replica may get one")

    def kept(self) -> None:
        """Record that this leader renews the Lease again, or has acquired it again."""
        if self._is_yielding:
            self._is_yielding = False
            log.info("lease_kept")

    def edited(self, holder: str, duration_s: int, wait_s: float, until_s: EpochTime) -> None:
        """Record a lease duration that was edited by hand; logged once per holder and duration.

        Args:
            wait_s: How long this replica waits for the holder unless it renews.
            until_s: The same as an instant, epoch seconds by our wall clock.
        """
        if self._edited == (holder, duration_s):
            return
        self._edited = holder, duration_s
        log.info(
            "lease_duration_edited",
            holder=holder,
            duration_s=duration_s,
            waits_s=round(wait_s, 1),
            until=format_utc(until_s),
        )

    def leader_observed(self, holder: str, *, ours: bool) -> None:
        """Record the leader; logged when it changes to another replica."""
        if holder and holder != self._leader:
            self._leader = holder
            if not ours:
                log.info("leader_observed", leader=holder)
