"""What a token says of its own life; read, not verified (pure).

The validator verifies. We only need to know when to come back, and to keep what no validator could
accept away from ten thousand files.
"""

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from reconciler.errors import InvalidToken

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
"""RFC 6750 2.1, `b64token`: what every validator takes out of an Authorization header."""

_SENDABLE = re.compile(r"[!-~]+")
"""What a header may carry and still deliver as one piece. RFC 6749 A.12 allows %x20-7E in an access
token, but whoever reads `AuthorizerMemory` splits it at white space. CR and LF would begin another
header, and gRPC carries nothing beyond 7E as text.

Source: RFC 9110 11.4; grpc PROTOCOL-HTTP2.md, ASCII-Value = 1*( %x20-%x7E ).
"""

_JOSE = "eyJ"
"""base64url of `{"`: the value says that it is a JWT, or an encrypted one."""

_JWE_PARTS = 5


class _Header(msgspec.Struct):
    """RFC 7515 4.1.1: `alg` must be present; without one an object of JSON is somebody's cookie."""

    alg: str
    kid: str | None = None


class _Payload(msgspec.Struct):
    exp: Any = None
    iat: Any = None


_UNREADABLE = (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)
_HEADERS = msgspec.json.Decoder(_Header)
_DECODER = msgspec.json.Decoder(_Payload)


@dataclass(frozen=True, slots=True)
class Claims:
    """`exp` and `iat` in epoch seconds; None where the token does not say.

    `oddity` is our sentence on what is strange about a token that is used all the same, or "".
    """

    issued_s: float | None = None
    expires_s: float | None = None
    oddity: str = ""


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Start and end of a token's life, epoch seconds in the issuer's time."""

    issued_s: float
    expires_s: float

    @property
    def ttl_s(self) -> float:
        return self.expires_s - self.issued_s


def read_claims(value: str, *, lenient: bool = False) -> Claims:
    """Read a token's `iat` and `exp` without verifying its signature.

    A JWT is what has three parts, the first of which decodes to a JOSE header. A value that starts
    like one and goes on with neither three parts nor the five of an encrypted one was cut off.
    Anything else is opaque and says nothing, however many dots it holds.

    Args:
        lenient: The answer says by itself how long the token lives, so that a claim which cannot be
            read counts as none. Otherwise nothing would tell its life, and it is `malformed`.
    Raises:
        InvalidToken: `huge` or `malformed`.
    """
    if len(value) > MAX_TOKEN_BYTES:
        raise unusable("huge", f"longer than {MAX_TOKEN_BYTES} bytes")
    if len(value) < MIN_TOKEN_BYTES:
        raise unusable("malformed", f"shorter than {MIN_TOKEN_BYTES} bytes")
    oddity = ""
    if not _BEARER.fullmatch(value):
        oddity = _judge_characters(value)
    parts = value.rstrip("=").split(".")
    if not _is_jwt(value, parts):
        return Claims(oddity=oddity)
    payload = _decode(parts[1])
    found, doubts = _Payload() if payload is None else payload, []
    if payload is None:
        doubts.append("its claims cannot be read")
    issued_s, expires_s = _instant(found.iat), _instant(found.exp)
    doubts += [
        f"its {name} is no instant of our era in seconds"
        for name, claim, instant in (("iat", found.iat, issued_s), ("exp", found.exp, expires_s))
        if claim is not None and instant is None
    ]
    if doubts and not lenient:
        raise unusable("malformed", doubts[0])
    return Claims(issued_s, expires_s, oddity or "; ".join(doubts))


def key_of(value: str) -> str:
    """Return a short digest of the `kid` in a JWT's header, "" where there is none.

    It tells whether two tokens were signed with the same key (RFC 7515 4.1.4); a digest, since a
    `kid` may be of any length.
    """
    parts = value.split(".")
    if len(parts) != 3:
        return ""
    header = _header_of(parts[0])
    if header is None or header.kid is None:
        return ""
    return hashlib.blake2b(header.kid.encode("utf-8", "replace"), digest_size=6).hexdigest()


def lifetime(claims: Claims, *, now_s: float, expires_in_s: float | None) -> Lifetime:
    """Return the life of a token that arrived at `now_s`.

    Its own `exp` counts. Without one it lives from now for as long as the answer's `expires_in`
    says: that is the rule for opaque tokens. Without an `iat` it is taken as issued now.

    Args:
        now_s: The issuer's time at receipt, epoch seconds.
        expires_in_s: The answer's `expires_in` in seconds, or None.
    Raises:
        InvalidToken: `no_expiry`, `expired` or `malformed`.
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


def unusable(reason: Reason, why: str) -> InvalidToken:
    """Return the error of one rule; `why` is our sentence and holds nothing of the token."""
    return InvalidToken(f"the token is not usable ({reason}): {why}", reason=reason)


def _judge_characters(value: str) -> str:
    """Return the oddity of a value that is no `b64token`; raises where no header can carry it."""
    if not _SENDABLE.fullmatch(value):
        raise unusable("malformed", "it holds characters that no bearer token may have")
    if value.startswith("<"):
        raise unusable("malformed", "it is a page, not a token")
    return "it holds characters that RFC 6750 does not allow in a bearer token"


def _is_jwt(value: str, parts: list[str]) -> bool:
    """Tell whether there are claims to read; raises for a JWT that was cut off."""
    header = _header_of(parts[0])
    if len(parts) == 3:
        return header is not None
    cut_off = header is not None and len(parts) != _JWE_PARTS
    if cut_off or (len(parts) == 1 and value.startswith(_JOSE) and not _is_object(value)):
        raise unusable("malformed", "it starts like a JWT and does not go on like one")
    return False


def _header_of(part: str) -> _Header | None:
    try:
        return _HEADERS.decode(_bytes_of(part))
    except _UNREADABLE:
        return None


def _is_object(part: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(_bytes_of(part.rstrip("="))), dict)
    except _UNREADABLE:
        return False


def _decode(part: str) -> _Payload | None:
    # The caught errors hold the bytes that they choked on; None lets them go, unchained.
    try:
        return _DECODER.decode(_bytes_of(part))
    except _UNREADABLE:
        return None


def _bytes_of(part: str) -> bytes:
    padded = part + "=" * (-len(part) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)


def _instant(claim: object) -> float | None:
    """Return a claim as epoch seconds; None where it is absent, no number, or counts no seconds."""
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return None
    return float(claim) if 0 <= claim <= MAX_EPOCH_S else None
