"""The Lease as it is read and written (pure): client-go's record, so that kubectl shows it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from reconciler.clock import EpochTime, format_utc_micros, parse_utc
from reconciler.kube.api import ApiResource
from reconciler.kube.decoding import resource, struct_decoder

RELEASED_S = 1
"""Duration in a record that its holder released. Source: client-go writes the same, since the API
server requires more than 0. A record that was emptied by hand keeps its duration, or has none."""

MOST_TRANSITIONS = 2**31 - 2
"""The API server's field has 32 bits; a greater count was edited by hand, and this number
plus one must still fit."""

MARK_S = 2e-6
"""What a `renewTime` is later if it would be the former one: a microsecond, and the rounding."""

MAX_HOLDER_CHARS = 330
"""Longest holder name that is kept: a replica's name (253), a UID (64) and a nonce (8) fit. A
longer one was edited by hand, and would appear in each log line, on the status page and in
`explain`."""


class _Spec(msgspec.Struct):
    holderIdentity: str | None = None
    leaseDurationSeconds: int | None = None
    acquireTime: str | None = None
    renewTime: str | None = None
    leaseTransitions: int | None = None


class _Fields(msgspec.Struct):
    spec: dict[str, Any] | None = msgspec.field(name="f:spec", default=None)


class _Write(msgspec.Struct):
    manager: str | None = None
    time: str | None = None
    fieldsV1: _Fields | None = None


class _Metadata(msgspec.Struct):
    uid: str
    resourceVersion: str
    annotations: dict[str, str] | None = None
    managedFields: list[_Write] | None = None


class LeaseObject(msgspec.Struct):
    """The decoded fields of a Lease; times stay text, since no decision depends on them."""

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


class LeaseRecord(msgspec.Struct, frozen=True):
    """One version of the Lease, missing fields filled in.

    `holder` is "" for none. `duration_s` is the holder's lease, 0 where none is written. `acquired`
    is kept as it was read. `renewed`, by the holder's clock, and `written`, by the API server's,
    are for display. `edited` is True if another field manager than the renewing one has set the
    duration: then the holder did not choose it.
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
        """True if the last holder released it."""
        return not self.holder and self.duration_s == RELEASED_S

    @property
    def renewed_s(self) -> EpochTime | None:
        """When it was renewed, for display; None where that is not written.

        By the API server's clock, if known: the holder's (`renewTime`) may be wrong.
        """
        return parse_utc(self.written or self.renewed)

    def is_held(self, now_s: EpochTime) -> bool:
        """Return whether this version has a leader: see the function `is_held`."""
        return is_held(self.holder, self.renewed_s, self.duration_s, now_s)


def is_same_write(former: LeaseRecord | None, record: LeaseRecord | None) -> bool:
    """Return whether a version shows the same write of the holder as a former one.

    Another client has changed something else then, such as an annotation. Without a `renewTime` the
    holder's writes cannot be distinguished, and each version counts as one.

    Source: client-go `leaderelection.go`: what is observed is the record, not the object.
    """
    if former is None or record is None or not record.renewed:
        return False
    return replace(former, version=record.version) == record


def is_held(holder: str, renewed_s: EpochTime | None, duration_s: float, now_s: EpochTime) -> bool:
    """Return whether a Lease has a holder that renewed it within its duration.

    For display only: the election trusts no written time.

    Args:
        now_s: By the API server's clock.
    """
    return bool(holder) and renewed_s is not None and now_s - renewed_s <= duration_s


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
    """Return when `renewTime` was written last, by the API server's clock; "" if unknown."""
    return max((one.time or "" for one in _owners(writes, "f:renewTime")), default="")


def _is_edited(writes: Iterable[_Write]) -> bool:
    """Return whether another manager than the renewing one has set the duration last.

    Source: server-side apply's field management. A manager that changes a field's value becomes its
    only owner; a renewal writes an equal value, and other owners stay.
    """
    writes = tuple(writes)
    renewing = {one.manager for one in _owners(writes, "f:renewTime")}
    setting = {one.manager for one in _owners(writes, "f:leaseDurationSeconds")}
    return bool(renewing and setting) and not renewing & setting


def _owners(writes: Iterable[_Write], field: str) -> Iterator[_Write]:
    return (one for one in writes if one.fieldsV1 and field in (one.fieldsV1.spec or ()))


def holder_spec(
    record: LeaseRecord | None, me: str, *, lease_s: int, transitions: int, wall_s: EpochTime
) -> dict[str, Any]:
    """Return the spec that makes or keeps `me` the holder.

    The times are for display, and no decision compares them with a clock. `renewTime` is never that
    of `record`, also where the clock was set back: it marks this write (`is_same_write`).

    Source: client-go `leaderelection.go`: a renewal keeps the holder's `acquireTime`.
    """
    now = format_utc_micros(wall_s)
    if record is not None and record.renewed == now:
        now = format_utc_micros(wall_s + MARK_S)
    ours = record is not None and record.holder == me
    return {
        "holderIdentity": me,
        "leaseDurationSeconds": lease_s,
        "acquireTime": (record.acquired if record and ours else "") or now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }


def released_spec(*, transitions: int, wall_s: EpochTime) -> dict[str, Any]:
    """Return the spec that releases the Lease."""
    now = format_utc_micros(wall_s)
    return {
        "holderIdentity": "",
        "leaseDurationSeconds": RELEASED_S,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": transitions,
    }


def patch_of(
    record: LeaseRecord, spec: dict[str, Any], annotations: Mapping[str, str]
) -> dict[str, Any]:
    """Return the merge patch of one version; other managers' fields do not change."""
    metadata = {"uid": record.uid, "resourceVersion": record.version}
    return {"metadata": metadata | _annotated(annotations), "spec": spec}


def _annotated(annotations: Mapping[str, str]) -> dict[str, Any]:
    return {"annotations": dict(annotations)} if annotations else {}


def new_lease(name: str, spec: dict[str, Any], annotations: Mapping[str, str]) -> dict[str, Any]:
    """Return a Lease to create."""
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name} | _annotated(annotations),
        "spec": spec,
    }


class Identity(msgspec.Struct, frozen=True):
    """Identity of a process: unique, and recognisable as the next process of its pod.

    Args:
        replica: Name for display, usually the pod's name.
        pod_uid: UID of the pod, "" outside a pod.
        nonce: Random, once per process, so that no process mistakes another's lease for its own.
    """

    replica: str
    pod_uid: str
    nonce: str

    def __str__(self) -> str:
        return f"{self._pod}_{self.nonce}" if self.pod_uid else f"{self.replica}_{self.nonce}"

    def is_predecessor(self, holder: str) -> bool:
        """Return whether `holder` is an earlier process of our pod; such a process has ended.

        Source: a kubelet never runs two instances of one container of a pod.
        """
        return bool(self.pod_uid) and holder.startswith(f"{self._pod}_") and holder != str(self)

    def term(self, transitions: int) -> str:
        """Return the name of a term for annotations: replica, number and process."""
        return f"{self.replica}/{transitions}-{self.nonce}"

    @property
    def _pod(self) -> str:
        return f"{self.replica}_{self.pod_uid}"
