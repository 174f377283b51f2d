"""Where the API server is and how its TLS is checked, and what gives a request its credentials."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from reconciler.errors import SettingsError
from reconciler.net.client_pool import Connection, ConnectionSource
from reconciler.net.client_session import Trust, environment_proxy, shown_url


class Credentials(ConnectionSource, Protocol):
    """Gives each request its headers; none of its methods leaves a token in an exception."""

    async def headers(self, url: str = "") -> Mapping[str, str]:
        """Return the headers that say who asks, for a request that is about to be sent.

        It may be a multidict: `Impersonate-Group` comes once for each group.

        Args:
            url: The server's, as of `connection`; "" = that of now. What was rotated together with
                a server is shown to that server alone.
        """
        ...

    async def renew(self) -> None:
        """Read everything again, because the server refused what we sent; the old stays if that
        fails."""
        ...


def connection_of(loaded: Any, trust: Trust, *, lenient: bool = False) -> Connection:
    """Build a connection from kubernetes-asyncio's `Configuration`.

    Args:
        trust: Of `trust_of`.
        lenient: See `Trust.context`.
    Raises:
        SettingsError: A certificate or key cannot be read.
    """
    url = str(loaded.host).rstrip("/")
    try:
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
