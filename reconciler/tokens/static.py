"""The static token from the settings: no issuer, no standby token, and a file that may change."""

import asyncio
import math
from collections.abc import Callable

import structlog

from reconciler.clock import LONG_AGO, NEVER, Clock, EpochTime, Instant
from reconciler.errors import IssuerError, SettingsError
from reconciler.tokens.claims import invalid_token, read_claims
from reconciler.tokens.source import OnBetter, OnReplaced, TokenStats
from reconciler.tokens.token import Token

log = structlog.get_logger()

RELOAD_S = 5.0
"""Time between two reads of the file: a kubelet takes ten times as long to update it, and a read
costs 30 us. It is read each time, since equal times and sizes do not prove equal content."""

TICK_S = 0.002
"""`token-refreshed-at` is in milliseconds: a write in the same millisecond as the replacement would
look older than it."""


class StaticSource:
    """A token from the settings; it has no expiry unless it is a JWT with one.

    Args:
        read: Returns the present value; raises `SettingsError` if there is none.
        since_s: When the value was put there, epoch seconds; -inf if that is unknown.
    Raises:
        SettingsError: There is no value.
        InvalidToken: The value is `malformed` or `huge`.
    """

    rotated_s: EpochTime = LONG_AGO

    def __init__(
        self, read: Callable[[], str], clock: Clock, *, since_s: EpochTime = LONG_AGO
    ) -> None:
        self._read = read
        self._clock = clock
        self._token = _parse(read(), clock)
        self._next: Token | None = None
        self._last_error = ""
        self.generation = 0
        self._replaced_s = min(since_s, clock.wall())
        self._replaced_at = clock.monotonic()
        self._replaced_listeners: list[OnReplaced] = []

    def on_better(self, callback: OnBetter) -> None:
        """Ignore it: those who wait hear of each new token through `on_replaced`."""

    def on_replaced(self, callback: OnReplaced) -> None:
        """Call `callback` with each token that replaces another."""
        self._replaced_listeners.append(callback)

    def observe_fleet(self, first_expiry_at: Instant | None) -> None:
        """Ignore it: no request is sent, and none has to pause."""

    @property
    def longest_ttl_s(self) -> float:
        ttl_s = self._token.ttl_s
        return ttl_s if math.isinf(ttl_s) else math.ceil(ttl_s)

    @property
    def replaced_s(self) -> EpochTime:
        """When the present token replaced another, by the present reading of the wall clock.

        After a step back of the wall clock, later writes would look older than the token and would
        be repeated again and again; so the monotonic clock gives the time since.
        """
        ago_s = self._clock.monotonic() - self._replaced_at
        return min(self._replaced_s, self._clock.wall() - ago_s)

    async def get(self, *, min_remaining: float, since_at: Instant = LONG_AGO) -> Token:
        """Return the token, even with little lifetime left: there is no better one."""
        best = self.best()
        if best is None:
            raise _expired()
        return best

    def best_available(self, *, min_remaining: float, since_at: Instant = LONG_AGO) -> Token | None:
        return self.best()

    def best(self) -> Token | None:
        return self._token if self._token.remaining_s(self._clock.monotonic()) > 0 else None

    async def refresh(self) -> Token:
        return await self.get(min_remaining=0.0)

    async def close(self) -> None:
        """Do nothing: no request is in flight."""

    def stats(self) -> TokenStats:
        remaining_s = self._token.remaining_s(self._clock.monotonic())
        left_s = remaining_s if remaining_s > 0 else None
        ttl_s = self._token.ttl_s
        issued = self.generation + 1
        return TokenStats(issued, self._last_error, left_s, self.longest_ttl_s, ttl_s)

    async def watch_file(self) -> None:
        """Reload the file until cancelled, and report each new token.

        Cancel: the present token is complete; it may not have been reported.
        """
        while True:
            await asyncio.sleep(RELOAD_S)
            if self.reload_once():
                await asyncio.sleep(TICK_S)
                for callback in self._replaced_listeners:
                    await callback(self._token)

    def reload_once(self) -> bool:
        """Read once; return True if another token has replaced the present one.

        A value counts if two consecutive reads find it: half a token is a token, too, and a file
        that is written in place contains one for a moment. An unusable value changes nothing, and
        is logged once.
        """
        try:
            other = self._read_other()
        except (SettingsError, IssuerError) as error:
            self._next = None
            if not self._last_error:
                log.warning("static_token_reload_failed", reason=str(error))
            self._last_error = str(error)
            return False
        self._last_error = ""
        before, self._next = self._next, other
        if other is None or before is None or before.reveal() != other.reveal():
            return False
        self._replace(other)
        return True

    def _read_other(self) -> Token | None:
        """Return the file's token, None if it is the present one; raises if it is unusable."""
        value = self._read()
        if value == self._token.reveal():
            return None
        found = _parse(value, self._clock)
        if found.remaining_s(self._clock.monotonic()) <= 0:
            raise _expired()
        return found

    def _replace(self, token: Token) -> None:
        self._token, self._next = token, None
        self.generation += 1
        self._replaced_s, self._replaced_at = self._clock.wall(), self._clock.monotonic()
        log.info("static_token_replaced", expires_at=token.expires_text)

    def __repr__(self) -> str:
        return f"<StaticSource {self._token!r}>"


def _parse(value: str, clock: Clock) -> Token:
    """Parse a value; raises `InvalidToken` if it is `malformed` or `huge`."""
    claims, now_s = read_claims(value), clock.wall()
    if claims.warning:
        log.warning("token_odd", reason=claims.warning)
    # It exists, so it was issued: with an `iat` ahead of our clock, our clock is behind.
    issued_s = now_s if claims.issued_s is None else min(claims.issued_s, now_s)
    return Token(
        value,
        issued_s=issued_s,
        expires_s=NEVER if claims.expires_s is None else claims.expires_s,
        received_at=clock.monotonic(),
        age_at_receipt_s=max(0.0, now_s - issued_s),
        signing_key=claims.signing_key,
        warning=claims.warning,
    )


def _expired() -> IssuerError:
    return invalid_token("expired", "it comes from the settings; put a new one there")
