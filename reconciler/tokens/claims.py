"""A token's own claims about its lifetime and its signing key; decoded, not verified (pure).

The validator verifies. The controller needs the time of the next refresh, and must not write a
value that no validator could accept to ten thousand files.
"""

import base64
import binascii
import hashlib
import re
from typing import Any, Literal

import msgspec

from reconciler.clock import EpochTime
from reconciler.errors import InvalidToken

MAX_TOKEN_BYTES = 16 * 1024
"""Nothing longer is written: the token is a header of each call, and gRPC's C core rejects a call
with more than 16 KiB of metadata by default, so that a longer token could never be used.

Source: grpc `chttp2/transport/max_metadata_size`, hard limit.
"""

MIN_TOKEN_BYTES = 20
"""The platform's own clients reject anything shorter before they send a request.

Source: ambient go-sdk `client.go`, checks at construction.
"""

MAX_EPOCH_S = 100_000_000_000.0
"""The year 5138: a larger number is in milliseconds."""

Reason = Literal["malformed", "huge", "expired", "no_expiry", "not_bearer"]

_BEARER = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
"""RFC 6750 2.1, `b64token`: what every validator accepts in an Authorization header."""

_SENDABLE = re.compile(r"[!-~]+")
"""What a header can carry as one value. RFC 6749 A.12 allows %x20-7E in an access token, but
readers of `Authorization` split it at white space. CR and LF would start another header, and gRPC
carries nothing beyond 7E as text.

Source: RFC 9110 11.4; grpc PROTOCOL-HTTP2.md, ASCII-Value = 1*( %x20-%x7E ).
"""

_JOSE = "eyJ"
"""base64url of `{"`: the start of a JWT, plain or encrypted."""

_JWE_PARTS = 5


class _Header(msgspec.Struct):
    """RFC 7515 4.1.1: `alg` must be present; a JSON object without it is not a JOSE header."""

    alg: str
    kid: str | None = None


class _Payload(msgspec.Struct):
    exp: Any = None
    iat: Any = None


_DECODE_ERRORS = (
    binascii.Error,
    msgspec.DecodeError,
    UnicodeDecodeError,
    RecursionError,
    ValueError,
)
_HEADER_DECODER = msgspec.json.Decoder(_Header)
_PAYLOAD_DECODER = msgspec.json.Decoder(_Payload)


class Claims(msgspec.Struct, frozen=True):
    """`exp` and `iat` in epoch seconds; None if the token has none.

    `signing_key` is a short digest of the `kid` in a JWT's header, "" if there is none. Equal
    digests mean the same key (RFC 7515 4.1.4); a digest, since a `kid` may have any length.
    `warning` is a sentence about what is unusual in a usable token, or "".
    """

    issued_s: EpochTime | None = None
    expires_s: EpochTime | None = None
    warning: str = ""
    signing_key: str = ""


def read_claims(value: str, *, lenient: bool = False) -> Claims:
    """Read a token's `iat` and `exp` without verifying its signature.

    A JWT has three parts, the first of which decodes to a JOSE header. A value that starts like one
    but has not three parts, or the five of an encrypted one, was truncated. Any other value is
    opaque and has no claims, even if it contains dots.

    Args:
        lenient: The response has a lifetime, so that an invalid claim counts as absent. Otherwise
            the lifetime would be unknown, and the token is `malformed`.
    Raises:
        InvalidToken: `huge` or `malformed`.

    >>> payload = msgspec.json.encode({"iat": 1000, "exp": 1900})
    >>> parts = (b'{"alg": "none"}', payload, b"not signed")
    >>> jwt = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    >>> read_claims(jwt)
    Claims(issued_s=1000.0, expires_s=1900.0, warning='', signing_key='')
    >>> read_claims("an-opaque-token-has-no-claims")
    Claims(issued_s=None, expires_s=None, warning='', signing_key='')
    """
    if len(value) > MAX_TOKEN_BYTES:
        raise invalid_token("huge", f"longer than {MAX_TOKEN_BYTES} bytes")
    if len(value) < MIN_TOKEN_BYTES:
        raise invalid_token("malformed", f"shorter than {MIN_TOKEN_BYTES} bytes")
    warning = ""
    if not _BEARER.fullmatch(value):
        warning = _check_characters(value)
    parts = value.rstrip("=").split(".")
    header = _jwt_header(value, parts)
    if header is None:
        return Claims(warning=warning)
    payload = _decode_payload(parts[1])
    decoded, problems = _Payload() if payload is None else payload, []
    if payload is None:
        problems.append("its claims cannot be read")
    issued_s, expires_s = _epoch_s(decoded.iat), _epoch_s(decoded.exp)
    problems += [
        f"its {name} is no instant of our era in seconds"
        for name, claim, instant in (
            ("iat", decoded.iat, issued_s),
            ("exp", decoded.exp, expires_s),
        )
        if claim is not None and instant is None
    ]
    if problems and not lenient:
        raise invalid_token("malformed", problems[0])
    return Claims(issued_s, expires_s, warning or "; ".join(problems), _digest(header.kid))


def invalid_token(reason: Reason, message: str) -> InvalidToken:
    """Return the error of one rule; `message` contains no part of the token."""
    return InvalidToken(f"the token is not usable ({reason}): {message}", reason=reason)


def _check_characters(value: str) -> str:
    """Return the warning of a value that is no `b64token`; raises if no header can carry it."""
    if not _SENDABLE.fullmatch(value):
        raise invalid_token("malformed", "it holds characters that no bearer token may have")
    if value.startswith("<"):
        raise invalid_token("malformed", "it is a page, not a token")
    return "it holds characters that RFC 6750 does not allow in a bearer token"


def _jwt_header(value: str, parts: list[str]) -> _Header | None:
    """Return a JWT's header; None without claims to read; raises for a truncated JWT."""
    header = _decode_header(parts[0])
    if len(parts) == 3:
        return header
    is_truncated = header is not None and len(parts) != _JWE_PARTS
    if is_truncated or (len(parts) == 1 and value.startswith(_JOSE) and not _is_object(value)):
        raise invalid_token("malformed", "it starts like a JWT and does not go on like one")
    return None


def _digest(kid: str | None) -> str:
    if kid is None:
        return ""
    return hashlib.blake2b(kid.encode("utf-8", "replace"), digest_size=6).hexdigest()


def _decode_header(part: str) -> _Header | None:
    try:
        return _HEADER_DECODER.decode(_decode_base64url(part))
    except _DECODE_ERRORS:
        return None


def _is_object(part: str) -> bool:
    try:
        return isinstance(msgspec.json.decode(_decode_base64url(part.rstrip("="))), dict)
    except _DECODE_ERRORS:
        return False


def _decode_payload(part: str) -> _Payload | None:
    # The caught errors hold the bytes that failed; None drops them, unchained.
    try:
        return _PAYLOAD_DECODER.decode(_decode_base64url(part))
    except _DECODE_ERRORS:
        return None


def _decode_base64url(part: str) -> bytes:
    padded = part + "=" * (-len(part) % 4)
    return base64.b64decode(padded, altchars=b"-_", validate=True)


def _epoch_s(claim: object) -> EpochTime | None:
    """Return a claim as epoch seconds; None if it is absent, not a number, or not in seconds."""
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        return None
    return EpochTime(claim) if 0 <= claim <= MAX_EPOCH_S else None
