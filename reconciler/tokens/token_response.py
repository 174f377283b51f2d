"""The issuer's answer, to a grant or to exactly one error; nothing of the body in it (pure)."""

import codecs
import re
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from reconciler.errors import IssuerError, IssuerRefused, IssuerUnavailable
from reconciler.tokens.claims import lifetime, read_claims, unusable
from reconciler.tokens.server_clock import TokenTimes
from reconciler.tokens.token import Token


@dataclass(frozen=True, slots=True, eq=False)
class TokenResponse:
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


def times_of(grant: TokenResponse) -> TokenTimes:
    """Return what a grant says of time.

    Raises:
        InvalidToken: Its token cannot be read.
    """
    claims = read_claims(grant.value, lenient=_says_its_life(grant))
    return TokenTimes(
        claims.issued_s, claims.expires_s, grant.expires_in_s, grant.sent_at, grant.received_at
    )


def to_token(grant: TokenResponse, *, now_s: float) -> Token:
    """Judge a grant and return its token.

    Args:
        now_s: The issuer's time at receipt, epoch seconds, as `IssuerTime.hear` weighs it.
    Raises:
        InvalidToken: For each rule that the token breaks.
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


def _says_its_life(grant: TokenResponse) -> bool:
    """Tell whether a token whose claims cannot be read can still be used."""
    return grant.expires_in_s is not None and grant.expires_in_s > 0


_REFUSALS = frozenset(
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
"""Codes after which somebody must change something. Source: RFC 6749 5.2 and
4.1.2.1; RFC 8707 2 for `invalid_target`; Microsoft Entra ID for `invalid_resource`."""

_CODES = _REFUSALS | {"server_error", "slow_down", "temporarily_unavailable"}
"""Codes that may be repeated in a message; any other text of an `error` member may hold anything,
so it is not."""

_ABOUT_CLIENT = frozenset({"", "invalid_client", "invalid_request", "unauthorized_client"})
"""Codes that an issuer sends when it did not find the credentials where they were sent."""

_NUMBER = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?")


@dataclass(frozen=True, slots=True, eq=False)
class RawResponse:
    """Status, times and body; `body` is None where it was longer than what is read of one.

    `beside`: of a refusal, another one that the same request met with the credentials sent in the
    other style, in words; "" where there was none, or the same.
    """

    status: int
    body: bytes | None = field(repr=False)
    sent_at: float
    received_at: float
    date_s: float | None = None
    retry_after_s: float | None = None
    beside: str = ""


def is_success(answer: RawResponse) -> bool:
    """Tell whether an answer may hold a token: 2xx and no `error` member."""
    return 200 <= answer.status < 300 and error_code(answer) is None


def is_refusal(answer: RawResponse) -> bool:
    """Tell whether the issuer refused us, for whatever reason.

    400, 401 and 403 are a refusal unless they name a passing trouble, like known codes in a 200;
    all else, a redirect or a 404 from a router too, means that no issuer was reached.
    """
    code = error_code(answer) or ""
    if code:
        return code in _REFUSALS and answer.status < 500 and answer.status != 429
    return answer.status in (400, 401, 403)


def more_telling(first: RawResponse, second: RawResponse) -> RawResponse:
    """Return which of two refusals, one of each style of credentials, says what is wrong.

    An issuer that reads one style alone answers the other with a word about the client. Where
    both have such a word nothing tells which style it reads, so that the other one is kept too.
    """
    about_client = (error_code(first) or "") in _ABOUT_CLIENT
    is_second = about_client and (error_code(second) or "") not in _ABOUT_CLIENT
    telling, other = (second, first) if is_second else (first, second)
    beside = _in_words(other)
    return replace(telling, beside="" if beside == _in_words(telling) else beside)


def error_code(answer: RawResponse) -> str | None:
    """Return the body's `error` if it is a known code, "" for any other, None without one."""
    members = _decode(answer.body)
    if members is None or members.get("error") is None:
        return None
    code = members["error"]
    return code if isinstance(code, str) and code in _CODES else ""


def parse_token_response(answer: RawResponse, *, what: str) -> TokenResponse:
    """Return the grant in a successful answer.

    Args:
        what: The request in words, for messages.
    Raises:
        IssuerRefused: Our credentials, or the request, are not accepted.
        IssuerUnavailable: It failed, throttles, or something else answers in its place.
        InvalidToken: `huge` or `malformed`.
    """
    if not is_success(answer):
        raise _error_of(answer, what)
    if answer.body is None:
        raise unusable("huge", "the answer that holds it is longer than an answer may be")
    members = _decode(answer.body)
    if members is None:
        raise IssuerUnavailable(
            f"{what}: answered {answer.status} with something that is not a JSON object",
            status=answer.status,
            reason="not_json",
        )
    value, kind = members.get("access_token"), members.get("token_type")
    if not isinstance(value, str):
        raise unusable("malformed", "the answer has no access_token")
    return TokenResponse(
        value,
        sent_at=answer.sent_at,
        received_at=answer.received_at,
        token_type="" if kind is None else str(kind),
        expires_in_s=_seconds(members.get("expires_in")),
        date_s=answer.date_s,
    )


def _error_of(answer: RawResponse, what: str) -> IssuerError:
    code = error_code(answer) or ""
    beside = f"; with the credentials sent the other way {answer.beside}" if answer.beside else ""
    return (IssuerRefused if is_refusal(answer) else IssuerUnavailable)(
        f"{what}: answered {_in_words(answer)}{beside}",
        status=answer.status,
        reason=code,
        retry_after_s=answer.retry_after_s,
    )


def _in_words(answer: RawResponse) -> str:
    return f"{answer.status} {error_code(answer) or ''}".rstrip()


def _decode(body: bytes | None) -> dict[str, Any] | None:
    # The caught errors hold the body; None lets them go, unchained.
    if body is None:
        return None
    try:
        decoded = msgspec.json.decode(body.removeprefix(codecs.BOM_UTF8))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return decoded if isinstance(decoded, dict) else None


def _seconds(member: object) -> float | None:
    """Read `expires_in`: a number, or a string of one as some issuers send it."""
    if isinstance(member, str) and _NUMBER.fullmatch(member.strip()):
        return float(member)
    if isinstance(member, int | float) and not isinstance(member, bool) and abs(member) < 1e12:
        return float(member)
    return None
