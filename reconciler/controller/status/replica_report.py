"""Events on the Lease: what keeps this replica, leader or standby, from refreshing tokens.

The Events on pods come from the leader alone. A replica that has never had a token does not
contend for the Lease, and without these Events nothing in the cluster shows why. Source:
client-go's leader election records its Events on the Lease, too.
"""

import asyncio
from collections.abc import Callable, Mapping

import msgspec
import structlog

from reconciler.clock import LONG_AGO, EpochTime, Instant
from reconciler.controller.events.correlator import cut_text
from reconciler.controller.events.event_object import MAX_TIMEOUT_S, event_body, write_event
from reconciler.controller.events.rules import EventMessage
from reconciler.controller.runtime import Runtime
from reconciler.errors import Forbidden, KubeError, ProtocolError
from reconciler.kube.api import Kube
from reconciler.net.circuit_breaker import CircuitBreaker

log = structlog.get_logger()

INTERVAL_S = 1.0
"""Between two checks of the problems, which cost nothing."""

STEADY_S = 3.0
"""A problem that lasts for less is reported by the log and the metrics alone."""

CHANGED_S = 10.0
"""Shortest time between two requests about one problem, even if its message changes often."""

REPEAT_S = 60.0
"""A problem that lasts is reported again this often: one that was not reported for longer is over,
or its replica has ended."""

Problems = Mapping[str, str]
"""Reason of the Event, one of a small closed set -> what is wrong, in one line without a token."""


class Reporter(msgspec.Struct, frozen=True):
    """Who reports, and on which Lease; the Lease does not have to exist.

    Args:
        kube: As the account that works in our own namespace.
        lasting: Problems that last as long as the process.
    """

    namespace: str
    lease: str
    component: str
    replica: str
    kube: Kube
    lasting: Problems = msgspec.field(default_factory=dict)


class _Series(msgspec.Struct):
    """One Event object; instants are monotonic, but for `first_s` (epoch)."""

    began_at: Instant
    first_s: EpochTime
    sent_at: Instant = LONG_AGO
    message: str = ""
    count: int = 0
    name: str = ""


class ReplicaReport:
    """Reports each problem once it is steady, when its message changes, and while it lasts.

    Args:
        problems: Returns what is wrong now; called on the loop, once in `INTERVAL_S`.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        breaker: CircuitBreaker,
        runtime: Runtime,
        problems: Callable[[], Problems],
    ) -> None:
        self._reporter = reporter
        self._kube = reporter.kube
        self._breaker = breaker
        self._clock = runtime.clock
        self._log_dedup = runtime.log_dedup
        self._problems = problems
        self._series: dict[str, _Series] = {}

    async def run(self) -> None:
        """Report until cancelled; what cannot be sent is retried at the next turn, never faster."""
        while True:
            await asyncio.sleep(INTERVAL_S)
            found = {**self._problems(), **self._reporter.lasting}
            now_at, now_s = self._clock.monotonic(), self._clock.wall()
            self._series = {
                reason: self._series.get(reason) or _Series(now_at, now_s) for reason in found
            }
            for reason, message in found.items():
                series = self._series[reason]
                if self._is_due(series, message, now_at):
                    await self._breaker.wait_closed()
                    series.sent_at, series.message = now_at, message
                    await self._send(reason, series)

    def _is_due(self, series: _Series, message: str, now_at: Instant) -> bool:
        if now_at - series.began_at < STEADY_S:
            return False
        return now_at - series.sent_at >= (REPEAT_S if message == series.message else CHANGED_S)

    async def _send(self, reason: str, series: _Series) -> None:
        namespace = self._reporter.namespace
        series.count += 1
        try:
            await self._write(reason, series)
        except Forbidden as error:
            if self._log_dedup.should_log("events_forbidden", namespace):
                log.warning("events_forbidden", namespace=namespace, error=str(error))
        except (KubeError, ProtocolError):
            series.sent_at = self._clock.monotonic() - REPEAT_S + CHANGED_S

    async def _write(self, reason: str, series: _Series) -> None:
        me, now_s = self._reporter, self._clock.wall()
        involved = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "namespace": me.namespace,
            "name": me.lease,
        }
        body = event_body(
            involved,
            EventMessage("Warning", reason, cut_text(series.message)),
            count=series.count,
            first_s=series.first_s,
            last_s=now_s,
            component=me.component,
            instance=me.replica,
        )
        series.name = await write_event(
            self._kube, body, series.name, now_s=now_s, limit_s=MAX_TIMEOUT_S
        )
