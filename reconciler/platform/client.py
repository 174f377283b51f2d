"""The client of the platform's REST API; every await has a time limit."""

import asyncio
import re
from typing import NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import aiohttp
import msgspec
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
from reconciler.net.client_session import describe_error, kind_of, read_body
from reconciler.net.http_dates import parse_retry_after
from reconciler.platform.adaptive_limit import RequestKind
from reconciler.platform.api import Bearer, OnPage
from reconciler.platform.errors import ErrorAnswer, error_code, error_of
from reconciler.platform.limiter import Limiter
from reconciler.platform.models import (
    RUNNING,
    PlatformPage,
    PlatformProject,
    PlatformSession,
    decode,
)
from reconciler.platform.pagination import SIZE, ListResult, PageQuery, ignore_page, read
from reconciler.telemetry.trace import span, traceparent

LIMIT_S = 10.0
"""Longest wait for one answer; the server's own write time-out is 30 s, which is too long for our
callers."""

PAGE_BYTES = 4 * 1024 * 1024
"""Most bytes of one answer. A page of 100 sessions has 0.2 MB as a rule, but prompts have no length
limit: instead of a larger page a smaller one is requested. All requests together hold this many
bytes for each request in progress, and `MAX_BODY_BYTES` once.
"""

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Most bytes of one session, which no smaller page splits; one such answer is read at one time."""

PARALLEL = 8
"""Requests at one time: the platform's server has 50 connections to its database, and uses two for
each request."""

BASE_PATH = "/api/ambient/v1"
NO_PROJECT = "_"
"""Sent as the project where none is meant: the SDK always sends one; the projects list ignores
it."""
RUNNING_SEARCH = f"phase = '{RUNNING}'"

_PROJECT = re.compile(r"[a-zA-Z0-9_-]{1,63}")
_SESSION = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,252}")

PROJECTS, SESSIONS, SESSION = "projects", "sessions", "session"
"""Kinds of requests; the platform may refuse one kind and accept the others."""

M = TypeVar("M")


class PageLimits(msgspec.Struct, frozen=True):
    """Rows of one page, bytes of one page, and bytes of one session that no smaller page splits."""

    rows: int = SIZE
    page_bytes: int = PAGE_BYTES
    max_body_bytes: int = MAX_BODY_BYTES


DEFAULT_LIMITS = PageLimits()


class _Get(NamedTuple):
    """A request; `project` is sent as the header (None: no header), `what` names it in errors."""

    path: str
    params: dict[str, str | int]
    project: str | None
    what: str
    kind: RequestKind

    @property
    def path_and_query(self) -> str:
        """The SDK's form: keys sorted, spaces as `+`. yarl encodes it differently."""
        query = urlencode(sorted(self.params.items()))
        return f"{self.path}?{query}" if query else self.path


class PlatformClient:
    """Reads projects and sessions. Every failure is a `RemoteError` without a token in it.

    Args:
        session: Connections; its owner closes it.
        base_url: `https://host:8000`, without the API's path.
        limit_s: Time limit for a token, and for an answer, in seconds. The wait for a turn comes
            before, and has none: it depends on how slow the platform is.
        parallel: Most requests of all kinds at one time.
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
        self._limiter = Limiter(clock, most=parallel)
        self._page_size = page_limits.rows
        self._page_bytes = min(page_limits.page_bytes, page_limits.max_body_bytes)
        self._max_body_bytes = page_limits.max_body_bytes
        self._fitting_size = page_limits.rows
        self._large = asyncio.Lock()
        self._refused_session: tuple[str, str | None] | None = None
        """Session and project of the single request that was refused last."""

    @property
    def allowed(self) -> int:
        """Requests that may be in progress at one time now; fewer while the platform is slow."""
        return self._limiter.limit.allowed

    async def list_projects(self) -> ListResult[PlatformProject]:
        """Read the projects; if a page after the first fails, the result is partial."""

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

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        """Read a project's running sessions, or (None, no project header) those of all projects.

        Args:
            on_page: See `reconciler.platform.api.Platform`.

        Raises:
            RemoteError: The first page failed. No request is sent for a project name that no header
                can carry.
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
            self._adapt_page_size(query.size, len(answer.body), len(page.items))
            return page

        return await read(fetch, RUNNING_SEARCH, size=self._fitting_size, on_page=on_page)

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        """Return one session, or None where the platform answers that it does not exist.

        Args:
            project: Sent as the header; None sends none.
        """
        what = f"get session {session_id[:80]!r}"
        _check(_SESSION, session_id, what)
        if project is not None:
            _check(_PROJECT, project, f"project {project[:63]!r}")
        path = f"/sessions/{quote(session_id, safe='')}"
        answer = await self._ask_for_one(_Get(path, {}, project, what, RequestKind.SINGLE))
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
        """Return if the sessions list answers, and the kinds that were refused are accepted.

        Raises:
            RemoteError: One of these requests failed.
        """
        refused = self.breaker.refused_kinds
        if PROJECTS in refused:
            what = "probe of projects"
            answer = await self._page("/projects", PageQuery("", size=1), NO_PROJECT, what)
            self._decode(PlatformPage[PlatformProject], answer, what, PROJECTS, is_of_project=False)
        if SESSION in refused and (again := self._refused_session) is not None:
            await self.session(*again)
        params: dict[str, str | int] = {"page": 1, "search": RUNNING_SEARCH, "size": 1}
        get = _Get("/sessions", params, None, "probe", RequestKind.SINGLE)
        answer = await self._ask_for_one(get)
        self._decode(PlatformPage[PlatformSession], answer, "probe", SESSIONS, is_of_project=False)

    async def _page(
        self, path: str, query: PageQuery, project: str | None, what: str
    ) -> ErrorAnswer:
        params: dict[str, str | int] = {
            "orderBy": "id", "page": query.page, "size": query.size,
        }  # fmt: skip
        if query.search:
            params["search"] = query.search
        get = _Get(path, params, project, what, RequestKind.LIST)
        return await (self._ask_for_one(get) if query.size == 1 else self._ask(get))

    def _adapt_page_size(self, size: int, body_bytes: int, rows: int) -> None:
        """Set the page size of the next list: the full one, or the size that fits."""
        if not rows:
            return
        whole_bytes = body_bytes * self._page_size // rows
        self._fitting_size = self._page_size if 2 * whole_bytes < self._page_bytes else size

    async def _ask_for_one(self, get: _Get) -> ErrorAnswer:
        """Request one row of any size up to `MAX_BODY_BYTES`; large rows are read one at a time."""
        try:
            return await self._ask(get)
        except PlatformAnswerTooLarge:
            pass
        async with self._large:
            try:
                return await self._ask(get, max_bytes=self._max_body_bytes)
            except PlatformAnswerTooLarge as error:
                self.breaker.failed(error, part=_part(get.project))
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
        """Return the answer's content or raise its error; report both to the breaker.

        Args:
            kind: `PROJECTS`, `SESSIONS` or `SESSION`: the platform may refuse one and accept
                others.
            part: The project that the answer concerns, for the breaker; "" = no single one.
        """
        error: PlatformError
        if answer.status == 200:
            try:
                content = decode(model, answer.body)
            except ProtocolError as unreadable:
                error = PlatformUnavailable(
                    f"{what}: the platform answered 200 with something else: {unreadable}",
                    status=200,
                )
            else:
                self.breaker.succeeded(part=part, kind=kind)
                return content
        else:
            error = error_of(answer, what=what, is_of_project=is_of_project)
        # A 500 with the platform's error JSON may be caused by our search: it shows no outage.
        if not (keyset and error.status == 500 and error_code(answer.body) is not None):
            self._report(error, part, kind)
        raise error

    def _report(self, error: PlatformError, part: str, kind: str) -> None:
        if isinstance(error, PlatformUnavailable):
            self.breaker.failed(error, part=part)
        elif isinstance(error, PlatformRefused):
            self.breaker.refused(error, kind=kind)
        else:
            self.breaker.succeeded(part=part, kind=kind)

    async def _ask(self, get: _Get, *, max_bytes: int | None = None) -> ErrorAnswer:
        """Send a GET; after a 401 once more with a fresh token.

        Args:
            max_bytes: Most bytes of the answer; None = those of a page.
        """
        max_bytes = max_bytes or self._page_bytes
        answer = await self._send(get, max_bytes, fresh=False)
        if answer.status == 401:
            answer = await self._send(get, max_bytes, fresh=True)
        return answer

    async def _send(self, get: _Get, max_bytes: int, *, fresh: bool) -> ErrorAnswer:
        url = URL(self._base_url + get.path_and_query, encoded=True)
        headers = {
            "Accept": "application/json",
            "Authorization": f"Bearer {await self._token(get.what, fresh=fresh)}",
            "User-Agent": f"token-reconciler/{__version__}",
        }
        if get.project is not None:
            headers["X-Ambient-Project"] = get.project
        with span("GET", method="GET") as request_span:
            if request_span is not None:
                request_span.url, request_span.resends = str(url), int(fresh)
            answer = await self._request(get, url, headers | traceparent(), max_bytes)
            if request_span is not None:
                request_span.status = answer.status
            return answer

    async def _request(
        self, get: _Get, url: URL, headers: dict[str, str], max_bytes: int
    ) -> ErrorAnswer:
        try:
            answer = await self._in_turn(url, headers, get.kind, max_bytes)
            if answer is not None:
                return answer
            raise PlatformAnswerTooLarge(f"{get.what}: more than {max_bytes} bytes")
        except TimeoutError as error:
            reason, failure = "timeout", f"no answer within {self._limit_s:g} s"
            # One project's rows may be locked. A connect time-out concerns no single project.
            part = "" if isinstance(error, aiohttp.ClientError) else _part(get.project)
        except (aiohttp.ClientError, OSError) as error:
            reason, failure = kind_of(error), describe_error(error, system_trust=True)
            part = ""
        # Raised after the `except` block: an error of aiohttp may hold the request's headers, and
        # as our error's context it would reach a log.
        unavailable = PlatformUnavailable(f"{get.what}: {failure}", reason=reason)
        self.breaker.failed(unavailable, part=part)
        raise unavailable

    async def _in_turn(
        self, url: URL, headers: dict[str, str], kind: RequestKind, max_bytes: int
    ) -> ErrorAnswer | None:
        async with self._limiter.turn(kind) as turn:
            answer = await self._exchange(url, headers, max_bytes)
            turn.failed = answer is not None and (answer.status >= 500 or answer.status == 429)
            return answer

    async def _exchange(
        self, url: URL, headers: dict[str, str], max_bytes: int
    ) -> ErrorAnswer | None:
        """Return the answer, or None where its body has more than `max_bytes`."""
        async with (
            asyncio.timeout(self._limit_s),
            self._session.request("GET", url, headers=headers, allow_redirects=False) as response,
        ):
            body = await read_body(response, max_bytes)
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


def _part(project: str | None) -> str:
    """Return the project that a request names, as the breaker's part of the platform."""
    return "" if project in (None, NO_PROJECT) else project


def _check(pattern: re.Pattern[str], text: str, what: str) -> None:
    if not pattern.fullmatch(text):
        raise PlatformError(f"{what}: not asked for, this ID cannot be sent", reason="invalid_id")
