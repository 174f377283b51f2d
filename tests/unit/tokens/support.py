"""A fake issuer without a network, on virtual time, and a source that uses it."""

import asyncio
import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from reconciler.clock import Clock, EpochTime, Instant
from reconciler.errors import IssuerError, SettingsError
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource
from reconciler.tokens.token_response import TokenResponse

OLD, NEW = "obviously-fake-static-token-1", "obviously-fake-static-token-2"


def jwt(**claims: object) -> str:
    """Return an unsigned JWT with these claims."""
    return jwt_of(msgspec.json.encode(claims))


def jwt_of(payload: bytes, *, header: bytes = b'{"alg":"RS256"}') -> str:
    """Return an unsigned JWT around any payload."""
    return ".".join(_part(part) for part in (header, payload, b"signature"))


def _part(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@dataclass
class FakeIssuer:
    """Issues tokens by the given clock; `fault` is raised instead while it is set.

    Args:
        ttl_s: Life of the tokens.
        takes_s: How long each request takes.
        age_s: Age of a token when it arrives, as `expires_in` shows.
        skew_s: The issuer's clock less our wall clock.
    """

    clock: Clock
    ttl_s: float = 900.0
    takes_s: float = 0.0
    age_s: float = 0.0
    skew_s: float = 0.0
    fault: Callable[[], IssuerError] | None = None
    asked_at: list[Instant] = field(default_factory=list)

    async def ask(self) -> TokenResponse:
        sent_at = self.clock.monotonic()
        self.asked_at.append(sent_at)
        await asyncio.sleep(self.takes_s)
        if self.fault is not None:
            raise self.fault()
        date_s = float(int(self.clock.wall() + self.skew_s))
        issued_s = date_s - self.age_s
        return TokenResponse(
            jwt(iat=issued_s, exp=issued_s + self.ttl_s, jti=len(self.asked_at)),
            sent_at=sent_at,
            received_at=self.clock.monotonic(),
            expires_in_s=self.ttl_s - self.age_s,
            date_s=EpochTime(date_s),
        )


@dataclass
class StaticFile:
    """The static token that the next reload reads; an error is raised."""

    holds: str | SettingsError = OLD

    def read(self) -> str:
        if isinstance(self.holds, SettingsError):
            raise self.holds
        return self.holds


@dataclass
class SourceBench:
    """A token source and everything that it needs."""

    clock: Clock
    issuer: FakeIssuer
    issuer_time: IssuerTime
    breaker: CircuitBreaker
    source: OidcSource

    @classmethod
    def open(cls, clock: Clock, **issuer: float) -> "SourceBench":
        fake = FakeIssuer(clock, **issuer)  # type: ignore[arg-type]  # numbers by name
        issuer_time = IssuerTime(clock)
        breaker = CircuitBreaker("issuer", clock, Random(1))
        source = OidcSource(
            fake.ask, clock=clock, issuer_time=issuer_time, breaker=breaker, random=Random(2)
        )
        return cls(clock, fake, issuer_time, breaker, source)
