"""The platform's REST over HTTP: a limit on every await, every failure one of our errors."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import quote, urlencode

import aiohttp
from pydantic import BaseModel
from yarl import URL

from reconciler import __version__
from reconciler.clock import Clock
from reconciler.errors import (
    InvalidToken,
    IssuerUnavailable,
    PlatformAnswerTooLarge,
    PlatformError,
    PlatformRefused,
    PlatformUnavailable,
    ProtocolError,
)
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.net.client_pool import Requests
from reconciler.net.client_session import describe_error, kind_of
from reconciler.platform.adaptive_limit import RequestKind
from reconciler.platform.errors import ErrorAnswer, error_code, error_of, parse_retry_after
from reconciler.platform.limiter import Limiter
from reconciler.platform.models import (
    RUNNING,
    PlatformPage,
    PlatformProject,
    PlatformSession,
    T,
    decode,
)
from reconciler.platform.pagination import SIZE, ListResult, PageQuery, read
from reconciler.telemetry.trace import span, traceparent

LIMIT_S = 10.0
"""Longest wait for one answer; the server's own write time-out is 30 s, and nobody waits here for
an answer that takes so long."""

PAGE_BYTES = 4 * 1024 * 1024
"""Most bytes of one answer. A page of 100 sessions is 0.2 MB as a rule; their prompts have no
limit, our memory has one: of a page that is larger a smaller one is asked for. All requests
together hold this many for each that the platform's limit lets through, and `MAX_BODY_BYTES` once.
"""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Most bytes of one session, which no smaller page splits; one such answer is read at a time."""

PARALLEL = 8
"""Requests at one time: its server has 50 connections to its database, and takes two a request."""

BASE_PATH = "/api/ambient/v1"
NO_PROJECT = "_"
"""Sent as the project where none is meant; the SDK always sends one, the projects list ignores it.
"""
RUNNING_SEARCH = f"phase = '{RUNNING}'"

_PROJECT = re.compile(r"[a-zA-Z0-9_-]{1,63}")
_SESSION = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,252}")

Bearer = Callable[[bool], Awaitable[str]]
"""Gives the token to ask with; called with True where the last one was refused."""

PROJECTS, SESSIONS, SESSION = "projects", "sessions", "session"
"""Kinds of request, each of which the platform may refuse alone."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class PageLimits:
    """Rows of one page, bytes of one page, and bytes of one session that no smaller page splits."""

    rows: int = SIZE
    page_bytes: int = PAGE_BYTES
    max_body_bytes: int = MAX_BODY_BYTES


DEFAULT_LIMITS = PageLimits()


class PlatformClient:
    """Reads projects and sessions. Every failure is a `RemoteError` without a token in it.

    Args:
        session: Connections; its owner closes it.
        base_url: `https://host:8000`, without the API's path.
        limit_s: Longest wait for a token, and for an answer, in seconds. A request's turn comes
            before: how long that takes depends on how slow the platform is.
        parallel: Requests of all kinds at one time, at most.
    """

    def __init__(
        self,
        session: Requests,
        base_url: str,
        bearer: Bearer,
        clock: Clock,
        breaker: CircuitBreaker,
        *,
        limit_s: float = LIMIT_S,
        parallel: int = PARALLEL,
        page_limits: PageLimits = DEFAULT_LIMITS,
    ) -> None:
        self._session = session
        self._base_url = base_url.rstrip("/") + BASE_PATH
        self._bearer = bearer
        self._clock = clock
        self.breaker = breaker
        self._limit_s = limit_s
        self._turns = Limiter(clock, most=parallel)
        self._page_size = page_limits.rows
        self._page_bytes = min(page_limits.page_bytes, page_limits.max_body_bytes)
        self._max_body_bytes = page_limits.max_body_bytes
        self._fitting_size = page_limits.rows
        self._large = asyncio.Lock()
        self._refused_session: tuple[str, str | None] | None = None
        """Session and project of the single look-up that was refused last."""

    @property
    def allowed(self) -> int:
        """Requests that may be under way at one time now; fewer while the platform is slow."""
        return self._turns.limit.allowed

    async def projects(self) -> list[str]:
        """Return the IDs of all projects; raises if any page failed."""
        return [project.id for project in _whole(await self.list_projects())]

    async def running_sessions(self, project: str | None) -> list[PlatformSession]:
        """Return a project's running sessions (None: every project's); raises as `projects`."""
        return _whole(await self.list_running(project))

    async def list_projects(self) -> ListResult[PlatformProject]:
        """Read the projects; a page that fails after the first leaves a partial listing."""

        async def fetch(query: PageQuery) -> PlatformPage[PlatformProject]:
            what = f"list projects, page {query.page}"
            answer = await self._page("/projects", query, NO_PROJECT, what)
            return self._decode(
                PlatformPage[PlatformProject],
                answer,
                what,
                PROJECTS,
                keyset=query.keyset,
                is_of_project=False,
            )

        return await read(fetch, size=self._page_size)

    async def list_running(self, project: str | None) -> ListResult[PlatformSession]:
        """Read a project's running sessions, or without a project header those of all projects.

        Raises:
            RemoteError: Nothing could be read. A project that no header can carry is not asked for.
        """
        whose = "all projects" if project is None else f"project {project[:63]!r}"
        if project is not None:
            _check(_PROJECT, project, whose)

        async def fetch(query: PageQuery) -> PlatformPage[PlatformSession]:
            what = f"list sessions of {whose}, page {query.page}"
            answer = await self._page("/sessions", query, project, what)
            page = self._decode(
                PlatformPage[PlatformSession],
                answer,
                what,
                SESSIONS,
                keyset=query.keyset,
                is_of_project=project is not None,
                part=_part(project),
            )
            self._learn(query.size, len(answer.body), len(page.items))
            return page

        return await read(fetch, RUNNING_SEARCH, size=self._fitting_size)

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        """Return one session, or None where the platform itself says that there is none.

        Args:
            project: Sent as the header; None sends none.
        """
        what = f"get session {session_id[:80]!r}"
        _check(_SESSION, session_id, what)
        if project is not None:
            _check(_PROJECT, project, f"project {project[:63]!r}")
        path = f"/sessions/{quote(session_id, safe='')}"
        answer = await self._ask_for_one(path, {}, project, what, RequestKind.SINGLE)
        if answer.status in (401, 403):
            self._refused_session = session_id, project
        if answer.status == 404 and error_code(answer.body) is not None:
            self.breaker.succeeded(part=_part(project), kind=SESSION)
            return None
        session = self._decode(PlatformSession, answer, what, SESSION, part=_part(project))
        if session.id != session_id:
            raise PlatformError(f"{what}: the platform answered about another session", status=200)
        return session

    async def probe(self) -> None:
        """Return if the sessions list answers at all, and what was refused before is given.

        Raises:
            RemoteError: It does not, or is not.
        """
        refused = self.breaker.refused_kinds
        if PROJECTS in refused:
            what = "probe of projects"
            answer = await self._page("/projects", PageQuery("", size=1), NO_PROJECT, what)
            self._decode(PlatformPage[PlatformProject], answer, what, PROJECTS, is_of_project=False)
        if SESSION in refused and (again := self._refused_session) is not None:
            await self.session(*again)
        answer = await self._ask_for_one(
            "/sessions",
            {"page": 1, "search": RUNNING_SEARCH, "size": 1},
            None,
            "probe",
            RequestKind.SINGLE,
        )
        self._decode(PlatformPage[PlatformSession], answer, "probe", SESSIONS, is_of_project=False)

    async def _page(
        self, path: str, query: PageQuery, project: str | None, what: str
    ) -> ErrorAnswer:
        params: dict[str, str | int] = {
            "orderBy": "id", "page": query.page, "size": query.size,
        }  # fmt: skip
        if query.search:
            params["search"] = query.search
        if query.size == 1:
            return await self._ask_for_one(path, params, project, what, RequestKind.LIST)
        return await self._ask(path, params, project, what, RequestKind.LIST)

    def _learn(self, size: int, body_bytes: int, rows: int) -> None:
        """Begin the next list with pages that are likely to fit, small or whole again."""
        if not rows:
            return
        whole_bytes = body_bytes * self._page_size // rows
        self._fitting_size = self._page_size if 2 * whole_bytes < self._page_bytes else size

    async def _ask_for_one(
        self,
        path: str,
        params: dict[str, str | int],
        project: str | None,
        what: str,
        kind: RequestKind,
    ) -> ErrorAnswer:
        """Ask for one row, however large it is; those that are large come one at a time."""
        try:
            return await self._ask(path, params, project, what, kind)
        except PlatformAnswerTooLarge:
            pass
        async with self._large:
            try:
                return await self._ask(
                    path, params, project, what, kind, most_bytes=self._max_body_bytes
                )
            except PlatformAnswerTooLarge as error:
                self.breaker.failed(error, part=_part(project))
                raise

    def _decode(
        self,
        model: type[M],
        answer: ErrorAnswer,
        what: str,
        kind: str,
        *,
        keyset: bool = False,
        is_of_project: bool = True,
        part: str = "",
    ) -> M:
        """Return the answer's content, or raise what it means; tells the breaker either way.

        Args:
            kind: `PROJECTS`, `SESSIONS` or `SESSION`: a platform may refuse one and give another.
            part: The project whose answer this is, for the breaker; "" for none alone.
        """
        error: PlatformError
        if answer.status == 200:
            try:
                content = decode(model, answer.body)
            except ProtocolError as nonsense:
                error = PlatformUnavailable(
                    f"{what}: the platform answered 200 with something else: {nonsense}",
                    status=200,
                )
            else:
                self.breaker.succeeded(part=part, kind=kind)
                return content
        else:
            error = error_of(answer, what=what, is_of_project=is_of_project)
        # A 500 in the platform's own words may mean our search: no evidence of an outage.
        if not (keyset and error.status == 500 and error_code(answer.body) is not None):
            self._tell_breaker(error, part, kind)
        raise error

    def _tell_breaker(self, error: PlatformError, part: str, kind: str) -> None:
        if isinstance(error, PlatformUnavailable):
            self.breaker.failed(error, part=part)
        elif isinstance(error, PlatformRefused):
            self.breaker.refused(error, kind=kind)
        else:
            self.breaker.succeeded(part=part, kind=kind)

    async def _ask(
        self,
        path: str,
        params: dict[str, str | int],
        project: str | None,
        what: str,
        kind: RequestKind,
        *,
        most_bytes: int | None = None,
    ) -> ErrorAnswer:
        """Send a GET; after a 401 once more with a fresh token.

        Args:
            most_bytes: Of the answer; None for those of a page.
        """
        most = most_bytes or self._page_bytes
        # The SDK's form: keys sorted, spaces as `+`. yarl would write it in another way.
        query = urlencode(sorted(params.items()))
        url = URL(self._base_url + path + (f"?{query}" if query else ""), encoded=True)
        answer = await self._send(url, project, what, kind, most, fresh=False)
        if answer.status == 401:
            answer = await self._send(url, project, what, kind, most, fresh=True)
        return answer

    async def _send(
        self, url: URL, project: str | None, what: str, kind: RequestKind, most: int, *, fresh: bool
    ) -> ErrorAnswer:
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {await self._token(what, fresh=fresh)}",
            "User-Agent": f"token-reconciler/{__version__}",
        }
        if project is not None:
            headers["X-Ambient-Project"] = project
        try:
            with span("GET", str(url)) as asked:
                answer = await self._in_turn(url, headers | traceparent(), kind, most)
                if asked is not None and answer is not None:
                    asked.status = answer.status
            if answer is not None:
                return answer
            raise PlatformAnswerTooLarge(f"{what}: more than {most} bytes")
        except TimeoutError as error:
            reason, failure = "timeout", f"no answer within {self._limit_s:g} s"
            # One project's rows may be locked. A time limit of the connection tells of no project.
            part = "" if isinstance(error, aiohttp.ClientError) else _part(project)
        except (aiohttp.ClientError, OSError) as error:
            reason, failure = kind_of(error), describe_error(error, system_trust=True)
            part = ""
        # Raised here and not while handling: an error of aiohttp may carry the request's headers,
        # and as our error's context it would reach a log.
        unavailable = PlatformUnavailable(f"{what}: {failure}", reason=reason)
        self.breaker.failed(unavailable, part=part)
        raise unavailable

    async def _in_turn(
        self, url: URL, headers: dict[str, str], kind: RequestKind, most: int
    ) -> ErrorAnswer | None:
        async with self._turns.turn(kind) as turn:
            answer = await self._exchange(url, headers, most)
            turn.failed = answer is not None and (answer.status >= 500 or answer.status == 429)
            return answer

    async def _exchange(self, url: URL, headers: dict[str, str], most: int) -> ErrorAnswer | None:
        """Return the answer, or None where it is larger than we are willing to hold."""
        async with (
            asyncio.timeout(self._limit_s),
            self._session.request("GET", url, headers=headers, allow_redirects=False) as response,
        ):
            body = await self._read(response, most)
            if body is None:
                return None
            after = response.headers.get("Retry-After")
            wait_s = parse_retry_after(after, now_s=self._clock.wall())
            return ErrorAnswer(response.status, body, wait_s)

    async def _token(self, what: str, *, fresh: bool) -> str:
        try:
            async with asyncio.timeout(self._limit_s):
                token = await self._bearer(fresh)
        except TimeoutError:
            token = ""
        if not token:
            raise IssuerUnavailable(f"{what}: no token to ask with")
        if not (token.isascii() and token.isprintable()):
            raise InvalidToken(f"{what}: no header can carry the token", reason="malformed")
        return token

    async def _read(self, response: aiohttp.ClientResponse, most: int) -> bytes | None:
        """Return the body, or None where it is larger than we are willing to hold."""
        chunks: list[bytes] = []
        length = 0
        async for chunk in response.content.iter_any():
            chunks.append(chunk)
            length += len(chunk)
            if length > most:
                response.close()
                return None
        return b"".join(chunks)


def _part(project: str | None) -> str:
    """Return the project that a request names, as the part of the platform that it concerns."""
    return "" if project in (None, NO_PROJECT) else project


def _check(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise PlatformError(f"{what}: not asked for, this ID cannot be sent", reason="invalid_id")


def _whole(listing: ListResult[T]) -> list[T]:
    if listing.error is not None:
        raise listing.error
    return listing.items
