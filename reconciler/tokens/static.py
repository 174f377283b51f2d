"""The token that the settings hold: no issuer, no spare, and a file that may hold another one."""

import asyncio
import math
from collections.abc import Awaitable, Callable

import structlog

from reconciler.clock import Clock, format_utc
from reconciler.errors import IssuerError, SettingsError
from reconciler.tokens.claims import invalid_token, read_claims
from reconciler.tokens.source import FleetLife, OnBetter, TokenStats
from reconciler.tokens.token import Token

log = structlog.get_logger()

LOOK_S = 5.0
"""Between looks at the file: a kubelet takes ten times as long to bring it, and a look costs 30 us.
It is read each time, since neither times nor sizes tell for certain that it is the same."""

TICK_S = 0.002
"""`token-refreshed-at` has milliseconds: what is written within the one in which the token was
replaced looks as if it had been written before."""


class StaticSource:
    """A token from the settings: nobody is asked, and no expiry unless it is a JWT with one.

    Args:
        read: Gives the value of this moment; raises `SettingsError` where there is none.
        since_s: When the value was put there, epoch seconds; -inf where it is as old as all else.
    Raises:
        SettingsError: There is no value.
        InvalidToken: The value is `malformed` or `huge`.
    """

    rotated_s = -math.inf

    def __init__(
        self, read: Callable[[], str], clock: Clock, *, since_s: float = -math.inf
    ) -> None:
        self._read = read
        self._clock = clock
        self._token = _token_of(read(), clock)
        self._next: Token | None = None
        self._why_kept = ""
        self.generation = 0
        self._replaced_s = min(since_s, clock.wall())
        self._replaced_at = clock.monotonic()
        self.fleet_life_s: FleetLife = lambda: None
        self.on_better: OnBetter = lambda: None
        """Never called: `on_replaced` plans each session again, whichever token ends later."""
        self.on_replaced: Callable[[Token], Awaitable[None]] | None = None
        """Told of each token that takes the place of another."""

    @property
    def longest_ttl_s(self) -> float:
        ttl_s = self._token.ttl_s
        return ttl_s if math.isinf(ttl_s) else math.ceil(ttl_s)

    @property
    def replaced_s(self) -> float:
        """When the token at hand took another's place, by today's reading of the wall clock.

        Where that was stepped back, what was written since would look older than the token, and
        would be written again and again: the monotonic clock then tells how long ago it was.
        """
        ago_s = self._clock.monotonic() - self._replaced_at
        return min(self._replaced_s, self._clock.wall() - ago_s)

    async def get(self, *, min_remaining: float, since_at: float = -math.inf) -> Token:
        """Return the token whatever is left of it: there will be no better one."""
        best = self.best()
        if best is None:
            raise _expired()
        return best

    def best_available(self, *, min_remaining: float) -> Token | None:
        return self.best()

    def best(self) -> Token | None:
        return self._token if self._token.remaining_s(self._clock.monotonic()) > 0 else None

    async def refresh(self) -> Token:
        return await self.get(min_remaining=0.0)

    def stats(self) -> TokenStats:
        remaining_s = self._token.remaining_s(self._clock.monotonic())
        left_s = remaining_s if remaining_s > 0 else None
        ttl_s = self._token.ttl_s
        return TokenStats(
            0, self.generation + 1, 0, self._why_kept, 0.0, left_s, self.longest_ttl_s, ttl_s
        )

    async def watch_file(self) -> None:
        """Run for ever: take the value that the file holds by now, and tell of it.

        Cancel: the token at hand is a whole one; somebody may not have been told of it.
        """
        while True:
            await asyncio.sleep(LOOK_S)
            if self.reload_once() and self.on_replaced is not None:
                await asyncio.sleep(TICK_S)
                await self.on_replaced(self._token)

    def reload_once(self) -> bool:
        """Read once; return True if another token has taken the place of the one at hand.

        A value counts when two looks in a row have found it: half a token is a token as well, and
        a file that somebody writes in place holds one for a moment. What cannot be used changes
        nothing, and is said once.
        """
        try:
            found = self._other()
        except (SettingsError, IssuerError) as error:
            self._next = None
            if not self._why_kept:
                log.warning("static_token_reload_failed", reason=str(error))
            self._why_kept = str(error)
            return False
        self._why_kept = ""
        before, self._next = self._next, found
        if found is None or before is None or before.reveal() != found.reveal():
            return False
        self._take(found)
        return True

    def _other(self) -> Token | None:
        """Return what the file holds, None for the token at hand; raises for what is of no use."""
        value = self._read()
        if value == self._token.reveal():
            return None
        found = _token_of(value, self._clock)
        if found.remaining_s(self._clock.monotonic()) <= 0:
            raise _expired()
        return found

    def _take(self, token: Token) -> None:
        self._token, self._next = token, None
        self.generation += 1
        self._replaced_s, self._replaced_at = self._clock.wall(), self._clock.monotonic()
        endless = math.isinf(token.expires_s)
        log.info(
            "static_token_replaced", expires_at=None if endless else format_utc(token.expires_s)
        )

    def __repr__(self) -> str:
        return f"<StaticSource {self._token!r}>"


def _token_of(value: str, clock: Clock) -> Token:
    """Judge a value; raises `InvalidToken` if it is `malformed` or `huge`."""
    claims, now_s = read_claims(value), clock.wall()
    if claims.warning:
        log.warning("token_odd", reason=claims.warning)
    # We have it, so it was issued: an `iat` ahead of our clock says that our clock is behind.
    issued_s = now_s if claims.issued_s is None else min(claims.issued_s, now_s)
    return Token(
        value,
        issued_s=issued_s,
        expires_s=math.inf if claims.expires_s is None else claims.expires_s,
        received_at=clock.monotonic(),
        age_at_receipt_s=max(0.0, now_s - issued_s),
    )


def _expired() -> IssuerError:
    return invalid_token("expired", "it comes from the settings; put a new one there")
