"""Messages of the list/watch protocol: requests to send, and effects to execute (pure)."""

from dataclasses import dataclass

from reconciler.informer.store import ObjectEvent
from reconciler.kube.api import ObjectMeta


@dataclass(frozen=True, slots=True)
class ListRequest:
    """Ask for one page; limit 0 = everything."""

    version: str
    limit: int
    continue_token: str


@dataclass(frozen=True, slots=True)
class WatchRequest:
    """Open a watch after `version` for `timeout_s` seconds."""

    version: str
    timeout_s: int


@dataclass(frozen=True, slots=True)
class RetryDelay:
    """Wait `wait_s` seconds before the next request. The server asked for the first `server_min_s`
    of them (Retry-After): only the rest may be cut short."""

    wait_s: float
    server_min_s: float


@dataclass(frozen=True, slots=True)
class Replace:
    """Replace a scope of the store by a complete list.

    `check`: the consistency check asked for it; each difference is a change that the watch missed.
    `proof`: it follows a restart of the API server, and shows whether history was rewound.
    """

    items: tuple[ObjectMeta, ...]
    version: str
    check: bool
    proof: bool = False


@dataclass(frozen=True, slots=True)
class Apply:
    """Apply one event to the store."""

    type: ObjectEvent
    object: ObjectMeta


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Set the version that the stream has reached, in the store."""

    version: str


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Log the first failure of a streak, a right that is missing, or a recovery."""

    name: str
    error: str
    failures: int


Effect = Replace | Apply | Bookmark | LogEvent


@dataclass(frozen=True, slots=True)
class ListWatchStats:
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
