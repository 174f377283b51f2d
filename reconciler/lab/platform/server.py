"""The agent platform's REST API, with its quirks, and with faults that can change at run time.

The quirks are those of the platform: `size` in an answer is the number of its items, a list has no
order without `orderBy`, an invalid page is answered as page 0, refused tokens get plain text.
"""

import asyncio
import hashlib
import inspect
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

from reconciler.clock import Clock, SystemClock, format_utc
from reconciler.lab.platform.search import BadSearch, Predicate, UnknownColumn, parse

BASE_PATH = "/api/ambient/v1"
MAX_SIZE = 65_500
PHASES = ("Pending", "Creating", "Running", "Stopping", "Stopped", "Completed", "Failed")

_PROJECT = re.compile(r"[a-zA-Z0-9_-]+")
_STATUS_FIELDS = frozenset({
    "phase", "start_time", "completion_time", "sdk_session_id", "sdk_restart_count", "conditions",
    "reconciled_repos", "reconciled_workflow", "kube_cr_uid", "kube_namespace",
})  # fmt: skip
_STATUS_OF_ERROR = {6: 409, 7: 404, 8: 400, 9: 500, 11: 403, 15: 401, 17: 400, 21: 400}
_COLUMNS = frozenset({
    "id", "name", "project_id", "phase", "kube_namespace", "created_at", "updated_at",
})  # fmt: skip
_HTML = "<!DOCTYPE html><html><body><h1>Application is not available</h1></body></html>"

Row = dict[str, Any]
Verify = Callable[[str], bool | Awaitable[bool]]
"""Returns whether a bearer token is accepted."""


@dataclass
class PlatformFaults:
    """The platform's faults; each may be set at any time and applies from the next request.

    Args:
        unreachable: Connections are closed without an answer.
        slow_s: Seconds before each answer.
        status: HTTP status of every answer (0: off).
        project_status: The same for requests about one project.
        html: Answer with a web page, with status 200 or `status`.
        empty: Lists have no rows, as for a caller without permission.
        unordered: `orderBy` is ignored.
        keyset: Result of a search with `>`: `refused` 400, `broken` 500, `ignored`: the condition
            is ignored.
        after_page: Called after the rows of each list answer are selected.
    """

    unreachable: bool = False
    slow_s: float = 0.0
    status: int = 0
    project_status: dict[str, int] = field(default_factory=dict)
    html: bool = False
    empty: bool = False
    unordered: bool = False
    keyset: Literal["honoured", "refused", "broken", "ignored"] = "honoured"
    after_page: Callable[[], None] | None = None


class LabPlatform:
    """Serves while entered; methods change its data.

    Args:
        verify: Called with the token of every request; None: every request is accepted.
        port: 0: a free one.
    """

    def __init__(
        self,
        verify: Verify | None = None,
        *,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.faults = PlatformFaults()
        self.requests: Counter[str] = Counter()
        """Requests by method and path below the API's path, refused ones included."""
        self.url = ""
        self.verify = verify
        self._clock = clock or SystemClock()
        self._projects: dict[str, Row] = {}
        self._sessions: dict[str, Row] = {}
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> "LabPlatform":
        app = web.Application(middlewares=[self._guard])
        app.add_routes([
            web.get(f"{BASE_PATH}/projects", self._list_projects),
            web.get(f"{BASE_PATH}/sessions", self._list_sessions),
            web.get(f"{BASE_PATH}/sessions/{{id}}", self._get_session),
            web.patch(f"{BASE_PATH}/sessions/{{id}}/status", self._patch_status),
        ])  # fmt: skip
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self.url = f"http://{self._host}:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def add_project(self, project: str) -> None:
        self._projects[project] = self._row("Project", project, f"projects/{project}")

    def remove_project(self, project: str) -> None:
        """Remove a project from the list; its sessions stay, as on the platform."""
        self._projects.pop(project, None)

    def add_session(
        self, session_id: str, project: str, *, phase: str = "Running", kube_namespace: str = ""
    ) -> None:
        """Add or restore a session; fields that are "" are absent in answers."""
        texts = {"project_id": project, "phase": phase, "kube_namespace": kube_namespace}
        row = self._row("Session", session_id, f"sessions/{session_id}")
        row |= {key: text for key, text in texts.items() if text}
        row |= {"kube_cr_name": session_id, "prompt": "", "llm_model": "sonnet", "labels": "{}"}
        self._sessions[session_id] = row

    def set_phase(self, session_id: str, phase: str) -> None:
        self._sessions[session_id] |= {"phase": phase, "updated_at": self._now()}

    def remove_session(self, session_id: str) -> None:
        """Delete a session as the platform does: the row stays, but no answer has it."""
        self._sessions[session_id]["deleted_at"] = self._now()

    def phase(self, session_id: str) -> str:
        return str(self._sessions[session_id].get("phase", ""))

    def _row(self, kind: str, name: str, path: str) -> Row:
        now = self._now()
        return {
            "id": name, "kind": kind, "href": f"{BASE_PATH}/{path}", "name": name,
            "created_at": now, "updated_at": now,
        }  # fmt: skip

    def _now(self) -> str:
        return format_utc(self._clock.wall())

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Count the request, apply the faults, check token and header as the platform does."""
        self.requests[f"{request.method} {request.path.removeprefix(BASE_PATH)}"] += 1
        faults = self.faults
        if faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        if faults.unreachable:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)
        if faults.html:
            return web.Response(text=_HTML, content_type="text/html", status=faults.status or 200)
        if status := faults.status or faults.project_status.get(_project_of(request)):
            return _fault(status)
        if not await self._is_accepted(request.headers.get("Authorization", "")):
            return web.Response(text="Unauthorized", status=401)
        if (project := _project_of(request)) and not _PROJECT.fullmatch(project):
            return _error(8, "invalid project_id format")
        return await handler(request)

    async def _is_accepted(self, authorization: str) -> bool:
        if self.verify is None:
            return True
        accepted = self.verify(authorization.removeprefix("Bearer "))
        return await accepted if inspect.isawaitable(accepted) else accepted

    async def _list_projects(self, request: web.Request) -> web.Response:
        return self._list(request, "ProjectList", list(self._projects.values()))

    async def _list_sessions(self, request: web.Request) -> web.Response:
        rows = [row for row in self._sessions.values() if "deleted_at" not in row]
        if project := _project_of(request):
            rows = [row for row in rows if row.get("project_id") == project]
        return self._list(request, "SessionList", rows)

    def _list(self, request: web.Request, kind: str, rows: list[Row]) -> web.Response:
        try:
            matches = self._parse_search(request.query.get("search", ""))
            rows = _ordered(rows, "" if self.faults.unordered else request.query.get("orderBy", ""))
        except BadSearch:
            return _error(21, "failed to parse search query")
        except UnknownColumn:
            return _error(9, "unable to list resources")
        rows = [] if self.faults.empty else [row for row in rows if matches(row)]
        page = _number(request.query.get("page"), absent=1, unparsable=0)
        size = _number(request.query.get("size"), absent=100, unparsable=100)
        size = size if 0 <= size <= MAX_SIZE else MAX_SIZE
        start = max(page - 1, 0) * size
        items = [dict(row) for row in rows[start : start + size]]
        if self.faults.after_page is not None:
            self.faults.after_page()
        return web.json_response({
            "kind": kind, "page": page, "size": len(items), "total": len(rows), "items": items,
        })  # fmt: skip

    def _parse_search(self, text: str) -> Predicate:
        if ">" in text and self.faults.keyset == "refused":
            raise BadSearch("the operator > is switched off")
        if ">" in text and self.faults.keyset == "broken":
            raise UnknownColumn("the operator > is broken")
        if self.faults.keyset == "ignored":
            text = re.sub(r"(\s+and\s+)?id\s*>\s*'[^']*'", "", text)
        return parse(text, _COLUMNS) if text else lambda _: True

    async def _get_session(self, request: web.Request) -> web.Response:
        row = self._existing(request.match_info["id"])
        return web.json_response(row) if row is not None else _error(7, "Session not found")

    async def _patch_status(self, request: web.Request) -> web.Response:
        row = self._existing(request.match_info["id"])
        if row is None:
            return _error(7, "Session not found")
        try:
            patch = await request.json()
        except ValueError:
            return _error(17, "malformed request body")
        if not isinstance(patch, dict):
            return _error(17, "malformed request body")
        patch = {key: value for key, value in patch.items() if key in _STATUS_FIELDS}
        if not patch:
            return _error(8, "at least one status field must be provided")
        if "phase" in patch and patch["phase"] not in PHASES:
            return _error(8, "invalid phase")
        row |= patch | {"updated_at": self._now()}
        return web.json_response(row)

    def _existing(self, session_id: str) -> Row | None:
        row = self._sessions.get(session_id)
        return None if row is None or "deleted_at" in row else row


def _project_of(request: web.Request) -> str:
    """Return the project of a request: that of the query, or of the header."""
    project: str = request.query.get("project_id", "")
    return project or request.headers.get("X-Ambient-Project", "")


def _ordered(rows: list[Row], order: str) -> list[Row]:
    column, _, direction = order.partition(" ")
    if not column:
        return sorted(rows, key=lambda row: hashlib.sha256(row["id"].encode()).digest())
    if column not in _COLUMNS:
        raise UnknownColumn(f"no column {column}")
    return sorted(rows, key=lambda row: row.get(column, ""), reverse=direction.lower() == "desc")


def _number(text: str | None, *, absent: int, unparsable: int) -> int:
    try:
        return absent if text is None else int(text)
    except ValueError:
        return unparsable


def _error(number: int, reason: str) -> web.Response:
    body = {
        "id": str(number), "kind": "Error", "href": f"{BASE_PATH}/errors/{number}",
        "code": f"ambient-api-server-{number}", "reason": reason, "operation_id": "lab",
    }  # fmt: skip
    return web.json_response(body, status=_STATUS_OF_ERROR[number])


def _fault(status: int) -> web.Response:
    """Return a failure with this status; 429 and 503 have `Retry-After: 7`."""
    headers = {"Retry-After": "7"} if status in (429, 503) else None
    if status == 401:
        return web.Response(text="Unauthorized", status=401)
    body = {"kind": "Error", "code": "ambient-api-server-9", "reason": "a fault of the lab"}
    return web.json_response(body, status=status, headers=headers)
