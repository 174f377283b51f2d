"""Decodes a pod of the API server to the fields that a kubelet needs."""

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from reconciler.errors import ProtocolError
from reconciler.naming import Names, SessionKey

FILE_NAME = "bot-token"
"""The runner's token file. Source: the platform's control plane, `kube_reconciler.go`,
the volume `runner-token`."""

ENDED_PHASES = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A Secret by name, in its pod's namespace."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Pod:
    """A session's runner pod; another UID is another pod.

    Args:
        files: Pairs of Secret key and file name: everything that its token volume projects.
        touch: A value that changes with every annotation.
        grace_s: Grace period of its containers, seconds; None while the pod is not deleted.
    """

    uid: str
    namespace: str
    name: str
    session: SessionKey
    secret: SecretRef
    files: tuple[tuple[str, str], ...]
    phase: str
    touch: frozenset[tuple[str, str]]
    grace_s: float | None
    containers: tuple[tuple[str, str], ...]

    @property
    def ended(self) -> bool:
        return self.phase in ENDED_PHASES


class _Meta(msgspec.Struct, rename="camel"):
    uid: str
    name: str
    namespace: str = "default"
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: float | None = None


class _Item(msgspec.Struct):
    key: str
    path: str


class _SecretSource(msgspec.Struct, rename="camel"):
    secret_name: str = ""
    items: list[_Item] | None = None


class _Volume(msgspec.Struct):
    secret: _SecretSource | None = None


class _Container(msgspec.Struct):
    name: str = "runner"
    image: str = ""


class _Spec(msgspec.Struct):
    volumes: list[_Volume] | None = None
    containers: list[_Container] | None = None


class _Status(msgspec.Struct):
    phase: str = "Pending"


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


_DECODER = msgspec.json.Decoder(_Pod)


def decode_pod(data: bytes, names: Names) -> Pod:
    """Decode one pod; a pod without volumes gets the platform's token volume.

    Raises:
        ProtocolError: Not a pod.
    """
    try:
        raw = _DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise ProtocolError("the API server sent an invalid pod") from error
    meta = raw.metadata
    session_id = (meta.labels or {}).get(names.session_id, "")
    source = _token_source(raw.spec.volumes or (), names.secret_name(session_id), names)
    items = source.items or [_Item(names.secret_key, FILE_NAME)]
    return Pod(
        uid=meta.uid,
        namespace=meta.namespace,
        name=meta.name,
        session=SessionKey(meta.namespace, session_id),
        secret=SecretRef(meta.namespace, source.secret_name),
        files=tuple((item.key, item.path) for item in items),
        phase=raw.status.phase,
        touch=frozenset((meta.annotations or {}).items()),
        grace_s=_grace_s(meta),
        containers=tuple((each.name, each.image) for each in raw.spec.containers or ()),
    )


def _token_source(volumes: Iterable[_Volume], expected: str, names: Names) -> _SecretSource:
    """Return the volume of the session's Secret; others, such as `vertex`, are ignored."""
    for volume in volumes:
        if volume.secret is not None and volume.secret.secret_name == expected:
            return volume.secret
    return _SecretSource(secret_name=expected, items=[_Item(names.secret_key, FILE_NAME)])


def _grace_s(meta: _Meta) -> float | None:
    if meta.deletion_timestamp is None:
        return None
    return meta.deletion_grace_period_seconds or 0.0
