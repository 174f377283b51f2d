"""What our HTTP clients share: which proxy, which CAs, which words for what went wrong."""

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from reconciler.proxies import proxy_for
from reconciler.sockets import Connector

REDACTED = "..."
"""What stands for the query of a URL that is shown."""

SERVICE_CA = Path("/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt")
"""A cluster's own CA for its services, trusted beside the system's, as the replaced loop did."""


def shown_url(url: str) -> str:
    """Return a URL as it may be shown: without user info, query and fragment, which hold secrets.

    A query that was there is shown as `?...`. What is no URL is shown as that.
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not a URL)"
    if not host and "@" in url:
        return "(not a URL)"  # without its scheme a URL's user info would be taken for a path
    shown = urlunsplit((parts.scheme, host, parts.path, "", ""))
    return f"{shown}?{REDACTED}" if parts.query else shown


def environment_proxy(url: str) -> str | None:
    """Return the proxy that this process' environment gives for `url`, or None.

    aiohttp's `trust_env` would read environment and netrc for each request, in a thread, and
    refuses an authorization header for a host that netrc knows.

    Raises:
        SettingsError: As `proxy_for`.
    """
    return proxy_for(url, os.environ)


def open_session(url: str) -> aiohttp.ClientSession:
    """Open a session for one peer; the caller closes it and sets a time limit on every request."""
    connector = Connector(ssl=_trust() if url.startswith("https:") else False)
    return aiohttp.ClientSession(connector=connector, proxy=environment_proxy(url), trust_env=False)


def _trust() -> ssl.SSLContext:
    tls = ssl.create_default_context()
    if SERVICE_CA.is_file():
        tls.load_verify_locations(SERVICE_CA)
    return tls


def has_system_trust() -> bool:
    """Return whether this machine, or image, has any CA certificate of its own."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile and Path(paths.cafile).stat().st_size:
        return True
    return bool(paths.capath) and any(Path(paths.capath).iterdir())


def problem_of(error: Exception, *, system_trust: bool = False) -> str:
    """Return our words for what a request raised; its own may hold headers or what a peer sent.

    Args:
        system_trust: The peer was verified by the system's CAs, so their absence is the cause.
    """
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} did not resolve"
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            words = getattr(cause, "verify_message", "") or type(cause).__name__
            absent = system_trust and not has_system_trust()
            return f"TLS failed ({words}{'; no CA certificates are installed' if absent else ''})"
        case aiohttp.ClientSSLError():
            return f"TLS failed ({getattr(error.os_error, 'reason', None) or 'handshake'})"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy {error.host}:{error.port} cannot be reached"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answered {error.status}"
        case aiohttp.ClientConnectorError():
            return f"cannot connect to {error.host}:{error.port} ({_name(error.os_error)})"
        case aiohttp.ServerDisconnectedError():
            return "the connection was closed before an answer"
        case aiohttp.ClientPayloadError():
            return "the connection was closed in the middle of an answer, or it is unreadable"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return "the answer is not HTTP"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.InvalidURL() | ValueError():
            return "the address, the proxy or a header is not usable"
        case OSError():
            return _name(error)
    return f"the connection failed ({type(error).__name__})"


def _name(error: OSError) -> str:
    """Return the system's words for `error`; asyncio's own are addresses and repeat themselves."""
    return os.strerror(error.errno) if error.errno else type(error).__name__
