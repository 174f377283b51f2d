"""The API server's address and TLS, and the source of a request's credentials."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from reconciler.errors import SettingsError
from reconciler.net.client_pool import Connection, ConnectionSource
from reconciler.net.client_session import Trust, environment_proxy, shown_url


class Credentials(ConnectionSource, Protocol):
    """Provides the headers of each request; no exception of its methods holds a token."""

    async def headers(self, url: str = "") -> Mapping[str, str]:
        """Return the headers that authenticate a request, which is sent at once.

        It may be a multidict: `Impersonate-Group` occurs once for each group.

        Args:
            url: The server's URL as `connection` returned it; "" = the current one. Credentials
                that were rotated together with a server are sent to that server alone.
        """
        ...

    async def renew(self) -> None:
        """Read the credentials again, because the server refused them; keep the old ones if that
        fails."""
        ...


def connection_of(loaded: Any, trust: Trust, *, lenient: bool = False) -> Connection:
    """Build a connection from kubernetes-asyncio's `Configuration`.

    Args:
        trust: As returned by `trust_of`.
        lenient: See `Trust.context`.
    Raises:
        SettingsError: A certificate or key cannot be read.
    """
    url = str(loaded.host).rstrip("/")
    try:
        _ = urlsplit(url).port  # raises ValueError, as everything that reads the URL later would
        proxy = loaded.proxy or environment_proxy(url)
    except ValueError:
        raise SettingsError("the server of the cluster is no URL") from None
    name = loaded.tls_server_name or None
    digest = hashlib.sha256("\0".join((url, proxy or "", name or "")).encode())
    if not url.startswith("https:"):
        return Connection(url, None, proxy, digest.hexdigest())
    try:
        tls = trust.context(lenient=lenient)
    except SettingsError as error:
        problem = str(error)
    else:
        digest.update(trust.digest())
        return Connection(url, tls, proxy, digest.hexdigest(), name)
    raise SettingsError(f"certificates for {shown_url(url)}: {problem}")


def trust_of(loaded: Any) -> Trust:
    """Return the files that kubernetes-asyncio's `Configuration` names."""
    files = (loaded.ssl_ca_cert, loaded.cert_file, loaded.key_file)
    ca, certificate, key = (Path(file) if file else None for file in files)
    return Trust(ca, certificate, key, verify=loaded.verify_ssl)
