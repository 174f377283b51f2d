"""One shared view of whether an endpoint is there, and one shared probe while it is not."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Literal

from reconciler.clock import Clock
from reconciler.errors import Forbidden, RemoteError

Condition = Literal["ok", "down", "refused"]
"""`down`: it does not answer, or fails; `refused`: it answers, and does not accept who we are."""

PROBE_S = 2.0
"""Longest wait between probes: an outage's end must be noticed in seconds, not at the end of the
back-off that thousands of callers would otherwise each run."""

REFUSED_PROBE_S = 30.0
"""Longest wait between probes of an endpoint that refuses us, whose end a person has to bring
about: the first comes after `PROBE_S`, each next one after twice as long."""

THRESHOLD = 3
"""Failures without a success between them that count as an outage; one reset is none."""


@dataclass(frozen=True, slots=True)
class BreakerStats:
    """`down_for_s` is 0.0 while the endpoint is up; `outages_total` counts up to down.

    `refuses`: it answers, and gives us nothing; `refused_for_s` is since when, 0.0 while it does.
    `heard`: it has been asked since the start, and that has ended in some way.
    `last_reason`, `last_status`: of `last_error`, the peer's own code ("" = none) and the HTTP
    status (0 = no answer). `failures` counts those without a success after them: too few may have
    come for it to count as down.
    """

    name: str
    down: bool
    down_for_s: float
    outages_total: int
    last_error: str
    refuses: bool = False
    refused_for_s: float = 0.0
    heard: bool = True
    last_reason: str = ""
    last_status: int = 0
    failures: int = 0

    @property
    def condition(self) -> Condition:
        return "down" if self.down else "refused" if self.refuses else "ok"


class CircuitBreaker:
    """Counts an endpoint's failures; while it is down callers wait here instead of asking it.

    Any success, a probe's or a caller's, closes it at once and wakes all who wait; so does the
    first one after a refusal, which is no outage.

    A result may concern one part of the endpoint only, such as a project of the platform. Such
    failures open nothing, however many parts fail: they make the endpoint suspect, and the probe
    decides, which concerns no part. Such a success ends no outage. So what opens the breaker is
    what keeps it open, and one part that fails cannot open it between two probes.
    """

    def __init__(self, name: str, clock: Clock, random: Random) -> None:
        self.name = name
        self._clock = clock
        self._random = random
        self._failures = 0
        self._down_at: float | None = None
        self._refused_at: float | None = None
        self._outages = 0
        self._last_error = ""
        self._last_reason = ""
        self._last_status = 0
        self._up = asyncio.Event()
        self._up.set()
        self._probe_due = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._refusal_listeners: list[Callable[[], None]] = []
        self._refuses = False
        self._refused_kinds: set[str] = set()
        self._heard = False
        self._suspect = False
        self._refused = asyncio.Event()
        self.on_condition: Callable[[BreakerStats], None] = lambda stats: None
        """Called, on the loop, with what it is from now on: once for each change of condition, and
        before those are woken who waited for it."""

    @property
    def is_open(self) -> bool:
        return self._down_at is not None

    @property
    def is_suspect(self) -> bool:
        """Whether parts of it fail, and a probe has yet to tell whether all of it does."""
        return self._suspect

    @property
    def refuses(self) -> bool:
        """Whether it answers, and did not accept who we are when it was asked last."""
        return self._refused_at is not None

    @property
    def refused_kinds(self) -> frozenset[str]:
        """The kinds of request that were refused, and not accepted since; "" for all of them."""
        return frozenset(self._refused_kinds)

    @property
    def last_error(self) -> str:
        return self._last_error

    def on_recovery(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, on the loop, each time the endpoint comes back.

        Returns: What ends it; to be called once.
        """
        self._listeners.append(callback)
        return partial(self._listeners.remove, callback)

    def on_refusal(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Have `callback` called, on the loop, when probes begin to be answered 403.

        Then the endpoint is there again, and only a request tells whether it is of use.

        Returns: What ends it; to be called once.
        """
        self._refusal_listeners.append(callback)
        return partial(self._refusal_listeners.remove, callback)

    def succeeded(self, *, part: str = "", kind: str = "", wakes: bool = False) -> None:
        """Record an answer of any kind that shows the endpoint alive.

        A refusal ends by a success of the kind of request that was refused: one list may be
        refused for good while another is given each time. While some kinds are still refused,
        the end of one wakes those who wait, and the refusal goes on.

        Args:
            part: The only part of the endpoint that it concerns; "" for the endpoint as a whole.
            kind: Of request, as `refused` was given it; "" for all kinds.
            wakes: Callers were held back without an outage: they are woken as by the end of one.
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
        self._come_up()
        if is_over:
            self.on_condition(self.stats())
        for callback in tuple(self._listeners):
            callback()

    def refused(self, error: RemoteError, *, kind: str = "") -> None:
        """Record that the endpoint is there and gives us nothing until somebody changes something.

        That ends an outage, and wakes nobody: the next success of the same kind does.

        Args:
            kind: Of request; "" where the endpoint has one kind alone.
        """
        self._refused_kinds.add(kind)
        self._failures = 0
        self._end_suspicion()
        self._heard = True
        self._note_error(error)
        is_news = self._refused_at is None
        if is_news:
            self._refused_at = self._clock.monotonic()
        self._refused.set()
        self._come_up()
        if is_news:
            self.on_condition(self.stats())

    def failed(self, error: RemoteError, *, part: str = "") -> None:
        """Record that the endpoint was away or failing; `THRESHOLD` in a row open the breaker.

        Args:
            part: The only part of the endpoint that the request concerned, if an answer or a time
                limit ended it; "" for the endpoint as a whole. Where all of these failures
                concern parts, the endpoint is suspect and nothing more; the next one that
                concerns the whole, a probe's as a rule, opens the breaker.
        """
        self._failures += 1
        self._heard = True
        if self._down_at is not None and part:
            return
        self._note_error(error)
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
            self.on_condition(self.stats())

    def _come_up(self) -> None:
        self._down_at = None
        self._probe_due.clear()
        self._up.set()

    def _end_suspicion(self) -> None:
        if self._suspect:
            self._suspect = False
            self._probe_due.clear()

    async def wait_closed(self) -> None:
        """Return at once while the endpoint is up, else when it is back."""
        await self._up.wait()

    async def probe_while_down(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Run for ever: while down or suspect, ask `probe` every `PROBE_S` at most.

        Its success closes the breaker, or ends suspicion and wakes no caller. A failure of it
        while suspect opens the breaker, by the probe's own call of `failed`.

        So does an error that will not pass by itself, but for a 403: an API server that has just
        started refuses everybody everything, and one that hides its page never tells more.

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
                    self._note_error(error)
                    self._note_refusal(error)
                    continue
                if self._refused_at is not None:  # the probe has said so itself
                    continue
            self.succeeded()

    async def probe_while_refused(self, probe: Callable[[], Awaitable[object]]) -> None:
        """Run for ever: while refused, ask `probe`, which tells this breaker what it has heard.

        Args:
            probe: Asks once; its success ends the refusal.

        Cancel: nothing is left behind.
        """
        while True:
            await self._refused.wait()
            pause_s = PROBE_S
            while self.refuses:
                await asyncio.sleep(pause_s * self._random.uniform(0.5, 1.0))
                if self.refuses:
                    # What failed was told to the breaker, and is what everybody sees.
                    with suppress(RemoteError):
                        await probe()
                        self.succeeded()
                pause_s = min(REFUSED_PROBE_S, 2 * pause_s)

    def _note_error(self, error: RemoteError) -> None:
        self._last_error = str(error)
        self._last_reason, self._last_status = error.reason, error.status

    def _note_refusal(self, error: RemoteError) -> None:
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

    def _since_s(self, at: float | None) -> float:
        return 0.0 if at is None else self._clock.monotonic() - at

    def __repr__(self) -> str:
        return f"<Breaker {self.name} {'down' if self.is_open else 'up'}>"
