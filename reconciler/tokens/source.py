"""Token sources: one request in flight, one standby token, one state of outages."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from random import Random
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import msgspec
import structlog

from reconciler.clock import LONG_AGO, Clock, EpochTime, Instant
from reconciler.errors import IssuerError, IssuerUnavailable
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.tokens.claims import invalid_token
from reconciler.tokens.cooldown import Cooldown
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.server_clock import PROOF
from reconciler.tokens.signing_keys import SigningKeys
from reconciler.tokens.token import Token
from reconciler.tokens.token_response import TokenResponse, to_token

T = TypeVar("T")


class FlightClosed(Exception):
    """The run was stopped while callers waited for it."""


class SingleFlight(Generic[T]):
    """Runs a coroutine function at most once at a time and gives its result to all who wait.

    Args:
        run: Must end within a time limit. Return an error for the waiters rather than raise it,
            since one raised object collects a traceback from each of them.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._run = run
        self._task: asyncio.Task[T] | None = None

    @property
    def in_flight(self) -> bool:
        return self._task is not None and not self._task.done()

    async def join(self) -> T:
        """Wait for the run in flight, or start one.

        Cancel: only this caller stops waiting; the run continues for the others and for the cache.
        Raises:
            FlightClosed: The run was stopped.
        """
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.create_task(self._run(), name="single_flight")
        await asyncio.wait((task,))
        if task.cancelled():
            raise FlightClosed
        return task.result()

    async def close(self) -> None:
        """Stop the run in flight and wait for its end."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))


log = structlog.get_logger()

STANDBY_FRACTION = 0.1
"""A new standby token is requested at this age, as a fraction of its lifetime: while the issuer is
unreachable every Secret can get an expiry at least 0.9 of a lifetime after the outage's start."""

FRESH_FRACTION = 0.02
"""A token that arrived this short a time ago, as a fraction of its lifetime, also answers another
request: an issuer that returns half-used tokens does not get ten thousand requests for the same one
when a fleet starts."""

MAX_TRUSTED_TTL_S = 86_400.0
"""Longest lifetime that annotations of others may claim; a longer one only while a token with such
a lifetime is present. It applies until the first token is received."""

MIN_CYCLE_S = 1.0
"""Standby tokens are requested no more often, for any lifetime, and failed requests are repeated no
sooner than half of this on average."""

RETRY_S = 1.1
"""Time between requests that resolve a contradiction: the next token has another second in its
`iat`."""

MAX_SLEEP_S = 2.0
"""After a suspension of the machine the standby token may have expired, and a caller may be refused
before one is due: both must be noticed in seconds."""


class TokenStats(msgspec.Struct, frozen=True):
    """The tokens issued since the start, and the present state.

    `best_remaining_s` is None without a usable token, `latest_ttl_s` the whole lifetime of the last
    token, expired or not, None before the first. `without_s` is the time without a new token, since
    the start before the first, 0.0 if none is requested.
    """

    issued_total: int
    last_error: str
    best_remaining_s: float | None
    longest_ttl_s: float
    latest_ttl_s: float | None = None
    without_s: float = 0.0


OnBetter = Callable[[], None]
"""Called on the loop when a token expires later than each valid one before it."""

OnReplaced = Callable[[Token], Awaitable[None]]
"""Called with the first token that replaces withdrawn ones: of another file, or signing key."""


class TokenSource(Protocol):
    """Provides tokens; implementations never put one into an error or a log."""

    def on_better(self, callback: OnBetter) -> None:
        """Call `callback` when sessions that wait for a better token can have one."""
        ...

    def on_replaced(self, callback: OnReplaced) -> None:
        """Call `callback` when every session is to have the new token; in order of the calls."""
        ...

    def observe_fleet(self, first_expiry_at: Instant | None) -> None:
        """Take in when the first of the tokens in use expires (monotonic); it limits pauses.

        Args:
            first_expiry_at: May be past; None: no token is in use, or none that expires.
        """
        ...

    @property
    def longest_ttl_s(self) -> float:
        """Longest lifetime, in whole seconds, that an expiry from another writer may claim."""
        ...

    @property
    def replaced_s(self) -> EpochTime:
        """When the present token replaced another, epoch seconds.

        Earlier writes may hold the other one; -inf if no token is ever withdrawn.
        """
        ...

    @property
    def generation(self) -> int:
        """How often a token has replaced another since the start of this process.

        It orders the tokens even if a clock is set; 0 if none is ever withdrawn.
        """
        ...

    @property
    def rotated_s(self) -> EpochTime:
        """When the first token under the issuer's present signing key was issued.

        Epoch seconds, issuer's time. Earlier tokens are under a key that may be rejected by now;
        -inf if no key was replaced since the start.
        """
        ...

    async def get(self, *, min_remaining: float, since_at: Instant = LONG_AGO) -> Token:
        """Return a token with enough lifetime; request one if there is none.

        Args:
            min_remaining: Least remaining lifetime, as a fraction (0..1) of the token's own. A
                token that was requested for this call, or a moment ago, is returned with less, too.
            since_at: Request a token if the last one was requested before this monotonic instant.
        Raises:
            IssuerError: There was no usable response, or none is to be expected. Present tokens
                stay, see `best`.
        Cancel: the request continues for the other waiters.
        """
        ...

    def best(self) -> Token | None:
        """Return the token that expires last, None if all have expired; sends no request."""
        ...

    def best_available(self, *, min_remaining: float, since_at: Instant = LONG_AGO) -> Token | None:
        """Return what `get` would without a request, None if it would send one or fail."""
        ...

    async def refresh(self) -> Token:
        """Request a token now, or join the request in flight; return the best token after it.

        Raises:
            IssuerError: As in `get`.
        """
        ...

    async def close(self) -> None:
        """Stop the request in flight; its waiters get an error."""
        ...

    def stats(self) -> TokenStats: ...


class OidcSource:
    """One token for the whole fleet, from an issuer that may be unreachable.

    Args:
        request: The one request, `TokenEndpoint.request_token`; must end within a time limit.
        issuer_time: Observes each response and estimates the issuer's time.
        breaker: Opened by outages and unusable tokens; while it is open only `refresh` requests.
        refresh_on_key_rotation: Whether a new signing key makes the tokens under older ones due.
    """

    replaced_s: EpochTime = LONG_AGO
    generation = 0

    def __init__(
        self,
        request: Callable[[], Awaitable[TokenResponse]],
        *,
        clock: Clock,
        issuer_time: IssuerTime,
        breaker: CircuitBreaker,
        random: Random,
        refresh_on_key_rotation: bool = True,
    ) -> None:
        self._send_request = request
        self._clock = clock
        self._issuer_time = issuer_time
        self._breaker = breaker
        self._random = random
        self._cooldown = Cooldown(clock, random)
        self._flight = SingleFlight(self._request_once)
        self._newest: Token | None = None
        self._newest_sent_at: Instant = LONG_AGO
        self._received_at = clock.monotonic()
        self._best: Token | None = None
        self._longest_ttl_s = 0.0
        self._issued = 0
        self._last_error = ""
        self._warnings: set[str] = set()
        self._refresh_on_key_rotation = refresh_on_key_rotation
        self._keys = SigningKeys()
        self._rotated = asyncio.Event()
        self._better_listeners: list[OnBetter] = []
        self._replaced_listeners: list[OnReplaced] = []
        self._first_expiry_at: Instant | None = None

    def on_better(self, callback: OnBetter) -> None:
        self._better_listeners.append(callback)

    def on_replaced(self, callback: OnReplaced) -> None:
        """Call `callback` with the first token under a signing key that replaced another."""
        self._replaced_listeners.append(callback)

    def observe_fleet(self, first_expiry_at: Instant | None) -> None:
        self._first_expiry_at = first_expiry_at

    @property
    def rotated_s(self) -> EpochTime:
        return self._keys.rotated_s if self._refresh_on_key_rotation else LONG_AGO

    @property
    def longest_ttl_s(self) -> float:
        """Longest lifetime received, up to `MAX_TRUSTED_TTL_S` or that of the best present token.

        Rounded up, because annotations are in whole seconds.
        """
        best = self.best()
        if not self._longest_ttl_s:
            return MAX_TRUSTED_TTL_S
        sane_s = min(self._longest_ttl_s, MAX_TRUSTED_TTL_S)
        return math.ceil(sane_s if best is None else max(best.ttl_s, sane_s))

    async def get(self, *, min_remaining: float, since_at: Instant = LONG_AGO) -> Token:
        token = self.best_available(min_remaining=min_remaining, since_at=since_at)
        if token is not None:
            return token
        if self._breaker.is_open:
            last = self._breaker.stats().last_error
            raise IssuerUnavailable(f"the issuer is down, the last error was: {last}")
        token = await self.refresh()
        # A request that was in flight may have brought a token from before.
        return token if self._newest_sent_at >= since_at else await self.refresh()

    def best_available(self, *, min_remaining: float, since_at: Instant = LONG_AGO) -> Token | None:
        best = self.best()
        return best if best is not None and self._serves(min_remaining, since_at) else None

    def best(self) -> Token | None:
        if self._best is None or self._best.remaining_s(self._clock.monotonic()) <= 0:
            return None
        return self._best

    async def refresh(self) -> Token:
        if self._cooldown.error is not None:
            _raise(self._cooldown.error)
        try:
            failure = await self._flight.join()
        except FlightClosed:
            raise IssuerUnavailable("the token source was closed", reason="closed") from None
        if failure is not None:
            _raise(failure)
        best = self.best()
        if best is None:
            raise invalid_token("expired", "it expired before it could be used")
        return best

    async def keep_standby(self) -> None:
        """Keep a recent standby token, and probe an unreachable issuer, until cancelled.

        Cancel: a request in flight is left to `close`; present tokens stay.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._request_standby(), name="request_standby")
            group.create_task(self._breaker.probe_while_down(self.refresh), name="probe_issuer")
            group.create_task(self._report_rotations(), name="report_rotations")

    async def close(self) -> None:
        await self._flight.close()

    def stats(self) -> TokenStats:
        best = self.best()
        return TokenStats(
            issued_total=self._issued,
            last_error=self._last_error,
            best_remaining_s=best.remaining_s(self._clock.monotonic()) if best else None,
            longest_ttl_s=self.longest_ttl_s,
            latest_ttl_s=self._newest.ttl_s if self._newest is not None else None,
            without_s=self._clock.monotonic() - self._received_at,
        )

    def __repr__(self) -> str:
        return f"<OidcSource best={self.best()}, {self._issued} tokens>"

    def _serves(self, min_remaining: float, since_at: Instant) -> bool:
        """Return whether another request could bring nothing better than the present token.

        The newest token decides, not the best: while the issuer returns short lifetimes, an earlier
        token with a long one must not cause a request of every caller.
        """
        now_at, newest = self._clock.monotonic(), self._newest
        if newest is None or newest.remaining_s(now_at) <= 0 or self._newest_sent_at < since_at:
            return False
        if now_at - newest.received_at <= FRESH_FRACTION * newest.ttl_s:
            return True
        return newest.remaining_s(now_at) >= min_remaining * newest.ttl_s

    async def _request_once(self) -> IssuerError | None:
        """Request once; the error is returned, not raised, since many may wait for it."""
        try:
            response, now_s = await self._request_certain()
            token = to_token(response, now_s=now_s)
        except IssuerError as error:
            self._record_failure(error)
            return error
        self._record_token(token, sent_at=response.sent_at)
        # Each kind is logged once: a validator may be stricter than this program.
        if token.warning and token.warning not in self._warnings:
            self._warnings.add(token.warning)
            log.warning("token_odd", reason=token.warning)
        return None

    async def _request_certain(self) -> tuple[TokenResponse, EpochTime]:
        """Return a response and the issuer's time at its receipt, epoch seconds.

        A token that contradicts what earlier ones proved is not used before two more have shown
        whether the clock was stepped, a cache answered, or one node of the issuer is wrong.
        """
        for _ in range(PROOF - 1):
            response, now_s = await self._request_response()
            if not self._issuer_time.needs_another:
                return response, now_s
            await asyncio.sleep(RETRY_S)
        response, now_s = await self._request_response()
        if self._issuer_time.needs_another:
            now_s = self._issuer_time.settle(response.times)
        return response, now_s

    async def _request_response(self) -> tuple[TokenResponse, EpochTime]:
        response = await self._send_request()
        return response, self._issuer_time.observe(response.times, response.date_s)

    def _record_token(self, token: Token, *, sent_at: Instant) -> None:
        now_at, before = self._clock.monotonic(), self.best()
        self._newest, self._newest_sent_at, self._received_at = token, sent_at, now_at
        rotated = self._keys.observe(token.signing_key, token.issued_s)
        if rotated:
            log.warning("signing_key_rotated", refreshes=self._refresh_on_key_rotation)
            self._rotated.set()
        # A token under the old key may be rejected by now, even with a long lifetime.
        if (
            self._best is None
            or (rotated and self._refresh_on_key_rotation)
            or self._certain_s(token) >= self._certain_s(self._best)
        ):
            self._best = token
        self._longest_ttl_s = max(self._longest_ttl_s, token.ttl_s)
        self._issued += 1
        self._breaker.succeeded(wakes=self._cooldown.reset())
        if before is None or token.expires_s > before.expires_s:
            for callback in self._better_listeners:
                callback()

    def _certain_s(self, token: Token) -> float:
        """Return a token's remaining lifetime by the clock that leaves it less.

        A step forward of the issuer's clock expires an earlier token that by ours outlives the next
        one; after a step back only ours is right.
        """
        by_issuer_s = token.expires_s - self._issuer_time.now_s()
        return min(by_issuer_s, token.remaining_s(self._clock.monotonic()))

    def _record_failure(self, error: IssuerError) -> None:
        self._last_error = str(error)
        best, remaining_lives_s = self._best, []
        if best is not None:
            remaining_lives_s.append(best.remaining_s(self._clock.monotonic()))
        if self._first_expiry_at is not None:
            remaining_lives_s.append(self._first_expiry_at - self._clock.monotonic())
        if error.transient:
            self._cooldown.after_throttling(error, remaining_lives_s=remaining_lives_s)
            self._breaker.failed(error)
        else:
            self._cooldown.after_refusal(error, remaining_lives_s=remaining_lives_s)
            self._breaker.refused(error)

    async def _request_standby(self) -> None:
        """Request the standby token in time, and a token at the end of each cool-down."""
        while True:
            wait_s = max(self._standby_due_in_s(), self._cooldown.remaining_s())
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, MAX_SLEEP_S))
                continue
            if self._breaker.is_open:
                await self._breaker.wait_closed()  # the probe requests a token
                continue
            try:
                await self.refresh()
            except IssuerError:  # counted and kept in `stats`
                if self._cooldown.remaining_s() <= 0:
                    await asyncio.sleep(MIN_CYCLE_S * self._random.uniform(0.5, 1.0))

    async def _report_rotations(self) -> None:
        while True:
            await self._rotated.wait()
            self._rotated.clear()
            if self._refresh_on_key_rotation and self._newest is not None:
                for callback in self._replaced_listeners:
                    await callback(self._newest)

    def _standby_due_in_s(self) -> float:
        if self._newest is None or self._cooldown.is_pending:
            return 0.0
        newest = self._newest
        # A cache that returns each token until its expiry has another one from then on.
        left_s = newest.remaining_s(newest.received_at)
        cycle_s = max(MIN_CYCLE_S, min(STANDBY_FRACTION * newest.ttl_s, left_s))
        return newest.received_at + cycle_s - self._clock.monotonic()


def _raise(error: IssuerError) -> NoReturn:
    """Raise a copy of an error, so that each waiter gets its own traceback."""
    raise type(error)(
        str(error), status=error.status, reason=error.reason, retry_after_s=error.retry_after_s
    )
