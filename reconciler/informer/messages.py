"""The words of the list/watch protocol: requests to send, outcomes to hand on (pure)."""

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
    """Wait `wait_s` seconds before the next request; only what lies beyond `floor_s`, which the
    server asked for, may be cut short."""

    wait_s: float
    server_min_s: float


@dataclass(frozen=True, slots=True)
class Replace:
    """Hand a complete list to the store; an audit's differences are what the watch had missed.

    `proof`: it follows a restart of the API server, and shows whether history was rewound.
    """

    items: tuple[ObjectMeta, ...]
    version: str
    audit: bool
    proof: bool = False


@dataclass(frozen=True, slots=True)
class Apply:
    """Hand one event to the store."""

    type: ObjectEvent
    object: ObjectMeta


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Tell the store how far the stream has come."""

    version: str


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Something to report: the first failure of a streak, a right that is missing, a recovery."""

    name: str
    error: str
    failures: int


Effect = Replace | Apply | Bookmark | LogEvent


@dataclass(frozen=True, slots=True)
class ListWatchStats:
    """Counters since the start.

    `state` is "listing" or "watching"; `backoff_s` the wait imposed by the last failure, 0.0 once
    healthy; `lists` counts LIST requests, pages included, `relists` the lists completed after
    the first; `failures` the current streak; `drift_found` what safety lists found missed.
    """

    state: str
    version: str
    lists: int
    relists: int
    watches: int
    events: int
    bookmarks: int
    skipped: int
    short_watches: int
    idle_watches: int
    errors: int
    failures: int
    backoff_s: float
    last_error: str
    drift_found: int
