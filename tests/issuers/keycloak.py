"""Keycloak: a separate realm, created through the admin REST API of a development server."""

from typing import Any, ClassVar

from tests.issuers.issuer import ASK_SCOPE, AUDIENCE, CLIENT_ID, SCOPE, RealIssuer, Refusal

REALM = "runners"
ADMIN = "fake-admin"
ADMIN_PASSWORD = "obviously-fake-admin-password"
OUTLASTS_RESTART_S = 150
"""A restart takes 20 s on an idle machine, and over a minute while other tests run."""

KEY_PROVIDER = "org.keycloak.keys.KeyProvider"


class Keycloak(RealIssuer):
    """`program` is the unpacked distribution's `bin/kc.sh`; needs Java 17 or newer."""

    name = "keycloak"
    ready_limit_s = 170.0
    ttl_s = 60
    granted: ClassVar = {ASK_SCOPE: SCOPE}
    refused = (Refusal({ASK_SCOPE: "other"}, "400 invalid_scope", ASK_SCOPE),)

    @property
    def token_url(self) -> str:
        return f"{self.url}/realms/{REALM}/protocol/openid-connect/token"

    def command(self) -> list[str]:
        # The data is outside of the distribution, which other tests share. One compiler tier and
        # a small heap: it answers a few requests a second.
        settings = {
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN,
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
            "JAVA_OPTS_APPEND": "-Xmx400m -XX:TieredStopAtLevel=1",
        }
        return [
            "/usr/bin/env",
            *(f"{name}={value}" for name, value in settings.items()),
            str(self.program),
            "start-dev",
            "--http-host=127.0.0.1",
            f"--http-port={self.port}",
            f"--db-url=jdbc:h2:file:{self.folder}/keycloak;NON_KEYWORDS=VALUE",
            "--features-disabled=admin,account",
            "--cache=local",
        ]

    async def is_ready(self) -> bool:
        await self.call("GET", f"{self.url}/realms/master")
        return True

    async def set_up(self) -> None:
        realm = {"realm": REALM, "enabled": True, "accessTokenLifespan": self.ttl_s}
        await self._admin("POST", "", json=realm | {"sslRequired": "NONE"})
        client = {
            "clientId": CLIENT_ID,
            "secret": self.client_secret,
            "serviceAccountsEnabled": True,
            "standardFlowEnabled": False,
            "publicClient": False,
        }
        await self._admin("POST", f"/{REALM}/clients", json=client)
        await self._offer_scope()

    async def rotate_secret(self, secret: str) -> None:
        await self._change_client(secret=secret)
        self.client_secret = secret

    async def set_enabled(self, enabled: bool) -> None:
        await self._change_client(enabled=enabled)

    async def make_tokens_last(self) -> int:
        await self._admin("PUT", f"/{REALM}", json={"accessTokenLifespan": OUTLASTS_RESTART_S})
        return OUTLASTS_RESTART_S

    async def make_tokens_short(self) -> None:
        await self._admin("PUT", f"/{REALM}", json={"accessTokenLifespan": self.ttl_s})

    async def rotate_key(self) -> bool:
        """Add a key of a higher priority; the old one stays for verification."""
        [realm] = [row for row in await self._admin("GET", "") if row["realm"] == REALM]
        found = await self._admin("GET", f"/{REALM}/components?type={KEY_PROVIDER}")
        highest = max(int(row["config"].get("priority", ["0"])[0]) for row in found)
        component = {
            "name": f"rsa-{highest + 1}",
            "parentId": realm["id"],
            "providerId": "rsa-generated",
            "providerType": KEY_PROVIDER,
            "config": {"priority": [str(highest + 1)], "keySize": ["2048"]},
        }
        await self._admin("POST", f"/{REALM}/components", json=component)
        return True

    async def _offer_scope(self) -> None:
        """Create the scope, which adds the audience, and allow it for the client."""
        mapper = {
            "name": "audience",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": AUDIENCE, "access.token.claim": "true"},
        }
        attributes = {"include.in.token.scope": "true"}
        scope = {"name": SCOPE, "protocol": "openid-connect", "attributes": attributes}
        scopes = f"/{REALM}/client-scopes"
        await self._admin("POST", scopes, json=scope | {"protocolMappers": [mapper]})
        [made] = [row for row in await self._admin("GET", scopes) if row["name"] == SCOPE]
        [client] = await self._admin("GET", f"/{REALM}/clients?clientId={CLIENT_ID}")
        path = f"/{REALM}/clients/{client['id']}/optional-client-scopes/{made['id']}"
        await self._admin("PUT", path)

    async def _change_client(self, **fields: Any) -> None:
        [client] = await self._admin("GET", f"/{REALM}/clients?clientId={CLIENT_ID}")
        await self._admin("PUT", f"/{REALM}/clients/{client['id']}", json=client | fields)

    async def _admin(self, method: str, path: str, **request: Any) -> Any:
        form = {
            "grant_type": "password",
            "client_id": "admin-cli",
            "username": ADMIN,
            "password": ADMIN_PASSWORD,
        }
        login = f"{self.url}/realms/master/protocol/openid-connect/token"
        token = (await self.call("POST", login, data=form))["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        return await self.call(method, f"{self.url}/admin/realms{path}", headers=headers, **request)
