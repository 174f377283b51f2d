"""Who leads, by the Lease, as far as an onlooker may read it (pure)."""

from dataclasses import dataclass

import msgspec

from reconciler.clock import parse_utc
from reconciler.kube.api import Resource
from reconciler.kube.objects import resource, struct_decoder
from reconciler.survey.words import ago, clean, duration

LEASE = "token-reconciler"


class _Spec(msgspec.Struct):
    holder: str | None = msgspec.field(name="holderIdentity", default=None)
    duration_s: int | None = msgspec.field(name="leaseDurationSeconds", default=None)
    renewed: str | None = msgspec.field(name="renewTime", default=None)
    transitions: int | None = msgspec.field(name="leaseTransitions", default=None)


class RawLease(msgspec.Struct):
    spec: _Spec = msgspec.field(default_factory=_Spec)


@dataclass(frozen=True, slots=True)
class Leader:
    """What the Lease says; `problem` is why nothing is known ("" = it was read)."""

    holder: str = ""
    renewed_s: float | None = None
    duration_s: int = 0
    problem: str = ""

    def is_stale(self, now_s: float) -> bool:
        """Nobody leads: the Lease was given back, or not renewed for its whole length."""
        if self.problem:
            return False
        return not self.holder or self.renewed_s is None or now_s - self.renewed_s > self.duration_s


def lease_resource() -> Resource[RawLease]:
    return resource(
        "leases",
        group="coordination.k8s.io",
        version="v1",
        partial=False,
        decode=struct_decoder(RawLease),
    )


def leader_of(lease: RawLease) -> Leader:
    spec = lease.spec
    return Leader(spec.holder or "", parse_utc(spec.renewed or ""), spec.duration_s or 0)


def tell(leader: Leader, namespace: str, now_s: float) -> str:
    """Say in one sentence who leads."""
    lease = f"lease {namespace}/{LEASE}"
    if leader.problem:
        return f"Who leads is not known here: {leader.problem}."
    if not leader.holder:
        return f"Nobody leads: {lease} is held by nobody."
    holder = clean(leader.holder)
    if leader.renewed_s is None:
        return f"Nobody leads: {lease} names {holder}, and not when it was renewed."
    renewed = ago(now_s - leader.renewed_s)
    if leader.is_stale(now_s):
        length = duration(leader.duration_s)
        return f"Nobody leads: {holder} last renewed {lease}, of {length}, {renewed}."
    return f"The leader is {holder}, which renewed {lease} {renewed}."
