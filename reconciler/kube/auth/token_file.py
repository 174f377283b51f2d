"""A bearer token in a file that another process rotates, and its header."""

from pathlib import Path

from reconciler.clock import LONG_AGO, Clock, Instant

REREAD_S = 30.0
"""Time after which a token file is read again. The kubelet rotates a projected token at 80 % of its
life, which is ten minutes at least; client-go reads again each minute."""


class TokenFile:
    """A bearer token in a file that another process rotates."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._value = ""
        self._read_at: Instant = LONG_AGO

    def value(self, *, fresh: bool = False) -> str:
        """Return the token, read again after `REREAD_S`.

        The old token stays while the file is missing, empty or no single word of ASCII (half
        written).
        """
        now_at = self._clock.monotonic()
        if fresh or now_at - self._read_at >= REREAD_S:
            try:
                read = self.path.read_text(encoding="ascii").strip()
            except (OSError, ValueError):
                read = ""
            if is_sendable(read):
                self._value, self._read_at = read, now_at
        return self._value


def bearer(token: str) -> dict[str, str]:
    """Return the Authorization header for `token`; empty without a token."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def is_sendable(token: str) -> bool:
    """Return whether `token` is one word of printable ASCII, as a header requires."""
    return token.isascii() and token.isprintable() and len(token.split()) == 1
