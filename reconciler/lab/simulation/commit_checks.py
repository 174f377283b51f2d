"""Checks at every commit: the budgets of a session and of an endpoint, and one writer at a time.

The budgets find loops of which each step is correct: a write with an event that causes the next
write, a retry that every event makes earlier, a refresh that its own answer reverts.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from reconciler.clock import Clock, Instant
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import RESTORER, Commit, WriteLog
from reconciler.lab.demo.leader_terms import leader_terms, writes_without_leadership
from reconciler.lab.simulation.event_log import CheckedWrites, EventLog
from reconciler.naming import SessionKey
from reconciler.tokens.source import MIN_CYCLE_S, STANDBY_FRACTION

ONE_FENCE = "one_open_fence"
NO_WRITE_WITHOUT_LEADERSHIP = "no_write_without_leadership"
WRITE_BUDGET = "write_budget"
ENDPOINT_BUDGET = "endpoint_budget"

WINDOW = 0.2
"""Length of a window as a part of a token's life: a schedule refreshes no token twice in it.
Source: the earliest instant of the refresh grid is at age 0.2."""

WRITES = 3
"""Allowed writes of one session in a window, and the same number of touches."""

LIVES = 3
"""The window uses the shortest life of this many tokens of a session: writes for a token with a
short life stay allowed when the next token has a longer one."""

ANSWERED_S = 60.0
"""Changes by other clients that are this much older than the window may cause writes in it."""

CONTESTED_S = 10.0
"""Shortest time between two writes of a session that other clients always change."""

FIRST_REPAIRS = 5
"""Writes of such a session in addition to that rate, before the back-off has grown. Two overwrites
are isolated, and both are repaired at once. The waits after that are at least 1, 2, 4, 8 and then
10 s: a window of L seconds has at most 5 repairs and one per 10 s. The first repairs and the rate
add up: even the shortest window can have all the first ones."""

MINUTE_S = 60.0

REQUESTS_A_MINUTE = 50
"""Allowed requests of one process to one endpoint in a minute: a probe in 1.5 s on average
while it is down, and a few after starts and refused requests. Standby tokens come in addition."""

SHORTER = 3.0
"""An issuer may issue tokens with a life that is shorter by this factor than its usual one."""

TRIES = 40
"""Allowed attempts to write one object in a window, before `TRY_S` adds more. A back-off of at most
a quarter of the remaining life makes about 25 attempts in the last half minute of a token, and
twice that with the largest jitter."""

TRY_S = 8.0
"""Seconds of a window for each additional attempt."""

LOOKUPS_A_MINUTE = 20
"""Allowed look-ups of one session in a minute: its retries, and a few after recoveries."""


class WriteBudgetChecker:
    """Counts the writes of each process for each session; a commit hook.

    Each change of the session's Secret by another client, and each new pod, allows one more write,
    up to a rate. So does each request for a refresh, at any rate: each of them is honoured once.
    A change of a pod does not: it needs no write. A touch follows its write and is repeated once,
    so that each write allows two, and two more to a process that finds it when it begins to lead.
    A new term may begin with a write.

    Args:
        life_s: Returns the life of a Secret's present token, seconds; infinite without an end.
    """

    def __init__(self, writes: CheckedWrites, *, life_s: Callable[[SessionKey], float]) -> None:
        self._names, self._event_log, self._clock, self._us = writes
        self._life_s = life_s
        self._ours: dict[tuple[SessionKey, str, str], deque[Instant]] = defaultdict(deque)
        self._others: dict[SessionKey, deque[Instant]] = defaultdict(deque)
        self._requests: dict[SessionKey, deque[Instant]] = defaultdict(deque)
        self._requested: dict[SessionKey, str] = {}
        self._common: deque[Instant] = deque()
        self._last: dict[SessionKey, tuple[str, Instant]] = {}
        self._touched: dict[tuple[SessionKey, str], tuple[str, Instant]] = {}
        self._inherited: dict[tuple[SessionKey, str], deque[Instant]] = defaultdict(deque)
        self._lives: dict[SessionKey, deque[float]] = defaultdict(partial(deque, maxlen=LIVES))

    def changed_for_all(self) -> None:
        """Record a change that needs one write of every session, such as another static token."""
        self._common.append(self._clock.monotonic())

    def commit(self, commit: Commit) -> None:
        """Check one commit."""
        if commit.kind not in (kinds.SECRETS, kinds.PODS):
            return
        metadata = commit.object["metadata"]
        session = (metadata.get("labels") or {}).get(self._names.session_id)
        if not session:
            return
        key = SessionKey(metadata["namespace"], session)
        if commit.user == self._us:
            what = "write" if commit.kind is kinds.SECRETS else "touch"
            self._count(key, commit.caller.agent, what)
        elif self._is_request(key, commit):
            self._requests[key].append(self._clock.monotonic())
        elif commit.kind is kinds.SECRETS or commit.removed or commit.verb == "create":
            self._others[key].append(self._clock.monotonic())

    def _is_request(self, key: SessionKey, commit: Commit) -> bool:
        """Return whether a change of a Secret requests a refresh."""
        annotations = commit.object["metadata"].get("annotations") or {}
        value: str = annotations.get(self._names.requested_at, "")
        if commit.kind is not kinds.SECRETS or commit.removed or not value:
            return False
        before, self._requested[key] = self._requested.get(key, ""), value
        return value != before

    def _count(self, key: SessionKey, process: str, what: str) -> None:
        lives = self._lives[key]
        now_at = self._clock.monotonic()
        if what == "write":
            lives.append(self._life_s(key))
            self._last[key] = process, now_at
        window_s = window_s_of(min([*lives, self._life_s(key)]))
        ours = _since(self._ours[key, process, what], now_at - window_s)
        ours.append(now_at)
        since_at = now_at - window_s - ANSWERED_S
        others = len(_since(self._others[key], since_at)) + len(_since(self._common, since_at))
        requests = len(_since(self._requests[key], since_at))
        extra = min(others, FIRST_REPAIRS + window_s / CONTESTED_S) + requests
        allowed = WRITES + extra
        if what == "touch":  # it follows its write, and is repeated once
            written = sum(at > since_at for at in self._ours[key, process, "write"])
            written += self._count_inherited(key, process, since_at)
            allowed = max(WRITES + 2 * extra, 2 * written)
        if len(ours) > allowed:
            excess = f"{len(ours)} times {what} of {key} in {window_s:g} s by {process}"
            others += requests
            changes = f"{others} changes by other clients" if others else "without any change"
            self._event_log.add_violation(WRITE_BUDGET, f"{excess}; {changes}")
            ours.clear()

    def _count_inherited(self, key: SessionKey, process: str, since_at: Instant) -> int:
        """Record a touch; count the writes of our other processes that this one has touched for."""
        place, last, inherited = (key, process), self._last.get(key), self._inherited[key, process]
        if last is not None and last[0] != process and self._touched.get(place) != last:
            self._touched[place] = last
            inherited.append(self._clock.monotonic())
        return len(_since(inherited, since_at))


class EndpointBudgetChecker:
    """Counts requests of each process: to each endpoint, and for each session."""

    def __init__(self, event_log: EventLog, clock: Clock, *, life_s: Callable[[], float]) -> None:
        self._event_log = event_log
        self._clock = clock
        self._life_s = life_s
        self._asked: dict[tuple[str, ...], deque[Instant]] = defaultdict(deque)
        self._in_flight: dict[tuple[str, str], int] = defaultdict(int)

    def asked(self, process: str, endpoint: str) -> None:
        """Count a request to an endpoint, such as a token request."""
        standby = MINUTE_S / max(MIN_CYCLE_S, STANDBY_FRACTION * self._life_s() / SHORTER)
        self._count((process, endpoint), REQUESTS_A_MINUTE + standby, MINUTE_S)

    def tried(self, process: str, what: str) -> None:
        """Count an attempt to write an object, with any result."""
        window_s = window_s_of(self._life_s())
        self._count((process, "write", what), TRIES + window_s / TRY_S, window_s)

    def looked_up(self, process: str, session: str) -> None:
        """Count a look-up of one session at the platform."""
        self._count((process, "look-up", session), LOOKUPS_A_MINUTE, MINUTE_S)

    @contextmanager
    def in_flight(self, process: str, endpoint: str, most: int) -> Iterator[None]:
        """Count a request while it is in flight; a process may have `most` at an endpoint."""
        place = process, endpoint
        self._in_flight[place] += 1
        if self._in_flight[place] > most:
            excess = f"{process} has {self._in_flight[place]} requests in flight at {endpoint}"
            self._event_log.add_violation(ENDPOINT_BUDGET, f"{excess}, at most {most}")
        try:
            yield
        finally:
            self._in_flight[place] -= 1

    def _count(self, place: tuple[str, ...], most: float, window_s: float) -> None:
        now_at = self._clock.monotonic()
        asked = _since(self._asked[place], now_at - window_s)
        asked.append(now_at)
        if len(asked) > most:
            what = f"{' '.join(place)}: {len(asked)} requests in {window_s:g} s, at most {most:g}"
            self._event_log.add_violation(ENDPOINT_BUDGET, what)
            asked.clear()


def window_s_of(life_s: float) -> float:
    """Return the length of a window; a token without an end counts as one of an hour."""
    return WINDOW * (life_s if math.isfinite(life_s) else 3600.0)


def _since(times: deque[Instant], since_at: Instant) -> deque[Instant]:
    while times and times[0] <= since_at:
        times.popleft()
    return times


class SingleWriterCheck:
    """Checks every commit against the holders of one Lease; a commit hook.

    Args:
        lease: Name of the Lease.
        contends: Whether a process contends for that Lease; the writes of others are not checked.
        open_fences: Returns the processes of that Lease that may write now.
    """

    def __init__(
        self,
        event_log: EventLog,
        lease: str,
        contends: Callable[[str], bool],
        open_fences: Callable[[], Sequence[str]],
    ) -> None:
        self.process = ""
        """The last process that acquired the Lease."""
        self.changes_total = 0
        self.since_version = 0
        """The version at which that process acquired it."""
        self._event_log = event_log
        self._lease = lease
        self._contends = contends
        self._open_fences = open_fences
        self._write_log = WriteLog()

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
        write_log = self._write_log
        if commit.caller is RESTORER:
            return  # no restore goes back beyond the last change of the Lease's holder
        write_log.record(commit)
        terms = leader_terms(turn for turn in write_log.holder_changes if turn.name == self._lease)
        if terms and terms[-1].process != self.process:
            self.changes_total += bool(self.process)
            self.process, self.since_version = terms[-1].process, commit.version
        writes = [write for write in write_log.process_writes if self._contends(write.process)]
        for write in writes_without_leadership(terms, writes):
            what = f"{write.process} at version {write.version}"
            self._event_log.add_violation(NO_WRITE_WITHOUT_LEADERSHIP, what)
        write_log.process_writes.clear()
        write_log.secret_writes.clear()
        if len(fences := self._open_fences()) > 1:
            self._event_log.add_violation(ONE_FENCE, f"{' and '.join(fences)} may write")


def process_of(agent: str) -> str:
    """Return the process that a replica names in its user agent, "" for any other agent."""
    return agent.partition("(")[2].partition(")")[0].partition(" ")[0]
