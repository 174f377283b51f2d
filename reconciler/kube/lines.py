"""Bytes of a watch stream -> lines, split on newline bytes alone (pure)."""

from collections import deque
from dataclasses import dataclass, field

MAX_LINE_BYTES = 32 * 1024 * 1024
"""An object cannot exceed etcd's 1.5 MiB by much; more than this is not a watch."""


@dataclass
class LineBuffer:
    """Feed chunks, take lines.

    Text splitting would break lines at U+0085 inside a string, and a library's own line reader has
    a length limit that one annotated object can pass.
    """

    _rest: bytearray = field(default_factory=bytearray)
    _lines: deque[bytes] = field(default_factory=deque)

    def feed(self, chunk: bytes) -> None:
        """Append bytes; raises ValueError when a line passes `MAX_LINE_BYTES`.

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
        """True when the stream would end in the middle of a line."""
        return bool(self._rest) and not self._rest.isspace()
