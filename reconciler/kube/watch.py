"""An open watch over HTTP: bytes to lines to events, one at a time, with a limit on silence."""

import asyncio
from typing import TypeVar

import aiohttp

from reconciler.errors import TransportError, WireError
from reconciler.kube.api import Event, Resource, Watch
from reconciler.kube.lines import LineBuffer
from reconciler.kube.transport import FOREIGN, failure_of

T = TypeVar("T")


class HttpWatch(Watch[T]):
    """One open watch; `receive` splits lines and decodes one at a time."""

    def __init__(self, response: aiohttp.ClientResponse, resource: Resource[T], what: str) -> None:
        self._content = response.content
        self._resource = resource
        self._what = what
        self._lines = LineBuffer()

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        while (line := self._lines.take()) is None:
            chunk = await self._read(idle_s)
            if not chunk:
                if self._lines.has_rest:
                    raise TransportError(f"{self._what}: ended in the middle of a line")
                return None
            try:
                self._lines.feed(chunk)
            except ValueError as error:
                raise WireError(f"{self._what}: {error}") from None
        return self._resource.decode_event(line)

    async def _read(self, idle_s: float) -> bytes:
        """Return the next bytes, or none at a clean end."""
        try:
            async with asyncio.timeout(idle_s):
                return await self._content.readany()
        except TimeoutError:
            failure = TransportError(f"{self._what}: silent for {idle_s:g} s")
        except FOREIGN as error:
            failure = TransportError(str(failure_of(error, self._what)))
        raise failure
