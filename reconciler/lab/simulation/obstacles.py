"""The intervals in which moves make a write, or the sight of a change, impossible (pure).

An expired token is excused only inside them. All instants are seconds since the world's start.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from reconciler.backoff import DENIED
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.moves import LOCAL, Move
from reconciler.tokens.cooldown import MAX_S

Interval = tuple[float, float]

BEFORE_S = 5.0
"""A write that begins so long before an obstacle may fail in it."""

PAUSE_S = 15.0
"""Longest time from an obstacle's end until all waiting sessions are served."""

WATCH_PAUSE_S = 16.0
"""Longest pause of a watch after many failures, in which a new pod is not observed. Source:
`informer.backoff`, 8 s with a jitter of 1.0."""

COLD_START_S = 10.0
"""The fleet exists before the controller: tokens that expire so early are not counted."""

SERVED_S = 60.0
"""Longest time from the end of a namespace's slowness until its waiting sessions are served."""

TAKEOVER_S = 30.0
"""Longest time from the end of a leader until another replica writes: a lease of 15 s that was just
renewed, the clocks' margin, a retry, and the first round of the sessions that wait."""

REFUSED_S = 2.0
"""A token that expires so shortly after the last refusal has no attempt in between: the bound of
the wait is one second, and the kubelet needs another."""

DENIED_S = DENIED.cap_s
"""A session whose token expired while a webhook denied its writes waits for so long after it, less
where others are denied, too: one that is accepted wakes them."""

RETRY_AFTER_S = 60.0
"""The Retry-After of a namespace that throttles. It is followed to the end for a token that the
controller has not written: the life of that one is not known."""

NODES_OFF = (-0.2, -0.05, -0.01, -0.0035, 0.0035, 0.01, 0.05, 0.2)
"""Clocks of an issuer's other node, as parts of a token's life: seconds, up to a fifth of it."""

NODE_STAYS = (0.0, 0.0, 0.02, 0.15, 0.5)
"""For how long a load balancer keeps to one node, as parts of a token's life: each request may go
to another one, or all the tokens of a proof come from one node."""

TIMEOUT_S = 5.0
"""Time limit of a token request, as in the product."""

RESTORED_S = 4.0
"""Time for which an API server is unavailable while its store is restored."""

WATCH_BREAKING = frozenset(
    {Fault.WATCH_RESET, Fault.COMPACTION, Fault.API_ERRORS, Fault.API_RESTART}
)

BLIND = WATCH_BREAKING | {
    Fault.WATCH_SILENCE,
    Fault.WATCH_CLOSE,
    Fault.WATCH_BURSTS,
    Fault.API_THROTTLE,
    Fault.API_SLOW,
    Fault.API_TRICKLE,
    Fault.ISSUER_CLOCK_STEP,
}
"""Moves in which a new pod, or a changed Secret, is seen late; refreshes go on."""

PLATFORM_ONLY = frozenset(
    {
        Fault.PLATFORM_OUTAGE,
        Fault.PLATFORM_PARTIAL_OUTAGE,
        Fault.PLATFORM_SLOW,
        Fault.PLATFORM_NOT_FOUND_ONCE,
    }
)
"""Moves that a session waits for only until its first confirmation."""

LEADER_LOST = frozenset(
    {
        Fault.KILL_LEADER,
        Fault.FREEZE_LEADER,
        Fault.STALL_LEADER,
        Fault.PARTITION_LEADER,
        Fault.ROLLOUT,
        Fault.SCALE_DOWN,
    }
)

ISSUER_STOPPING = frozenset({Fault.ISSUER_OUTAGE, Fault.ISSUER_REFUSAL, Fault.ISSUER_CORRUPT})

WRITE_STOPPING = frozenset(
    {
        *LEADER_LOST,
        *ISSUER_STOPPING,
        Fault.API_ERRORS,
        Fault.API_OUTAGE,
        Fault.API_RESTART,
        Fault.RESTART_ALL,
        Fault.RESTORE_STORE,
        Fault.NAMESPACE_SLOW,
        Fault.NAMESPACE_HANG,
        Fault.NAMESPACE_ERRORS,
        Fault.WEBHOOK_DENIES,
        Fault.PAUSE_COMMANDS,
    }
)
"""Moves in which no token, or no write, is possible."""


@dataclass(frozen=True, slots=True)
class OtherNode:
    """An issuer's second node, behind one load balancer with the first.

    Args:
        off_s: Its clock less that of the first node and of the validators.
        stays_s: For how long the load balancer sends all requests to one node; 0.0: it chooses
            for each request.
    """

    off_s: float
    stays_s: float


class Obstacles:
    """The obstacles of one sentence.

    Args:
        replicas: Number of replicas; with one, no other replaces a leader.
        namespace_of: The namespace of a move of `LOCAL`.
    """

    def __init__(
        self, moves: Sequence[Move], *, replicas: int, namespace_of: Callable[[Move], str]
    ) -> None:
        self._moves = moves
        self._replicas = replicas
        self._namespace_of = namespace_of
        self._known: dict[tuple[str, bool, bool], list[Interval]] = {}

    def excused_until_s(self, due_s: float, needed_s: float, namespace: str) -> float:
        """Return until when a write that was due from `due_s` to `needed_s` was impossible.

        Returns: 0.0 if there was time for it in between.
        """
        for from_s, to_s in self._intervals(namespace, blind=False, unconfirmed=False):
            if from_s <= due_s and needed_s <= to_s:
                return max(to_s, *self._waits_until_s(needed_s, namespace, blind=False))
        return 0.0

    def hides_until_s(self, at_s: float, namespace: str, *, confirmed: bool) -> float:
        """Return until when a session that changes at `at_s` may wait to be served; 0.0: at once.

        Args:
            confirmed: Whether its Secret has a confirmation of the platform.
        """
        found = [COLD_START_S] if at_s < COLD_START_S else []
        for from_s, to_s in self._intervals(namespace, blind=True, unconfirmed=not confirmed):
            if from_s <= at_s <= to_s:
                found += self._waits_until_s(at_s, namespace, blind=True)
                found.append(to_s + PAUSE_S)
        return max(found, default=0.0)

    def issuer_answers_by_s(self, at_s: float) -> float:
        """Return by when the issuer has answered a request that it would answer by `at_s`.

        After a refusal a replica pauses for `tokens.cooldown.MAX_S` at most.
        """
        failing = (
            (move.at_s, move.end_s + (MAX_S if move.kind is Fault.ISSUER_REFUSAL else PAUSE_S))
            for move in self._moves
            if move.kind in ISSUER_STOPPING or is_timing_out(move)
        )
        for from_s, to_s in _merged(failing):
            if from_s <= at_s < to_s:
                return to_s
        return at_s

    def last_end_s(self) -> float:
        """Return when all sessions are served after the last move of any kind."""
        return max((move.end_s + _served_s(move) for move in self._moves), default=SERVED_S)

    def _waits_until_s(self, at_s: float, namespace: str, *, blind: bool) -> Iterator[float]:
        """Yield until when a session may wait whose write was refused at `at_s`, 0.0 first."""
        yield 0.0
        for move in self._moves:
            if not move.at_s - BEFORE_S <= at_s <= move.end_s + REFUSED_S:
                continue
            if move.kind is Fault.WEBHOOK_DENIES:
                yield move.end_s + DENIED_S
            elif blind and is_throttling(move) and self._namespace_of(move) == namespace:
                yield move.end_s + RETRY_AFTER_S + PAUSE_S

    def _intervals(self, namespace: str, *, blind: bool, unconfirmed: bool) -> list[Interval]:
        key = namespace, blind, unconfirmed
        if key not in self._known:
            found = (
                self._interval(move, blind=blind, unconfirmed=unconfirmed)
                for move in self._moves
                if move.kind not in LOCAL or self._namespace_of(move) == namespace
            )
            self._known[key] = _merged(interval for interval in found if interval is not None)
        return self._known[key]

    def _interval(self, move: Move, *, blind: bool, unconfirmed: bool) -> Interval | None:
        stops = move.kind in WRITE_STOPPING or is_timing_out(move)
        counts = stops or (blind and move.kind in BLIND)
        if not counts and not (unconfirmed and move.kind in PLATFORM_ONLY):
            return None
        pause_s = WATCH_PAUSE_S if blind and move.kind in WATCH_BREAKING else PAUSE_S
        if move.kind in (Fault.NAMESPACE_SLOW, Fault.NAMESPACE_HANG):
            pause_s = SERVED_S
        return move.at_s - BEFORE_S, self._end_s(move) + pause_s

    def _end_s(self, move: Move) -> float:
        """Return when a move's obstacle ends: a standby replaces a leader that does not return."""
        if move.kind is Fault.RESTORE_STORE:
            return move.at_s + RESTORED_S
        if move.kind not in LEADER_LOST:
            return move.end_s
        lost = [
            other
            for other in self._moves
            if other.kind in LEADER_LOST and other.at_s < move.end_s and move.at_s < other.end_s
        ]
        if len(lost) >= self._replicas:
            return move.end_s
        return min(move.end_s, move.at_s + TAKEOVER_S)


def is_timing_out(move: Move) -> bool:
    """Return whether the issuer is so slow that token requests reach their time limit."""
    return move.kind is Fault.ISSUER_SLOW and slow_s(move) + 0.2 >= TIMEOUT_S


def is_throttling(move: Move) -> bool:
    """Return whether writes in a namespace get a 429, and not a 503."""
    return move.kind is Fault.NAMESPACE_ERRORS and int(move.size * 1e6) % 2 == 0


def slow_s(move: Move) -> float:
    """Return the issuer's delay in `issuer-slow`."""
    return 1.0 + 6.0 * move.size


def cache_s(move: Move, ttl_s: float) -> float:
    """Return for how long the issuer answers with the same token in `issuer-cache`."""
    return ttl_s * (0.02 + 0.2 * move.size)


def other_node(move: Move, ttl_s: float) -> OtherNode:
    """Return the second node in `issuer-nodes-differ`."""
    parts = NODES_OFF[int(move.size * len(NODES_OFF))]
    stays = NODE_STAYS[int(move.size * 1e6) % len(NODE_STAYS)]
    return OtherNode(parts * ttl_s, stays * ttl_s)


def _served_s(move: Move) -> float:
    return SERVED_S + (DENIED_S if move.kind is Fault.WEBHOOK_DENIES else 0.0)


def _merged(intervals: Iterable[Interval]) -> list[Interval]:
    merged: list[Interval] = []
    for from_s, to_s in sorted(intervals):
        if merged and from_s <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], to_s)
        else:
            merged.append((from_s, to_s))
    return merged
