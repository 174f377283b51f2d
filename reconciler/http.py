"""What every HTTP client of ours shares: which proxy, which CAs, no surprises from the machine."""

import ssl
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

SERVICE_CA = Path("/var/run/secrets/kubernetes.io/serviceaccount/service-ca.crt")
"""A cluster's own CA for its services, trusted beside the system's, as the replaced loop did."""


def environment_proxy(url: str) -> str | None:
    """Return the proxy that HTTP(S)_PROXY and NO_PROXY give for `url`, or None.

    aiohttp's `trust_env` would read environment and netrc for each request, in a thread, and
    refuses an authorization header for a host that netrc knows.
    """
    parts = urlsplit(url)
    if urllib.request.proxy_bypass(parts.netloc):
        return None
    return urllib.request.getproxies().get(parts.scheme)


def open_session(url: str) -> aiohttp.ClientSession:
    """Open a session for one peer; the caller closes it and sets a time limit on every request."""
    connector = aiohttp.TCPConnector(ssl=_trust() if url.startswith("https:") else False)
    return aiohttp.ClientSession(connector=connector, proxy=environment_proxy(url), trust_env=False)


def _trust() -> ssl.SSLContext:
    tls = ssl.create_default_context()
    if SERVICE_CA.is_file():
        tls.load_verify_locations(SERVICE_CA)
    return tls
