"""oidc-provider, with client and keys in a file that it reads again on SIGHUP."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, ClassVar

from joserfc.jwk import RSAKey

from tests.issuers.issuer import (
    ASK_RESOURCE,
    ASK_SCOPE,
    AUDIENCE,
    CLIENT_ID,
    SCOPE,
    RealIssuer,
    Refusal,
)

HERE = Path(__file__).parent

OTHER_SCOPE = "other"
"""A scope that the issuer has and the client may not have."""


class OidcProvider(RealIssuer):
    """`program` is the package's own package.json in its `node_modules`; needs Node.js."""

    name = "oidc-provider"
    granted: ClassVar = {ASK_SCOPE: SCOPE, ASK_RESOURCE: AUDIENCE}
    refused = (
        Refusal({ASK_RESOURCE: "https://other.example"}, "400 invalid_target", ASK_RESOURCE),
        Refusal({ASK_SCOPE: OTHER_SCOPE}, "400 invalid_scope", ASK_SCOPE),
    )

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(program, folder)
        self._enabled = True
        self._keys = [_key()]
        self._configure()

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    def command(self) -> list[str]:
        node = shutil.which("node")
        assert node is not None, "node is not on PATH"
        packages = self.program.parents[2]
        return [node, str(HERE / "server.mjs"), str(packages), str(self._config)]

    async def is_ready(self) -> bool:
        await self.call("GET", f"{self.url}/.well-known/openid-configuration")
        return True

    async def set_up(self) -> None:
        """The configuration has the client already."""

    async def rotate_secret(self, secret: str) -> None:
        self.client_secret = secret
        self._reload()

    async def set_enabled(self, enabled: bool) -> None:
        self._enabled = enabled
        self._reload()

    async def rotate_key(self) -> bool:
        """Put a new key first, which signs; the old one stays for verification."""
        self._keys.insert(0, _key())
        self._reload()
        return True

    @property
    def _config(self) -> Path:
        return self.folder / "oidc-provider.json"

    def _configure(self) -> None:
        client = {"client_id": CLIENT_ID, "client_secret": self.client_secret, "scope": SCOPE}
        config = {
            "port": self.port,
            "ttl": self.ttl_s,
            "audience": AUDIENCE,
            "scopes": [SCOPE, OTHER_SCOPE],
            "client": client if self._enabled else None,
            "jwks": {"keys": self._keys},
        }
        self._config.write_text(json.dumps(config))

    def _reload(self) -> None:
        self._configure()
        assert self._server is not None
        os.kill(self._server.pid, signal.SIGHUP)


def _key() -> dict[str, Any]:
    key = RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}, private=True, auto_kid=True)
    return dict(key.as_dict(private=True))
