"""One good answer of the issuer, and the token that is in it (pure)."""

from dataclasses import dataclass, field

from reconciler.tokens.claims import lifetime, read_claims, unusable
from reconciler.tokens.server_clock import TokenTimes
from reconciler.tokens.token import Token


@dataclass(frozen=True, slots=True, eq=False)
class Grant:
    """What the issuer sent, not judged yet.

    Args:
        value: The `access_token`; kept out of `repr`.
        token_type: As sent; "" where it was left out.
        expires_in_s: Seconds, or None where it was left out or is no number.
        date_s: The Date header, epoch seconds in the issuer's time, or None.
        sent_at: When the request started, monotonic.
        received_at: When the answer's headers were there, monotonic.
    """

    value: str = field(repr=False)
    sent_at: float
    received_at: float
    token_type: str = "Bearer"  # noqa: S105 - a scheme's name
    expires_in_s: float | None = None
    date_s: float | None = None


def times_of(grant: Grant) -> TokenTimes:
    """Return what a grant says of time.

    Raises:
        TokenUnusable: Its token cannot be read.
    """
    claims = read_claims(grant.value, lenient=_says_its_life(grant))
    return TokenTimes(
        claims.issued_s, claims.expires_s, grant.expires_in_s, grant.sent_at, grant.received_at
    )


def token_of(grant: Grant, *, now_s: float) -> Token:
    """Judge a grant and return its token.

    Args:
        now_s: The issuer's time at receipt, epoch seconds, as `IssuerTime.hear` weighs it.
    Raises:
        TokenUnusable: For each rule that the token breaks.
    """
    if grant.token_type.lower() not in ("bearer", ""):
        raise unusable("not_bearer", "its token_type is not Bearer")
    claims = read_claims(grant.value, lenient=_says_its_life(grant))
    life = lifetime(claims, now_s=now_s, expires_in_s=grant.expires_in_s)
    age_s = max(0.0, now_s - life.issued_s)
    if age_s >= life.ttl_s:
        raise unusable("expired", "it had expired when it arrived")
    return Token(
        grant.value,
        issued_s=life.issued_s,
        expires_s=life.expires_s,
        received_at=grant.received_at,
        age_at_receipt_s=age_s,
    )


def _says_its_life(grant: Grant) -> bool:
    """Tell whether a token whose claims cannot be read can still be used."""
    return grant.expires_in_s is not None and grant.expires_in_s > 0
