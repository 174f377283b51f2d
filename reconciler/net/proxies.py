"""Finds the proxy of a URL in the environment, by the rules of Go's programs (pure).

Cluster operators set HTTP_PROXY, HTTPS_PROXY and NO_PROXY once for programs that are mostly in Go.
Source: golang.org/x/net/http/httpproxy; the tests use its cases. One thing differs: a name with
a trailing dot is the same name without it.
"""

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

import msgspec

from reconciler.errors import SettingsError
from reconciler.net.urls import url_problem

_PORTS = {"http": 80, "https": 443}

PORT_DIGITS = 5
"""Most digits of a port; `int` refuses more than 4,300."""

_SPOKEN = frozenset({"http", "https"})
"""Schemes of proxies that aiohttp supports."""

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class _Exception(msgspec.Struct, frozen=True):
    """One entry of NO_PROXY: a range of addresses, or a name; `port` None = every port."""

    network: _Network | None = None
    name: str = ""
    itself: bool = True
    port: int | None = None

    def covers(self, host: str, address: _Address | None, port: int | None) -> bool:
        if self.port is not None and self.port != port:
            return False
        if address is not None:
            return self.network is not None and address in self.network
        if not self.name:
            return False
        return host.endswith(f".{self.name}") or (self.itself and host == self.name)


def proxy_for(url: str, environment: Mapping[str, str]) -> str | None:
    """Return the proxy's URL for requests to `url`, or None for a direct connection.

    Loopback addresses and `localhost` have no proxy. NO_PROXY holds, by comma: `*` for everything,
    addresses, ranges (CIDR), names (with their subdomains), `.name` and `*.name` (subdomains
    alone), each with an optional port. Upper-case variables win over lower-case ones.

    Raises:
        SettingsError: The proxy that applies is no URL, or of a scheme that is not supported.

    >>> environment = {"HTTPS_PROXY": "proxy.example:3128", "NO_PROXY": "10.0.0.0/8,.svc"}
    >>> proxy_for("https://issuer.example/token", environment)
    'http://proxy.example:3128'
    >>> [proxy_for(url, environment) for url in ("https://10.0.0.1", "https://api.team-a.svc")]
    [None, None]
    """
    parts = urlsplit(url)
    names = {"http": "HTTP_PROXY", "https": "HTTPS_PROXY"}
    if parts.scheme not in names:
        return None
    variable, value = _variable(names[parts.scheme], environment)
    if not value or not _is_proxied(parts, _variable("NO_PROXY", environment)[1]):
        return None
    return _proxy(value, variable)


def _variable(name: str, environment: Mapping[str, str]) -> tuple[str, str]:
    for spelling in (name, name.lower()):
        if value := environment.get(spelling, "").strip():
            return spelling, value
    return name, ""


def _proxy(value: str, variable: str) -> str:
    """Return a proxy's URL; without a scheme (`host:port`) it is http."""
    url = value if "://" in value else f"http://{value}"
    try:
        scheme = urlsplit(url).scheme
    except ValueError:
        scheme = ""
    if scheme and scheme not in _SPOKEN:
        raise SettingsError(
            f"{variable} names a proxy of the scheme {scheme}, which is not supported: use"
            " http or https"
        )
    if problem := url_problem(url, user=True):
        raise SettingsError(f"{variable} must be a URL, or host:port: it {problem}")
    return url


def _is_proxied(parts: SplitResult, no_proxy: str) -> bool:
    host = _name(parts.hostname or "")
    address = _address(host)
    if host == "localhost" or (address is not None and address.is_loopback):
        return False
    port = parts.port or _PORTS[parts.scheme]
    entries = [entry.strip().lower() for entry in no_proxy.split(",")]
    if "*" in entries:
        return False
    return not any(
        found.covers(host, address, port) for found in map(_exception, entries) if found is not None
    )


def _exception(entry: str) -> _Exception | None:
    """Parse one entry; None for an empty one."""
    if (network := _network(entry)) is not None:
        return _Exception(network=network)
    host, port = _host_and_port(entry)
    if (network := _network(host)) is not None:
        return _Exception(network=network, port=port)
    host = host.removeprefix("*")
    name = _name(host.removeprefix("."))
    return _Exception(name=name, itself=not host.startswith("."), port=port) if name else None


def _host_and_port(entry: str) -> tuple[str, int | None]:
    """Split `host:port` and `[address]:port`; without a port the entry is the host."""
    host, colon, port = entry.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if colon and port.isdecimal() and len(port) <= PORT_DIGITS and (bracketed or ":" not in host):
        return host.strip("[]"), int(port)
    return entry, None


def _network(text: str) -> _Network | None:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        return None


def _address(host: str) -> _Address | None:
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _name(host: str) -> str:
    """Return a host name in the form for comparison: lower case, ASCII, no trailing dot."""
    host = host.lower().removesuffix(".")
    if host.isascii():
        return host
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host
