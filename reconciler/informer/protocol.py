"""The list/watch protocol: next request, the wait before it, effects for the caller (pure).

The caller reports what happened (`page`, `opened`, `event`, `closed`, `failed`) and executes the
effects that it gets back. Between two requests it asks for `pause` and `request`. Time and random
numbers are arguments. The rules follow client-go's reflector.go with two differences: a 410 means
the same as a status and as an event, and a transport error costs a watch at the same version, not a
list.
"""

import math
from collections.abc import Callable
from enum import Enum

import msgspec

from reconciler.clock import LONG_AGO, Instant
from reconciler.errors import (
    AuthorizerNotReady,
    Forbidden,
    Gone,
    KubeError,
    ProtocolError,
    ResourceVersionTooLarge,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.informer.backoff import BASE_S, Backoff
from reconciler.informer.consistency import RESTARTED_S, ConsistencyCheck
from reconciler.informer.messages import (
    Apply,
    Bookmark,
    Effect,
    ListRequest,
    ListWatchStats,
    LogEvent,
    Replace,
    RetryDelay,
    WatchRequest,
)
from reconciler.kube.api import Event, ObjectMeta, Page, is_endless, is_newer

PAGE_LIMIT = 500
"""Most items in a page of a list. Source: client-go pager.go. Every list is consistent and in
pages: a server that may answer with what is "not older than" a version ignores the limit and sends
the whole list, however large it is (k/k `cacher.go`).
"""

FIRST_LIMIT = 50
"""Items of the very first page, before the size of an item is known."""

PAGE_BYTES = 8 * 1024 * 1024
"""Target for the largest page, estimated from the page before: 500 items have 1 MB as a rule, and
may have 128 MB of annotations. Two answers of this size are as much as all other memory we hold."""

PAGE_LEAST = 10
"""Fewest items a page: an object has 1.5 MB at most (etcd's limit on a request)."""

FEWER_ITEMS = 4
"""A page without a whole answer is asked for again with a quarter of its items: where small objects
come before large ones, the estimate asks for a page that takes too long or has too many bytes.
"""

WATCH_S = (240.0, 300.0)
"""Range for the length of a watch. Jittered, so that a fleet's watches do not end together; under
the 5 min after which load balancers and proxies drop flows."""

WATCH_LEAST_S = 2
"""Shortest watch that ends because a list is due, above `SHORT_S`."""

IDLE_S = 75.0
"""Longest silence of a server that sends bookmarks: about one a minute (k/k PR #90560)."""

IDLE_GRACE_S = 5.0
"""Without bookmarks silence is legal until the server ends the watch. Source: kube-rs PR #1945."""

SHORT_S = 1.0
"""A clean close before this is no normal end. Source: client-go "very short watch"."""

UNREADABLE_IN_STORE = "StorageReadError"
"""Reason of the ERROR event for an object that etcd holds in a form that the API server cannot
decode, and that was deleted so: no DELETED event can follow (KEP-3926, apimachinery
`StatusReasonStoreReadError`)."""

MAX_EMPTY_WATCHES = 3
"""Watches in a row that brought only an error or a close; then the version is suspect. A server
without a watch cache before etcd closes a watch at a stale version cleanly, with no 410."""

REWIND_S = 60.0
"""A second rewind within this time is no restore, but a server that is wrong or behind: the next
list waits for the back-off."""

DISTRUST_S = 10.0
"""Shortest time between two lists that are made because reads contradict the store: thousands of
sessions find the contradiction at the same time."""

FORBIDDEN_S = (30.0, 60.0)
"""Wait after a 403. Rights are granted by humans; asking more often only fills the audit log."""

REGAIN_S = (5.0, 7.5)
"""Wait after a 403 for a right that has worked: the authorizer of a large cluster, or a webhook,
may take minutes after a start of the API server. The first answer to one informer of a namespace
wakes all sessions there, which also try by themselves: `write_errors.denied_wait_s`."""

REGAIN_FOR_S = 900.0
"""`REGAIN_S` applies for so long after the first 403; after that a person removed the right. 500
namespaces cost 160 refusals a second until then, which the API server answers from memory."""

STARTING_S = (0.1, 2.5)
"""First and last step of the back-off while an API server starts; a wait is up to twice the step.
Such a server refuses all requests for 0.2 s, on a large cluster for longer."""

MAX_RETRY_AFTER_S = 60.0
"""Longest Retry-After that is followed: a mistaken hour would outlast every token."""


class State(Enum):
    """What the loop does now, or does with its next request.

    A list goes `LIST_DUE` -> `LISTING` -> `WATCH_DUE`. A watch goes `WATCH_DUE` -> `WATCHING`, and
    then to `WATCH_DUE` again, or to `LIST_DUE` where its version can no longer be trusted.
    """

    LIST_DUE = "list_due"
    """The next request begins a list. No version is known, or a watch at it may miss events."""

    LISTING = "listing"
    """A list is in progress. A failed first page leads to `LIST_DUE`."""

    CHECKING = "checking"
    """A list of the consistency check is in progress. A failure leads to `WATCH_DUE`: the version
    is still good for a watch."""

    WATCH_DUE = "watch_due"
    """The next request opens a watch at the last version, unless a list is due or requested."""

    WATCHING = "watching"
    """A watch is requested or open. A failure leads to `WATCH_DUE`, or to `LIST_DUE`."""


class _Counts(msgspec.Struct):
    lists: int = 0
    relists: int = 0
    events: int = 0
    bookmarks: int = 0
    skipped: int = 0
    errors: int = 0
    drift_found: int = 0


class _Listing(msgspec.Struct):
    """A list in progress. Its items are handed on when all pages are complete.

    `check`: the consistency check asked for it. `proof`: the server was restarted before it.
    `restarted`: its continue token has expired once, and it began again.
    `is_mixed`: the server may have been restarted between two of its pages.
    """

    check: bool
    proof: bool = False
    restarted: bool = False
    is_mixed: bool = False
    continue_token: str = ""
    first_version: str = ""
    pages: int = 0
    items: list[ObjectMeta] = msgspec.field(default_factory=list)


class _Watching(msgspec.Struct):
    """The watch in progress; `events` counts everything that carried a version."""

    version: str
    timeout_s: int
    asked_at: Instant
    opened_at: Instant | None = None
    last_event_at: Instant = LONG_AGO
    events: int = 0


class _FailureStreak(msgspec.Struct):
    """The failures in a row; the next success of the right kind ends it.

    `has_failed_watch`: a list alone does not end the streak. `is_forbidden`: a 403 was among them.
    `has_opened`: a watch has been opened since the last 403, which proves the right.
    `right_lost_at`: the first 403 for a right that has worked.
    """

    failures: int = 0
    has_failed_watch: bool = False
    is_forbidden: bool = False
    has_opened: bool = False
    right_lost_at: Instant | None = None


class ListWatchProtocol:
    """One list/watch loop's state between its requests; see `State`.

    Args:
        uniform: Returns a random number between its two arguments (`Random.uniform`).
        first_limit: Items of the first page, before the size of an item is known.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], *, first_limit: int = PAGE_LIMIT
    ) -> None:
        self._uniform = uniform
        self._backoff = Backoff(uniform)
        self._starting = Backoff(uniform, base_s=STARTING_S[0], cap_s=STARTING_S[1])
        self._counts = _Counts()
        self._state = State.LIST_DUE
        self._version = ""
        self._limit = first_limit
        self._listing: _Listing | None = None
        """Set in `LISTING` and `CHECKING` only."""
        self._watching: _Watching | None = None
        """Set in `WATCHING` only."""
        self._is_relist_requested = False
        self._check = ConsistencyCheck(uniform)
        self._sends_bookmarks = False
        self._empty_watches = 0
        self._streak = _FailureStreak()
        self._last_error = ""
        self._is_connection_lost = False
        """The connection was lost, and no event came since: the server may have another history."""
        self._may_have_restarted = False
        """A list has to prove the history once the server answers."""
        self._rewound_at: Instant = LONG_AGO
        self._distrusted_at: Instant = LONG_AGO
        self._next_at: Instant = LONG_AGO
        self._server_min_at: Instant = LONG_AGO

    # What to do next.

    def pause(self, now_at: Instant) -> RetryDelay:
        """Return how long to wait before `request`."""
        server_min_s = max(0.0, self._server_min_at - now_at)
        return RetryDelay(max(server_min_s, self._next_at - now_at), server_min_s)

    def request(self, now_at: Instant) -> ListRequest | WatchRequest:
        """Decide the next request; the caller sends it at once."""
        if self._listing is None:
            if self._state is State.LIST_DUE or self._is_relist_requested:
                self._is_relist_requested = False
                self._begin_list(_Listing(check=False))
            elif self._check.is_due(now_at):
                self._begin_list(_Listing(check=True, proof=now_at >= self._check.proof_at))
        self._next_at = self._server_min_at = now_at
        if (listing := self._listing) is not None:
            self._counts.lists += 1
            return ListRequest("", self._limit, listing.continue_token)
        self._state = State.WATCHING
        self._watching = _Watching(self._version, self._watch_timeout_s(now_at), now_at)
        return WatchRequest(self._version, self._watching.timeout_s)

    def request_relist(self) -> None:
        """Make the next request begin a list."""
        self._is_relist_requested = True

    def distrust(self, now_at: Instant) -> bool:
        """Make the next request begin a consistent list: a read contradicts the store.

        Returns: False where no further list is made: one is in progress, is requested, or was
            requested for this reason within `DISTRUST_S`.
        """
        is_pending = self._state is State.LISTING or self._is_relist_requested
        if is_pending or now_at - self._distrusted_at < DISTRUST_S:
            return False
        self._distrusted_at = now_at
        self._is_relist_requested = True
        return True

    @property
    def is_watching(self) -> bool:
        """Whether the watch that was requested last is still wanted."""
        return self._state is State.WATCHING

    @property
    def fresh_list(self) -> bool:
        """Whether the next list would begin with its first page (none is in progress)."""
        return self._listing is None

    @property
    def is_forbidden(self) -> bool:
        """Whether the server refused us the right, and nothing has succeeded since."""
        return self._streak.is_forbidden and not self._streak.has_opened

    @property
    def idle_s(self) -> float:
        """Longest silence to accept on the open watch, in seconds.

        After a lost connection it is that of a server with bookmarks, whether the server sends them
        or not: silence may mean that the version belongs to a history that was lost.
        """
        if self._sends_bookmarks or self._is_connection_lost or self._watching is None:
            return IDLE_S
        return self._watching.timeout_s + IDLE_GRACE_S

    # What happened.

    def page(self, page: Page[ObjectMeta], now_at: Instant) -> tuple[Effect, ...]:
        """Take one page; the last one completes the list."""
        listing = self._listing
        assert listing is not None, "a page without a list"  # noqa: S101 - the caller's order
        listing.first_version = listing.first_version or page.version
        if not listing.first_version:
            return self.failed(ProtocolError("a list names no version"), now_at)
        listing.items.extend(page.items)
        listing.pages += 1
        counted = {"pages": listing.pages, "items": len(listing.items)}
        if is_endless(page, listing.continue_token, **counted):
            return self.failed(ProtocolError("a list does not end"), now_at)
        listing.continue_token = page.continue_token
        self._counts.skipped += page.skipped
        self._limit = next_page_items(page.length, len(page.items) + page.skipped)
        if page.continue_token:
            return ()
        return self._complete_list(listing, now_at)

    def _complete_list(self, listing: _Listing, now_at: Instant) -> tuple[Effect, ...]:
        self._end_list(State.WATCH_DUE)
        # What the stream has reached existed before this list was requested.
        is_older = is_newer(self._version, listing.first_version)
        is_check = listing.check and not listing.proof and not is_older
        is_proof = listing.proof and not is_older
        replace = Replace(tuple(listing.items), listing.first_version, is_check, is_proof)
        recovered = self._succeeded(now_at, "list_recovered")
        if is_check:
            self._check.hold(replace, now_at)
            return recovered
        self._check.listed(now_at)
        self._counts.relists += bool(self._version)
        reports: tuple[Effect, ...] = ()
        if is_older and now_at - self._rewound_at >= REWIND_S:
            text = f"a list of version {replace.version} after {self._version}: was etcd restored?"
            reports = (LogEvent("history_rewound", text, self._streak.failures),)
            self._rewound_at = now_at
        self._version = replace.version
        self._is_connection_lost = False
        self._may_have_restarted = listing.is_mixed
        return (*recovered, *reports, replace)

    def opened(self, now_at: Instant) -> None:
        """Note that the server began to answer the watch; silence counts from here."""
        if self._watching is None:
            return
        self._watching.opened_at = self._watching.last_event_at = now_at
        self._streak.has_opened = True  # an idle watch brings its first event within a minute
        if self._may_have_restarted:
            self._may_have_restarted = False
            self._check.require_proof(self._watching.asked_at + self._watching.timeout_s)

    def event(self, event: Event[ObjectMeta], now_at: Instant) -> tuple[Effect, ...]:
        """Take one event of the open watch."""
        if self._watching is not None:
            self._watching.last_event_at = now_at
        if not event.version:
            self._counts.skipped += 1
            return ()
        if self._watching is not None:
            if is_newer(self._watching.version, event.version):
                return self._rewound(self._watching.version, event.version, now_at)
            self._watching.events += 1
        self._empty_watches = 0
        self._is_connection_lost = False
        self._version = event.version
        effects = self._check.insert_held_list(event.version, self._effect_of(event))
        return (*self._succeeded(now_at, "watch_recovered"), *effects)

    def closed(self, now_at: Instant) -> tuple[Effect, ...]:
        """Take a clean end of the watch: continue from the last version, unless it was short.

        After a close within `SHORT_S` the next request waits (hot loop); the close is a failure
        only if the watch brought nothing.
        """
        watching = self._end_watch()
        open_s = now_at - (watching.opened_at or watching.asked_at) if watching else SHORT_S
        if watching is None or open_s >= SHORT_S:
            self._empty_watches = 0
            return (*self._succeeded(now_at, "watch_recovered"), *self._release_overdue(now_at))
        if watching.events:
            self._next_at = now_at + self._uniform(BASE_S, 2 * BASE_S)
            return self._release_overdue(now_at)
        self._count_empty_watch()
        return self._failed("watch_restarted", "closed at once", now_at)

    def interrupted(self) -> None:
        """Note that we ended the watch ourselves; this is no failure of the server."""
        self._end_watch()

    def failed(self, error: KubeError | ProtocolError, now_at: Instant) -> tuple[Effect, ...]:
        """Take the failure of the request in progress, at its start or in its stream."""
        self._counts.errors += 1
        if self._listing is not None:
            return self._list_failed(self._listing, error, now_at)
        is_idle = isinstance(error, TransportError) and self._is_idle(now_at)
        watching = self._end_watch()
        started = watching is not None and watching.opened_at is not None
        self._may_have_restarted |= not started and self._shows_restart(error)
        self._judge_version(error, started=started)
        if not is_idle:
            self._is_connection_lost |= isinstance(error, TransportError)
            return self._failed("watch_restarted", str(error), now_at, error)
        if self._is_connection_lost:
            self._state = State.LIST_DUE
        self._count_empty_watch()  # a list may succeed where watches stay silent
        reports = self._failed("watch_timed_out", str(error), now_at, error)
        return (*reports, *self._release_overdue(now_at))

    def found_drift(self, differences: int) -> None:
        """Count what a consistency check's `Replace` changed."""
        self._counts.drift_found += differences

    # Lists.

    def _begin_list(self, listing: _Listing) -> None:
        self._listing = listing
        self._state = State.CHECKING if listing.check else State.LISTING

    def _end_list(self, state: State) -> None:
        self._listing = None
        self._state = state

    def _list_failed(
        self, listing: _Listing, error: KubeError | ProtocolError, now_at: Instant
    ) -> tuple[Effect, ...]:
        """Answer a failed page: the same page again, unless the error names a way out.

        A failed first page ends the list; a relist that was requested since then begins with the
        next request.
        """
        if isinstance(error, Gone) and listing.continue_token:
            # Another list at once, in pages, too; one that expires again waits like any failure.
            if not listing.restarted:
                self._begin_list(_Listing(listing.check, listing.proof, restarted=True))
                self._last_error = str(error)
                return ()
            listing.continue_token = ""
        listing.is_mixed |= bool(listing.continue_token) and self._shows_restart(error)
        if isinstance(error, TransportError):
            self._limit = max(PAGE_LEAST, self._limit // FEWER_ITEMS)
        if listing.check:
            self._check.failed(now_at)
        if listing.check or not listing.continue_token or not _is_transient(error):
            self._end_list(State.WATCH_DUE if listing.check else State.LIST_DUE)
        return self._failed("list_failed", str(error), now_at, error)

    # Watches.

    def _end_watch(self) -> _Watching | None:
        """Return the watch that was in progress, or None; the state is `WATCH_DUE` after one."""
        watching, self._watching = self._watching, None
        if watching is not None:
            self._state = State.WATCH_DUE
        return watching

    def _watch_timeout_s(self, now_at: Instant) -> int:
        """Return a watch's length in seconds: it ends as the list after a restart is due.

        That list is requested between two watches. The server's clean end loses no event.
        """
        timeout_s = int(self._uniform(*(RESTARTED_S if self._may_have_restarted else WATCH_S)))
        if self._check.proof_at - now_at < timeout_s:
            return max(WATCH_LEAST_S, math.ceil(self._check.proof_at - now_at))
        return timeout_s

    def _shows_restart(self, error: KubeError | ProtocolError) -> bool:
        """Return whether a request without an answer may show a restart of the API server.

        Etcd is restored while the API servers are stopped. A watch that is opened at a version of
        the lost history misses what happened below it: silently, or beside events once the new
        history has passed that version. A 5xx counts where the connection was lost before, because
        a load balancer answers for a server that is stopped.
        """
        if isinstance(error, ServerError):
            return self._is_connection_lost
        return isinstance(error, TransportError | AuthorizerNotReady)

    def _judge_version(self, error: KubeError | ProtocolError, *, started: bool) -> None:
        """Decide whether the version can still be trusted after a failed watch."""
        if isinstance(error, Gone | ResourceVersionTooLarge) or (
            isinstance(error, ServerError) and error.reason == UNREADABLE_IN_STORE
        ):
            self._state = State.LIST_DUE
        elif isinstance(
            error, TransportError | TooManyRequests | Unauthorized | Forbidden | AuthorizerNotReady
        ):
            return
        elif started or not isinstance(error, ServerError):
            self._count_empty_watch()

    def _rewound(self, version: str, seen: str, now_at: Instant) -> tuple[Effect, ...]:
        """Leave a watch that shows a version below the one after which it was to begin.

        The server's history has been rewound: etcd was restored to an earlier revision. A watch
        after a version that the new history has not reached is silent until it does, and never
        shows what was lost. kube-apiserver holds its bookmarks back, too (cacher
        `cache_watcher.go`): see `idle_s`; a server without that cache may not.
        """
        self._end_watch()
        self._state = State.LIST_DUE
        text = f"version {seen} in a watch after {version}: was etcd restored?"
        is_repeated = now_at - self._rewound_at < REWIND_S
        self._rewound_at = now_at
        reports = self._failed("history_rewound", text, now_at)
        if is_repeated:
            return reports
        self._next_at = now_at
        return (LogEvent("history_rewound", text, self._streak.failures),)

    def _is_idle(self, now_at: Instant) -> bool:
        """Return whether the open watch has been silent for as long as is accepted."""
        watching = self._watching
        if watching is None or watching.opened_at is None:
            return False
        return now_at - watching.last_event_at > self.idle_s - 0.1

    def _count_empty_watch(self) -> None:
        self._empty_watches += 1
        if self._empty_watches >= MAX_EMPTY_WATCHES:
            self._empty_watches = 0
            self._state = State.LIST_DUE

    def _effect_of(self, event: Event[ObjectMeta]) -> Effect:
        if event.type == "BOOKMARK":
            self._counts.bookmarks += 1
            self._sends_bookmarks = True
            return Bookmark(event.version)
        if event.type == "SKIPPED" or event.object is None:
            self._counts.skipped += 1
            return Bookmark(event.version)
        self._counts.events += 1
        return Apply(event.type, event.object)

    def _release_overdue(self, now_at: Instant) -> tuple[Effect, ...]:
        """Continue from a check's list that the stream did not reach, though the server answers."""
        overdue = self._check.take_overdue(now_at)
        if overdue is None:
            return ()
        self._version = overdue.version
        return (overdue,)

    # Failures and successes.

    def _failed(
        self, name: str, text: str, now_at: Instant, error: Exception | None = None
    ) -> tuple[Effect, ...]:
        """Back off, and report the first failure of a streak; a 403 always, once a streak."""
        streak = self._streak
        streak.failures += 1
        streak.has_failed_watch |= name != "list_failed"
        self._last_error = text
        if isinstance(error, AuthorizerNotReady):
            wait_s = self._starting.failed(now_at)
            if streak.right_lost_at is None and self._version:
                streak.right_lost_at = now_at
        elif isinstance(error, Forbidden) and self._may_regain(now_at):
            wait_s = self._uniform(*REGAIN_S)
        else:
            self._starting.reset()
            wait_s = self._backoff.failed(now_at)
            if isinstance(error, Forbidden):
                wait_s = max(wait_s, self._uniform(*FORBIDDEN_S))
        retry_after_s = error.retry_after_s if isinstance(error, KubeError) else None
        server_min_s = min(retry_after_s or 0.0, MAX_RETRY_AFTER_S)
        self._next_at = now_at + max(wait_s, server_min_s)
        self._server_min_at = now_at + server_min_s
        if isinstance(error, Forbidden):
            streak.has_opened = False
        if isinstance(error, Forbidden) and not streak.is_forbidden:
            streak.is_forbidden = True
            name = "list_forbidden" if name == "list_failed" else "watch_forbidden"
            return (LogEvent(name, text, streak.failures),)
        return (LogEvent(name, text, streak.failures),) if streak.failures == 1 else ()

    def _may_regain(self, now_at: Instant) -> bool:
        """Return whether a refused right has worked, and may come back without a person's help."""
        lost_at = self._streak.right_lost_at
        return lost_at is not None and now_at - lost_at < REGAIN_FOR_S

    def _succeeded(self, now_at: Instant, name: str) -> tuple[Effect, ...]:
        """Note a success: an event, a complete list, or a watch that ended well after `SHORT_S`.

        A list between watches that fail ends no streak: the next watch would begin it again.
        """
        self._backoff.healthy(now_at)
        self._starting.reset()
        if self._streak.has_failed_watch and name == "list_recovered":
            return ()
        failures, self._streak = self._streak.failures, _FailureStreak()
        return (LogEvent(name, self._last_error, failures),) if failures else ()

    def stats(self) -> ListWatchStats:
        counts = self._counts
        is_for_watch = self._state in (State.WATCH_DUE, State.WATCHING)
        return ListWatchStats(
            state="watching" if is_for_watch else "listing",
            version=self._version,
            lists=counts.lists,
            relists=counts.relists,
            events=counts.events,
            bookmarks=counts.bookmarks,
            skipped=counts.skipped,
            errors=counts.errors,
            failures=self._streak.failures,
            last_error=self._last_error,
            drift_found=counts.drift_found,
        )

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<ListWatchProtocol {stats.state} at {stats.version or 'nothing'}>"


def next_page_items(page_bytes: int, items: int) -> int:
    """Return how many items to ask for in the next page, from those of the page before.

    Args:
        page_bytes: Bytes of that page, 0 where unknown.
    """
    if not page_bytes or not items:
        return PAGE_LIMIT
    return min(PAGE_LIMIT, max(PAGE_LEAST, PAGE_BYTES * items // page_bytes))


def _is_transient(error: KubeError | ProtocolError) -> bool:
    return isinstance(error, KubeError) and error.transient
