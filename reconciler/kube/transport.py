"""Where no answer came: what aiohttp and the socket raise, to exactly one of our errors.

The foreign error itself is left behind, not chained: its `repr` may hold the request's headers, its
text whatever the peer sent.
"""

import os

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from reconciler.errors import DeposedError, TransportError

FOREIGN = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""All that a request can raise; ValueError stands for an address or proxy that is none."""


def failure_of(error: Exception, what: str) -> TransportError | DeposedError:
    """Return our error for `error`, to be raised after the `except` block has ended."""
    if isinstance(error.__cause__, DeposedError):  # aiohttp wraps what a body's writer raised
        return error.__cause__
    return TransportError(f"{what}: {_problem(error)}")


def _problem(error: Exception) -> str:
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} did not resolve"
        case aiohttp.ClientConnectorCertificateError():
            cause = error.certificate_error
            return f"TLS failed ({getattr(cause, 'verify_message', '') or type(cause).__name__})"
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
