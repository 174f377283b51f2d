"""Where the API server is and how its TLS is checked, and what gives a request its credentials."""

import hashlib
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from reconciler.errors import SettingsError
from reconciler.http import environment_proxy, shown_url


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the API server is; `tls` is None for plain http.

    Args:
        identity: Digest of everything below a session: it changes when a certificate or key file
            does, and then the session is built anew.
        server_name: The name that the server's certificate must hold, where it is not the host's.
    """

    url: str = field(repr=False)
    tls: ssl.SSLContext | None
    proxy: str | None = field(repr=False)
    identity: str
    server_name: str | None = None


class Credentials(Protocol):
    """Gives each request its headers; none of its methods leaves a token in an exception."""

    async def connection(self) -> Connection:
        """Return where to connect, from the files as they are now.

        Raises:
            SettingsError: It cannot be known: a file is missing, empty or half written.
        """
        ...

    async def headers(self) -> Mapping[str, str]:
        """Return the headers that say who asks, for a request that is about to be sent.

        It may be a multidict: `Impersonate-Group` comes once for each group.
        """
        ...

    async def renew(self) -> None:
        """Read everything again, because the server refused what we sent; the old stays if that
        fails."""
        ...


def connection_of(loaded: Any) -> Connection:
    """Build a connection from kubernetes-asyncio's `Configuration`.

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
        tls = _tls(loaded)
        for path in (loaded.ssl_ca_cert, loaded.cert_file, loaded.key_file):
            digest.update(b"\0" + (Path(path).read_bytes() if path else b""))
    except (OSError, ValueError) as error:
        problem = _problem(error)
    else:
        return Connection(url, tls, proxy, digest.hexdigest(), name)
    raise SettingsError(f"certificates for {shown_url(url)}: {problem}")


def _tls(loaded: Any) -> ssl.SSLContext:
    tls = ssl.create_default_context(cafile=loaded.ssl_ca_cert or None)
    if loaded.cert_file:
        tls.load_cert_chain(
            loaded.cert_file, keyfile=loaded.key_file or None, password=_no_password
        )
    if not loaded.verify_ssl:
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _no_password() -> bytes:
    """Refuse an encrypted key; OpenSSL would ask the terminal, and wait for ever."""
    raise ValueError("a key with a pass phrase cannot be used")


def _problem(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ssl.SSLError):
        return f"no readable certificate or key ({error.reason or 'not PEM'})"
    return (str(error).splitlines() or [type(error).__name__])[0]
