"""Shared by all HTTP clients: the proxy, the CAs, and the descriptions of errors."""

import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import structlog
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from reconciler.clock import Clock
from reconciler.errors import SettingsError
from reconciler.net.client_pool import MAX_HEADER_BYTES, MAX_HEADERS, ClientPool, Connection
from reconciler.net.exchange import AnswerTooLong, read_limited
from reconciler.net.file_rotation import FileRotation, file_digest
from reconciler.net.proxies import proxy_for

log = structlog.get_logger()

_PROJECTED = Path("/var/run/secrets/kubernetes.io/serviceaccount")

ADDED_CAS = (_PROJECTED / "service-ca.crt", _PROJECTED / "private-ca.crt")
"""The cluster's CA for its services, and the site's own CAs, as the manifests project them.

They are trusted in addition to the system's CAs.
"""


def shown_url(url: str) -> str:
    """Return a URL without user info, query and fragment, which may hold secrets.

    An invalid URL becomes "(not a URL)".
    """
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "(not a URL)"
    if not host and "@" in url:
        return "(not a URL)"  # without a scheme, user info would look like a path
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def shown_origin(url: str) -> str:
    """Return scheme, host and port of a URL whose path may hold a token, as the lab's does.

    An invalid URL becomes "(not a URL)".
    """
    parts = urlsplit(shown_url(url))
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else "(not a URL)"


def environment_proxy(url: str) -> str | None:
    """Return the proxy that this process's environment sets for `url`, or None.

    aiohttp's `trust_env` would read environment and netrc for each request, in a thread, and
    refuses an authorization header for a host that netrc knows.

    Raises:
        SettingsError: As `proxy_for`.
    """
    return proxy_for(url, os.environ)


async def read_body(response: aiohttp.ClientResponse, max_bytes: int) -> bytes | None:
    """Return a whole body; None, and the connection is closed, where it has more bytes."""
    try:
        return await read_limited(response.content, max_bytes)
    except AnswerTooLong:
        response.close()
        return None


class Peer:
    """A peer outside of Kubernetes: its URL, the proxy of the environment, and the trusted CAs.

    Args:
        trust: The CAs to trust, and our client certificate.
    """

    def __init__(self, url: str, clock: Clock, trust: "Trust | None" = None) -> None:
        self._url = url
        self._is_secure = url.startswith("https:")
        self._trust = trust or Trust()
        self._files = FileRotation(self._trust.paths if self._is_secure else tuple, clock)
        self._is_first = True

    def version(self, *, fresh: bool = False) -> str:
        return self._files.version(fresh=fresh)

    async def connection(self) -> Connection:
        """Return the peer's address and TLS.

        Raises:
            SettingsError: A bundle, certificate or key cannot be used. Not at the first call, when
                there is no earlier one to keep; then connections to the peer fail.
        """
        is_first, self._is_first = self._is_first, False
        tls = self._trust.context(lenient=is_first) if self._is_secure else None
        return Connection(self._url, tls, environment_proxy(self._url), self._files.version())


def open_session(
    url: str, clock: Clock, *, what: str = "", trust: "Trust | None" = None
) -> ClientPool:
    """Return a pool for one peer; the caller closes it, and sets a time limit for every request.

    Args:
        what: The peer's name in the log; "" = no log lines.
        trust: The CAs to trust, of several peers; None = the system's.
    """
    return ClientPool(Peer(url, clock, trust), what=what)


class Trust:
    """The files of a TLS context: CAs, and our client certificate.

    Peers that share it share its context: to load the system's CAs takes 20 ms of the start.

    Args:
        ca: The CAs to trust; None = the system's CAs and `ADDED_CAS`.
        certificate: Our client certificate, with its `key` (None = in the same file).
        verify: Whether the peer's certificate and name are checked.
    """

    def __init__(
        self,
        ca: Path | None = None,
        certificate: Path | None = None,
        key: Path | None = None,
        *,
        verify: bool = True,
    ) -> None:
        self._ca = ca
        self._certificate = certificate
        self._key = key
        self._verify = verify
        self._seen: set[Path] = set()
        self._made: tuple[bytes, bool, ssl.SSLContext] | None = None

    def paths(self) -> list[Path]:
        """Return the files, and the folders of the system's CAs, whether they exist or not."""
        cas = [*_bundles(), *_folders()] if self._ca is None else [self._ca]
        return [*cas, *(path for path in (self._certificate, self._key) if path is not None)]

    def context(self, *, lenient: bool = False) -> ssl.SSLContext:
        """Return a context made from the files as they are now; the same one while they are equal.

        Args:
            lenient: Use the bundles of the system's CAs that can be read, and log the others.
        Raises:
            SettingsError: A file is missing, empty, half written or unusable. The bundles of the
                system's CAs need not exist, but a bundle that was used once must not be missing.
        """
        digest, problem = self.digest(), ""
        if self._made is not None and self._made[:2] == (digest, lenient):
            return self._made[2]
        try:
            tls, bundles = self._with_cas(lenient=lenient)
            if self._certificate is not None:
                tls.load_cert_chain(self._certificate, self._key, password=_no_password)
        except (OSError, ValueError) as error:
            problem = f"{self._certificate or self._ca}: {_problem_of_file(error)}"
        else:
            self._seen.update(bundles)
            if not self._verify:
                tls.check_hostname = False
                tls.verify_mode = ssl.CERT_NONE
            self._made = digest, lenient, tls
            return tls
        raise SettingsError(problem)

    def digest(self) -> bytes:
        """Return a digest of the files' content."""
        return file_digest(self.paths())[0]

    def _with_cas(self, *, lenient: bool) -> tuple[ssl.SSLContext, list[Path]]:
        """Return a context that trusts the CAs, and the bundles that it has loaded."""
        if self._ca is not None:
            if problem := _load_bundle(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), self._ca):
                raise SettingsError(f"{self._ca}: {problem}")
            return ssl.create_default_context(cafile=self._ca), [self._ca]
        # The folders alone, which load nothing yet: the system's bundle has some 150 certificates,
        # and each time that it is loaded takes 20 ms of the event loop.
        tls = ssl.create_default_context(capath=os.pathsep.join(map(str, _folders())))
        loaded = []
        for bundle in _bundles():
            if not bundle.is_file() and bundle not in self._seen:
                continue
            problem = _load_bundle(tls, bundle)
            if not problem:
                loaded.append(bundle)
            elif lenient:
                log.warning("ca_bundle_unusable", file=str(bundle), reason=problem)
            else:
                raise SettingsError(f"{bundle}: {problem}")
        return tls, loaded


def _bundles() -> list[Path]:
    """Return the bundle of the system's CAs and the added ones, existing or not."""
    known = ssl.get_default_verify_paths()
    return [Path(os.environ.get(known.openssl_cafile_env) or known.openssl_cafile), *ADDED_CAS]


def _folders() -> list[Path]:
    """Return the folders of the system's CAs; OpenSSL reads them for each connection."""
    known = ssl.get_default_verify_paths()
    named = os.environ.get(known.openssl_capath_env) or known.openssl_capath
    return [Path(each) for each in named.split(os.pathsep) if each]


def _load_bundle(tls: ssl.SSLContext, bundle: Path) -> str:
    """Load a bundle's certificates; return the reason why it is no complete bundle, or ""."""
    try:
        text = bundle.read_bytes()
        tls.load_verify_locations(bundle)
    except (OSError, ValueError) as error:
        return _problem_of_file(error)
    if text.count(b"-----BEGIN ") != text.count(b"-----END "):
        return "it ends in the middle of a certificate"
    return ""


def unusable_bundles() -> dict[Path, str]:
    """Return the bundles of the system's CAs and the added ones that cannot be used, with why."""
    found = {
        bundle: _load_bundle(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), bundle)
        for bundle in _bundles()
        if bundle.is_file()
    }
    return {bundle: problem for bundle, problem in found.items() if problem}


def _no_password() -> bytes:
    """Refuse an encrypted key; OpenSSL would wait for a pass phrase from the terminal."""
    raise ValueError("a key with a pass phrase cannot be used")


def _problem_of_file(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"no readable certificate or key ({error.reason or 'not PEM'})"
    if isinstance(error, OSError):
        return _name(error)
    return (str(error).splitlines() or [type(error).__name__])[0]


def has_system_trust() -> bool:
    """Return whether this machine or image has any CA certificate."""
    paths = ssl.get_default_verify_paths()
    if paths.cafile and Path(paths.cafile).stat().st_size:
        return True
    return bool(paths.capath) and any(Path(paths.capath).iterdir())


BIG_HEADERS = (
    f"the answer has a header above {MAX_HEADER_BYTES // 1024} KiB, or more than {MAX_HEADERS}"
)

ENCODED = "the answer is compressed, or said to be, which was not asked for"


def _has_big_headers(error: aiohttp.ClientResponseError | HttpProcessingError) -> bool:
    """Decide by the message: the compiled parser raises no separate class for this."""
    return error.message.startswith(("Got more than", "Too many headers"))


def _is_encoded(error: Exception) -> bool:
    cause = error if isinstance(error, HttpProcessingError) else error.__cause__
    if isinstance(cause, ContentEncodingError):
        return True
    named = ("Can not decode content-encoding", "deflate")
    return isinstance(cause, HttpProcessingError) and cause.message.startswith(named)


def describe_error(error: Exception, *, system_trust: bool = False) -> str:
    """Return our description of a request's error; its own text may hold headers or a peer's data.

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
        case AnswerTooLong():
            return "the answer is too long"
        case aiohttp.ClientPayloadError() if _is_encoded(error):
            return ENCODED
        case aiohttp.ClientPayloadError():
            return "the connection was closed in the middle of an answer, or it is unreadable"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            if _is_encoded(error):
                return ENCODED
            return BIG_HEADERS if _has_big_headers(error) else "the answer is not HTTP"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.InvalidURL() | ValueError():
            return "the address, the proxy or a header is not usable"
        case OSError():
            return _name(error)
    return f"the connection failed ({type(error).__name__})"


def kind_of(error: Exception) -> str:
    """Return which step failed: `dns`, `tls`, `proxy`, or `connection` for all others."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "dns"
        case aiohttp.ClientSSLError():
            return "tls"
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return "proxy"
    return "connection"


def _name(error: OSError) -> str:
    """Return the system's text for `error`; asyncio's own repeats the addresses."""
    return os.strerror(error.errno) if error.errno else type(error).__name__
