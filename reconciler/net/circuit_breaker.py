"""A circuit breaker: one shared state of an endpoint, and one shared probe while it is down."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from random import Random
from typing import Literal

import msgspec

from reconciler.clock import Clock, Instant
from reconciler.errors import Forbidden, RemoteError

Condition = Literal["ok", "down", "refused"]
"""`down`: it does not answer, or fails; `refused`: it answers, and refuses our credentials."""

PROBE_S = 2.0
"""Longest wait between probes: the end of an outage must be noticed within seconds, and not at the
end of a back-off of each of thousands of callers."""

REFUSED_PROBE_S = 30.0
"""Longest wait between probes of an endpoint that refuses us, until a person corrects it. The first
wait is `PROBE_S`; each further one is twice as long."""

THRESHOLD = 3
"""Failures in a row that count as an outage; one connection reset is no outage."""


class BreakerStats(msgspec.Struct, frozen=True):
    """`down_for_s` is 0.0 while the endpoint is up; `outages_total` counts up to down.

    `refuses`: it answers, and refuses our credentials; `refused_for_s` is for how long, 0.0 while
    it does not. `was_tried`: at least one request has ended since the start. `last_reason` and
    `last_status` are those of `last_error`: the peer's error code ("" = none) and the HTTP status
    (0 = no answer). `failures` counts those in a row, also below `THRESHOLD`.
    """

    name: str
    down: bool
    down_for_s: float
    outages_total: int
    last_error: str
    refuses: bool = False
    refused_for_s: float = 0.0
    was_tried: bool = True
    last_reason: str = ""
    last_status: int = 0
    failures: int = 0

    @property
    def condition(self) -> Condition:
        return "down" if self.down else "refused" if self.refuses else "ok"


class CircuitBreaker:
    """Counts an endpoint's failures; while it is down, callers wait here and send no request.

    Any success, a probe's or a caller's, closes it at once and wakes all waiters; so does the first
    success after a refusal, which is no outage.

    A result may concern one part of the endpoint only, such as a project of the platform. Failures
    of parts do not open the breaker, however many they are: they make the endpoint suspect, and a
    probe of the endpoint as a whole decides. A success of a part ends no outage. So the breaker
    opens and closes by the same requests, and one part that fails cannot open it between two
    probes.
    """

    def __init__(self, name: str, clock: Clock, random: Random) -> None:
        self.name = name
        self._clock = clock
        self._random = random
        self._failures = 0
        self._down_at: Instant | None = None
        self._refused_at: Instant | None = None
        self._outages = 0
        self._last_error = ""
        self._last_reason = ""
        self._last_status = 0
        self._up = asyncio.Event()
        self._up.set()
        self._probe_due = asyncio.Event()
        self._condition_listeners: list[Callable[[BreakerStats], None]] = []
        self._listeners: list[Callable[[], None]] = []
        self._refusal_listeners: list[Callable[[], None]] = []
        self._refuses = False
        self._refused_kinds: set[str] = set()
        self._heard = False
        self._suspect = False
        self._refused = asyncio.Event()

    @property
    def is_open(self) -> bool:
        return self._down_at is not None

    @property
    def is_suspect(self) -> bool:
        """Whether parts of it fail, and no probe has shown yet whether all of it fails."""
        return self._suspect

    @property
    def refuses(self) -> bool:
        """Whether it answered the last request, and refused our credentials."""
        return self._refused_at is not None

    @property
    def refused_kinds(self) -> frozenset[str]:
        """The kinds of requests that were refused, and not accepted since; "" for all of them."""
        return frozenset(self._refused_kinds)

    @property
    def last_error(self) -> str:
        return self._last_error

    def on_condition(self, callback: Callable[[BreakerStats], None]) -> None:
        """Call `callback` on the loop with the new state, once for each change of condition.

        It is called before the waiters are woken.
        """
        self._condition_listeners.append(callback)

    def on_recovery(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the loop each time the endpoint recovers.

        Returns: A function that ends this; to call once.
        """
        self._listeners.append(callback)
        return partial(self._listeners.remove, callback)

    def on_refusal(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call `callback` on the loop when the first probe is answered with 403.

        Then the endpoint is reachable again, and only a request shows whether it serves us.

        Returns: A function that ends this; to call once.
        """
        self._refusal_listeners.append(callback)
        return partial(self._refusal_listeners.remove, callback)

    def succeeded(self, *, part: str = "", kind: str = "", wakes: bool = False) -> None:
        """Record an answer that shows that the endpoint works.

        A refusal ends with a success of the kind of request that was refused: one list may always
        be refused while another is always accepted. While other kinds are still refused, the end of
        one wakes the waiters, and the refusal continues.

        Args:
            part: The only part of the endpoint that it concerns; "" = the endpoint as a whole.
            kind: The kind of request, as passed to `refused`; "" = all kinds.
            wakes: Callers were blocked without an outage: they are woken as after one.
        """
        if part and self.is_open:
            return
        self._failures = 0
        self._end_suspicion()
        self._refuses = False
        self._heard = True
        is_accepted = not kind or kind in self._refused_kinds
        self._refused_kinds = self._refused_kinds - {kind} if kind else set()
        was_refused = self._refused_at is not None
        is_over = self._down_at is not None or (was_refused and not self._refused_kinds)
        if not is_over and not (was_refused and is_accepted) and not wakes:
            return
        if not self._refused_kinds:
            self._refused_at = None
            self._refused.clear()
        self._close()
        if is_over:
            self._report_condition()
        for callback in tuple(self._listeners):
            callback()

    def refused(self, error: RemoteError, *, kind: str = "") -> None:
        """Record that the endpoint answers and refuses us, until a person changes something.

        This ends an outage, and wakes no waiter: the next success of the same kind does.

        Args:
            kind: The kind of request; "" where the endpoint has only one kind.
        """
        self._refused_kinds.add(kind)
        self._failures = 0
        self._end_suspicion()
        self._heard = True
        self._record_error(error)
        is_new = self._refused_at is None
        if is_new:
            self._refused_at = self._clock.monotonic()
        self._refused.set()
        self._close()
        if is_new:
            self._report_condition()

    def failed(self, error: RemoteError, *, part: str = "") -> None:
        """Record that the endpoint was unreachable or failed; `THRESHOLD` in a row open the
        breaker.

        Args:
            part: The only part of the endpoint that the request concerned, if an answer or a time
                limit ended it; "" = the endpoint as a whole. Where all of these failures concern
                parts, the endpoint only becomes suspect; the next failure that concerns the whole,
                as a rule that of a probe, opens the breaker.
        """
        self._failures += 1
        self._heard = True
        if self._down_at is not None and part:
            return
        self._record_error(error)
        if self._down_at is None and self._failures >= THRESHOLD:
            if part:
                self._suspect = True
                self._probe_due.set()
                return
            self._suspect = False
            self._refused_at = None
            self._refused_kinds.clear()
            self._refused.clear()
            self._down_at = self._clock.monotonic()
            self._outages += 1
            self._up.clear()
            self._probe_due.set()
            self._report_condition()

    def _report_condition(self) -> None:
        for callback in self._condition_listeners:
            callback(self.stats())

    def _close(self) -> None:
        self._down_at = None
        self._probe_due.clear()
        self._up.set()

    def _end_suspicion(self) -> None:
        if self._suspect:
            self._suspect = False
            self._probe_due.clear()

    async def wait_closed(self) -> None:
        """Return once the endpoint is up, at once where it is."""
        await self._up.wait()

    async def probe_while_down(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Run until cancelled: while down or suspect, call `probe` every `PROBE_S` at most.

        Its success closes the breaker, or ends the suspicion without waking a caller. Its failure
        while suspect opens the breaker, because the probe itself calls `failed`.

        An error that is not transient closes the breaker as a success does, except a 403: an API
        server that has just started refuses all requests, and one that does not serve the probe's
        path to us answers every probe so.

        Cancel: nothing is left behind; the state stays as it was.
        """
        while True:
            await self._probe_due.wait()
            await asyncio.sleep(PROBE_S * self._random.uniform(0.5, 1.0))
            if not (self.is_open or self._suspect):
                continue
            try:
                await probe()
            except RemoteError as error:
                if error.transient or isinstance(error, Forbidden):
                    self._record_error(error)
                    self._record_refusal(error)
                    continue
                if self._refused_at is not None:  # the probe has called `refused` itself
                    continue
            self.succeeded()

    async def probe_while_refused(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Run until cancelled: while refused, call `probe`, which reports its result to this
        breaker.

        Args:
            probe: Sends one request; its success ends the refusal.

        Cancel: nothing is left behind.
        """
        while True:
            await self._refused.wait()
            pause_s = PROBE_S
            while self.refuses:
                await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.0))
                if self.refuses:
                    # The probe has reported its failure to the breaker.
                    with suppress(RemoteError):
                        await probe()
                        self.succeeded()
                pause_s = min(REFUSED_PROBE_S, 2 * pause_s)

    def _record_error(self, error: RemoteError) -> None:
        self._last_error = str(error)
        self._last_reason, self._last_status = error.reason, error.status

    def _record_refusal(self, error: RemoteError) -> None:
        refused, self._refuses = self._refuses, isinstance(error, Forbidden)
        if self._refuses and not refused:
            for callback in tuple(self._refusal_listeners):
                callback()

    def stats(self) -> BreakerStats:
        return BreakerStats(
            self.name,
            self.is_open,
            self._since_s(self._down_at),
            self._outages,
            self._last_error,
            self._refused_at is not None,
            self._since_s(self._refused_at),
            self._heard,
            self._last_reason,
            self._last_status,
            self._failures,
        )

    def _since_s(self, at: Instant | None) -> float:
        return 0.0 if at is None else self._clock.monotonic() - at

    def __repr__(self) -> str:
        return f"<Breaker {self.name} {'down' if self.is_open else 'up'}>"
