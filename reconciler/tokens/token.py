"""The token: its value behind one method, its lifetime on our monotonic clock."""

import math
from typing import Final, NoReturn, final

from reconciler.clock import EpochTime, Instant, format_utc


@final
class Token:
    """A bearer token between the issuer's response and the write.

    Two tokens are equal only if they are the same object: a comparison of values would let an
    assertion or a diff print them. Only `reveal` returns the value.

    Args:
        value: The token itself.
        issued_s: Start of its lifetime, epoch seconds in the issuer's time.
        expires_s: End of its lifetime, epoch seconds in the issuer's time; `math.inf` if it has
            none.
        received_at: When it was received, monotonic.
        age_at_receipt_s: Its age then, by the issuer's clock, seconds; 0 or more.
        signing_key, warning: As in `Claims`.
    """

    __slots__ = (
        "_age_at_receipt_s",
        "_value",
        "expires_s",
        "issued_s",
        "received_at",
        "signing_key",
        "warning",
    )

    def __init__(
        self,
        value: str,
        *,
        issued_s: EpochTime,
        expires_s: EpochTime,
        received_at: Instant,
        age_at_receipt_s: float = 0.0,
        signing_key: str = "",
        warning: str = "",
    ) -> None:
        self._value: Final = value
        self._age_at_receipt_s: Final = age_at_receipt_s
        self.issued_s: Final = issued_s
        self.expires_s: Final = expires_s
        self.received_at: Final = received_at
        self.signing_key: Final = signing_key
        self.warning: Final = warning

    @property
    def ttl_s(self) -> float:
        """Whole lifetime in seconds, `math.inf` without an expiry."""
        return self.expires_s - self.issued_s

    @property
    def expires_text(self) -> str | None:
        """Its expiry in RFC 3339, None if it has none."""
        return None if math.isinf(self.expires_s) else format_utc(self.expires_s)

    @property
    def issued_text(self) -> str | None:
        """Its start in RFC 3339; None for a token without an expiry, whose age does not matter."""
        return None if math.isinf(self.expires_s) else format_utc(self.issued_s)

    def reveal(self) -> str:
        """Return the value; for the body of a write and nothing else."""
        return self._value

    def remaining_s(self, now_at: Instant) -> float:
        """Return the remaining lifetime at a monotonic instant; 0 or less means expired.

        A step of our wall clock, or a later one of the issuer's, does not change it. The issuer's
        Date has a resolution of one second, so that the result may be too long by up to one.
        """
        return self.ttl_s - self._age_at_receipt_s - (now_at - self.received_at)

    def __repr__(self) -> str:
        return f"<Token redacted, expires {self.expires_text or 'never'}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a token is neither pickled nor copied")
