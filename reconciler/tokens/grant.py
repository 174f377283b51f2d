"""One good answer of the issuer, and the token that is in it (pure)."""

from dataclasses import dataclass, field

from reconciler.tokens.claims import lifetime, read_claims, unusable
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


def token_of(grant: Grant, *, now_s: float) -> Token:
    """Judge a grant and return its token.

    Its age at receipt is the Date header less its `iat`. Without a Date it is what `expires_in`
    leaves of its life, and without that what `now_s` says.

    Args:
        now_s: Our idea of the issuer's time at receipt, used where the answer has no Date.
    Raises:
        TokenUnusable: For each rule that the token breaks.
    """
    if grant.token_type.lower() not in ("bearer", ""):
        raise unusable("not_bearer", "its token_type is not Bearer")
    says = grant.expires_in_s is not None and grant.expires_in_s > 0
    claims = read_claims(grant.value, lenient=says)
    at_s = now_s if grant.date_s is None else grant.date_s
    life = lifetime(claims, now_s=at_s, expires_in_s=grant.expires_in_s)
    if grant.date_s is None and grant.expires_in_s is not None:
        age_s = life.ttl_s - grant.expires_in_s
    else:
        age_s = at_s - life.issued_s
    if age_s >= life.ttl_s:
        raise unusable("expired", "it was dead when it arrived")
    return Token(
        grant.value,
        issued_s=life.issued_s,
        expires_s=life.expires_s,
        received_at=grant.received_at,
        age_at_receipt_s=max(0.0, age_s),
    )
