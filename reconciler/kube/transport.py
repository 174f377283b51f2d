"""Where no answer came: what aiohttp and the socket raise, to exactly one of our errors.

The foreign error itself is left behind, not chained: its `repr` may hold the request's headers, its
text whatever the peer sent.
"""

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from reconciler.errors import DeposedError, TransportError
from reconciler.http import problem_of

FOREIGN = (aiohttp.ClientError, HttpProcessingError, TimeoutError, OSError, ValueError)
"""All that a request can raise; ValueError stands for an address or proxy that is none."""


def failure_of(error: Exception, what: str) -> TransportError | DeposedError:
    """Return our error for `error`, to be raised after the `except` block has ended."""
    if isinstance(error.__cause__, DeposedError):  # aiohttp wraps what a body's writer raised
        return error.__cause__
    return TransportError(f"{what}: {problem_of(error)}")
