"""The issuer and the platform of a simulated world, with the interfaces that the product calls."""

import asyncio
import base64
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import NamedTuple

import msgspec

from reconciler.clock import EPOCH, NEVER, Clock, EpochTime, Instant
from reconciler.errors import IssuerRefused, IssuerUnavailable, PlatformUnavailable
from reconciler.lab.simulation.commit_checks import EndpointBudgetChecker
from reconciler.lab.simulation.obstacles import OtherNode
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.adaptive_limit import RequestKind
from reconciler.platform.api import OnPage
from reconciler.platform.limiter import Limiter
from reconciler.platform.models import RUNNING, PlatformProject, PlatformSession, T, namespace_of
from reconciler.platform.pagination import ListResult, ignore_page
from reconciler.tokens.token_response import TokenResponse

PLATFORM_PARALLEL = 8
"""Most requests of one process that the platform gets at the same time."""

TIMEOUT_S = 5.0
"""Time limit of a token request, as in the product."""

_HEADER = base64.urlsafe_b64encode(b'{"alg":"none","kid":"simulation"}').decode().rstrip("=")
STATIC_MARK = "static-sim"
"""Prefix of every static token; nine letters are twelve in base64."""

MARKS: tuple[str, ...] = (
    f"{_HEADER}.", base64.b64encode(_HEADER.encode()).decode()[: len(_HEADER)],
    STATIC_MARK, base64.b64encode(STATIC_MARK[:9].encode()).decode(),
)  # fmt: skip
"""Texts in every token, plain and in base64 as in a Secret's `data`."""


ExpiresIn = Callable[[float], float | None]
"""The remaining life of a token, seconds -> the `expires_in` of the answer."""


class VirtualIssuer:
    """Issues unsigned tokens by its own clock, and knows the expiry of each.

    Validators use the issuer's clock, as the platform does.

    Attributes that may be set at any time: `unreachable`, `refusing`, `slow_s`, `ttl_s`, `corrupt`,
    `expires_in` (the answer's value for a remaining life), `behind_s` (how old the token is that
    every second answer has), `other_node`, those of the arguments, and `step_s`, the sum of the
    steps of its clock.

    Args:
        sends_date: Whether its answers have a Date header, which is `date_off_s` ahead.
        cached_s: Seconds for which it answers with the same token.
    """

    def __init__(
        self,
        clock: Clock,
        random: Random,
        *,
        ttl_s: float,
        sends_date: bool = True,
        date_off_s: float = 0.0,
        cached_s: float = 0.0,
    ) -> None:
        self.ttl_s = ttl_s
        self.unreachable = False
        self.refusing = False
        self.slow_s = 0.0
        self.issued_total = 0
        self.step_s = 0.0
        self.corrupt = False
        self.expires_in: ExpiresIn = math.floor
        self.behind_s = 0.0
        self.other_node: OtherNode | None = None
        self.sends_date = sends_date
        self.date_off_s = date_off_s
        self.cached_s = cached_s
        self._clock = clock
        self._random = random
        self._cached = ""
        self._lives: dict[str, tuple[EpochTime, EpochTime]] = {}

    @property
    def is_failing(self) -> bool:
        """Whether no client gets a token."""
        return self.unreachable or self.refusing or self.corrupt or self.slow_s >= TIMEOUT_S

    @property
    def oldest_s(self) -> float:
        """The most that a token is old when it comes."""
        return max(self.cached_s, self.behind_s)

    @property
    def shortest_life_s(self) -> float:
        """The shorter of the lives of the token that it returned last, and of the next one."""
        return min(self.life_s(self._cached), self.ttl_s)

    def now_s(self) -> EpochTime:
        """Return the time of the issuer and of every validator, epoch seconds."""
        return self._clock.wall() + self.step_s

    def issue(self, *, remaining_s: float | None = None) -> str:
        """Return a new token, or one of an earlier time that expires in `remaining_s`."""
        aged_s = 0.0 if remaining_s is None else self.ttl_s - remaining_s
        issued_s = math.floor(self.now_s() - aged_s)
        expires_s = issued_s + math.floor(self.ttl_s)
        claims = {"iat": issued_s, "exp": expires_s, "jti": f"{self._random.getrandbits(64):016x}"}
        payload = base64.urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
        token = f"{_HEADER}.{payload}.{self._random.getrandbits(64):016x}"
        self._lives[token] = EpochTime(issued_s), EpochTime(expires_s)
        return token

    def issue_cached(self) -> str:
        """Return the token in the issuer's cache, or a new one."""
        known = self._lives.get(self._cached)
        if known is None or not 0.0 <= self.now_s() - known[0] < self.cached_s:
            self._cached = self.issue()
        return self._cached

    def expiry_s(self, token: str) -> EpochTime | None:
        """Return a token's `exp`, or None for one that was never issued."""
        return self._lives[token][1] if token in self._lives else None

    def remaining_s(self, token: str) -> float:
        """Return a token's remaining life by its validators' clock; -inf for an unknown one."""
        expires_s = self.expiry_s(token)
        return -math.inf if expires_s is None else expires_s - self.now_s()

    def life_s(self, token: str) -> float:
        """Return the life of a token, or of the next token if this one is unknown."""
        issued_s, expires_s = self._lives.get(token, (EPOCH, EPOCH + self.ttl_s))
        return expires_s - issued_s

    async def ask(self, clock: Clock) -> TokenResponse:
        """Answer a token request as the product's endpoint does, with the client's clock."""
        sent_at = clock.monotonic()
        await asyncio.sleep(self._random.uniform(0.02, 0.2))
        if self.unreachable:
            await asyncio.sleep(self._random.choice((0.0, TIMEOUT_S)))
            raise IssuerUnavailable("token request: no answer", reason="timeout")
        if self.refusing:
            raise IssuerRefused("token request: refused", status=401, reason="invalid_client")
        if self.slow_s:
            await asyncio.sleep(min(self.slow_s, TIMEOUT_S))
            if self.slow_s >= TIMEOUT_S:
                raise IssuerUnavailable("token request: no answer", reason="timeout")
        self.issued_total += 1
        off_s = self._node_off_s()
        token = self._answer(off_s)
        date_s = EpochTime(math.floor(self.now_s() + self.date_off_s + off_s))
        return TokenResponse(
            token[: len(token) // 2] if self.corrupt else token,
            sent_at=sent_at,
            received_at=clock.monotonic(),
            expires_in_s=None if self.corrupt else self.expires_in(self.remaining_s(token) - off_s),
            date_s=date_s if self.sends_date else None,
        )

    def _node_off_s(self) -> float:
        """Return how far the clock of the node that answers now is off."""
        node = self.other_node
        if node is None:
            return 0.0
        if node.stays_s:
            is_other = (self.now_s() - EPOCH) % (2 * node.stays_s) >= node.stays_s
        else:
            is_other = self._random.random() < 0.5
        return node.off_s if is_other else 0.0

    def _answer(self, off_s: float) -> str:
        if off_s:
            return self.issue(remaining_s=self.ttl_s + off_s)
        if self.behind_s and self.issued_total % 2:
            return self.issue(remaining_s=self.ttl_s - self.behind_s)
        return self.issue_cached()


class StaticTokens:
    """Tokens that an operator writes into a file; each replica's file changes after a delay.

    A token has no end until the next one replaces it; then it is valid for `grace_s` more.
    """

    def __init__(self, clock: Clock, random: Random, *, grace_s: float) -> None:
        self._clock = clock
        self._random = random
        self._grace_s = grace_s
        self._put: list[tuple[Instant, str]] = []
        self.rotate()

    def rotate(self) -> None:
        """Write another token into the files."""
        token = f"{STATIC_MARK}-{self._random.getrandbits(64):016x}"
        self._put.append((self._clock.monotonic(), token))

    def read(self, lag_s: float = 0.0) -> str:
        """Return the token in a file that changes `lag_s` late."""
        now_at = self._clock.monotonic()
        return next(
            (token for at, token in reversed(self._put) if at + lag_s <= now_at), self._put[0][1]
        )

    def age_s(self, lag_s: float) -> float:
        """Return the time since the last change of such a file; infinite for the first token."""
        now_at = self._clock.monotonic()
        for at, _ in reversed(self._put[1:]):
            if at + lag_s <= now_at:
                return now_at - at - lag_s
        return math.inf

    def remaining_s(self, token: str) -> float:
        """Return a token's remaining life; infinite for the newest, -inf for an unknown one."""
        after = False
        ended_at: Instant = NEVER
        for at, known in reversed(self._put):
            if known == token:
                return ended_at - self._clock.monotonic() if after else math.inf
            after, ended_at = True, at + self._grace_s
        return -math.inf


class PlatformAnswer(NamedTuple):
    """An answer about sessions: to which process, and to a request with which project ("": none).

    Args:
        session_id: The session that was looked up; None for a list.
        found: IDs of the sessions in the answer.
    """

    process: str
    project: str
    session_id: str | None
    found: frozenset[str]


@dataclass
class FakePlatformState:
    """The platform's sessions, and its present faults."""

    projects: tuple[str, ...]
    running: dict[str, PlatformSession] = field(default_factory=dict)
    known: dict[str, PlatformSession] = field(default_factory=dict)
    deleted: dict[str, PlatformSession] = field(default_factory=dict)
    unreachable: bool = False
    empty: bool = False
    failing: frozenset[str] = frozenset()
    slow_s: float = 0.0
    lost: float = 0.0
    """Part of the sessions that each list lacks."""
    forgets_once: bool = False
    """Whether the first look-up of each session finds nothing."""
    forgotten: set[str] = field(default_factory=set)
    on_answer: list[Callable[["PlatformAnswer"], None]] = field(default_factory=list)
    """Called with each answer."""
    on_failure: list[Callable[[str, str], None]] = field(default_factory=list)
    """Called with the process whose request got no answer, and the request's project or ""."""

    def start(self, session_id: str, project: str) -> None:
        session = PlatformSession(
            id=session_id, project_id=project, phase=RUNNING, kube_namespace=project.lower()
        )
        self.running[session_id] = self.known[session_id] = session

    def stop(self, session_id: str) -> None:
        self.running.pop(session_id, None)

    def forget(self, session_id: str) -> None:
        """Delete a session."""
        self.stop(session_id)
        if (session := self.known.pop(session_id, None)) is not None:
            self.deleted[session_id] = session

    def is_deleted(self, key: SessionKey) -> bool:
        """Return whether the platform has deleted this session."""
        return key.session_id in self.deleted

    def has(self, key: SessionKey, project: str) -> bool:
        """Return whether the platform has this session, in this namespace and project."""
        session = self.known.get(key.session_id)
        if session is None or session.project_id != project:
            return False
        return session.kube_namespace == key.namespace


class VirtualPlatform:
    """One client of the platform.

    Args:
        confirmed: Takes the sessions in the platform's answers, with their projects.
    """

    def __init__(
        self,
        state: FakePlatformState,
        breaker: CircuitBreaker,
        rand: Callable[[float, float], float],
        *,
        clock: Clock,
        process: str,
        budget: EndpointBudgetChecker,
        confirmed: dict[SessionKey, str],
    ) -> None:
        self.breaker = breaker
        self._confirmed = confirmed
        self._state = state
        self._rand = rand
        self._process = process
        self._limiter = Limiter(clock, most=PLATFORM_PARALLEL)
        self._budget = budget

    @property
    def allowed(self) -> int:
        """See `reconciler.platform.api.Platform`."""
        return self._limiter.limit.allowed

    async def list_projects(self) -> ListResult[PlatformProject]:
        """See the Protocol."""
        await self._reach("")
        return _listing([PlatformProject(id=name) for name in self._state.projects])

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        """See the Protocol."""
        await self._reach(project or "")
        if self._state.empty:
            return _listing([])
        found = [
            session
            for session in self._state.running.values()
            if project is None or session.project_id == project
        ]
        if self._state.lost:
            found = [session for session in found if self._rand(0.0, 1.0) >= self._state.lost]
        self._answered(project or "", None, found)
        on_page(named := [self._named(session) for session in found])
        return _listing(named)

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        """See the Protocol."""
        self._budget.looked_up(self._process, session_id)
        await self._reach(project or "", RequestKind.SINGLE)
        session = self._state.known.get(session_id)
        if self._state.forgets_once and session_id not in self._state.forgotten:
            self._state.forgotten.add(session_id)
            session = None
        self._answered(project or "", session_id, [] if session is None else [session])
        return None if session is None else self._named(session)

    async def probe(self) -> None:
        """See the Protocol."""
        await self._reach("", RequestKind.SINGLE)

    async def _reach(self, project: str, kind: RequestKind = RequestKind.LIST) -> None:
        async with self._limiter.turn(kind):
            with self._budget.in_flight(self._process, "platform", PLATFORM_PARALLEL):
                await asyncio.sleep(self._rand(0.005, 0.05) + self._state.slow_s)
            if self._state.unreachable or project in self._state.failing:
                error = PlatformUnavailable("the platform answered 503", status=503)
                self.breaker.failed(error, part=project)
                for hook in self._state.on_failure:
                    hook(self._process, project)
                raise error
        self.breaker.succeeded(part=project)

    def _answered(self, project: str, session_id: str | None, found: list[PlatformSession]) -> None:
        names = frozenset(session.id for session in found)
        for hook in self._state.on_answer:
            hook(PlatformAnswer(self._process, project, session_id, names))

    def _named(self, session: PlatformSession) -> PlatformSession:
        key = SessionKey(namespace_of(session, "standard"), session.id)
        self._confirmed[key] = session.project_id
        return session


def _listing(items: list[T]) -> ListResult[T]:
    return ListResult(items, 0, 1, 0, complete=True, error=None)
