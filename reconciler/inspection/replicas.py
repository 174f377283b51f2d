"""The controller's own pods, and why they are not ready, from their status (pure)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from reconciler.clock import EpochTime, parse_utc
from reconciler.kube.api import ApiResource
from reconciler.kube.decoding import resource, struct_decoder
from reconciler.naming import ALL_SESSIONS, Shard
from reconciler.settings import parse_shard

REPLICAS = "app.kubernetes.io/name=token-reconciler"
"""Selector of the Deployment's pods, as the manifests label them."""

SHOWN = 3
"""Most replicas that are described."""


class _Ended(msgspec.Struct):
    code: int = msgspec.field(name="exitCode", default=0)
    reason: str = ""
    message: str = ""
    finished: str | None = msgspec.field(name="finishedAt", default=None)


class _Waiting(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _State(msgspec.Struct):
    terminated: _Ended | None = None
    waiting: _Waiting | None = None


class _Container(msgspec.Struct):
    ready: bool = False
    restarts: int = msgspec.field(name="restartCount", default=0)
    state: _State = msgspec.field(default_factory=_State)
    last: _State = msgspec.field(name="lastState", default_factory=_State)


class _Status(msgspec.Struct):
    containers: Sequence[_Container] = msgspec.field(name="containerStatuses", default=())


class _Variable(msgspec.Struct):
    name: str
    value: str = ""


class _ContainerSpec(msgspec.Struct):
    env: Sequence[_Variable] = ()


class _Spec(msgspec.Struct):
    containers: Sequence[_ContainerSpec] = ()


class _Metadata(msgspec.Struct):
    name: str


class RawReplica(msgspec.Struct):
    """The fields of a controller pod that are read here."""

    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One pod of the controller.

    Args:
        waiting: Why its container does not run: `CrashLoopBackOff`, `ErrImagePull: ...`, or "".
        exit_code: Of the last container that ended, None if none ended.
        ended_s: When it ended (epoch), None if unknown.
        message: Its termination message, which is the end of its log, or "".
        shard: Its part of all sessions, by the pod's own environment.
    """

    name: str
    ready: bool
    restarts: int = 0
    waiting: str = ""
    exit_code: int | None = None
    ended_s: EpochTime | None = None
    message: str = ""
    shard: Shard = ALL_SESSIONS


def replica_resource() -> ApiResource[RawReplica]:
    return resource(
        "pods", group="", version="v1", partial=False, decode=struct_decoder(RawReplica)
    )


def replica_of(pod: RawReplica) -> ObservedReplica:
    """Read the status of a pod; a pod without one from a kubelet is not ready."""
    shard = _shard_of(pod.spec)
    if not pod.status.containers:
        return ObservedReplica(pod.metadata.name, False, shard=shard)
    container = pod.status.containers[0]
    waiting = container.state.waiting
    ended = container.state.terminated or container.last.terminated
    return ObservedReplica(
        name=pod.metadata.name,
        ready=container.ready,
        restarts=container.restarts,
        waiting=": ".join(filter(None, (waiting.reason, waiting.message))) if waiting else "",
        exit_code=ended.code if ended else None,
        ended_s=parse_utc(ended.finished) if ended and ended.finished else None,
        message=ended.message.strip() if ended else "",
        shard=shard,
    )


def _shard_of(spec: _Spec) -> Shard:
    """Return the shard of a pod; one that the product refuses is none."""
    for variable in (each for container in spec.containers[:1] for each in container.env):
        if variable.name == "RECONCILER_SHARD":
            with suppress(ValueError):
                return parse_shard(variable.value)
    return ALL_SESSIONS
