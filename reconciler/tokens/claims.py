"""What a token says of its own life; read, not verified (pure).

The validator verifies. We only need to know when to come back, and to keep what no validator could
accept away from ten thousand files.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Literal

import msgspec

from reconciler.errors import TokenUnusable

MAX_TOKEN_BYTES = 16 * 1024
"""Nothing longer is written: it travels in a header of each call, and gRPC's C core refuses a
call with more than 16 KiB of metadata by default, so that a longer token could never be used.

Source: grpc `chttp2/transport/max_metadata_size`, hard limit.
"""

MIN_TOKEN_BYTES = 20
"""The platform's own clients refuse anything shorter before they send a request.

Source: ambient go-sdk `client.go`, checks at construction.
"""

MAX_TTL_S = 10 * 365 * 86_400.0
"""A life beyond ten years is a unit mistaken (milliseconds), not a wish."""

MAX_EPOCH_S = 100_000_000_000.0
"""No instant beyond the year 5138: what is larger counts milliseconds."""

Reason = Literal["malformed", "huge", "expired", "no_expiry", "not_bearer"]

_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""RFC 6750 2.1, `b64token`: anything else breaks the header that carries it."""

_JOSE = "eyJ"
"""base64url of `{"`: the value says that it is a JWT, or an encrypted one."""

_JWE_PARTS = 5


class _Payload(msgspec.Struct):
    exp: int | float | None = None
    iat: int | float | None = None


_DECODER = msgspec.json.Decoder(_Payload)


@dataclass(frozen=True, slots=True)
class Claims:
    """`exp` and `iat` in epoch seconds; None where the token does not say."""

    issued_s: float | None = None
    expires_s: float | None = None


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Start and end of a token's life, epoch seconds in the issuer's time."""

    issued_s: float
    expires_s: float

    @property
    def ttl_s(self) -> float:
        return self.expires_s - self.issued_s


def read_claims(value: str) -> Claims:
    """Read a token's `iat` and `exp` without verifying its signature.

    Three parts make a JWT, whose payload must be readable. A value that starts like a JWT and has
    neither three parts nor the five of an encrypted one was cut off. Anything else is opaque and
    says nothing.

    Raises:
        TokenUnusable: `huge` or `malformed`.
    """
    if len(value) > MAX_TOKEN_BYTES:
        raise unusable("huge", f"longer than {MAX_TOKEN_BYTES} bytes")
    if len(value) < MIN_TOKEN_BYTES:
        raise unusable("malformed", f"shorter than {MIN_TOKEN_BYTES} bytes")
    if not _BEARER.fullmatch(value):
        raise unusable("malformed", "it holds characters that no bearer token may have")
    parts = value.rstrip("=").split(".")
    if len(parts) != 3:
        if value.startswith(_JOSE) and len(parts) != _JWE_PARTS:
            raise unusable("malformed", "it starts like a JWT and does not go on like one")
        return Claims()
    payload = _decode(parts[1])
    if payload is None:
        raise unusable("malformed", "its claims cannot be read")
    return Claims(_instant(payload.iat, "iat"), _instant(payload.exp, "exp"))


def lifetime(claims: Claims, *, now_s: float, expires_in_s: float | None) -> Lifetime:
    """Return the life of a token that arrived at `now_s`.

    Its own `exp` counts. Without one it lives from now for as long as the answer's `expires_in`
    says: that is the rule for opaque tokens. Without an `iat` it is taken as issued now.

    Args:
        now_s: The issuer's time at receipt, epoch seconds.
        expires_in_s: The answer's `expires_in` in seconds, or None.
    Raises:
        TokenUnusable: `no_expiry`, `expired` or `malformed`.
    """
    if claims.expires_s is None:
        if expires_in_s is None:
            raise unusable("no_expiry", "neither exp nor expires_in says how long it lives")
        life = Lifetime(now_s, now_s + expires_in_s)
    elif claims.issued_s is None:
        life = Lifetime(now_s, claims.expires_s)
    else:
        life = Lifetime(claims.issued_s, claims.expires_s)
        if life.ttl_s <= 0:
            raise unusable("malformed", "it ends before it begins")
    if life.ttl_s <= 0:
        raise unusable("expired", "it was dead when it arrived")
    if life.ttl_s > MAX_TTL_S:
        raise unusable("malformed", "it claims to live for more than ten years")
    return life


def unusable(reason: Reason, why: str) -> TokenUnusable:
    """Return the error of one rule; `why` is our sentence and holds nothing of the token."""
    return TokenUnusable(f"the token is not usable ({reason}): {why}", reason=reason)


def _decode(part: str) -> _Payload | None:
    # The caught errors hold the bytes that they choked on; None lets them go, unchained.
    try:
        return _DECODER.decode(base64.b64decode(_padded(part), altchars=b"-_", validate=True))
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _padded(part: str) -> str:
    return part + "=" * (-len(part) % 4)


def _instant(claim: int | float | None, name: str) -> float | None:
    if claim is None:
        return None
    if not 0 <= claim <= MAX_EPOCH_S:
        raise unusable("malformed", f"its {name} is no instant of our era")
    return float(claim)
