"""The kubelet's requests to the API server, over HTTP with a bearer token."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Literal, TypeVar

import aiohttp
import msgspec

from reconciler.errors import KubeError, NotFound, ProtocolError, TransportError
from reconciler.lab.kubelet.pods import SecretRef
from reconciler.lab.kubelet.secrets import Payload, decode_secret
from reconciler.net.connector import Connector

VERB_LIMIT_S = 10.0
SILENCE_LIMIT_S = 90.0
"""Longest silence on a watch: bookmarks come about once a minute."""
WATCH_S = 300
PAGE_ITEMS = 500

Query = Mapping[str, str]
T = TypeVar("T")


class WatchLine(msgspec.Struct):
    """One line of a watch; `object` is raw JSON for its own decoder."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: msgspec.Raw


class _ListMeta(msgspec.Struct):
    version: str = msgspec.field(name="resourceVersion", default="")
    continue_token: str = msgspec.field(name="continue", default="")


class _List(msgspec.Struct):
    metadata: _ListMeta
    items: list[msgspec.Raw] | None = None


class _Versioned(msgspec.Struct):
    metadata: _ListMeta


_EVENT = msgspec.json.Decoder(WatchLine)
_LIST = msgspec.json.Decoder(_List)
_VERSIONED = msgspec.json.Decoder(_Versioned)


def version_of(data: bytes) -> str:
    """Return an object's resourceVersion. Raises `ProtocolError`, without the object's bytes."""
    try:
        return _VERSIONED.decode(data).metadata.version
    except msgspec.DecodeError:
        raise ProtocolError("an object without a version") from None


class ApiClient:
    """A connection to one API server. Errors name verb and path, never a body.

    Args:
        authorization: Value of the Authorization header, with a bearer token.
    """

    def __init__(self, url: str, authorization: str) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            headers={"Authorization": authorization, "User-Agent": "lab-kubelet"},
            connector=Connector(limit=32),
        )

    def __repr__(self) -> str:
        return f"<Api {self._url}>"

    async def close(self) -> None:
        await self._session.close()

    async def secret(self, ref: SecretRef) -> Payload:
        """Return one Secret's values. Raises `NotFound`, `KubeError`, `ProtocolError`."""
        data = await self._call("GET", f"/api/v1/namespaces/{ref.namespace}/secrets/{ref.name}")
        return decode_secret(data)[1]

    async def merge(self, path: str, body: Mapping[str, Any]) -> None:
        """Send a JSON merge patch."""
        await self._call("PATCH", path, body, kind="application/merge-patch+json")

    async def delete(self, path: str, body: Mapping[str, Any]) -> None:
        """Delete with options in the body."""
        await self._call("DELETE", path, body)

    async def list(self, path: str, query: Query) -> tuple[list[msgspec.Raw], str]:
        """Return all items of all pages, and the version for a watch after them."""
        items: list[msgspec.Raw] = []
        token = ""
        while True:
            paging = {"limit": str(PAGE_ITEMS)} | ({"continue": token} if token else {})
            page = _decode(_LIST, await self._call("GET", path, query={**query, **paging}))
            items += page.items or ()
            token = page.metadata.continue_token
            if not token:
                return items, page.metadata.version

    async def watch(
        self, path: str, query: Query, *, version: str
    ) -> AsyncGenerator[WatchLine, None]:
        """Yield the events after `version` until the server ends the watch; close with `aclose`."""
        params = {**query, "watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version}
        params["timeoutSeconds"] = str(WATCH_S)
        limit = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=SILENCE_LIMIT_S)
        try:
            async with self._session.get(self._url + path, params=params, timeout=limit) as answer:
                _check_status(answer, "WATCH", path)
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        yield _decode(_EVENT, line)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransportError(f"WATCH {path}: {type(error).__name__}") from None

    async def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Query | None = None,
        kind: str = "application/json",
    ) -> bytes:
        data = msgspec.json.encode(body) if body is not None else None
        headers = {"Content-Type": kind} if data is not None else {}
        limit = aiohttp.ClientTimeout(total=VERB_LIMIT_S)
        try:
            async with self._session.request(
                method, self._url + path, params=query, data=data, headers=headers, timeout=limit
            ) as answer:
                _check_status(answer, method, path)
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise TransportError(f"{method} {path}: {type(error).__name__}") from None


def _check_status(answer: aiohttp.ClientResponse, method: str, path: str) -> None:
    if answer.status < 400:
        return
    kind = NotFound if answer.status == 404 else KubeError
    raise kind(f"{method} {path}: {answer.status}", status=answer.status)


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except msgspec.DecodeError:
        raise ProtocolError("the API server sent bytes that its protocol does not allow") from None
