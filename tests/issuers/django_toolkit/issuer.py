"""django-oauth-toolkit: opaque tokens, and a token URL that ends with a slash."""

import asyncio
from pathlib import Path

from aiohttp import encode_basic_auth

from tests.issuers.issuer import CLIENT_ID, RealIssuer

SITE = Path(__file__).with_name("site.py")


class DjangoToolkit(RealIssuer):
    """`program` is the Python of the virtual environment that has the package."""

    name = "django-oauth-toolkit"

    @property
    def token_url(self) -> str:
        return f"{self.url}/o/token/"

    def command(self) -> list[str]:
        return [*self._site, "serve", str(self.port)]

    async def is_ready(self) -> bool:
        await self.call("GET", f"{self.url}/ready")
        return True

    async def set_up(self) -> None:
        await self._manage("client", self.client_secret)

    async def rotate_secret(self, secret: str) -> None:
        await self._manage("client", secret)
        self.client_secret = secret

    async def set_enabled(self, enabled: bool) -> None:
        await self._manage(*(("client", self.client_secret) if enabled else ("no-client",)))

    async def introspect(self, token: str) -> float:
        answer = await self.call(
            "POST",
            f"{self.url}/o/introspect/",
            data={"token": token},
            headers={"Authorization": encode_basic_auth(CLIENT_ID, self.client_secret)},
        )
        return float(answer["exp"])

    @property
    def _site(self) -> list[str]:
        return [str(self.program), str(SITE), str(self.folder), str(self.ttl_s)]

    async def _manage(self, *words: str) -> None:
        process = await asyncio.create_subprocess_exec(*self._site, *words)
        assert await process.wait() == 0, f"site.py {words[0]} failed"
