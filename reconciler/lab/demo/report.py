"""The report of a run: the one JSON object of the command line's contract, and its verdict."""

from dataclasses import asdict, dataclass
from typing import Any

from reconciler.lab.apiserver.write_log import WriteLog
from reconciler.lab.chaos.faults import Chaos
from reconciler.lab.cluster.replicas import Tally
from reconciler.lab.demo.leader_terms import deposed_writes, failover_s, leader_terms
from reconciler.lab.runners.exposure_ledger import FleetReport


@dataclass(frozen=True)
class StartupResyncReport:
    """The slowest startup resync of the run; `seconds` None: none finished."""

    sessions: int
    seconds: float | None


@dataclass(frozen=True)
class Report:
    """Field names are the contract; None and 0 stand where nothing was there to measure.

    `expired_token_seconds` and `unauthenticated` come from the runners and the gRPC server.
    `refreshes`, `refresh_failures`, `startup_resync`, `lateness_p99_s` (written less due) and
    `writes_refused_to_deposed_leader` come from the controllers' logs; leaders, and what they wrote
    when, from the API server's ledger.
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
    writes_refused_to_deposed_leader: int
    writes_applied_by_deposed_leader: int
    chaos: list[dict[str, Any]]

    @property
    def is_good(self) -> bool:
        """True if no token expired in use, none went where none belongs, and one leader wrote."""
        return (
            self.expired_token_seconds == 0
            and self.unauthenticated == 0
            and self.writes_applied_by_deposed_leader == 0
            and not any(each.get("secrets_with_token") for each in self.chaos)
        )

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def make_report(
    fleet: FleetReport,
    tally: Tally,
    ledger: WriteLog,
    *,
    sessions: int,
    replicas: int,
    ttl_s: float,
    lease_s: int,
    losses_at: list[float],
    duration_s: float,
    chaos: list[dict[str, Any]],
) -> Report:
    """Put the figures together; seconds are rounded up, so that no exposure becomes none.

    Args:
        losses_at: When leaders were struck, on the API server's clock.
    """
    expired_s = fleet.expired_token_seconds
    found = leader_terms(ledger.lease_turns)
    wait_s = failover_s(found, ledger.signed_writes, losses_at)
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
        leader_changes=max(0, len(found) - 1),
        failover_s=None if wait_s is None else round(wait_s, 3),
        writes_refused_to_deposed_leader=sum(tally.refused.values()),
        writes_applied_by_deposed_leader=len(deposed_writes(found, ledger.signed_writes)),
        chaos=chaos,
    )


def _p99(values: list[float]) -> float | None:
    return sorted(values)[int(0.99 * len(values))] if values else None


def describe_chaos(
    chaos: Chaos, *, elapsed_s: float, forged: list[str], tokens: int
) -> dict[str, Any]:
    """Return one entry of `chaos`.

    Args:
        forged: Namespaces of forged pods.
        tokens: Secrets in there that hold anything.
    """
    entry: dict[str, Any] = {
        "name": chaos.name,
        "start_s": chaos.start_s,
        "seconds": chaos.length_s,
        "struck": elapsed_s >= chaos.start_s,
    }
    if chaos.name == "forged-pod":
        entry |= {"namespaces": sorted(set(forged)), "secrets_with_token": tokens}
    return entry
