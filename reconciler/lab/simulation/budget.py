"""What a session and an endpoint may cost at most, whatever the world does to them.

A defence against loops that each look reasonable: a write whose own event asks for the next one, a
retry that every event shortens, a refresh that the answer undoes.
"""

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from reconciler.clock import Clock
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.simulation.event_log import EventLog
from reconciler.naming import Names, SessionKey

WRITE_BUDGET = "write_budget"
ENDPOINT_BUDGET = "endpoint_budget"

WINDOW = 0.2
"""Part of a token's life in which writes are counted together: no token is refreshed by schedule
twice in it. Source: the refresh grid, whose earliest instant is at age 0.2."""

WRITES = 3
"""Writes of one session, and as many touches, in one window."""

LIVES = 3
"""Tokens of a session whose shortest life counts: what was written for a short one is no waste
because the next one lives longer."""

ANSWERED_S = 60.0
"""Others' changes this much older than the window are still answered in it."""

CONTESTED_S = 4.0
"""A session that others change all the time gets one write in so many seconds at most."""

MINUTE_S = 60.0

REQUESTS_A_MINUTE = 40
"""Requests of one process to one endpoint in a minute, where each is worth the same: one probe in
2 s while it is unreachable, and what a few starts and refusals add."""

TRIES = 40
"""Tries of one session's writes in a window, without `TRY_S`. A pace that is bound by a quarter of
the life that is left takes about 25 tries from half a minute to the end of a token, twice that with
the widest jitter."""

TRY_S = 8.0
"""One more try in so many seconds of a window."""

LOOKUPS_A_MINUTE = 20
"""Of one session: its own retries, 30 s at most between two, and what a few recoveries add."""


class WriteBudgetChecker:
    """Counts what each process writes for each session; a commit hook.

    Changes of the session's Secret by others, and new pods, raise the budget by one write each; a
    pod that only changes does not, since its changes ask for nothing.

    Args:
        us: The user whose writes are judged.
        life_s: The life of the token in a Secret now, in seconds; infinite where it has no end.
    """

    def __init__(
        self,
        names: Names,
        event_log: EventLog,
        clock: Clock,
        *,
        us: str,
        life_s: Callable[[SessionKey], float],
    ) -> None:
        self._names = names
        self._event_log = event_log
        self._clock = clock
        self._us = us
        self._life_s = life_s
        self._ours: dict[tuple[SessionKey, str, str], deque[float]] = defaultdict(deque)
        self._others: dict[SessionKey, deque[float]] = defaultdict(deque)
        self._common: deque[float] = deque()
        self._lives: dict[SessionKey, deque[float]] = defaultdict(partial(deque, maxlen=LIVES))

    def changed_for_all(self) -> None:
        """Take in a change that asks for one write of every session, such as another token."""
        self._common.append(self._clock.monotonic())

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
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
        elif commit.kind is kinds.SECRETS or commit.removed or commit.verb == "create":
            self._others[key].append(self._clock.monotonic())

    def _count(self, key: SessionKey, process: str, what: str) -> None:
        lives = self._lives[key]
        if what == "write":
            lives.append(self._life_s(key))
        now_at, window_s = self._clock.monotonic(), window_s_of(min([*lives, self._life_s(key)]))
        ours = _since(self._ours[key, process, what], now_at - window_s)
        ours.append(now_at)
        since_at = now_at - window_s - ANSWERED_S
        others = len(_since(self._others[key], since_at)) + len(_since(self._common, since_at))
        extra = min(others, window_s / CONTESTED_S)
        # A touch follows its write, and is repeated once.
        allowed = WRITES + extra * (2 if what == "touch" else 1)
        if len(ours) > allowed:
            told = f"{key} got {len(ours)} of {what} in {window_s:g} s from {process}"
            changes = f"others changed it {others} times" if others else "unasked"
            self._event_log.add_violation(WRITE_BUDGET, f"{told}; {changes}")
            ours.clear()


class EndpointBudgetChecker:
    """Counts requests: of each process to each endpoint, and of those for one session."""

    def __init__(self, event_log: EventLog, clock: Clock, *, life_s: Callable[[], float]) -> None:
        self._event_log = event_log
        self._clock = clock
        self._life_s = life_s
        self._asked: dict[tuple[str, ...], deque[float]] = defaultdict(deque)
        self._in_flight: dict[tuple[str, str], int] = defaultdict(int)

    def asked(self, process: str, endpoint: str) -> None:
        """Take in a request that costs the endpoint as much as any other, such as a token's."""
        self._count((process, endpoint), REQUESTS_A_MINUTE, MINUTE_S)

    def tried(self, process: str, what: str) -> None:
        """Take in a try to write an object, whatever comes of it."""
        window_s = window_s_of(self._life_s())
        self._count((process, "write", what), TRIES + window_s / TRY_S, window_s)

    def looked_up(self, process: str, session: str) -> None:
        """Take in a look-up of one session at the platform."""
        self._count((process, "look-up", session), LOOKUPS_A_MINUTE, MINUTE_S)

    @contextmanager
    def in_flight(self, process: str, endpoint: str, most: int) -> Iterator[None]:
        """Hold one of the `most` requests that a process may have under way at an endpoint."""
        place = process, endpoint
        self._in_flight[place] += 1
        if self._in_flight[place] > most:
            told = f"{process} has {self._in_flight[place]} requests under way at {endpoint}"
            self._event_log.add_violation(ENDPOINT_BUDGET, f"{told}, not {most}")
        try:
            yield
        finally:
            self._in_flight[place] -= 1

    def _count(self, place: tuple[str, ...], most: float, window_s: float) -> None:
        now_at = self._clock.monotonic()
        asked = _since(self._asked[place], now_at - window_s)
        asked.append(now_at)
        if len(asked) > most:
            told = f"{' '.join(place)}: {len(asked)} requests in {window_s:g} s, not {most:g}"
            self._event_log.add_violation(ENDPOINT_BUDGET, told)
            asked.clear()


def window_s_of(life_s: float) -> float:
    """Return the seconds in which writes count together; of a token without end, as of one of an
    hour."""
    return WINDOW * (life_s if math.isfinite(life_s) else 3600.0)


def _since(times: deque[float], since_at: float) -> deque[float]:
    while times and times[0] <= since_at:
        times.popleft()
    return times
