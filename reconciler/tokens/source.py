"""Where everybody gets a token: one request in flight, one spare at hand, one view of outages."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, NoReturn, Protocol, TypeVar

import structlog

from reconciler.clock import Clock
from reconciler.errors import IssuerError, IssuerUnavailable
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.tokens.claims import invalid_token, key_id, read_claims
from reconciler.tokens.cooldown import Cooldown
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.server_clock import PROOF
from reconciler.tokens.signing_keys import SigningKeys
from reconciler.tokens.token import Token
from reconciler.tokens.token_response import TokenResponse, to_token, token_times

T = TypeVar("T")


class FlightClosed(Exception):
    """The run was stopped from outside while somebody waited for it."""


class SingleFlight(Generic[T]):
    """Runs a coroutine function at most once at a time and gives its result to all who wait.

    Args:
        run: Must end by itself within a time limit; an error that the waiters should see is best
            returned, since one raised object collects a traceback from each of them.
    """

    def __init__(self, run: Callable[[], Coroutine[Any, Any, T]]) -> None:
        self._run = run
        self._task: asyncio.Task[T] | None = None

    @property
    def in_flight(self) -> bool:
        return self._task is not None and not self._task.done()

    async def join(self) -> T:
        """Wait for the run in flight, or start one.

        Cancel: only this caller stops waiting; the run goes on for the others and for the cache.
        Raises:
            FlightClosed: The run was stopped meanwhile.
        """
        task = self._task
        if task is None or task.done():
            task = self._task = asyncio.create_task(self._run(), name="single_flight")
        await asyncio.wait((task,))
        if task.cancelled():
            raise FlightClosed
        return task.result()

    async def close(self) -> None:
        """Stop the run in flight and wait until it is gone."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,))


log = structlog.get_logger()

STANDBY_FRACTION = 0.1
"""A new spare is minted at this age, as a fraction of its life: with the issuer away every Secret
can be lifted to an expiry of at least 0.9 of a life from the outage's start."""

FRESH_FRACTION = 0.02
"""A token that arrived this short a time ago, as a fraction of its life, is the answer to another
question for one: an issuer that hands out half-used tokens is not asked ten thousand times for the
same one when a fleet starts."""

SANE_TTL_S = 86_400.0
"""Longest life that is believed of others' annotations by itself; a longer one only while a token
that lives so long is at hand. Until the first token is seen, it is all we can say."""

SHORTEST_CYCLE_S = 1.0
"""Spares are minted no more often, whatever their life, and failed mints are repeated no sooner
than half of this on average."""

AGAIN_S = 1.1
"""Between requests that settle a contradiction: each token has an `iat` of another second."""

LONGEST_SLEEP_S = 2.0
"""A suspended machine wakes up to a dead spare, and a caller may be refused while none is due: both
must be noticed in seconds."""


@dataclass(frozen=True, slots=True)
class TokenStats:
    """Counts since the start; `best_remaining_s` is None without a token at hand, `resting_s` is
    what is left of the pause after a refusal or a Retry-After, `latest_ttl_s` the whole life of the
    token that came last, dead or alive, None before the first. `without_s` is for how long none has
    come, since the start before the first, 0.0 where none is asked for."""

    requests_total: int
    issued_total: int
    failures_total: int
    last_error: str
    cooldown_s: float
    best_remaining_s: float | None
    longest_ttl_s: float
    latest_ttl_s: float | None = None
    without_s: float = 0.0


FleetLife = Callable[[], float | None]
"""Gives the shortest life left of the tokens in use, seconds, negative since its end; or None."""

OnBetter = Callable[[], None]
"""Called on the loop when a token is there that ends later than each valid one before it."""


class TokenSource(Protocol):
    """Gives tokens to the workers; the implementations never put one into an error or a log.

    `fleet_life_s` is to be set by whoever knows the tokens in use: it bounds pauses. `on_better` is
    to be set by what wakes the sessions that wait for a better token.
    """

    fleet_life_s: FleetLife
    on_better: OnBetter

    @property
    def longest_ttl_s(self) -> float:
        """Longest life, in whole seconds, that an expiry somebody else wrote may claim."""
        ...

    @property
    def replaced_s(self) -> float:
        """When somebody put the token at hand in the place of another, epoch seconds.

        What was written before may be the other; -inf where no token is ever taken back.
        """
        ...

    @property
    def generation(self) -> int:
        """How often a token has taken the place of another since the start of this process.

        It orders the tokens where a clock that was set would not; 0 where none is ever taken back.
        """
        ...

    @property
    def rotated_s(self) -> float:
        """When the first token under the issuer's present signing key was issued.

        Epoch seconds, issuer's time. What was issued before is under a key that may be refused by
        now; -inf where no key was replaced since the start.
        """
        ...

    async def get(self, *, min_remaining: float, since_at: float = -math.inf) -> Token:
        """Return a token with enough life, asking the issuer if there is none at hand.

        Args:
            min_remaining: Least life left, as a fraction (0..1) of the token's own. One that was
                minted for this call, or a moment ago, is returned even if it has less.
            since_at: The issuer is asked, whatever is at hand, if its last token came before this
                instant of our monotonic clock.
        Raises:
            IssuerError: There was no usable answer, or it is known that there would be none. What
                is at hand stays there, see `best`.
        Cancel: the request goes on for the others who wait.
        """
        ...

    def best(self) -> Token | None:
        """Return the longest-living token at hand, None if all are dead; never asks."""
        ...

    def best_available(self, *, min_remaining: float) -> Token | None:
        """Return what `get` would without asking, None where it would ask or fail."""
        ...

    async def refresh(self) -> Token:
        """Mint now, or join the request in flight, and return the best token at hand after it.

        Raises:
            IssuerError: As in `get`.
        """
        ...

    def stats(self) -> TokenStats: ...


class OidcSource:
    """One token for the whole fleet, from an issuer that may be away.

    Args:
        ask: The one request, `TokenEndpoint.ask`; must end within its own time limit.
        issuer_time: Told of each answer; it weighs what the answer says of time.
        breaker: Opened by outages and unusable tokens; while it is down only `refresh` asks.
        refresh_on_key_rotation: Whether a new signing key makes the tokens under older ones due.
    """

    replaced_s = -math.inf
    generation = 0

    def __init__(
        self,
        ask: Callable[[], Awaitable[TokenResponse]],
        *,
        clock: Clock,
        issuer_time: IssuerTime,
        breaker: CircuitBreaker,
        random: Random,
        refresh_on_key_rotation: bool = True,
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._issuer_time = issuer_time
        self._breaker = breaker
        self._random = random
        self._rest = Cooldown(clock, random)
        self._flight = SingleFlight(self._request)
        self._newest: Token | None = None
        self._received_at = clock.monotonic()
        self._best: Token | None = None
        self._longest_ttl_s = 0.0
        self._requests = 0
        self._issued = 0
        self._failures = 0
        self._last_error = ""
        self._oddities: set[str] = set()
        self._heeds_keys = refresh_on_key_rotation
        self._keys = SigningKeys()
        self._rotated = asyncio.Event()
        self.on_replaced: Callable[[Token], Awaitable[None]] | None = None
        """Told of the first token under a signing key that took another's place."""
        self.fleet_life_s: FleetLife = lambda: None
        self.on_better: OnBetter = lambda: None

    @property
    def rotated_s(self) -> float:
        return self._keys.rotated_s if self._heeds_keys else -math.inf

    @property
    def longest_ttl_s(self) -> float:
        """Longest life seen, up to `SANE_TTL_S` or that of the best token at hand.

        Rounded up, because annotations hold whole seconds.
        """
        best = self.best()
        if not self._longest_ttl_s:
            return SANE_TTL_S
        sane_s = min(self._longest_ttl_s, SANE_TTL_S)
        return math.ceil(sane_s if best is None else max(best.ttl_s, sane_s))

    async def get(self, *, min_remaining: float, since_at: float = -math.inf) -> Token:
        token = self.best_available(min_remaining=min_remaining, since_at=since_at)
        if token is not None:
            return token
        if self._breaker.is_open:
            last = self._breaker.stats().last_error
            raise IssuerUnavailable(f"the issuer is down, the last error was: {last}")
        return await self.refresh()

    def best_available(self, *, min_remaining: float, since_at: float = -math.inf) -> Token | None:
        best = self.best()
        return best if best is not None and self._serves(min_remaining, since_at) else None

    def best(self) -> Token | None:
        if self._best is None or self._best.remaining_s(self._clock.monotonic()) <= 0:
            return None
        return self._best

    async def refresh(self) -> Token:
        if self._rest.error is not None:
            _raise(self._rest.error)
        try:
            failure = await self._flight.join()
        except FlightClosed:
            raise IssuerUnavailable("the token source was closed", reason="closed") from None
        if failure is not None:
            _raise(failure)
        best = self.best()
        if best is None:
            raise invalid_token("expired", "it died before anybody could use it")
        return best

    async def keep_standby(self) -> None:
        """Run for ever: keep a young token at hand, and look whether a lost issuer is back.

        Cancel: a request in flight is left to `close`; tokens at hand stay.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._request_standby(), name="mint_spares")
            group.create_task(self._breaker.probe_while_down(self.refresh), name="probe_issuer")
            group.create_task(self._tell_rotations(), name="tell_rotations")

    async def close(self) -> None:
        """Stop the request in flight; those who wait for it get an error."""
        await self._flight.close()

    def stats(self) -> TokenStats:
        best = self.best()
        return TokenStats(
            requests_total=self._requests,
            issued_total=self._issued,
            failures_total=self._failures,
            last_error=self._last_error,
            cooldown_s=self._rest.remaining_s(),
            best_remaining_s=best.remaining_s(self._clock.monotonic()) if best else None,
            longest_ttl_s=self.longest_ttl_s,
            latest_ttl_s=self._newest.ttl_s if self._newest is not None else None,
            without_s=self._clock.monotonic() - self._received_at,
        )

    def __repr__(self) -> str:
        return f"<OidcSource best={self.best()}, {self._requests} requests>"

    def _serves(self, min_remaining: float, since_at: float) -> bool:
        """Tell whether asking again could bring nothing better than what is at hand.

        The newest token decides, not the best: while the issuer gives short lives, a long-lived
        one from before must not send every caller to it.
        """
        now_at, newest = self._clock.monotonic(), self._newest
        if newest is None or newest.remaining_s(now_at) <= 0 or newest.received_at < since_at:
            return False
        if now_at - newest.received_at <= FRESH_FRACTION * newest.ttl_s:
            return True
        return newest.remaining_s(now_at) >= min_remaining * newest.ttl_s

    async def _request(self) -> IssuerError | None:
        """Ask once; the error is returned, not raised, since many may wait for it."""
        try:
            grant, now_s = await self._ask_for_certain()
            token = to_token(grant, now_s=now_s)
        except IssuerError as error:
            self._failed(error)
            return error
        self._keep(token)
        self._note_oddity(grant.value)
        return None

    def _note_oddity(self, value: str) -> None:
        """Say once of each kind that tokens are odd: a validator may be stricter than we are."""
        oddity = read_claims(value, lenient=True).warning
        if oddity and oddity not in self._oddities:
            self._oddities.add(oddity)
            log.warning("token_odd", reason=oddity)

    async def _ask_for_certain(self) -> tuple[TokenResponse, float]:
        """Return an answer and the issuer's time at its receipt, epoch seconds.

        A token that contradicts what earlier ones proved is not given to anybody before two more
        have told a stepped clock from a cache and from one wrong node of the issuer.
        """
        for _ in range(PROOF - 1):
            grant, now_s = await self._ask_once()
            if not self._issuer_time.wants_another:
                return grant, now_s
            await asyncio.sleep(AGAIN_S)
        grant, now_s = await self._ask_once()
        if self._issuer_time.wants_another:
            now_s = self._issuer_time.give_in(token_times(grant))
        return grant, now_s

    async def _ask_once(self) -> tuple[TokenResponse, float]:
        self._requests += 1
        grant = await self._ask()
        return grant, self._issuer_time.observe(token_times(grant), grant.date_s)

    def _keep(self, token: Token) -> None:
        now_at, before = self._clock.monotonic(), self.best()
        self._newest, self._received_at = token, now_at
        rotated = self._keys.observe(key_id(token.reveal()), token.issued_s)
        if rotated:
            log.warning("signing_key_rotated", refreshes=self._heeds_keys)
            self._rotated.set()
        # Compared on our clock: after a step of the issuer's, expiries are not comparable. However
        # long a token under the old key would live, it may be refused by now.
        if (
            self._best is None
            or (rotated and self._heeds_keys)
            or token.remaining_s(now_at) >= self._best.remaining_s(now_at)
        ):
            self._best = token
        self._longest_ttl_s = max(self._longest_ttl_s, token.ttl_s)
        self._issued += 1
        self._breaker.succeeded(wakes=self._rest.reset())
        if before is None or token.expires_s > before.expires_s:
            self.on_better()

    def _failed(self, error: IssuerError) -> None:
        self._failures += 1
        self._last_error = str(error)
        best, lives_s = self._best, []
        if best is not None:
            lives_s.append(best.remaining_s(self._clock.monotonic()))
        if (fleet_s := self.fleet_life_s()) is not None:
            lives_s.append(fleet_s)
        if error.transient:
            self._rest.after_throttling(error, remaining_lives_s=lives_s)
            self._breaker.failed(error)
        else:
            self._rest.after_refusal(error, remaining_lives_s=lives_s)
            self._breaker.refused(error)

    async def _request_standby(self) -> None:
        """Mint in time for the spare, and at the end of each pause, which may end a refusal."""
        while True:
            wait_s = max(self._standby_due_in_s(), self._rest.remaining_s())
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, LONGEST_SLEEP_S))
                continue
            if self._breaker.is_open:
                await self._breaker.wait_closed()  # the probe mints
                continue
            try:
                await self.refresh()
            except IssuerError:  # counted and kept in `stats`
                if self._rest.remaining_s() <= 0:
                    await asyncio.sleep(SHORTEST_CYCLE_S * self._random.uniform(0.5, 1.0))

    async def _tell_rotations(self) -> None:
        while True:
            await self._rotated.wait()
            self._rotated.clear()
            if self._heeds_keys and self.on_replaced is not None and self._newest is not None:
                await self.on_replaced(self._newest)

    def _standby_due_in_s(self) -> float:
        if self._newest is None or self._rest.is_pending:
            return 0.0
        newest = self._newest
        # A cache that gives each token until its end has another one from that instant on.
        left_s = newest.remaining_s(newest.received_at)
        cycle_s = max(SHORTEST_CYCLE_S, min(STANDBY_FRACTION * newest.ttl_s, left_s))
        return newest.received_at + cycle_s - self._clock.monotonic()


def _raise(error: IssuerError) -> NoReturn:
    """Raise an equal error: each waiter gets its own, or one object collects all tracebacks."""
    raise type(error)(
        str(error), status=error.status, reason=error.reason, retry_after_s=error.retry_after_s
    )
