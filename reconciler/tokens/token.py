"""The token: its value behind one method, its life on our monotonic clock."""

import math
from typing import Final, NoReturn, final

from reconciler.clock import format_utc


@final
class Token:
    """A bearer token between mint and write.

    Two tokens are equal only if they are the same object: a comparison of values would let an
    assertion or a diff print them. Nothing but `reveal` leads to the value.

    Args:
        value: The token itself.
        issued_s: Start of its life, epoch seconds in the issuer's time.
        expires_s: End of its life, epoch seconds in the issuer's time; `math.inf` if it has none.
        received_at: When we got it, on our monotonic clock.
        age_at_receipt_s: How old it was then, by the issuer's clock; 0 or more.
    """

    __slots__ = ("_age_at_receipt_s", "_value", "expires_s", "issued_s", "received_at")

    def __init__(
        self,
        value: str,
        *,
        issued_s: float,
        expires_s: float,
        received_at: float,
        age_at_receipt_s: float = 0.0,
    ) -> None:
        self._value: Final = value
        self._age_at_receipt_s: Final = age_at_receipt_s
        self.issued_s: Final = issued_s
        self.expires_s: Final = expires_s
        self.received_at: Final = received_at

    @property
    def ttl_s(self) -> float:
        """Length of its whole life in seconds, `math.inf` without an expiry."""
        return self.expires_s - self.issued_s

    def reveal(self) -> str:
        """Return the value; for the body of a write and nothing else."""
        return self._value

    def remaining_s(self, now_at: float) -> float:
        """Return the life that is left at an instant of our monotonic clock; 0 or less is dead.

        Neither our wall clock nor a later step of the issuer's changes it. The issuer's Date has a
        resolution of one second, so the answer may be too long by up to one.
        """
        return self.ttl_s - self._age_at_receipt_s - (now_at - self.received_at)

    def __repr__(self) -> str:
        expiry = "never" if math.isinf(self.expires_s) else format_utc(self.expires_s)
        return f"<Token redacted, expires {expiry}>"

    def __format__(self, spec: str) -> str:
        return format(repr(self), spec)

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a token is neither pickled nor copied")
