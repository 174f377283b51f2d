"""The HTTP adapter of OpenTelemetry's exporter: one deadline, a bounded answer, and 2xx required.

The exporter sends by `requests`. Its time limit applies to each read of a socket, and it reads any
body to its end: a collector that sends a byte a second blocks the thread without end, and one that
sends without end fills the memory. The exporter also accepts a redirect as success. So each request
goes by aiohttp, as all our requests do, with the same proxies, certificates and limits.
"""

import asyncio
import time
from collections.abc import Callable
from io import BytesIO
from typing import Any

import aiohttp
import requests
from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict
from yarl import URL

from reconciler.errors import SettingsError
from reconciler.humanize import count
from reconciler.net.client_pool import ClientPool
from reconciler.net.client_session import BIG_HEADERS, Peer, describe_error, read_body

MAX_BODY_BYTES = 64 * 1024
"""Longest answer that is read: an export's answer is empty, or one message."""

MAX_HEADER_BYTES = 8 * 1024
MAX_HEADERS = 64
"""An export's answer has a few headers of a few bytes each; half a MiB in all is more than any."""

_OURS = frozenset({"accept-encoding", "connection", "content-length", "transfer-encoding"})
"""Headers of a request that aiohttp sets itself, or that are the library's defaults."""


class NotDeliveredError(requests.RequestException):
    """The request failed, and a retry within the same export would fail, too."""


class BoundedAdapter(BaseAdapter):
    """Sends the requests of one `requests.Session`, one at a time, in one thread.

    Args:
        peer: The collector; its certificates are read again when they change.
        limit_s: Time limit of one export, its retries included, seconds.
        monotonic: Returns seconds.
    """

    def __init__(
        self, peer: Peer, limit_s: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__()
        self._monotonic = monotonic
        self._limit_s = limit_s
        self._end_at = monotonic() + limit_s
        self._sessions = ClientPool(
            peer, what="otlp", header_bytes=MAX_HEADER_BYTES, max_headers=MAX_HEADERS
        )
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.problem = ""

    def begin(self) -> None:
        """Begin an export: its time limit counts from now."""
        self.problem = ""
        self._end_at = self._monotonic() + self._limit_s

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """Send one request within what is left of the export's time.

        Raises:
            requests.ConnectionError: No whole answer came; a retry may succeed.
            NotDeliveredError: No retry within this export can succeed.
        """
        left_s = self._end_at - self._monotonic()
        if left_s <= 0:
            self.problem = self.problem or "no answer in time"
            raise NotDeliveredError(self.problem)
        try:
            response = self._runner.run(self._post(request, left_s))
        except SettingsError as error:
            self.problem = str(error)
            raise NotDeliveredError(self.problem) from None
        except TooLongError:
            self.problem = f"its answer is longer than {MAX_BODY_BYTES // 1024} KiB"
            raise NotDeliveredError(self.problem) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            self.problem = describe_error(error)
            if self.problem == BIG_HEADERS:
                self.problem = (
                    f"its answer has a header above {MAX_HEADER_BYTES // 1024} KiB, or more than"
                    f" {MAX_HEADERS}"
                )
                raise NotDeliveredError(self.problem) from None
            raise requests.ConnectionError(self.problem) from None
        if not 200 <= response.status_code < 300:
            self.problem = f"the collector answered {response.status_code}"
            if response.status_code < 400 or not self._can_wait(response):
                raise NotDeliveredError(self.problem)
        elif problem := _rejection(response):
            self.problem = problem
            raise NotDeliveredError(problem)
        return response

    def close(self) -> None:
        """Close the connections; called once, by the thread that sent."""
        self._runner.run(self._sessions.close())
        self._runner.close()

    async def _post(self, request: requests.PreparedRequest, left_s: float) -> requests.Response:
        async with asyncio.timeout(left_s):
            url = URL(request.url or "", encoded=True).with_user(None)
            headers = {
                name: value for name, value in request.headers.items() if name.lower() not in _OURS
            }
            async with self._sessions.request(
                request.method or "POST",
                url,
                data=request.body,
                headers=headers | {"Accept-Encoding": "identity"},
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=None),
            ) as answer:
                body = await read_body(answer, MAX_BODY_BYTES)
        if body is None:
            raise TooLongError
        return _response(request, answer, body)

    def _can_wait(self, response: requests.Response) -> bool:
        """Return whether a retry after the collector's Retry-After is within the time limit.

        The library reads the wall clock for this, which may be stepped.
        """
        try:
            wait_s = float(response.headers.get("Retry-After", "0"))
        except ValueError:
            return False  # a date, which would need the wall clock
        return self._monotonic() + wait_s < self._end_at


def _rejection(response: requests.Response) -> str:
    """Return how an answer of 2xx says that spans did not arrive, "" if it does not.

    Source: OpenTelemetry protocol, "Partial Success": such a request must not be sent again. A web
    page comes from a proxy that asks for a login. Any other body is not looked at.
    """
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind == "text/html":
        return "a web page answered, not a collector"
    if kind != "application/x-protobuf":
        return ""
    try:
        answer = ExportTraceServiceResponse.FromString(response.content)
    except DecodeError:
        return ""
    rejected = answer.partial_success.rejected_spans
    return f"the collector rejected {count(rejected, 'span')}" if rejected else ""


class TooLongError(aiohttp.ClientError):
    """A body that is longer than any answer to an export."""


def _response(
    request: requests.PreparedRequest, answer: aiohttp.ClientResponse, body: bytes
) -> requests.Response:
    response = requests.Response()
    response.status_code = answer.status
    response.reason = answer.reason or ""
    response.headers = CaseInsensitiveDict(answer.headers)
    response.raw = BytesIO(body)
    response.url = request.url or ""
    response.request = request
    return response
