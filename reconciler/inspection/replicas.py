"""The controller's own pods, as far as their status says what keeps them from working (pure)."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from reconciler.clock import parse_utc
from reconciler.kube.api import ApiResource
from reconciler.kube.decoding import resource, struct_decoder

REPLICAS = "app.kubernetes.io/name=token-reconciler"
"""As the manifests label the Deployment's pods."""

SHOWN = 3
"""Replicas that are described; a third one is an odd number of them already."""


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


class _Metadata(msgspec.Struct):
    name: str


class RawReplica(msgspec.Struct):
    """The fields that we read of a Pod of ours."""

    metadata: _Metadata
    status: _Status = msgspec.field(default_factory=_Status)


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """One pod of the controller.

    Args:
        waits: Why its container does not run: `CrashLoopBackOff`, `ErrImagePull: ...`, or "".
        ended_code: Of the last container that ended, None where none did.
        ended_s: When (epoch), None where nothing says it.
        said: The end of its log, or "".
    """

    name: str
    ready: bool
    restarts: int = 0
    waits: str = ""
    ended_code: int | None = None
    ended_s: float | None = None
    said: str = ""


def replica_resource() -> ApiResource[RawReplica]:
    return resource(
        "pods", group="", version="v1", partial=False, decode=struct_decoder(RawReplica)
    )


def replica_of(pod: RawReplica) -> ObservedReplica:
    """Read the status of a pod; one that no kubelet has reported on yet is not ready."""
    if not pod.status.containers:
        return ObservedReplica(pod.metadata.name, False)
    container = pod.status.containers[0]
    waiting = container.state.waiting
    ended = container.state.terminated or container.last.terminated
    return ObservedReplica(
        name=pod.metadata.name,
        ready=container.ready,
        restarts=container.restarts,
        waits=": ".join(filter(None, (waiting.reason, waiting.message))) if waiting else "",
        ended_code=ended.code if ended else None,
        ended_s=parse_utc(ended.finished) if ended and ended.finished else None,
        said=ended.message.strip() if ended else "",
    )
