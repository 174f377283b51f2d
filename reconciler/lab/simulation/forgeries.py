"""What another client may write into our annotations of a token: false expiries (pure)."""

from collections.abc import Callable, Mapping

from reconciler.clock import EpochTime, format_utc
from reconciler.naming import Names

Forgery = Callable[[Names, EpochTime, float], Mapping[str, str | None]]
"""Names, the issuer's time, the life of a token -> the annotations to set; None removes one."""


def _later(names: Names, now_s: EpochTime, ttl_s: float) -> Mapping[str, str | None]:
    """As if the token had been issued now."""
    return {
        names.issued_at: format_utc(now_s),
        names.expires_at: format_utc(now_s + ttl_s),
    }


FORGERIES: tuple[Forgery, ...] = (
    lambda names, now_s, ttl_s: dict.fromkeys(
        (names.expires_at, names.refreshed_at), "2027-01-01T00:00:00Z"
    ),
    _later,
    lambda names, now_s, ttl_s: {
        names.issued_at: format_utc(now_s - ttl_s / 4),
        names.expires_at: format_utc(now_s + ttl_s / 4),
    },
    lambda names, now_s, ttl_s: {names.expires_at: format_utc(now_s - 1.0)},
    lambda names, now_s, ttl_s: {names.expires_at: format_utc(now_s + ttl_s / 8)},
    lambda names, now_s, ttl_s: {names.expires_at: "soon"},
    lambda names, now_s, ttl_s: {names.expires_at: "9999-12-31T23:59:59Z"},
    lambda names, now_s, ttl_s: {names.expires_at: "-0001-01-01T00:00:00Z"},
    lambda names, now_s, ttl_s: {names.expires_at: None},
)
"""Expiries that are too late, later, earlier, past, near, garbage, the last one, negative, none."""
