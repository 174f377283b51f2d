"""The list/watch protocol: next request, the wait before it, what to hand on (pure).

`ListWatchProtocol` is told what happened (`page`, `opened`, `event`, `closed`, `failed`) and
answers with what to emit; between two requests it is asked for `pause` and `request`. Time and
chance come in as arguments. It follows client-go's reflector.go, save that a 410 means the same as
a status and as an event, and that a transport fault costs a watch at the same version, not a list.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

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
from reconciler.kube.api import Event, ObjectMeta, Page
from reconciler.kube.resource_version import is_newer

PAGE_LIMIT = 500
"""Most items a page of a list. Source: client-go pager.go. Every list is a consistent one in pages:
a server that may answer with what is "not older than" a version ignores the limit, and answers
whole, however large that is (k/k `cacher.go`).
"""

FIRST_LIMIT = 50
"""Items of the first page of all, before the size of one is known."""

PAGE_BYTES = 8 * 1024 * 1024
"""What a page is to have at most, by the size of the items before: 500 have 1 MB as a rule, and may
have 128 MB of annotations. Two replies of this size are as much as everything else we hold."""

PAGE_LEAST = 10
"""Fewest items a page: an object has 1.5 MB at most (etcd's limit on a request)."""

WATCH_S = (240.0, 300.0)
"""A watch's life: jittered, so that a fleet's watches do not end together; under the 5 min after
which load balancers and proxies drop flows."""

WATCH_LEAST_S = 2
"""Shortest life of a watch that ends for a list, above `SHORT_S`."""

IDLE_S = 75.0
"""Longest silence of a server that sends bookmarks: about one a minute (k/k PR #90560)."""

IDLE_GRACE_S = 5.0
"""Without bookmarks silence is legal until the server ends the watch. Source: kube-rs PR #1945."""

SHORT_S = 1.0
"""A clean close before this is no normal end. Source: client-go "very short watch"."""

MAX_EMPTY_WATCHES = 3
"""Watches in a row that brought nothing but an error or a close: then the version is suspect
(stale versions are closed cleanly, with no 410, where no watch cache stands before etcd)."""

REWIND_S = 60.0
"""A second rewind within this is no restore, but a server that lies or lags: it is paced."""

DISTRUST_S = 10.0
"""Shortest time between two lists because of reads that contradict the store; thousands of sessions
find out the same at once."""

FORBIDDEN_S = (30.0, 60.0)
"""Rights are granted by humans; asking more often only fills the audit log."""

REGAIN_S = (5.0, 7.5)
"""The same for a right that has worked: the authorizer of a large cluster, or a webhook, may take
minutes after a start of the API server. The first answer to one informer of a namespace wakes all
sessions there, each of which tries by itself every 30-300 s."""

REGAIN_FOR_S = 900.0
"""For so long after the first refusal of such a right: then a person took it. 500 namespaces cost
160 refusals a second until then, which the API server answers from memory."""

STARTING_S = (0.1, 2.5)
"""First and last step, waits of up to twice that: a server that has just started refuses everybody
for 0.2 s, on a large cluster for longer."""

MAX_RETRY_AFTER_S = 60.0
"""Longest Retry-After that is obeyed: a mistaken hour would outlast every token."""


@dataclass(slots=True)
class _Counts:
    lists: int = 0
    relists: int = 0
    watches: int = 0
    events: int = 0
    bookmarks: int = 0
    skipped: int = 0
    short_watches: int = 0
    idle_watches: int = 0
    errors: int = 0
    drift_found: int = 0


@dataclass(slots=True)
class _Listing:
    """A list under way, of which all pages are fetched before anybody sees one.

    `audit`: a failure leaves the watch to go on. `proof`: the server was restarted before it.
    `is_mixed`: the server may have been restarted between two of its pages.
    """

    audit: bool
    proof: bool = False
    restarted: bool = False
    is_mixed: bool = False
    continue_token: str = ""
    first_version: str = ""
    items: list[ObjectMeta] = field(default_factory=list)


@dataclass(slots=True)
class _Watching:
    """The watch under way; `events` counts everything that carried a version."""

    version: str
    timeout_s: int
    asked_at: float
    opened_at: float | None = None
    heard_at: float = 0.0
    events: int = 0


class ListWatchProtocol:
    """One list/watch loop's state between its requests.

    Args:
        uniform: Returns a random number between its two arguments (`Random.uniform`).
        first_limit: Items of the first page, before the size of one is known.
    """

    def __init__(
        self, uniform: Callable[[float, float], float], *, first_limit: int = PAGE_LIMIT
    ) -> None:
        self._uniform = uniform
        self._backoff = Backoff(uniform)
        self._starting = Backoff(uniform, base_s=STARTING_S[0], cap_s=STARTING_S[1])
        self._counts = _Counts()
        self._version = ""
        self._must_list = True
        self._limit = first_limit
        self._demanded = False
        self._listing: _Listing | None = None
        self._watching: _Watching | None = None
        self._audit = ConsistencyCheck(uniform)
        self._bookmarks = False
        self._fruitless = 0
        self._failures = 0
        self._watch_failing = False
        self._forbidden = False
        self._worked_until_at: float | None = None
        self._last_error = ""
        self._backoff_s = 0.0
        self._is_doubted = False
        self._is_restarted = False
        self._rewound_at = -math.inf
        self._distrusted_at = -math.inf
        self._next_at = 0.0
        self._floor_at = 0.0

    # What to do next.

    def pause(self, now_at: float) -> RetryDelay:
        """Return how long to wait before `request`."""
        floor_s = max(0.0, self._floor_at - now_at)
        return RetryDelay(max(floor_s, self._next_at - now_at), floor_s)

    def request(self, now_at: float) -> ListRequest | WatchRequest:
        """Decide the next request; the caller sends it at once."""
        if self._listing is None and (self._must_list or self._demanded):
            self._must_list, self._demanded = True, False
            self._listing = _Listing(audit=False)
        elif self._listing is None and self._audit.is_due(now_at):
            self._listing = _Listing(audit=True, proof=now_at >= self._audit.proof_at)
        self._next_at = self._floor_at = now_at
        if (listing := self._listing) is not None:
            self._counts.lists += 1
            return ListRequest("", self._limit, listing.continue_token)
        self._counts.watches += 1
        self._watching = _Watching(self._version, self._life_s(now_at), now_at)
        return WatchRequest(self._version, self._watching.timeout_s)

    def request_relist(self) -> None:
        """Have the next list start with the next request."""
        self._demanded = True

    def distrust(self, now_at: float) -> bool:
        """Have a consistent list start with the next request: a read contradicts the store.

        Returns: False where one that is made already, or was made just now, is to tell.
        """
        listing = self._listing
        is_made = listing is not None and not listing.audit
        if is_made or self._demanded or now_at - self._distrusted_at < DISTRUST_S:
            return False
        self._distrusted_at = now_at
        self._demanded = True
        return True

    @property
    def is_watching(self) -> bool:
        """Whether the watch that was asked for last is still wanted."""
        return self._watching is not None

    @property
    def fresh_list(self) -> bool:
        """Whether the next list would still have to start (none is under way)."""
        return self._listing is None

    @property
    def is_forbidden(self) -> bool:
        """Whether the server refused us the right, and nothing has gone well since."""
        return self._forbidden

    @property
    def idle_s(self) -> float:
        """Longest silence to accept on the open watch, in seconds.

        Of one that follows on a lost connection it is that of a server with bookmarks, whatever the
        server is: silence may mean that the version is one of a future that was lost.
        """
        if self._bookmarks or self._is_doubted or self._watching is None:
            return IDLE_S
        return self._watching.timeout_s + IDLE_GRACE_S

    # What happened.

    def page(self, page: Page[ObjectMeta], now_at: float) -> tuple[Effect, ...]:
        """Take one page; the last one completes the list."""
        listing = self._listing
        assert listing is not None, "a page without a list"  # noqa: S101 - the caller's order
        listing.first_version = listing.first_version or page.version
        if not listing.first_version:
            return self.failed(ProtocolError("a list names no version"), now_at)
        listing.items.extend(page.items)
        listing.continue_token = page.continue_token
        self._counts.skipped += page.skipped
        self._limit = fitting(page.length, len(page.items) + page.skipped)
        if page.continue_token:
            return ()
        self._listing = None
        # Whatever the stream has reached was there before this list was asked for.
        is_older = is_newer(self._version, listing.first_version)
        is_audit = listing.audit and not listing.proof and not is_older
        is_proof = listing.proof and not is_older
        replace = Replace(tuple(listing.items), listing.first_version, is_audit, is_proof)
        recovered = self._healthy(now_at, "list_recovered")
        if is_audit:
            self._audit.hold(replace, now_at)
            return recovered
        self._audit.listed(now_at)
        self._counts.relists += bool(self._version)
        facts: tuple[Effect, ...] = ()
        if is_older and now_at - self._rewound_at >= REWIND_S:
            text = f"a list of version {replace.version} after {self._version}: was etcd restored?"
            facts = (LogEvent("history_rewound", text, self._failures),)
            self._rewound_at = now_at
        self._version = replace.version
        self._must_list = self._is_doubted = False
        self._is_restarted = listing.is_mixed
        return (*recovered, *facts, replace)

    def opened(self, now_at: float) -> None:
        """The server began to answer the watch; silence counts from here."""
        if self._watching is None:
            return
        self._watching.opened_at = self._watching.heard_at = now_at
        if self._is_restarted:
            self._is_restarted = False
            self._audit.restarted(self._watching.asked_at + self._watching.timeout_s)

    def event(self, event: Event[ObjectMeta], now_at: float) -> tuple[Effect, ...]:
        """Take one event of the open watch."""
        if self._watching is not None:
            self._watching.heard_at = now_at
        if not event.version:
            self._counts.skipped += 1
            return ()
        if self._watching is not None:
            if is_newer(self._watching.version, event.version):
                return self._rewound(self._watching.version, event.version, now_at)
            self._watching.events += 1
        self._fruitless = 0
        self._is_doubted = False
        self._version = event.version
        emits = self._audit.place(event.version, self._emit_of(event))
        return (*self._healthy(now_at, "watch_recovered"), *emits)

    def closed(self, now_at: float) -> tuple[Effect, ...]:
        """The server ended the watch cleanly: go on from the last version, unless it was short.

        A close within `SHORT_S` is never followed at once (hot loop); it is a failure only if the
        watch brought nothing.
        """
        watching, self._watching = self._watching, None
        lived_s = now_at - (watching.opened_at or watching.asked_at) if watching else SHORT_S
        if watching is None or lived_s >= SHORT_S:
            self._fruitless = 0
            return (*self._healthy(now_at, "watch_recovered"), *self._release_overdue(now_at))
        if watching.events:
            self._next_at = now_at + self._uniform(BASE_S, 2 * BASE_S)
            return self._release_overdue(now_at)
        self._counts.short_watches += 1
        self._count_fruitless()
        return self._failed("watch_restarted", "closed at once", now_at)

    def interrupted(self) -> None:
        """We ended the watch ourselves; it says nothing about the server."""
        self._watching = None

    def failed(self, error: KubeError | ProtocolError, now_at: float) -> tuple[Effect, ...]:
        """Take the failure of the request under way, at its start or in its stream."""
        self._counts.errors += 1
        if self._listing is not None:
            return self._list_failed(self._listing, error, now_at)
        idle = isinstance(error, TransportError) and self._is_idle(now_at)
        started = self._watching is not None and self._watching.opened_at is not None
        self._watching = None
        self._is_restarted |= not started and self._shows_restart(error)
        self._judge_watch(error, started=started)
        if not idle:
            self._is_doubted |= isinstance(error, TransportError)
            return self._failed("watch_restarted", str(error), now_at, error)
        self._counts.idle_watches += 1
        if self._is_doubted:
            self._must_list = True
        self._count_fruitless()  # whatever keeps it silent may let a list through
        facts = self._failed("watch_timed_out", str(error), now_at, error)
        return (*facts, *self._release_overdue(now_at))

    def found_drift(self, differences: int) -> None:
        """Count what an audit's `Replace` changed."""
        self._counts.drift_found += differences

    # Lists.

    def _list_failed(
        self, listing: _Listing, error: KubeError | ProtocolError, now_at: float
    ) -> tuple[Effect, ...]:
        """Answer a failed page: the same page again, unless the error names a way out.

        A first page leaves nothing to keep; what was wanted meanwhile is heeded at the next try.
        """
        if isinstance(error, Gone) and listing.continue_token:
            # Another list at once, in pages, too; one that expires again waits like any failure.
            if not listing.restarted:
                self._listing = _Listing(listing.audit, listing.proof, restarted=True)
                self._last_error = str(error)
                return ()
            listing.continue_token = ""
        listing.is_mixed |= bool(listing.continue_token) and self._shows_restart(error)
        if listing.audit:
            self._audit.failed(now_at)
        if listing.audit or not listing.continue_token or not _is_transient(error):
            self._listing = None
        return self._failed("list_failed", str(error), now_at, error)

    # Watches.

    def _life_s(self, now_at: float) -> int:
        """Return a watch's life in seconds: it ends as the list after a restart is due.

        That list is asked for between two watches. The server's clean end loses no event.
        """
        life_s = int(self._uniform(*(RESTARTED_S if self._is_restarted else WATCH_S)))
        if self._audit.proof_at - now_at < life_s:
            return max(WATCH_LEAST_S, math.ceil(self._audit.proof_at - now_at))
        return life_s

    def _shows_restart(self, error: KubeError | ProtocolError) -> bool:
        """Say whether a request that was not answered may meet a restart of the API server.

        Etcd is restored under stopped API servers only. A watch that is opened at a version of the
        lost history misses what happened below it, silently or, once the new history has passed
        that version, beside events. A 5xx counts where the connection was lost before, as a load
        balancer answers for a server that is stopped.
        """
        if isinstance(error, ServerError):
            return self._is_doubted
        return isinstance(error, TransportError | AuthorizerNotReady)

    def _judge_watch(self, error: KubeError | ProtocolError, *, started: bool) -> None:
        """Decide whether the version can still be trusted after a failed watch."""
        if isinstance(error, Gone | ResourceVersionTooLarge):
            self._must_list = True
        elif isinstance(
            error, TransportError | TooManyRequests | Unauthorized | Forbidden | AuthorizerNotReady
        ):
            return
        elif started or not isinstance(error, ServerError):
            self._count_fruitless()

    def _rewound(self, version: str, seen: str, now_at: float) -> tuple[Effect, ...]:
        """Leave a watch that shows a version below the one it was asked to begin after.

        The server's history has been rewound: etcd was restored to an earlier revision. A watch
        after a version of the future is silent until that is reached again, and says nothing of
        what was lost. kube-apiserver holds its bookmarks back, too (cacher `cache_watcher.go`): see
        `idle_s`; a server without that cache may not.
        """
        self._watching = None
        self._must_list = True
        text = f"version {seen} in a watch after {version}: was etcd restored?"
        is_again = now_at - self._rewound_at < REWIND_S
        self._rewound_at = now_at
        facts = self._failed("history_rewound", text, now_at)
        if is_again:
            return facts
        self._next_at, self._backoff_s = now_at, 0.0
        return (LogEvent("history_rewound", text, self._failures),)

    def _is_idle(self, now_at: float) -> bool:
        """Say whether the open watch has been silent for as long as is accepted."""
        watching = self._watching
        if watching is None or watching.opened_at is None:
            return False
        return now_at - watching.heard_at > self.idle_s - 0.1

    def _count_fruitless(self) -> None:
        self._fruitless += 1
        if self._fruitless >= MAX_EMPTY_WATCHES:
            self._fruitless = 0
            self._must_list = True

    def _emit_of(self, event: Event[ObjectMeta]) -> Effect:
        if event.type == "BOOKMARK":
            self._counts.bookmarks += 1
            self._bookmarks = True
            return Bookmark(event.version)
        if event.type == "SKIPPED" or event.object is None:
            self._counts.skipped += 1
            return Bookmark(event.version)
        self._counts.events += 1
        return Apply(event.type, event.object)

    def _release_overdue(self, now_at: float) -> tuple[Effect, ...]:
        """Go on from a safety list that the stream did not reach, though its server is there."""
        overdue = self._audit.take_overdue(now_at)
        if overdue is None:
            return ()
        self._version = overdue.version
        return (overdue,)

    # Failures and health.

    def _failed(
        self, name: str, text: str, now_at: float, error: Exception | None = None
    ) -> tuple[Effect, ...]:
        """Back off, and report the first failure of a streak; a missing right always once."""
        self._failures += 1
        self._watch_failing |= name != "list_failed"
        self._last_error = text
        if isinstance(error, AuthorizerNotReady):
            wait_s = self._starting.failed(now_at)
            if self._worked_until_at is None and self._version:
                self._worked_until_at = now_at
        elif isinstance(error, Forbidden) and self._may_regain(now_at):
            wait_s = self._uniform(*REGAIN_S)
        else:
            self._starting.reset()
            wait_s = self._backoff.failed(now_at)
            if isinstance(error, Forbidden):
                wait_s = max(wait_s, self._uniform(*FORBIDDEN_S))
        asked_s = error.retry_after_s if isinstance(error, KubeError) else None
        floor_s = min(asked_s or 0.0, MAX_RETRY_AFTER_S)
        self._backoff_s = max(wait_s, floor_s)
        self._next_at = now_at + self._backoff_s
        self._floor_at = now_at + floor_s
        if isinstance(error, Forbidden) and not self._forbidden:
            self._forbidden = True
            name = "list_forbidden" if name == "list_failed" else "watch_forbidden"
            return (LogEvent(name, text, self._failures),)
        return (LogEvent(name, text, self._failures),) if self._failures == 1 else ()

    def _may_regain(self, now_at: float) -> bool:
        """Say whether a refused right has worked, and may come back without a person's doing."""
        since_at = self._worked_until_at
        return since_at is not None and now_at - since_at < REGAIN_FOR_S

    def _healthy(self, now_at: float, name: str) -> tuple[Effect, ...]:
        """Note a sign of life: an event, a complete list, or a watch that lived and ended well.

        A list between watches that fail ends no streak: the next watch would only begin it again.
        """
        self._backoff.healthy(now_at)
        self._starting.reset()
        self._backoff_s = 0.0
        if self._watch_failing and name == "list_recovered":
            return ()
        self._forbidden = self._watch_failing = False
        self._worked_until_at = None
        failures, self._failures = self._failures, 0
        return (LogEvent(name, self._last_error, failures),) if failures else ()

    def stats(self) -> ListWatchStats:
        counts = self._counts
        return ListWatchStats(
            state="listing" if self._must_list or self._listing else "watching",
            version=self._version,
            lists=counts.lists,
            relists=counts.relists,
            watches=counts.watches,
            events=counts.events,
            bookmarks=counts.bookmarks,
            skipped=counts.skipped,
            short_watches=counts.short_watches,
            idle_watches=counts.idle_watches,
            errors=counts.errors,
            failures=self._failures,
            backoff_s=self._backoff_s,
            last_error=self._last_error,
            drift_found=counts.drift_found,
        )

    def __repr__(self) -> str:
        stats = self.stats()
        return f"<ListWatchProtocol {stats.state} at {stats.version or 'nothing'}>"


def fitting(length: int, items: int) -> int:
    """Return how many items the next page is to have, by those of the one before.

    Args:
        length: Bytes of that page, 0 where it is not known.
    """
    if not length or not items:
        return PAGE_LIMIT
    return min(PAGE_LIMIT, max(PAGE_LEAST, PAGE_BYTES * items // length))


def _is_transient(error: KubeError | ProtocolError) -> bool:
    return isinstance(error, KubeError) and error.transient
