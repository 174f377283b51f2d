"""The records of a snapshot, all of one instant; none holds a token (pure)."""

from collections.abc import Mapping

import msgspec

from reconciler.clock import EpochTime, Instant
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.reconcile.bulkhead_shell import SlowTargets
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.status.exposure import Exposed
from reconciler.controller.status.fleet import FleetSummary
from reconciler.controller.status.session_reading import SessionReading
from reconciler.informer.reflector import ReflectorStats
from reconciler.naming import ALL_SESSIONS, SessionKey, Shard
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.tokens.source import TokenStats
from reconciler.workqueue.items import QueueStats


class LeaseStatus(msgspec.Struct, frozen=True):
    """`holder` is the observed holder of the shard's Lease, "" for none; `transitions` is its
    Lease's count. `lapsed` is whether that Lease has ended: a leader that crashed stays in it."""

    term: str
    leading: bool
    holder: str
    transitions: int
    fenced_total: int
    shard: Shard = ALL_SESSIONS
    lapsed: bool = False

    @property
    def leader(self) -> str:
        """The holder that leads, "" for none."""
        return "" if self.lapsed else self.holder


class IssuerStatus(msgspec.Struct, frozen=True):
    """`skew_s` is the issuer's time less our wall clock, known to `error_s` either way once it was
    `heard`; `known_by` names the time source that is believed, `offsets_s` are the clocks less the
    issuer's time, by clock."""

    heard: bool
    skew_s: float
    error_s: float
    token: TokenStats
    known_by: str = ""
    offsets_s: Mapping[str, float] = msgspec.field(default_factory=dict)


class StartupStatus(msgspec.Struct, frozen=True):
    """`seconds` is 0.0 until it is finished; `outcomes` counts the sessions' first results."""

    sessions: int
    finished: bool
    seconds: float
    outcomes: Mapping[str, int] = msgspec.field(default_factory=dict)


class StatusSnapshot(msgspec.Struct, frozen=True):
    """One reading; `now_s` is its instant (epoch, issuer's time), `taken_at` the same, monotonic.

    `readings` has one entry a session, those with a pod first; `StatusCollector.rows` makes rows of
    them. `excluded` are those of them that are not to be refreshed, or were never confirmed.
    `exposed` are those for which the exposure has grown last, the latest first. `platform_allowed`
    requests may be under way at the platform now, None where that is not limited. `listed_running`
    counts the running sessions of the platform's last lists.
    """

    now_s: EpochTime
    taken_at: Instant
    propagation_s: float
    readings: tuple[SessionReading, ...]
    excluded: frozenset[SessionKey]
    fleet: FleetSummary
    watches: tuple[ReflectorStats, ...]
    breakers: tuple[BreakerStats, ...]
    issuer: IssuerStatus
    queue: QueueStats
    lease: LeaseStatus
    reconciler: ReconcileStats
    listed_running: int
    startup: StartupStatus
    exposed: tuple[Exposed, ...] = ()
    slow: SlowTargets = SlowTargets()
    platform_allowed: int | None = None


class SessionStatus(msgspec.Struct, frozen=True, gc=False):
    """One session at the snapshot's instant; instants are epoch seconds in the issuer's time.

    `pod` and `secret` are names, "" where there is none; `expires_s` is None where it is not known,
    `math.inf` for a token without an expiry. `due_s` is when a worker takes it next (None: never),
    `reason` why then, `stage` the queue's word (`waiting`, `ready`, `running`, ""), `blocked_on`
    the endpoint that it waits for. `block_reason` is why nothing is written, "" if it is not
    blocked.
    """

    namespace: str
    session_id: str
    project: str
    pod: str
    secret: str
    state: TokenState
    expires_s: EpochTime | None
    remaining_s: float | None
    due_s: EpochTime | None
    reason: str
    stage: str
    blocked_on: str
    block_reason: str
    failures: int
    refreshed_by: str

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.namespace, self.session_id)
