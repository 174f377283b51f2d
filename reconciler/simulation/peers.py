"""The issuer and the platform of a simulated world, each behind the seam that the product has."""

import asyncio
import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import msgspec

from reconciler.breaker import Breaker
from reconciler.clock import Clock
from reconciler.errors import IssuerRefused, IssuerUnavailable, PlatformUnavailable
from reconciler.names import SessionKey
from reconciler.platform.models import RUNNING, Project, Session, T
from reconciler.platform.namespaces import namespace_of
from reconciler.platform.pages import Listing
from reconciler.tokens.grant import Grant

LIMIT_S = 5.0
"""Longest wait of a mint, as the product's own endpoint has it."""

_HEADER = base64.urlsafe_b64encode(b'{"alg":"none","kid":"simulation"}').decode().rstrip("=")
MARKS = (f"{_HEADER}.", base64.b64encode(_HEADER.encode()).decode()[: len(_HEADER)])
"""What every token holds, as it is and as a Secret's `data` has it."""


class VirtualIssuer:
    """Mints tokens that nobody signs, on the world's clock; knows the end of each.

    Attributes may be set at any time: `away`, `refusing`, `slow_s`, `ttl_s`.
    """

    def __init__(self, clock: Clock, random: Random, *, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.away = False
        self.refusing = False
        self.slow_s = 0.0
        self.minted_total = 0
        self._clock = clock
        self._random = random
        self._ends: dict[str, float] = {}

    def mint(self, *, remaining_s: float | None = None) -> str:
        """Return a new token, or one that was handed out a while ago and has so much left."""
        now_s = self._clock.wall()
        aged_s = 0.0 if remaining_s is None else self.ttl_s - remaining_s
        issued_s = math.floor(now_s - aged_s)
        expires_s = issued_s + math.floor(self.ttl_s)
        claims = {"iat": issued_s, "exp": expires_s, "jti": f"{self._random.getrandbits(64):016x}"}
        payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
        token = f"{_HEADER}.{payload}.{self._random.getrandbits(64):016x}"
        self._ends[token] = float(expires_s)
        return token

    def expiry_s(self, token: str) -> float | None:
        """Return when a token ends, or None for one that was never issued."""
        return self._ends.get(token)

    async def ask(self) -> Grant:
        """Answer a token request as `TokenEndpoint.ask` does."""
        sent_at = self._clock.monotonic()
        await asyncio.sleep(self._random.uniform(0.02, 0.2))
        if self.away:
            await asyncio.sleep(self._random.choice((0.0, LIMIT_S)))
            raise IssuerUnavailable("token request: no answer", reason="timeout")
        if self.refusing:
            raise IssuerRefused("token request: refused", status=401, reason="invalid_client")
        if self.slow_s:
            await asyncio.sleep(min(self.slow_s, LIMIT_S))
            if self.slow_s >= LIMIT_S:
                raise IssuerUnavailable("token request: no answer", reason="timeout")
        self.minted_total += 1
        return Grant(
            self.mint(),
            sent_at=sent_at,
            received_at=self._clock.monotonic(),
            expires_in_s=math.floor(self.ttl_s),
            date_s=float(math.floor(self._clock.wall())),
        )


@dataclass
class Estate:
    """What the platform knows, and what is wrong with it now."""

    projects: tuple[str, ...]
    running: dict[str, Session] = field(default_factory=dict)
    known: dict[str, Session] = field(default_factory=dict)
    away: bool = False
    empty: bool = False
    failing: frozenset[str] = frozenset()

    def start(self, session_id: str, project: str) -> None:
        session = Session(
            id=session_id, project_id=project, phase=RUNNING, kube_namespace=project.lower()
        )
        self.running[session_id] = self.known[session_id] = session

    def stop(self, session_id: str) -> None:
        self.running.pop(session_id, None)


class VirtualPlatform:
    """One client of the platform; remembers what was confirmed to it."""

    def __init__(
        self, estate: Estate, breaker: Breaker, draw: Callable[[float, float], float]
    ) -> None:
        self.breaker = breaker
        self.confirmed: dict[SessionKey, str] = {}
        """Sessions that an answer named, with their projects."""
        self._estate = estate
        self._draw = draw

    async def list_projects(self) -> Listing[Project]:
        """See `reconciler.platform.api.Platform`."""
        await self._reach("")
        return _listing([Project(id=name) for name in self._estate.projects])

    async def list_running(self, project: str | None) -> Listing[Session]:
        """See the Protocol."""
        await self._reach(project or "")
        if self._estate.empty:
            return _listing([])
        found = [
            session
            for session in self._estate.running.values()
            if project is None or session.project_id == project
        ]
        return _listing([self._named(session) for session in found])

    async def session(self, session_id: str, project: str | None) -> Session | None:
        """See the Protocol."""
        await self._reach(project or "")
        session = self._estate.known.get(session_id)
        return None if session is None else self._named(session)

    async def probe(self) -> None:
        """See the Protocol."""
        await self._reach("")

    async def _reach(self, project: str) -> None:
        await asyncio.sleep(self._draw(0.005, 0.05))
        if self._estate.away or project in self._estate.failing:
            error = PlatformUnavailable("the platform answered 503", status=503)
            self.breaker.failed(error)
            raise error
        self.breaker.succeeded()

    def _named(self, session: Session) -> Session:
        key = SessionKey(namespace_of(session, "standard"), session.id)
        self.confirmed[key] = session.project_id
        return session


def _listing(items: list[T]) -> Listing[T]:
    return Listing(items, 0, 1, 0, settled=True, error=None)
