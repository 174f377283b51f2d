"""Bearer tokens: what may be sent as one, and the file in which somebody rotates one."""

from pathlib import Path

from reconciler.clock import Clock

REREAD_S = 30.0
"""How long a token file is trusted before it is read again. The kubelet rotates a projected token
at 80 % of its life, ten minutes at the least; client-go reads again each minute."""


class TokenFile:
    """A bearer token in a file that somebody rotates."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._value = ""
        self._read_at = -REREAD_S

    def value(self, *, fresh: bool = False) -> str:
        """Return the token, read again after `REREAD_S`.

        What is empty, missing or no single word of ASCII (a rotation that is half done) keeps the
        old token.
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
    """Return the header for `token`, or none if there is none."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def is_sendable(token: str) -> bool:
    """Return whether `token` is one word of printable ASCII: all that a header may hold."""
    return token.isascii() and token.isprintable() and len(token.split()) == 1
