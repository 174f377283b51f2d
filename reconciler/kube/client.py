"""`Kube` over HTTP: each verb as one request."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from reconciler import __version__
from reconciler.errors import NotFound
from reconciler.kube.api import ApiResource, Body, ListOptions, Page, Permit, Watch
from reconciler.kube.auth.connection import Credentials
from reconciler.kube.list_slots import ListSlots
from reconciler.kube.requests import MAX_LIST_BYTES, MAX_OBJECT_BYTES, Request, RequestSender
from reconciler.kube.watch import HttpWatch
from reconciler.naming import Names
from reconciler.net.client_pool import UNLIMITED, ClientPool

T = TypeVar("T")

WATCH_START_S = 15.0
"""Longest wait for a watch's status line: the server sends it at once, a broken proxy never."""

ONE_NAME = "metadata.name="
"""The field selector of a list of one object begins so; such a list is a single read."""

_PARTIAL = "application/json;as={};g=meta.k8s.io;v=v1"
"""No second media type: a server that cannot send it must refuse, not send a Secret's values."""


class HttpKube:
    """The verbs against a real API server.

    Args:
        credentials: Read for every request; read again once after a 401.
        connections: Size of the pool for writes and single reads: as many as there may be at one
            time, otherwise requests wait for a connection and no metric shows it. Lists and watches
            have separate pools: no write waits for a list or a watch, however long it takes.
        replica: Our name for the audit log; it follows the name and version in the user agent.
        on_date: Called with the Date header of each answer that is read whole.
        peer: The server's name in the log; "" = another client of the same server logs for both.
    """

    def __init__(
        self,
        credentials: Credentials,
        names: Names,
        *,
        connections: int,
        replica: str = "",
        on_date: Callable[[str | None], None] | None = None,
        peer: str = "kube",
    ) -> None:
        self._by = urlencode({"fieldManager": names.field_manager})
        agent = f"{names.field_manager}/{__version__}" + (f" ({replica})" if replica else "")
        headers = {"User-Agent": agent}
        self._requests = ClientPool(
            credentials, what=peer, connections=connections, headers=headers
        )
        self._watches = ClientPool(credentials, what="", connections=UNLIMITED, headers=headers)
        self._lists = ClientPool(credentials, what="", connections=UNLIMITED, headers=headers)
        self._list_slots = ListSlots()
        self._sender = RequestSender(credentials, self._requests, self._watches, on_date)

    async def __aenter__(self) -> "HttpKube":
        """Read the credentials; raises `SettingsError` if they or the server cannot be read."""
        for pool in (self._requests, self._lists, self._watches):
            await pool.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        for pool in (self._watches, self._lists, self._requests):
            await pool.close()

    async def list(
        self,
        resource: ApiResource[T],
        scope: ListOptions,
        *,
        limit: int = 0,
        continue_token: str = "",
        version: str = "",
        limit_s: float = 30.0,
    ) -> Page[T]:
        params = _selectors(scope)
        if limit:
            params["limit"] = str(limit)
        if continue_token:
            params["continue"] = continue_token
        elif version:
            params["resourceVersion"] = version
            params["resourceVersionMatch"] = "NotOlderThan"
        accept = _accept(resource, "PartialObjectMetadataList")
        request = _request(
            "GET", _path(resource, scope.namespace), params, accept, max_bytes=MAX_LIST_BYTES
        )
        if scope.fields.startswith(ONE_NAME):  # one object: a worker waits for it
            body = await self._sender.read(request, limit_s=limit_s)
        else:
            async with self._list_slots.slot():
                body = await self._sender.read(request, limit_s=limit_s, pool=self._lists)
        return resource.decode_page(body)

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[T], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator[Watch[T]]:
        params = _selectors(scope) | {
            "watch": "1",
            "allowWatchBookmarks": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(timeout_s),
        }
        accept = _accept(resource, "PartialObjectMetadata")
        request = _request("GET", _path(resource, scope.namespace), params, accept, verb="watch")
        async with self._sender.stream(request, start_s=WATCH_START_S) as response:
            yield HttpWatch(response, resource, request.what)

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        accept = _accept(resource, "PartialObjectMetadata")
        request = _request("GET", _path(resource, namespace, name), {}, accept)
        return resource.decode(await self._sender.read(request, limit_s=limit_s))

    async def create(
        self,
        resource: ApiResource[T],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        path = _path(resource, namespace)
        request = self._write("POST", path, resource, body, "application/json", permit)
        return resource.decode(await self._sender.read(request, limit_s=limit_s))

    async def patch(
        self,
        resource: ApiResource[T],
        namespace: str,
        name: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        path = _path(resource, namespace, name)
        kind = "application/merge-patch+json"
        request = self._write("PATCH", path, resource, body, kind, permit)
        return resource.decode(await self._sender.read(request, limit_s=limit_s))

    async def ready(self, *, limit_s: float = 5.0) -> None:
        request = _request("GET", "/readyz", {}, "application/json")
        with suppress(NotFound):  # a proxy that does not forward this path has answered
            await self._sender.read(request, limit_s=limit_s)

    def _write(
        self,
        method: str,
        path: str,
        resource: ApiResource[Any],
        body: Body,
        content_type: str,
        permit: Permit | None,
    ) -> Request:
        return Request(
            method,
            f"{path}?{self._by}",
            what=f"{method} {path}",
            accept=_accept(resource, "PartialObjectMetadata"),
            data=msgspec.json.encode(body),
            content_type=content_type,
            before_send=permit,
        )


def _request(
    method: str,
    path: str,
    params: Mapping[str, str],
    accept: str,
    *,
    verb: str = "",
    max_bytes: int = MAX_OBJECT_BYTES,
) -> Request:
    what = f"{verb or method} {path}"
    return Request(method, _target(path, params), what=what, accept=accept, max_bytes=max_bytes)


def _target(path: str, params: Mapping[str, str]) -> str:
    """Return path and query, encoded: yarl's own quoting costs a tenth of a request."""
    return f"{path}?{urlencode(params)}" if params else path


def _selectors(scope: ListOptions) -> dict[str, str]:
    selectors = {"labelSelector": scope.labels, "fieldSelector": scope.fields}
    return {name: value for name, value in selectors.items() if value}


def _path(resource: ApiResource[Any], namespace: str | None, name: str = "") -> str:
    collection = _collection(resource.group, resource.version, namespace, resource.plural)
    return f"{collection}/{quote(name, safe='')}" if name else collection


@lru_cache(maxsize=1024)
def _collection(group: str, version: str, namespace: str | None, plural: str) -> str:
    scope = f"namespaces/{quote(namespace, safe='')}/" if namespace else ""
    return f"{f'/apis/{group}' if group else '/api'}/{version}/{scope}{plural}"


def _accept(resource: ApiResource[Any], view: str) -> str:
    return _PARTIAL.format(view) if resource.partial else "application/json"
