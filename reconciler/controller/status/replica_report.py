"""Events on the Lease: what keeps this replica, leader or standby, from refreshing tokens.

The Events on pods come from the leader alone. A replica that has never had a token does not
contend for the Lease, and without these Events nothing in the cluster shows why. Source:
client-go's leader election records its Events on the Lease, too.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from reconciler.clock import LONG_AGO, EpochTime, Instant, format_utc
from reconciler.controller.events.correlator import cut_text
from reconciler.controller.events.recorder import EVENTS, MAX_TIMEOUT_S
from reconciler.controller.runtime import Runtime
from reconciler.errors import Forbidden, KubeError, NotFound, ProtocolError
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


@dataclass(frozen=True, slots=True)
class Reporter:
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
    lasting: Problems = field(default_factory=dict)


@dataclass(slots=True)
class _Series:
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
            if not series.name or not await self._updated(series):
                await self._create(reason, series)
        except Forbidden as error:
            if self._log_dedup.should_log("events_forbidden", namespace):
                log.warning("events_forbidden", namespace=namespace, error=str(error))
        except (KubeError, ProtocolError):
            series.sent_at = self._clock.monotonic() - REPEAT_S + CHANGED_S

    async def _updated(self, series: _Series) -> bool:
        """Count a repetition; False if the Event is gone."""
        body = {
            "count": series.count,
            "lastTimestamp": format_utc(self._clock.wall()),
            "message": cut_text(series.message),
        }
        try:
            await self._kube.patch(
                EVENTS, self._reporter.namespace, series.name, body, limit_s=MAX_TIMEOUT_S
            )
        except NotFound:
            return False
        return True

    async def _create(self, reason: str, series: _Series) -> None:
        series.name = ""
        name = f"{self._reporter.lease}.{round(float(self._clock.wall()) * 1e9):x}"
        body = self._body(reason, series, name)
        await self._kube.create(EVENTS, self._reporter.namespace, body, limit_s=MAX_TIMEOUT_S)
        series.name = name

    def _body(self, reason: str, series: _Series, name: str) -> dict[str, Any]:
        me = self._reporter
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": me.namespace},
            "involvedObject": {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "namespace": me.namespace,
                "name": me.lease,
            },
            "type": "Warning",
            "reason": reason,
            "message": cut_text(series.message),
            "count": series.count,
            "firstTimestamp": format_utc(series.first_s),
            "lastTimestamp": format_utc(self._clock.wall()),
            "source": {"component": me.component},
            "reportingComponent": me.component,
            "reportingInstance": me.replica,
        }
