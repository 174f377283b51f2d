"""Who we are to the API server, and where it is: from a pod's files or from a kubeconfig.

kubernetes-asyncio's loaders read both; this module adds what they leave out: token files are read
again before they age, a half-written file never replaces a good token, and a 401 reads everything
again, which runs an exec plug-in anew.
"""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from reconciler.clock import Clock
from reconciler.errors import SettingsError
from reconciler.http import environment_proxy
from reconciler.kube.loaders import Configuration, config

REREAD_S = 30.0
"""How long a token file is trusted before it is read again. The kubelet rotates a projected token
at 80 % of its life, ten minutes at the least; client-go reads again each minute."""

EXPIRY_MARGIN_S = 60.0
"""An exec plug-in's token is replaced this long before the end that the plug-in named."""

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is and how its TLS is checked; `tls` is None for plain http."""

    url: str
    tls: ssl.SSLContext | None
    proxy: str | None
    identity: str
    """Changes when the files behind `tls` do, so that the session is built anew."""


class Credentials(Protocol):
    """Gives each request its headers; none of its methods leaves a token in an exception."""

    async def connection(self) -> Connection:
        """Return where to connect; raises `SettingsError` if it cannot be known."""
        ...

    async def headers(self) -> dict[str, str]:
        """Return the authorization header for a request that is about to be sent."""
        ...

    async def renew(self) -> None:
        """Read everything again, because the server refused what we sent."""
        ...


class TokenFile:
    """A bearer token in a file that somebody rotates."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._value = ""
        self._read_at = -REREAD_S

    def value(self, *, fresh: bool = False) -> str:
        """Return the token, read again after `REREAD_S`; an empty or missing file keeps the old."""
        now_at = self._clock.monotonic()
        if fresh or now_at - self._read_at >= REREAD_S:
            try:
                read = self.path.read_text().strip()
            except OSError:
                read = ""
            if read:
                self._value, self._read_at = read, now_at
        return self._value


class InClusterCredentials:
    """A pod's service account, or another account's token file with the same server and CA."""

    def __init__(self, clock: Clock, token_file: Path | None = None) -> None:
        self._token = TokenFile(token_file or _SERVICE_ACCOUNT / "token", clock)

    async def connection(self) -> Connection:
        loaded = Configuration()
        try:
            config.load_incluster_config(client_configuration=loaded)
        except config.ConfigException as error:
            raise SettingsError(f"not in a pod, and KUBECONFIG is not set: {error}") from None
        return _connection(loaded)

    async def headers(self) -> dict[str, str]:
        return _bearer(self._token.value())

    async def renew(self) -> None:
        self._token.value(fresh=True)


class KubeconfigCredentials:
    """A kubeconfig's context: token, token file, client certificate, OIDC or exec plug-in."""

    def __init__(
        self, path: str, clock: Clock, *, context: str | None = None, token_file: Path | None = None
    ) -> None:
        self._path = path
        self._context = context
        self._clock = clock
        self._override = TokenFile(token_file, clock) if token_file else None
        self._loaded: Any = None
        self._expires_s: float | None = None

    async def connection(self) -> Connection:
        if self._loaded is None:
            await self.renew()
        return _connection(self._loaded)

    async def headers(self) -> dict[str, str]:
        if self._override is not None:
            return _bearer(self._override.value())
        if self._expires_s is not None and self._clock.wall() > self._expires_s - EXPIRY_MARGIN_S:
            await self.renew()
        value = (self._loaded.api_key.get("BearerToken") or "") if self._loaded else ""
        return {"Authorization": value.strip()} if value else {}

    async def renew(self) -> None:
        """Load the file anew; a failing plug-in leaves what was loaded before in place."""
        if self._override is not None:
            self._override.value(fresh=True)
        if not _any_file(self._path):
            if self._loaded is not None:
                return
            raise SettingsError(f"KUBECONFIG {self._path}: no such file")
        loaded = Configuration()
        try:
            loader = await config.load_kube_config(
                config_file=self._path,
                context=self._context,
                client_configuration=loaded,
                persist_config=False,
            )
        except (config.ConfigException, OSError, ValueError, TypeError) as error:
            if self._loaded is not None:
                return
            raise SettingsError(f"KUBECONFIG {self._path}: {_first_line(error)}") from None
        self._loaded = loaded
        expiry = getattr(loader, "exec_plugin_expiry", None)
        self._expires_s = (
            expiry.replace(tzinfo=expiry.tzinfo or UTC).timestamp()
            if isinstance(expiry, datetime)
            else None
        )


def find_credentials(
    kubeconfig: str, clock: Clock, *, context: str | None = None, token_file: Path | None = None
) -> Credentials:
    """Choose as the replaced loop did: KUBECONFIG, then ~/.kube/config, then the pod's files."""
    default = Path(config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION).expanduser()
    path = kubeconfig or (str(default) if default.is_file() else "")
    if path:
        return KubeconfigCredentials(path, clock, context=context, token_file=token_file)
    return InClusterCredentials(clock, token_file)


def _any_file(paths: str) -> bool:
    """Tell whether one of KUBECONFIG's paths, joined as PATH is, names a file."""
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep))


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _connection(loaded: Any) -> Connection:
    url = str(loaded.host).rstrip("/")
    proxy = loaded.proxy or environment_proxy(url)
    if not url.startswith("https:"):
        return Connection(url, None, proxy, url)
    files = [path for path in (loaded.ssl_ca_cert, loaded.cert_file, loaded.key_file) if path]
    try:
        tls = ssl.create_default_context(cafile=loaded.ssl_ca_cert)
        if loaded.cert_file:
            tls.load_cert_chain(loaded.cert_file, keyfile=loaded.key_file)
        identity = "\0".join([url, *(Path(path).read_text() for path in files)])
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"certificates for {url}: {_first_line(error)}") from None
    if not loaded.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return Connection(url, tls, proxy, identity)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
