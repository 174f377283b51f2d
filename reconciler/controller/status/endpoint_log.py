"""Log lines about endpoints: the start of a problem, one line a minute, and its end."""

from collections.abc import Iterable

import msgspec
import structlog

from reconciler.clock import Clock, Instant
from reconciler.controller.decide.write_errors import ISSUER, ISSUER_REFUSED
from reconciler.net.circuit_breaker import BreakerStats, CircuitBreaker, Condition
from reconciler.tokens.refusals import refusal_hint

log = structlog.get_logger()

REFUSES = "endpoint_refuses"

REPORT_S = 60.0
"""Between two lines on an endpoint in the same condition. One that changes all the time has at most
one start in this time, and no end without a start."""


RECENT_S = 10.0
"""A line this recent is not repeated by the line of the minute."""


class _LastLine(msgspec.Struct):
    """The last line about one endpoint, and when it was logged (monotonic)."""

    condition: Condition
    at: Instant


class EndpointLog:
    """Logs a problem of an endpoint once, not for each session that meets it."""

    def __init__(self, clock: Clock, breakers: Iterable[CircuitBreaker]) -> None:
        self._clock = clock
        self._last_lines: dict[str, _LastLine] = {}
        for breaker in breakers:
            breaker.on_condition(self._changed)

    def _changed(self, stats: BreakerStats) -> None:
        """Log that a problem starts or changes; `recovered` logs its end."""
        if stats.condition == "ok":
            return
        said = self._last_lines.get(stats.name)
        if said is None or said.condition != "ok" or self._since_s(said) >= REPORT_S:
            self._log(stats, is_begin=True)

    def report(self, stats: BreakerStats) -> None:
        """Log a problem that lasts, unless it was logged just before; call it once a minute."""
        said = self._last_lines.get(stats.name)
        if stats.condition != "ok" and (said is None or self._since_s(said) >= RECENT_S):
            self._log(stats, is_begin=False)

    def recovered(self, endpoint: str, sessions_woken: int) -> None:
        """Log the end of a problem, if its start was logged."""
        said = self._last_lines.get(endpoint)
        if said is None or said.condition == "ok":
            return
        log.info(
            "endpoint_recovered",
            endpoint=endpoint,
            was=said.condition,
            sessions_woken=sessions_woken,
        )
        said.condition = "ok"

    def _log(self, stats: BreakerStats, *, is_begin: bool) -> None:
        self._last_lines[stats.name] = _LastLine(stats.condition, self._clock.monotonic())
        seconds = round(stats.down_for_s if stats.down else stats.refused_for_s)
        said = {"endpoint": stats.name, "seconds": seconds, "error": stats.last_error}
        if stats.down:
            log.warning("endpoint_down", **said)
        elif stats.name == ISSUER:
            hint = refusal_hint(stats.last_reason, stats.last_status)
            log.warning(ISSUER_REFUSED if is_begin else REFUSES, **said, hint=hint)
        else:
            log.warning(REFUSES, **said)

    def _since_s(self, said: _LastLine) -> float:
        return self._clock.monotonic() - said.at
