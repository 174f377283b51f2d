"""The lab's API server over HTTP on loopback: a thin transport; the core decides."""

import asyncio
import json
from collections import Counter
from types import TracebackType
from typing import Self

from aiohttp import web

from reconciler.clock import LONG_AGO, Clock, Instant, SystemClock
from reconciler.lab.apiserver import request_info
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import UNAUTHORIZED_S
from reconciler.lab.apiserver.faults import HttpFaults
from reconciler.lab.apiserver.garbage_collector import collect
from reconciler.lab.apiserver.handlers import (
    PREFIX,
    ApiHandlers,
    answer_path,
    authenticate,
    error_response,
    split_path,
)
from reconciler.lab.apiserver.rbac import (
    EVERYTHING,
    Attributes,
    Authorizer,
    User,
    denied,
    denied_path,
)
from reconciler.lab.apiserver.representations import parse_accept
from reconciler.lab.apiserver.request_info import RequestTarget
from reconciler.lab.apiserver.status_errors import StatusError
from reconciler.lab.apiserver.watch_stream import WatchStream
from reconciler.lab.apiserver.write_log import Commit

BOOKMARK_S = 60.0
"""Source: measured on a real server: the first bookmark of a quiet watch came at 60.2 s."""

WATCH_S = 1800
"""A watch that names no timeoutSeconds. Source: apiserver `--min-request-timeout`."""

ADMIN_TOKEN = "lab-admin"


class ApiServer:
    """Serves a core while entered.

    Args:
        authorizer: Tokens and users; by default one administrator with `admin_token`.
        port: 0: a free one; it stays the same across `stop_listening` and `listen`.
        bookmark_s: Seconds between a watch's bookmarks.
        collects: Whether the garbage collector runs after each write.
        unauthorized_s: Seconds after each `listen`, except the first, in which every account except
            an administrator's gets a 403, as from an authorizer that knows no binding yet
            (kubernetes#121635).
    """

    def __init__(
        self,
        core: Core,
        *,
        clock: Clock | None = None,
        authorizer: Authorizer | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        bookmark_s: float = BOOKMARK_S,
        collects: bool = True,
        unauthorized_s: float = UNAUTHORIZED_S,
    ) -> None:
        self.core = core
        self.authorizer = authorizer or Authorizer({ADMIN_TOKEN: User("admin", (EVERYTHING,))})
        self.faults = HttpFaults()
        self.requests: Counter[tuple[str, str]] = Counter()
        """Requests that were read, by verb and resource (the path, if it is no resource)."""
        self.answers: Counter[int] = Counter()
        """Answers by HTTP status; a watch counts when it ends."""
        self._clock = clock or SystemClock()
        self._host, self._port = host, port
        self._bookmark_s = bookmark_s
        self._collects = collects
        self._unauthorized_s = unauthorized_s
        self._authorizes_at: Instant = LONG_AGO
        self._has_run = False
        self._collecting = False
        self._handlers = ApiHandlers(core, self.authorizer, self._clock)
        self._streams: set[WatchStream] = set()
        self._server = web.Server(self._handle, access_log=None, handler_cancellation=True)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        self._site: web.TCPSite | None = None

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        await self._runner.setup()
        await self.listen()
        if self._collects:
            self.core.on_commit.append(self._collect_soon)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._collects:
            self.core.on_commit.remove(self._collect_soon)
        await self.stop_listening()
        await self._runner.cleanup()

    def __repr__(self) -> str:
        return f"<ApiServer {self.url} {self.core!r}>"

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def admin_token(self) -> str:
        """The token of an administrator; raises `LookupError` if there is none."""
        for token, user in self.authorizer.users.items():
            if EVERYTHING in user.rules:
                return token
        raise LookupError("none of the lab's users is an administrator")

    def kubeconfig(
        self, *, token: str = "", namespace: str = "default", kubectl: bool = False
    ) -> str:
        """Return a kubeconfig with one context (JSON, which is YAML); by default the admin's.

        Args:
            kubectl: Whether the URL contains the token, too: kubectl sends none over plain HTTP.
        """
        token = token or self.admin_token
        server = f"{self.url}{PREFIX}{token}" if kubectl else self.url
        context = {"cluster": "lab", "user": "lab", "namespace": namespace}
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "lab",
                "contexts": [{"name": "lab", "context": context}],
                "clusters": [{"name": "lab", "cluster": {"server": server}}],
                "users": [{"name": "lab", "user": {"token": token}}],
            },
            indent=2,
        )

    # Faults that need the sockets; the others are fields of `faults`

    async def stop_listening(self) -> None:
        """Refuse new connections and reset open ones; idempotent."""
        if self._site is not None:
            await self._site.stop()
            self._site = None
        self.reset_connections()

    async def listen(self) -> None:
        """Listen again, on the same port; idempotent."""
        if self._site is None:
            if self._has_run:
                self._authorizes_at = self._clock.monotonic() + self._unauthorized_s
            self._has_run = True
            self._site = web.TCPSite(self._runner, self._host, self._port, reuse_address=True)
            await self._site.start()
            self._port = self._runner.addresses[0][1]

    def reset_connections(self) -> None:
        """Reset every open connection, even during an answer."""
        for connection in self._server.connections:
            if connection.transport is not None:
                connection.transport.abort()

    def close_watches(self) -> int:
        """End every open watch cleanly; return their number."""
        for stream in self._streams:
            stream.close()
        return len(self._streams)

    def silence_watches(self, *, silent: bool) -> None:
        """Stop or resume sending on all watches, new ones included; events wait for the resume."""
        self.faults.silent = silent
        for stream in self._streams:
            stream.wake()

    @property
    def watches(self) -> int:
        """Number of open watches."""
        return len(self._streams)

    # One request

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._answer(request)
        except StatusError as refusal:
            answer = error_response(refusal)
        self.answers[answer.status] += 1
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        token, path = split_path(request.path)
        target = request_info.parse_path(path)
        if target is None:
            self.requests[request.method.lower(), path] += 1
            replacement = await self.faults.apply()
            user = authenticate(self.authorizer, request, token)
            if not self._is_authorizer_ready(user):
                raise denied_path(user, request.method.lower(), path)
            return replacement or answer_path(user, request.method, path)
        asked = request_info.attributes_of(request.method, target, dict(request.query))
        self.requests[asked.verb, asked.resource] += 1
        replacement = await self.faults.apply()
        if replacement is not None:
            return replacement
        user = authenticate(self.authorizer, request, token)
        if not self._is_authorizer_ready(user):
            raise denied(user, asked)
        self.authorizer.check(user, asked)
        if asked.verb == "watch":
            return await self._watch(request, target, asked)
        return await self._handlers.answer(request, user, target, asked)

    async def _watch(
        self, request: web.BaseRequest, target: RequestTarget, asked: Attributes
    ) -> web.StreamResponse:
        """Stream until the watch ends; the core opens the watch before the answer begins."""
        query = dict(request.query)
        representation = parse_accept(request.headers.get("Accept", ""))
        timeout_s = request_info.number(query, "timeoutSeconds") or WATCH_S
        bookmark_s = self._bookmark_s if request_info.is_set(query, "allowWatchBookmarks") else 0.0
        initial = request_info.initial_of(query)
        stream = WatchStream(
            self.core,
            self._clock,
            self.faults,
            representation=representation,
            bookmark_s=bookmark_s,
        )
        feed = self.core.watch(
            target.kind,
            request_info.selection_of(target, query),
            version=query.get("resourceVersion", ""),
            initial=initial,
            bookmarks=bookmark_s > 0,
            wake=stream.wake,
        )
        self._streams.add(stream)
        try:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            await stream.run(response, feed, timeout_s=timeout_s)
        finally:
            self._streams.discard(stream)
            self.core.forget(feed)
        return response

    def _is_authorizer_ready(self, user: User) -> bool:
        """Whether the authorizer knows bindings already; an administrator needs none."""
        return EVERYTHING in user.rules or self._clock.monotonic() >= self._authorizes_at

    def _collect_soon(self, _commit: Commit) -> None:
        """Schedule one collection after the writes of this iteration of the loop."""
        if not self._collecting:
            self._collecting = True
            self._loop.call_soon(self._collect)

    def _collect(self) -> None:
        self._collecting = False
        collect(self.core)
