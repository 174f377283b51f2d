"""The report of a demo run: one JSON object, and whether the run passed."""

from dataclasses import asdict, dataclass
from typing import Any

from reconciler.clock import Instant
from reconciler.lab.apiserver.write_log import WriteLog
from reconciler.lab.chaos.schedule import ScheduledFault
from reconciler.lab.cluster.replicas import Tally
from reconciler.lab.demo.leader_terms import (
    failover_s,
    leader_terms,
    writes_without_leadership,
)
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.runners.exposure_ledger import FleetReport


@dataclass(frozen=True)
class StartupResyncReport:
    """The slowest startup resync of the run; `seconds` None: none finished."""

    sessions: int
    seconds: float | None


@dataclass(frozen=True)
class Report:
    """Field names are the contract; a field without a measurement is None or 0.

    `expired_token_seconds` and `unauthenticated` come from the runners and the gRPC server.
    `refreshes`, `startup_resync`, `lateness_p99_s` and `writes_fenced` come from the controllers'
    logs, `refresh_failures` from their metrics. The leaders, and when each of them wrote, come from
    the API server's write log. `MEANINGS` has what each field counts.
    """

    sessions: int
    replicas: int
    token_ttl_s: float
    lease_s: int
    duration_s: float
    refreshes: int
    refresh_failures: int
    startup_resync: StartupResyncReport
    expired_token_seconds: float
    unauthenticated: int
    reauthentications: int
    grpc_calls: int
    lateness_p99_s: float | None
    leader_changes: int
    failover_s: float | None
    writes_fenced: int
    writes_applied_without_leadership: int
    chaos: list[dict[str, Any]]

    @property
    def is_good(self) -> bool:
        """True if no token expired in use, no forged pod got one, and only the leader wrote."""
        return (
            self.expired_token_seconds == 0
            and self.unauthenticated == 0
            and self.writes_applied_without_leadership == 0
            and not any(each.get("secrets_with_token") for each in self.chaos)
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


MEANINGS = {
    "sessions": "sessions at the end",
    "replicas": "controllers; one of them leads",
    "token_ttl_s": "life of a token, seconds",
    "lease_s": "a leader that is silent for so long is replaced",
    "duration_s": "length of the run",
    "refreshes": "tokens that the controllers wrote",
    "refresh_failures": "failed tries to refresh a token; each is repeated",
    "startup_resync.sessions": "tokens refreshed at a controller's start",
    "startup_resync.seconds": "time for that, at the slowest start",
    "expired_token_seconds": "time with an expired token in a runner's file, all runners together",
    "unauthenticated": "calls refused although the runner had read its file again",
    "reauthentications": "calls that succeeded after the runner had read its file again",
    "grpc_calls": "calls of the runners with their token",
    "lateness_p99_s": "99 of 100 tokens were written at most so long after they were due",
    "leader_changes": "times that another controller became the leader",
    "failover_s": "longest time from the loss of a leader to the next leader's first write",
    "writes_fenced": "writes that a controller held back, as it no longer led",
    "writes_applied_without_leadership": "writes by a controller that did not lead",
    "chaos": "a fault that was injected",
}
"""What each figure of the report counts, by its name in the table."""


def make_report(
    fleet: FleetReport,
    tally: Tally,
    write_log: WriteLog,
    *,
    sessions: int,
    replicas: int,
    ttl_s: float,
    lease_s: int,
    losses_at: list[Instant],
    duration_s: float,
    chaos: list[dict[str, Any]],
) -> Report:
    """Build the report; expired seconds above 0 are at least 0.001, so that no exposure is hidden.

    Args:
        losses_at: When leaders were killed or frozen, on the API server's clock.
    """
    expired_s = fleet.expired_token_seconds
    terms = leader_terms(write_log.holder_changes)
    wait_s = failover_s(terms, write_log.process_writes, losses_at)
    return Report(
        sessions=sessions,
        replicas=replicas,
        token_ttl_s=ttl_s,
        lease_s=lease_s,
        duration_s=round(duration_s, 1),
        refreshes=tally.refreshes,
        refresh_failures=tally.failures,
        startup_resync=StartupResyncReport(tally.resync_sessions, tally.resync_s),
        expired_token_seconds=max(round(expired_s, 3), 0.001) if expired_s > 0 else 0.0,
        unauthenticated=fleet.unauthenticated,
        reauthentications=fleet.reauthentications,
        grpc_calls=fleet.grpc_calls,
        lateness_p99_s=_p99(tally.lateness_s),
        leader_changes=max(0, len(terms) - 1),
        failover_s=None if wait_s is None else round(wait_s, 3),
        writes_fenced=sum(tally.fenced.values()),
        writes_applied_without_leadership=len(
            writes_without_leadership(terms, write_log.process_writes)
        ),
        chaos=chaos,
    )


def _p99(values: list[float]) -> float | None:
    return sorted(values)[int(0.99 * len(values))] if values else None


def describe_fault(
    fault: ScheduledFault, *, elapsed_s: float, forged: list[str], tokens: int
) -> dict[str, Any]:
    """Return one entry of `chaos`.

    Args:
        forged: Namespaces of forged pods.
        tokens: Number of Secrets with a value in these namespaces.
    """
    entry: dict[str, Any] = {
        "name": fault.name,
        "start_s": fault.start_s,
        "seconds": fault.length_s,
        "injected": elapsed_s >= fault.start_s,
    }
    if fault.name is Fault.FORGED_POD:
        entry |= {"namespaces": sorted(set(forged)), "secrets_with_token": tokens}
    return entry
