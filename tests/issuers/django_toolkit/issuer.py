"""django-oauth-toolkit: opaque tokens, and a token URL that ends with a slash."""

from pathlib import Path
from typing import ClassVar

from aiohttp import encode_basic_auth

from tests.issuers.issuer import (
    ASK_RESOURCE,
    ASK_SCOPE,
    AUDIENCE,
    SCOPE,
    Json,
    RealIssuer,
    Refusal,
)

SITE = Path(__file__).with_name("site.py")
INTROSPECTOR = "introspector"
INTROSPECTOR_SECRET = "obviously-fake-introspector-secret"
"""A second client for the tests, from `site.py`: it keeps its permission in every test."""


class DjangoToolkit(RealIssuer):
    """`program` is the Python of the virtual environment that has the package."""

    name = "django-oauth-toolkit"
    granted: ClassVar = {ASK_SCOPE: SCOPE, ASK_RESOURCE: AUDIENCE}
    refused = (
        Refusal({ASK_SCOPE: "other"}, "400 invalid_scope", ASK_SCOPE),
        Refusal({ASK_RESOURCE: "urn:example:other"}, "400 invalid_target", ASK_RESOURCE),
    )

    @property
    def token_url(self) -> str:
        return f"{self.url}/o/token/"

    def command(self) -> list[str]:
        return [str(self.program), str(SITE), str(self.folder), str(self.ttl_s), str(self.port)]

    async def is_ready(self) -> bool:
        await self.call("GET", f"{self.url}/ready")
        return True

    async def set_up(self) -> None:
        await self._change(client_secret=self.client_secret)

    async def rotate_secret(self, secret: str) -> None:
        await self._change(client_secret=secret)
        self.client_secret = secret

    async def set_enabled(self, enabled: bool) -> None:
        """Remove the grant from the client, or restore it: an application cannot be disabled.

        A deletion would also delete its tokens, those in use included.
        """
        grant = "client-credentials" if enabled else "authorization-code"
        await self._change(authorization_grant_type=grant)

    async def introspect(self, token: str) -> Json:
        answer: Json = await self.call(
            "POST",
            f"{self.url}/o/introspect/",
            data={"token": token},
            headers={"Authorization": encode_basic_auth(INTROSPECTOR, INTROSPECTOR_SECRET)},
        )
        assert answer["active"], "the issuer calls a token that a Secret holds inactive"
        return answer

    async def _change(self, **fields: str) -> None:
        await self.call("POST", f"{self.url}/client", data=fields)
