"""What is wrong with a URL that a person has set (pure).

A URL that no request can be sent to is a wrong setting, and no outage: found here, it stops the
start with its name, and is not retried without end.
"""

import ipaddress
import re
from urllib.parse import urlsplit

_ODD = re.compile(r"(?![-._~a-zA-Z0-9])[\x00-\x7f]")
"""A character that occurs in no name of a host. A name may have others than ASCII's, which are
encoded for the look-up. A set that names those takes 4 ms to compile."""

_NUMBERS = re.compile(r"[0-9.]+")

NO_URL = "must be a URL that begins with http:// or https://"

MAX_NAME = 253
"""Source: RFC 1035; the resolver's answer to a longer name is that it does not exist."""


def url_problem(url: str, *, user: bool = False, query: bool = False) -> str:
    """Return what a URL must be or must not hold, as the end of a sentence; "" if it can be used.

    Args:
        user: Whether it may hold a user and password.
        query: Whether it may hold a query: nothing is appended to it.

    >>> url_problem("https://issuer.example/token")
    ''
    >>> url_problem("https://issuer.example/token#top")
    'must not hold a fragment (#)'
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return NO_URL
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return NO_URL
    if not url.isprintable() or " " in url:
        return "must not hold a space or a control character"
    if "@" in parts.netloc and not user:
        return "must not hold a user or password"
    if "#" in url:
        return "must not hold a fragment (#)"
    if "?" in url and not query:
        return "must not hold a query (?)"
    if not _has_port(parts.netloc.rpartition("@")[2]):
        return "must have a port from 1 to 65535"
    return _host_problem(parts.hostname or "", is_bracketed="[" in parts.netloc)


def _has_port(host_and_port: str) -> bool:
    """Return whether the port is none, or one that can be connected to.

    `int` would read `+1`, `1_0`, other scripts' digits and thousands of zeros.
    """
    port = re.sub(r"^\[[^\]]*\]|^[^:]*", "", host_and_port)
    digits = port.removeprefix(":").lstrip("0")
    if port in ("", ":"):
        return True
    return bool(re.fullmatch(r"[0-9]{1,5}", digits)) and int(digits) <= 65535


def _host_problem(host: str, *, is_bracketed: bool) -> str:
    if is_bracketed or _NUMBERS.fullmatch(host):
        try:
            ipaddress.ip_address(host)
        except ValueError:
            return "must name a host: its address is no IPv4 or IPv6 address"
        return ""
    if odd := _ODD.search(host):
        return f"must name a host: no name has the character {odd[0]}"
    try:
        name = host.encode("idna").decode()
    except UnicodeError:
        name = ".."
    labels = name.removesuffix(".").split(".")
    if len(name) > MAX_NAME or not all(0 < len(label) <= 63 for label in labels):
        return "must name a host: each part between dots has 1 to 63 characters"
    return ""
