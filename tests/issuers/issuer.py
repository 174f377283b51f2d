"""The interface of every real issuer: start it, request tokens, change its settings."""

import asyncio
import base64
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp

from reconciler.lab.cluster.ports import free_port
from tests.cluster.process import Server

Json = dict[str, Any]

CLIENT_ID = "token-reconciler"
CLIENT_SECRET = "obviously-fake-client-secret"
POLL_S = 0.2
ASK_LIMIT_S = 20.0

SCOPE = "platform"
"""A scope that the client may have, but gets only if it requests it."""

AUDIENCE = "https://platform.example/api"
"""The platform's API by its name at the issuer."""

ASK_SCOPE = "RECONCILER_OIDC_SCOPE"
ASK_AUDIENCE = "RECONCILER_OIDC_AUDIENCE"
ASK_RESOURCE = "RECONCILER_OIDC_RESOURCE"


@dataclass(frozen=True, slots=True)
class Refusal:
    """Settings that the issuer refuses.

    Args:
        answer: HTTP status and OAuth error code.
        names: The wrong setting, which every output must name.
    """

    settings: dict[str, str]
    answer: str
    names: str


class RealIssuer(ABC):
    """One server process with one client that may request tokens, while entered.

    Args:
        folder: For its data and its log; the data survive a restart.
    """

    name: ClassVar[str]
    ready_limit_s: ClassVar[float] = 60.0
    ttl_s: ClassVar[int] = 20
    """Life of the tokens."""
    granted: ClassVar[dict[str, str]]
    """Settings that bring a token with `SCOPE`, for `AUDIENCE`."""
    refused: ClassVar[tuple[Refusal, ...]]

    def __init__(self, program: Path, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.port = free_port()
        self.client_secret = CLIENT_SECRET
        self._http: aiohttp.ClientSession | None = None
        self._server: Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    @abstractmethod
    def token_url(self) -> str: ...

    @abstractmethod
    def command(self) -> list[str]:
        """Return the program and its arguments."""

    @abstractmethod
    async def is_ready(self) -> bool:
        """Return whether the server answers; may raise `aiohttp.ClientError`."""

    @abstractmethod
    async def set_up(self) -> None:
        """Create the client, once, after the first start."""

    @abstractmethod
    async def rotate_secret(self, secret: str) -> None:
        """Replace the client's secret; the old one is refused from now on."""

    async def make_tokens_last(self) -> int:
        """From now on issue tokens that live longer than a restart takes.

        Returns: Their life, seconds; 0 if no change is needed.
        """
        return 0

    async def make_tokens_short(self) -> None:
        """Issue tokens of `ttl_s` again."""
        raise NotImplementedError(f"{self.name} has never issued others")

    @abstractmethod
    async def set_enabled(self, enabled: bool) -> None:
        """Refuse the client, or accept it again."""

    async def rotate_key(self) -> bool:
        """Sign with another key from now on; return False if tokens are not signed."""
        return False

    async def claims(self, token: str) -> Json:
        """Return the issuer's claims of a valid token, `exp` included.

        Raises:
            aiohttp.ClientError: The issuer does not answer.
            AssertionError: The issuer reports the token as invalid.
        """
        parts = token.split(".")
        if token.startswith("eyJ") and len(parts) == 3:
            padded = parts[1] + "=" * (-len(parts[1]) % 4)
            decoded: Json = json.loads(base64.urlsafe_b64decode(padded))
            return decoded
        return await self.introspect(token)

    async def introspect(self, token: str) -> Json:
        """Return the answer of the introspection endpoint (RFC 7662); raises like `claims`."""
        raise NotImplementedError(f"{self.name} issues JWTs here")

    async def __aenter__(self) -> Self:
        self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ASK_LIMIT_S))
        try:
            await self.start()
            await self.set_up()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        if self._http is not None:
            await self._http.close()

    async def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            ServerError: It ended, or it does not answer within `ready_limit_s`.
        """
        server = Server(self.name, self.command(), log=self.folder / f"{self.name}.log")
        self._server = server
        server.start()
        try:
            async with asyncio.timeout(self.ready_limit_s):
                while not await self._answers():
                    if not server.alive:
                        raise server.failed("ended")
                    await asyncio.sleep(POLL_S)
        except TimeoutError:
            raise server.failed(f"is not ready after {self.ready_limit_s:g} s") from None

    def kill(self) -> None:
        """End the process at once; its data stays."""
        if self._server is not None:
            self._server.kill()

    async def _answers(self) -> bool:
        try:
            return await self.is_ready()
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def call(
        self,
        method: str,
        url: str,
        *,
        expect: tuple[int, ...] = (200, 201, 204),
        **request: Any,
    ) -> Any:
        """Send a request of an administrator; return the decoded JSON answer, or None without one.

        Raises:
            AssertionError: The answer has another status; the message contains its body.
        """
        assert self._http is not None
        async with self._http.request(method, url, **request) as answer:
            text = await answer.text()
            assert answer.status in expect, f"{method} {url}: {answer.status} {text[:500]}"
            return json.loads(text) if text.startswith(("{", "[")) else None

    async def token(self, **form: str) -> tuple[int, Json]:
        """Request a token as any client; return the status and the decoded body."""
        assert self._http is not None
        asked = {
            "grant_type": "client_credentials",
            "client_id": CLIENT_ID,
            "client_secret": self.client_secret,
        } | form
        async with self._http.post(self.token_url, data=asked) as answer:
            return answer.status, await answer.json(content_type=None)
