"""Faults of the HTTP server; each can be changed while it runs."""

import asyncio
from dataclasses import dataclass, field

from aiohttp import web

from reconciler.lab.apiserver.status_errors import StatusError, refuse

THROTTLED = "Too many requests, please try again later.\n"
"""Plain text, as the real server sends it. Source: apiserver `filters/priority-and-fairness.go`."""

_WORDS = {
    500: ("InternalError", "Internal error occurred: injected fault"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "Timeout: request did not complete within the allotted timeout"),
}


class Share:
    """Selects a fixed share of calls, evenly spread, by counting."""

    def __init__(self, share: float = 1.0) -> None:
        self._share = share
        self._sum = 0.0

    def hit(self) -> bool:
        """Return whether this call is one of the share."""
        self._sum += self._share
        if self._sum < 1.0:
            return False
        self._sum -= 1.0
        return True


@dataclass(slots=True)
class HttpFaults:
    """All off by default.

    Args:
        slow_s: Seconds added before each answer.
        status: Answer with this HTTP status, 0 = off.
        throttled: Answer with 429.
        retry_after_s: Retry-After with `status` and 429, 0 = not sent.
        share: The requests that `status` and `throttled` affect.
        silent: Watches stay open and send nothing, bookmarks included.
    """

    slow_s: float = 0.0
    status: int = 0
    throttled: bool = False
    retry_after_s: int = 0
    share: Share = field(default_factory=Share)
    silent: bool = False

    def fail(self, status: int, *, share: float = 1.0, retry_after_s: int = 0) -> None:
        """Answer a share of the requests with this status."""
        self.throttled, self.status = False, status
        self.share, self.retry_after_s = Share(share), retry_after_s

    def throttle(self, *, retry_after_s: int = 1, share: float = 1.0) -> None:
        """Answer a share of the requests with 429."""
        self.throttled, self.status = True, 0
        self.share, self.retry_after_s = Share(share), retry_after_s

    def clear(self) -> None:
        """Switch everything off."""
        self.slow_s, self.status, self.throttled = 0.0, 0, False
        self.retry_after_s, self.share, self.silent = 0, Share(), False

    async def apply(self) -> web.Response | None:
        """Wait or fail; raises `StatusError`, or returns an answer that replaces the real one."""
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if not (self.status or self.throttled) or not self.share.hit():
            return None
        if self.throttled:
            headers = {"Retry-After": str(self.retry_after_s)} if self.retry_after_s else {}
            return web.Response(status=429, text=THROTTLED, headers=headers)
        raise self._refusal()

    def _refusal(self) -> StatusError:
        reason, message = _WORDS.get(self.status, ("", "injected fault"))
        wait = {"retryAfterSeconds": self.retry_after_s} if self.retry_after_s else {}
        return refuse(self.status, reason, message, details=wait)
