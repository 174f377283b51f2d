"""An open watch over HTTP: splits bytes into lines, decodes events, and limits silence."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TypeVar

import aiohttp

from reconciler.errors import ProtocolError, TransportError
from reconciler.kube.api import ApiResource, Event, Watch
from reconciler.kube.requests import CLIENT_ERRORS, translate_error

MAX_LINE_BYTES = 32 * 1024 * 1024
"""An object cannot exceed etcd's 1.5 MiB by much; a longer line is no watch line."""


@dataclass
class LineBuffer:
    """Splits chunks of bytes into lines.

    Splitting text would break a line at U+0085 inside a string, and aiohttp's line reader has a
    length limit that one annotated object can exceed.
    """

    _rest: bytearray = field(default_factory=bytearray)
    _lines: deque[bytes] = field(default_factory=deque)

    def feed(self, chunk: bytes) -> None:
        """Append bytes; raises ValueError when a line exceeds `MAX_LINE_BYTES`.

        Cost: O(len(chunk)), however long the line is.
        """
        first, newline, rest = chunk.partition(b"\n")
        self._rest += first
        if len(self._rest) > MAX_LINE_BYTES:
            raise ValueError("a watch line is longer than any object")
        if not newline:
            return
        *complete, last = rest.split(b"\n")
        for line in (bytes(self._rest), *complete):
            if line and not line.isspace():
                self._lines.append(line)
        self._rest = bytearray(last)

    def take(self) -> bytes | None:
        """Return the next complete line without its newline, or None."""
        return self._lines.popleft() if self._lines else None

    @property
    def has_rest(self) -> bool:
        """True where the last line is not complete."""
        return bool(self._rest) and not self._rest.isspace()


T = TypeVar("T")


class HttpWatch(Watch[T]):
    """One open watch; `receive` splits lines and decodes one at a time."""

    def __init__(
        self, response: aiohttp.ClientResponse, resource: ApiResource[T], what: str
    ) -> None:
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
                raise ProtocolError(f"{self._what}: {error}") from None
        return self._resource.decode_event(line)

    async def _read(self, idle_s: float) -> bytes:
        """Return the next bytes; b"" at a clean end."""
        try:
            async with asyncio.timeout(idle_s):
                return await self._content.readany()
        except TimeoutError:
            failure = TransportError(f"{self._what}: silent for {idle_s:g} s")
        except CLIENT_ERRORS as error:
            failure = TransportError(str(translate_error(error, self._what)))
        raise failure
