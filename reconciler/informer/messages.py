"""Messages of the list/watch protocol: requests to send, and effects to execute (pure)."""

import msgspec

from reconciler.informer.store import ObjectEvent
from reconciler.kube.api import ObjectMeta


class ListRequest(msgspec.Struct, frozen=True):
    """Ask for one page; limit 0 = everything."""

    version: str
    limit: int
    continue_token: str


class WatchRequest(msgspec.Struct, frozen=True):
    """Open a watch after `version` for `timeout_s` seconds."""

    version: str
    timeout_s: int


class RetryDelay(msgspec.Struct, frozen=True):
    """Wait `wait_s` seconds before the next request. The server asked for the first `server_min_s`
    of them (Retry-After): only the rest may be cut short."""

    wait_s: float
    server_min_s: float


class Replace(msgspec.Struct, frozen=True):
    """Replace a scope of the store by a complete list.

    `check`: the consistency check asked for it; each difference is a change that the watch missed.
    `proof`: it follows a restart of the API server, and shows whether history was rewound.
    """

    items: tuple[ObjectMeta, ...]
    version: str
    check: bool
    proof: bool = False


class Apply(msgspec.Struct, frozen=True):
    """Apply one event to the store."""

    type: ObjectEvent
    object: ObjectMeta


class Bookmark(msgspec.Struct, frozen=True):
    """Set the version that the stream has reached, in the store."""

    version: str


class LogEvent(msgspec.Struct, frozen=True):
    """Log the first failure of a streak, a right that is missing, or a recovery."""

    name: str
    error: str
    failures: int


Effect = Replace | Apply | Bookmark | LogEvent


class ListWatchStats(msgspec.Struct, frozen=True):
    """Counters since the start.

    `state` is "listing" or "watching". `lists` counts LIST requests, each page as one; `relists`
    the complete lists after the first; `skipped` objects that could not be read, each time that
    they came; `failures` those of the current streak; `drift_found` the changes that consistency
    checks found missing.
    """

    state: str
    version: str
    lists: int
    relists: int
    events: int
    bookmarks: int
    skipped: int
    errors: int
    failures: int
    last_error: str
    drift_found: int
