"""Parses the issuer's response to a token or to exactly one error, without its body (pure)."""

import codecs
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import msgspec

from reconciler.clock import EpochTime, Instant
from reconciler.errors import IssuerError, IssuerRefused, IssuerUnavailable
from reconciler.tokens.claims import Claims, invalid_token, read_claims
from reconciler.tokens.server_clock import TokenTimes
from reconciler.tokens.token import Token

MAX_TTL_S = 10 * 365 * 86_400.0
"""A lifetime beyond ten years has a wrong unit (milliseconds)."""


@dataclass(frozen=True, eq=False)
class TokenResponse:
    """The issuer's token response, not validated yet.

    Args:
        value: The `access_token`; kept out of `repr`.
        token_type: As sent; "" if it is absent.
        expires_in_s: Seconds, or None if it is absent or not a number.
        date_s: The Date header, epoch seconds in the issuer's time, or None.
        sent_at: When the request started, monotonic.
        received_at: When the response's headers arrived, monotonic.
    """

    value: str = field(repr=False)
    sent_at: Instant
    received_at: Instant
    token_type: str = "Bearer"  # noqa: S105 - a scheme's name
    expires_in_s: float | None = None
    date_s: EpochTime | None = None

    @cached_property
    def claims(self) -> Claims:
        """The claims of its token, read once; raises `InvalidToken` if they cannot be read.

        With a lifetime in the response, a token with unreadable claims can still be used.
        """
        has_lifetime = self.expires_in_s is not None and self.expires_in_s > 0
        return read_claims(self.value, lenient=has_lifetime)

    @property
    def times(self) -> TokenTimes:
        """The times in this response; raises `InvalidToken` as `claims`."""
        claims = self.claims
        return TokenTimes(
            claims.issued_s,
            claims.expires_s,
            self.expires_in_s,
            self.sent_at,
            self.received_at,
            token_id=hash(self.value),
        )


def to_token(response: TokenResponse, *, now_s: EpochTime) -> Token:
    """Validate a response and return its token.

    Args:
        now_s: The issuer's time at receipt, epoch seconds, as `IssuerTime.observe` returns it.
    Raises:
        InvalidToken: For each rule that the token breaks.
    """
    if response.token_type.lower() not in ("bearer", ""):
        raise invalid_token("not_bearer", "its token_type is not Bearer")
    claims = response.claims
    issued_s, expires_s = lifetime(claims, now_s=now_s, expires_in_s=response.expires_in_s)
    age_s = max(0.0, now_s - issued_s)
    if age_s >= expires_s - issued_s:
        raise invalid_token("expired", "it had expired when it arrived")
    return Token(
        response.value,
        issued_s=issued_s,
        expires_s=expires_s,
        received_at=response.received_at,
        age_at_receipt_s=age_s,
        signing_key=claims.signing_key,
        warning=claims.warning,
    )


def lifetime(
    claims: Claims, *, now_s: EpochTime, expires_in_s: float | None
) -> tuple[EpochTime, EpochTime]:
    """Return start and end of the life of a token that arrived at `now_s`, issuer's time.

    Its own `exp` counts. Without one it is valid from now for the response's `expires_in`: that is
    the rule for opaque tokens. Without an `iat` it counts as issued now.

    Args:
        now_s: The issuer's time at receipt, epoch seconds.
        expires_in_s: The response's `expires_in` in seconds, or None.
    Raises:
        InvalidToken: `no_expiry`, `expired` or `malformed`.
    """
    issued_s, expires_s = claims.issued_s, claims.expires_s
    if expires_s is None:
        if expires_in_s is None:
            raise invalid_token("no_expiry", "it has no exp, and the response has no expires_in")
        issued_s, expires_s = now_s, now_s + expires_in_s
    elif issued_s is None:
        issued_s = now_s
    elif expires_s <= issued_s:
        raise invalid_token("malformed", "it ends before it begins")
    if expires_s <= issued_s:
        raise invalid_token("expired", "it had expired when it arrived")
    if expires_s - issued_s > MAX_TTL_S:
        raise invalid_token("malformed", "its lifetime is more than ten years")
    return issued_s, expires_s


_REFUSAL_CODES = frozenset(
    {
        "access_denied",
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_resource",
        "invalid_scope",
        "invalid_target",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""Codes that a person must fix. Source: RFC 6749 5.2 and
4.1.2.1; RFC 8707 2 for `invalid_target`; Microsoft Entra ID for `invalid_resource`."""

_KNOWN_CODES = _REFUSAL_CODES | {"server_error", "slow_down", "temporarily_unavailable"}
"""Codes that a message may contain; any other `error` text may contain anything and is left out."""

_CLIENT_CODES = frozenset({"", "invalid_client", "invalid_request", "unauthorized_client"})
"""Codes that an issuer returns if it did not find credentials in this style."""

_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, eq=False)
class RawResponse:
    """Status, times and body; `body` is None if it was longer than the limit.

    `other_refusal` is the different refusal of the same request with credentials in the other
    style, as text; "" if there was none or it was the same.
    """

    status: int
    body: bytes | None = field(repr=False)
    sent_at: Instant
    received_at: Instant
    date_s: EpochTime | None = None
    retry_after_s: float | None = None
    other_refusal: str = ""


def is_success(response: RawResponse) -> bool:
    """Return whether a response may have a token: 2xx and no `error` member."""
    return 200 <= response.status < 300 and error_code(response) is None


def is_refusal(response: RawResponse) -> bool:
    """Return whether the issuer refused the request.

    400, 401 and 403 are a refusal unless their code is a temporary error; so are known codes in a
    200. Anything else, also a redirect or a 404 from a router, means that no issuer was reached.
    """
    code = error_code(response) or ""
    if code:
        return code in _REFUSAL_CODES and response.status < 500 and response.status != 429
    return response.status in (400, 401, 403)


def more_specific(first: RawResponse, second: RawResponse) -> RawResponse:
    """Return the more specific of two refusals, one for each style of credentials.

    An issuer that supports one style returns a code about the client for the other. If both codes
    are about the client, its style is unknown; so the other refusal is kept as text.
    """
    is_about_client = (error_code(first) or "") in _CLIENT_CODES
    is_second = is_about_client and (error_code(second) or "") not in _CLIENT_CODES
    specific, other = (second, first) if is_second else (first, second)
    other_refusal = _summary(other)
    return replace(
        specific, other_refusal="" if other_refusal == _summary(specific) else other_refusal
    )


def error_code(response: RawResponse) -> str | None:
    """Return the body's `error` if it is a known code, "" for any other, None without one."""
    members = _decode(response.body)
    if members is None or members.get("error") is None:
        return None
    code = members["error"]
    return code if isinstance(code, str) and code in _KNOWN_CODES else ""


def parse_token_response(response: RawResponse, *, request: str) -> TokenResponse:
    """Return the token response in a successful HTTP response.

    Args:
        request: Description of the request, for messages.
    Raises:
        IssuerRefused: The issuer refuses our credentials or the request.
        IssuerUnavailable: It failed or throttles, or another server responds in its place.
        InvalidToken: `huge` or `malformed`.
    """
    if not is_success(response):
        raise _to_error(response, request)
    if response.body is None:
        raise invalid_token("huge", "the answer that holds it is longer than an answer may be")
    members = _decode(response.body)
    if members is None:
        raise IssuerUnavailable(
            f"{request}: answered {response.status} with something that is not a JSON object",
            status=response.status,
            reason="not_json",
        )
    value, kind = members.get("access_token"), members.get("token_type")
    if not isinstance(value, str):
        raise invalid_token("malformed", "the answer has no access_token")
    return TokenResponse(
        value,
        sent_at=response.sent_at,
        received_at=response.received_at,
        token_type="" if kind is None else str(kind),
        expires_in_s=_parse_seconds(members.get("expires_in")),
        date_s=response.date_s,
    )


def _to_error(response: RawResponse, request: str) -> IssuerError:
    code = error_code(response) or ""
    other_refusal = (
        f"; with the credentials sent the other way {response.other_refusal}"
        if response.other_refusal
        else ""
    )
    return (IssuerRefused if is_refusal(response) else IssuerUnavailable)(
        f"{request}: answered {_summary(response)}{other_refusal}",
        status=response.status,
        reason=code,
        retry_after_s=response.retry_after_s,
    )


def _summary(response: RawResponse) -> str:
    return f"{response.status} {error_code(response) or ''}".rstrip()


def _decode(body: bytes | None) -> dict[str, Any] | None:
    # The caught errors hold the body; None drops them, unchained.
    if body is None:
        return None
    try:
        decoded = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None


def _parse_seconds(member: object) -> float | None:
    """Parse `expires_in`: a number, or a string of one as some issuers send it."""
    if isinstance(member, str) and _NUMBER.fullmatch(member.strip()):
        return float(member)
    if isinstance(member, int | float) and not isinstance(member, bool) and abs(member) < 1e12:
        return float(member)
    return None
