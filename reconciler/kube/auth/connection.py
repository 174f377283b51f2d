"""The API server's address and TLS, and the source of a request's credentials."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from reconciler.errors import SettingsError
from reconciler.net.client_pool import Connection, ConnectionSource
from reconciler.net.client_session import Trust, environment_proxy, shown_origin
from reconciler.net.urls import url_problem


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
        SettingsError: The server is no usable URL, or a certificate or key cannot be read.
    """
    url = str(loaded.host).rstrip("/")
    check_url(url)
    proxy = loaded.proxy or environment_proxy(url)
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
    raise SettingsError(f"certificates for {shown_origin(url)}: {problem}")


def check_url(url: str) -> None:
    """Check that the API server's URL can be used.

    Raises:
        SettingsError: It cannot.
    """
    if "@" in url.partition("//")[2].partition("/")[0]:
        raise SettingsError(
            "the server of the cluster has a user or password in its URL: name them in the user of"
            " the kubeconfig"
        )
    if problem := url_problem(url):
        raise SettingsError(f"the server of the cluster {problem}")


def trust_of(loaded: Any) -> Trust:
    """Return the files that kubernetes-asyncio's `Configuration` names."""
    files = (loaded.ssl_ca_cert, loaded.cert_file, loaded.key_file)
    ca, certificate, key = (Path(file) if file else None for file in files)
    return Trust(ca, certificate, key, verify=loaded.verify_ssl)
