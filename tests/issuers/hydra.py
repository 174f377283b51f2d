"""Ory Hydra: clients and keys by its admin API, JWT access tokens, its data in one SQLite file."""

import json
from pathlib import Path
from typing import Any, ClassVar

from reconciler.lab.cluster.ports import free_port
from tests.issuers.issuer import (
    ASK_AUDIENCE,
    ASK_SCOPE,
    AUDIENCE,
    CLIENT_ID,
    SCOPE,
    RealIssuer,
    Refusal,
)

KEY_SET = "hydra.jwt.access-token"


class Hydra(RealIssuer):
    """`program` is the `hydra` binary."""

    name = "hydra"
    granted: ClassVar = {ASK_SCOPE: SCOPE, ASK_AUDIENCE: AUDIENCE}
    refused = (
        Refusal({ASK_SCOPE: "other"}, "400 invalid_scope", ASK_SCOPE),
        Refusal({ASK_AUDIENCE: "https://other.example"}, "400 invalid_request", ASK_AUDIENCE),
    )

    def __init__(self, program: Path, folder: Path) -> None:
        super().__init__(program, folder)
        self.admin_port = free_port()

    @property
    def token_url(self) -> str:
        return f"{self.url}/oauth2/token"

    def command(self) -> list[str]:
        config = self.folder / "hydra.json"  # JSON is YAML
        config.write_text(json.dumps(self._settings()))
        serve = f"{self.program} serve all --dev --sqa-opt-out --config {config}"
        migrate = f"{self.program} migrate sql up --yes --read-from-env --config {config}"
        return ["/bin/sh", "-c", f"{migrate} && exec {serve}"]

    async def is_ready(self) -> bool:
        await self.call("GET", f"{self.url}/health/ready")
        return True

    async def set_up(self) -> None:
        await self.rotate_key()  # else it makes its first one at the first request, in seconds
        await self.call("POST", f"{self._admin}/clients", json=self._client())

    async def rotate_secret(self, secret: str) -> None:
        self.client_secret = secret
        await self.call("PUT", f"{self._admin}/clients/{CLIENT_ID}", json=self._client())

    async def set_enabled(self, enabled: bool) -> None:
        if enabled:
            await self.set_up()
        else:
            await self.call("DELETE", f"{self._admin}/clients/{CLIENT_ID}")

    async def rotate_key(self) -> bool:
        """Add a key, which signs from now on; the old one stays for verification."""
        body = {"alg": "RS256", "use": "sig", "kid": f"key-{free_port()}"}
        await self.call(
            "POST", f"http://127.0.0.1:{self.admin_port}/admin/keys/{KEY_SET}", json=body
        )
        return True

    @property
    def _admin(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}/admin"

    def _client(self) -> dict[str, Any]:
        return {
            "client_id": CLIENT_ID,
            "client_secret": self.client_secret,
            "grant_types": ["client_credentials"],
            "token_endpoint_auth_method": "client_secret_basic",
            "scope": SCOPE,
            # A URL: of the audiences that have no host, as URNs, all count as the same one.
            "audience": [AUDIENCE],
        }

    def _settings(self) -> dict[str, Any]:
        local = {"host": "127.0.0.1"}
        return {
            "dsn": f"sqlite://{self.folder}/hydra.sqlite?_fk=true",
            "serve": {
                "public": local | {"port": self.port},
                "admin": local | {"port": self.admin_port},
            },
            "urls": {"self": {"issuer": self.url}},
            "secrets": {"system": ["obviously-fake-system-secret"]},
            "strategies": {"access_token": "jwt"},
            "ttl": {"access_token": f"{self.ttl_s}s"},
        }
