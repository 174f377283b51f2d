"""The Lease as we read and write it (pure): client-go's record, so that kubectl shows it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from reconciler.clock import format_utc_micros
from reconciler.kube.api import ApiResource
from reconciler.kube.decoding import resource, struct_decoder

RELEASED_S = 1
"""Duration in a record that its holder gave up. Source: client-go writes the same, since the API
server demands more than 0; one emptied by hand keeps its duration, or has none."""

MOST_TRANSITIONS = 2**31 - 2
"""The API server's field has 32 bits; a count beyond this was edited by hand, and one more than it
must still fit."""

MAX_HOLDER_CHARS = 330
"""Of a holder's name that is kept: a replica's name (253), a UID (64) and a nonce (8) fit. A longer
one was edited by hand; it would be in every line, on the page and in `explain`."""


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    acquireTime: str | None = None
    renewTime: str | None = None
    leaseTransitions: int | None = None


class _Write(msgspec.Struct):
    manager: str | None = None
    time: str | None = None
    fieldsV1: dict[str, Any] | None = None


class _Metadata(msgspec.Struct):
    uid: str
    resourceVersion: str
    managedFields: list[_Write] | None = None


class LeaseObject(msgspec.Struct):
    """What we decode of a Lease; times stay text, since no decision depends on them."""

    metadata: _Metadata
    spec: _Spec | None = None


def lease_resource() -> ApiResource[LeaseObject]:
    """Describe coordination.k8s.io/v1 Leases."""
    return resource(
        "leases",
        group="coordination.k8s.io",
        version="v1",
        partial=False,
        decode=struct_decoder(LeaseObject),
    )


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """One version of the Lease, missing fields filled in.

    `holder` "" means nobody; `duration_s` is the holder's claim, 0 where none is written;
    `acquired` is kept as it is found; `renewed`, by its clock, and `written`, by the API
    server's, are for people. `edited` is True if the duration was set by another than the one who
    renews: it is not the holder's word.
    """

    uid: str
    version: str
    holder: str
    duration_s: int
    acquired: str
    transitions: int
    renewed: str = ""
    written: str = ""
    edited: bool = False

    @property
    def released(self) -> bool:
        """True if the last holder gave it up itself."""
        return not self.holder and self.duration_s == RELEASED_S


def read(lease: LeaseObject) -> LeaseRecord:
    spec = lease.spec or _Spec()
    return LeaseRecord(
        uid=lease.metadata.uid,
        version=lease.metadata.resourceVersion,
        holder=_bounded(spec.holderIdentity or ""),
        duration_s=max(0, spec.leaseDurationSeconds or 0),
        acquired=spec.acquireTime or "",
        transitions=min(max(0, spec.leaseTransitions or 0), MOST_TRANSITIONS),
        renewed=spec.renewTime or "",
        written=_written(lease.metadata.managedFields or ()),
        edited=_is_edited(lease.metadata.managedFields or ()),
    )


def _bounded(holder: str) -> str:
    if len(holder) <= MAX_HOLDER_CHARS:
        return holder
    return f"{holder[:MAX_HOLDER_CHARS]}... ({len(holder)} characters)"


def _written(writes: Iterable[_Write]) -> str:
    """Return when somebody wrote `renewTime` last, by the API server's clock; "" if unknown."""
    return max((one.time or "" for one in _owners(writes, "f:renewTime")), default="")


def _is_edited(writes: Iterable[_Write]) -> bool:
    """Tell a duration that others than the renewing manager set last.

    Source: who changes a field's value takes it from all who owned it (server-side apply's field
    management); a renewal writes an equal value, and takes nothing.
    """
    writes = tuple(writes)
    renewing = {one.manager for one in _owners(writes, "f:renewTime")}
    claiming = {one.manager for one in _owners(writes, "f:leaseDurationSeconds")}
    return bool(renewing and claiming) and not renewing & claiming


def _owners(writes: Iterable[_Write], field: str) -> Iterator[_Write]:
    return (one for one in writes if field in (one.fieldsV1 or {}).get("f:spec", {}))


def claim(
    record: LeaseRecord | None, me: str, *, lease_s: int, transitions: int, wall_s: float
) -> dict[str, Any]:
    """Return the spec that makes or keeps `me` the holder; the times inform people only.

    Source: client-go `leaderelection.go`: whoever holds it already keeps its `acquireTime`.
    """
    now = format_utc_micros(wall_s)
    ours = record is not None and record.holder == me
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": lease_s,
        "acquireTime": (record.acquired if record and ours else "") or now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }


def release(*, transitions: int, wall_s: float) -> dict[str, Any]:
    """Return the spec that gives the Lease up."""
    now = format_utc_micros(wall_s)
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_S,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }


def patch_of(record: LeaseRecord, spec: dict[str, Any]) -> dict[str, Any]:
    """Return the merge patch of one version; labels and fields of others stay as they are."""
    return {"metadata": {"uid": record.uid, "resourceVersion": record.version}, "spec": spec}


def new_lease(name: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Return a Lease to create."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name},
        "spec": spec,
    }


@dataclass(frozen=True, slots=True)
class Identity:
    """A process: unlike all others, and still known as the next one of its pod.

    Args:
        replica: Name for people, the pod's as a rule.
        pod_uid: UID of the pod, "" outside of one.
        nonce: Drawn once per process, so that no process takes another's claim for its own.
    """

    replica: str
    pod_uid: str
    nonce: str

    def __str__(self) -> str:
        return f"{self._pod}_{self.nonce}" if self.pod_uid else f"{self.replica}_{self.nonce}"

    def is_predecessor(self, holder: str) -> bool:
        """Tell whether `holder` ran in our pod before us; then it has ended.

        Source: a kubelet never runs two instances of one container of a pod.
        """
        return bool(self.pod_uid) and holder.startswith(f"{self._pod}_") and holder != str(self)

    def term(self, transitions: int) -> str:
        """Return the name of a tenure for annotations: replica, number and process."""
        return f"{self.replica}/{transitions}-{self.nonce}"

    @property
    def _pod(self) -> str:
        return f"{self.replica}_{self.pod_uid}"
