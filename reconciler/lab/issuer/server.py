"""An OIDC issuer on loopback: client credentials for real RS256 tokens, and faults on demand."""

import asyncio
import base64
import binascii
import secrets
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any, Literal
from urllib.parse import unquote_plus

from aiohttp import web

from reconciler.clock import Clock, EpochTime, Instant, SystemClock
from reconciler.lab.issuer.signing_key import IssuerKey

TokenFault = Literal["", "expired", "malformed", "huge", "no_exp"]


@dataclass
class IssuerFaults:
    """The issuer's faults; each field may be changed while it runs.

    Args:
        unreachable: Connections are closed without an answer.
        slow_s: Seconds before each answer.
        status: HTTP status instead of a token: 401 is `invalid_client` in JSON, others are text.
        retry_after: The Retry-After header of an answer with `status`, unchanged.
        html: 200 with a page instead of JSON.
        error_in_200: 200 with JSON that has an `error` member.
        redirect: 302 to a page.
        token: `expired`: expired when it is issued; `malformed`: truncated; `huge`: `huge_bytes`
            longer than usual; `no_exp`: without `exp`.
        ttl_s: Life of the tokens instead of the issuer's `ttl_s`, seconds.
        expires_in: Type of `expires_in` in the answer.
        token_type: `token_type` in the answer.
        clock_offset_s: The issuer's clock less the lab's, in `iat`, `exp`, Date; a change: a step.
        date: `gateway` sets Date by another clock; `absent` sends none, as Keycloak does.
        date_offset_s: That gateway's clock less the lab's.
        cached_s: Seconds for which the same body is the answer to every request.
        basic_refused: HTTP Basic gets `invalid_client`; only credentials in the body work.
        body_refused: Credentials in the body get `invalid_client`; only HTTP Basic works.
    """

    unreachable: bool = False
    slow_s: float = 0.0
    status: int = 0
    retry_after: str = ""
    html: bool = False
    error_in_200: bool = False
    redirect: bool = False
    token: TokenFault = ""
    huge_bytes: int = 20_000
    ttl_s: float | None = None
    expires_in: Literal["number", "string", "absent"] = "number"
    token_type: str = "Bearer"
    clock_offset_s: float = 0.0
    date: Literal["issuer", "gateway", "absent"] = "issuer"
    date_offset_s: float = 0.0
    cached_s: float = 0.0
    basic_refused: bool = False
    body_refused: bool = False


class Issuer:
    """Listens in `async with Issuer() as issuer:`; `issue` and `verify` work without that, too.

    Attributes that may be set at any time: `faults`, `ttl_s`, `client_id`, `client_secret`.
    `requests_total` counts the requests to `/token`. `issued` has every token string that was sent,
    valid or not, so that a test can search for them in other outputs.

    Args:
        ttl_s: Life of a token, seconds; `iat` is truncated to whole seconds, as by real issuers.
        port: 0: a free one.
        key: The key of a former issuer, to simulate its restart; a new one by default.
    """

    def __init__(
        self,
        *,
        ttl_s: float = 900.0,
        client_id: str = "lab-client",
        client_secret: str = "lab-client-secret",
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        key: IssuerKey | None = None,
    ) -> None:
        self.ttl_s = ttl_s
        self.client_id = client_id
        self.client_secret = client_secret
        self.faults = IssuerFaults()
        self.requests_total = 0
        self.issued: set[str] = set()
        self._clock = clock or SystemClock()
        self.key = key or IssuerKey()
        self._host = host
        self._port = port
        self._runner: web.AppRunner | None = None
        self._cached: tuple[str, Instant] | None = None

    async def __aenter__(self) -> "Issuer":
        app = web.Application()
        app.router.add_post("/token", self._token)
        app.router.add_get("/jwks", self._jwks)
        app.on_response_prepare.append(self._set_date)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = int(self._runner.addresses[0][1])
        return self

    async def __aexit__(self, *_: object) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self._port}"

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def jwks(self) -> dict[str, Any]:
        return self.key.jwks()

    @property
    def tokens_total(self) -> int:
        """Number of tokens that were issued."""
        return len(self.issued)

    def clear_faults(self) -> None:
        """End all faults."""
        self.faults = IssuerFaults()

    def now_s(self) -> EpochTime:
        """Return the issuer's time, epoch seconds, with its offset."""
        return self._clock.wall() + self.faults.clock_offset_s

    def issue(self) -> str:
        """Issue a token, with the faults that affect tokens."""
        faults = self.faults
        issued_s = int(self.now_s())
        ttl_s = self.ttl_s if faults.ttl_s is None else faults.ttl_s
        if faults.token == "expired":
            issued_s -= int(ttl_s) + 60
        claims: dict[str, Any] = {
            "iss": self.url,
            "sub": f"service-account-{self.client_id}",
            "azp": self.client_id,
            "preferred_username": f"service-account-{self.client_id}",
            "typ": "Bearer",
            "iat": issued_s,
            "exp": issued_s + (int(ttl_s) if ttl_s == int(ttl_s) else ttl_s),
            "jti": secrets.token_hex(16),
        }
        if faults.token == "no_exp":
            del claims["exp"]
        if faults.token == "huge":
            claims["groups"] = secrets.token_hex(faults.huge_bytes // 2)
        token = self.key.sign(claims)
        if faults.token == "malformed":
            token = token[: len(token) // 3]
        self.issued.add(token)
        return token

    def _value(self) -> str:
        now_at, kept = self._clock.monotonic(), self._cached
        if kept is None or now_at - kept[1] >= self.faults.cached_s:
            kept = self._cached = self.issue(), now_at
        return kept[0]

    def verify(
        self, token: str, leeway_s: float = 0.0, *, now_s: EpochTime | None = None
    ) -> dict[str, Any]:
        """Return the claims of a token that a validator accepts.

        The validator has another clock, which the issuer's offset does not change.

        Args:
            now_s: The validator's time, epoch seconds; the lab's clock by default.
        Raises:
            TokenRejected: `malformed`, `signature` or `expired`.
        """
        validator_s = self._clock.wall() if now_s is None else now_s
        return self.key.verify(token, now_s=validator_s, leeway_s=leeway_s)

    async def _set_date(self, _: web.BaseRequest, response: web.StreamResponse) -> None:
        faults = self.faults
        if faults.date == "absent":
            response.headers.popall("Date", None)  # aiohttp set it before this hook
            return
        now_s = self._clock.wall() + faults.date_offset_s
        if faults.date == "issuer":
            now_s = self.now_s()
        response.headers["Date"] = formatdate(float(now_s), usegmt=True)

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response(self.jwks)

    async def _token(self, request: web.Request) -> web.Response:
        self.requests_total += 1
        form = await request.post()
        faults = self.faults
        if faults.slow_s:
            await asyncio.sleep(faults.slow_s)
        if faults.unreachable:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=503)  # is not sent: the transport is closed
        if (broken := _fault_response(faults)) is not None:
            return broken
        if not self._is_client(request, {key: str(value) for key, value in form.items()}):
            return _error(401, "invalid_client", {"WWW-Authenticate": 'Basic realm="lab"'})
        if form.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type")
        return self._token_response()

    def _is_client(self, request: web.Request, form: dict[str, str]) -> bool:
        header = request.headers.get("Authorization", "")
        if header.startswith("Basic "):
            given, refused = _basic(header), self.faults.basic_refused
        else:
            given = (form.get("client_id", ""), form.get("client_secret", ""))
            refused = self.faults.body_refused
        return not refused and given == (self.client_id, self.client_secret)

    def _token_response(self) -> web.Response:
        faults = self.faults
        ttl_s = self.ttl_s if faults.ttl_s is None else faults.ttl_s
        answer: dict[str, Any] = {
            "access_token": self._value(),
            "token_type": faults.token_type,
            "scope": "profile email",
        }
        if faults.expires_in == "number":
            answer["expires_in"] = int(ttl_s)
        elif faults.expires_in == "string":
            answer["expires_in"] = str(int(ttl_s))
        return web.json_response(answer, headers={"Cache-Control": "no-store"})


def _fault_response(faults: IssuerFaults) -> web.Response | None:
    """Return the answer of a fault that does not depend on the credentials, or None."""
    headers = {"Retry-After": faults.retry_after} if faults.retry_after else {}
    if faults.status == 401:
        return _error(401, "invalid_client", headers)
    if faults.status:
        return web.Response(status=faults.status, text="upstream trouble", headers=headers)
    if faults.html:
        page = "<html><body>Please log in</body></html>"
        return web.Response(text=page, content_type="text/html")
    if faults.error_in_200:
        return web.json_response({"error": "server_error", "access_token": "never-a-token-at-all"})
    if faults.redirect:
        return web.Response(status=302, headers={"Location": "/login"})
    return None


def _basic(header: str) -> tuple[str, str]:
    """Return id and secret from a Basic header, each form-decoded (RFC 6749 2.3.1)."""
    try:
        login = base64.b64decode(header.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    client_id, _, client_secret = login.partition(":")
    return unquote_plus(client_id), unquote_plus(client_secret)


def _error(status: int, code: str, headers: dict[str, str] | None = None) -> web.Response:
    body = {"error": code, "error_description": "refused by the lab's issuer"}
    return web.json_response(body, status=status, headers=headers)
