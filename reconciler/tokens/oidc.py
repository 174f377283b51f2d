"""The one request to the issuer: client credentials for a token, within a time limit."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote_plus, urlsplit

import aiohttp
from yarl import URL

from reconciler.clock import Clock, Instant
from reconciler.errors import IssuerRefused, IssuerUnavailable, SettingsError
from reconciler.net.client_pool import Requests
from reconciler.net.client_session import describe_error, kind_of, read_body, shown_url
from reconciler.net.http_dates import parse_date, parse_retry_after
from reconciler.telemetry.trace import span, traceparent
from reconciler.tokens.token_response import (
    RawResponse,
    TokenResponse,
    is_refusal,
    is_success,
    more_specific,
    parse_token_response,
)

LIMIT_S = 5.0
"""Default time limit of the whole request, both styles included: it usually takes 20-200 ms, and
every due session waits for it."""

MAX_RESPONSE_BYTES = 64 * 1024
"""Read at most: a token of 16 KiB, plus a refresh token and an ID token that some issuers add."""

AuthStyle = Literal["basic", "body"]


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """This client's ID and secret at the issuer."""

    client_id: str
    client_secret: str = field(repr=False)


class TokenEndpoint:
    """Requests one token from the issuer.

    HTTP Basic comes first (RFC 6749 2.3.1), credentials in the body second, after any refusal:
    issuers return many different codes. The style that worked comes first from then on.

    Args:
        url: The token endpoint, unchanged, with trailing slash and query; without user information.
        fields: Form fields in addition to the grant type and the credentials.
        session: Shared, owned by the caller.
        credentials: Called for every request, so that changed files are read; raises
            `SettingsError` if there are none.
        limit_s: Longest time for the whole request.
    Raises:
        ValueError: The URL has user information, which would be a second set of credentials.
    """

    def __init__(
        self,
        url: str,
        *,
        session: Requests,
        credentials: Callable[[], ClientCredentials],
        clock: Clock,
        limit_s: float = LIMIT_S,
        fields: Sequence[tuple[str, str]] = (),
    ) -> None:
        if "@" in urlsplit(url).netloc:
            raise ValueError("the token URL must not hold a user name or password")
        self._url = URL(url, encoded=True)
        self._session = session
        self._credentials = credentials
        self._clock = clock
        self._limit_s = limit_s
        self._fields = tuple(fields)
        self._style: AuthStyle = "basic"
        self._shown_url = shown_url(url)
        self._description = f"token request to {self._shown_url}"

    async def request_token(self) -> TokenResponse:
        """Request a token.

        Raises:
            IssuerRefused: Our credentials are missing, or were refused in both styles.
            IssuerUnavailable: No response in time, or one that is not the issuer's.
            InvalidToken: `huge` or `malformed`.
        Cancel: a token may have been issued; it is lost.
        """
        return parse_token_response(
            await self._request(self._read_credentials()), request=self._description
        )

    def _read_credentials(self) -> ClientCredentials:
        try:
            return self._credentials()
        except SettingsError as error:
            raise IssuerRefused(f"{self._description}: {error}", reason="no_credentials") from error

    async def _request(self, credentials: ClientCredentials) -> RawResponse:
        end_at = self._clock.monotonic() + self._limit_s
        first = await self._post(credentials, self._style, end_at)
        if is_success(first) or not is_refusal(first):
            return first
        other: AuthStyle = "body" if self._style == "basic" else "basic"
        second = await self._post(credentials, other, end_at, resends=1)
        if is_success(second):
            self._style = other
            return second
        return more_specific(first, second) if is_refusal(second) else second

    async def _post(
        self, credentials: ClientCredentials, style: AuthStyle, end_at: Instant, *, resends: int = 0
    ) -> RawResponse:
        with span("POST", method="POST") as current:
            if current is not None:
                current.url, current.resends = self._shown_url, resends
            # aiohttp's errors may hold the request's headers and so the secret: our error is raised
            # outside the handler, so that nothing is chained.
            try:
                async with asyncio.timeout(end_at - self._clock.monotonic()):
                    response = await self._exchange(credentials, style)
            except TimeoutError:
                reason, message = "timeout", f"no answer in {self._limit_s:g} s"
            except (aiohttp.ClientError, OSError, ValueError) as error:
                # ValueError: aiohttp raises it for a host in .netrc, or an invalid one.
                reason, message = kind_of(error), describe_error(error, system_trust=True)
            else:
                if current is not None:
                    current.status = response.status
                return response
            raise IssuerUnavailable(f"{self._description}: {message}", reason=reason)

    async def _exchange(self, credentials: ClientCredentials, style: AuthStyle) -> RawResponse:
        form = [("grant_type", "client_credentials"), *self._fields]
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"} | traceparent()
        if style == "basic":
            headers["Authorization"] = _basic(credentials)
        else:
            form.append(("client_id", credentials.client_id))
            form.append(("client_secret", credentials.client_secret))
        sent_at = self._clock.monotonic()
        async with self._session.request(
            "POST", self._url, data=form, headers=headers, allow_redirects=False
        ) as response:
            received_at = self._clock.monotonic()
            date_s = parse_date(response.headers.get("Date"))
            return RawResponse(
                response.status,
                await read_body(response, MAX_RESPONSE_BYTES),
                sent_at,
                received_at,
                date_s,
                parse_retry_after(
                    response.headers.get("Retry-After"),
                    now_s=self._clock.wall() if date_s is None else date_s,
                ),
            )


def _basic(credentials: ClientCredentials) -> str:
    # RFC 6749 2.3.1: each half is form-encoded before the colon joins them.
    login = quote_plus(credentials.client_id)
    return aiohttp.encode_basic_auth(login, quote_plus(credentials.client_secret))
