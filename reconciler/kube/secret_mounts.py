"""How a pod mounts its session's Secret, from the pod's specification (pure).

The kubelet never updates a file that is mounted by subPath. Source: Kubernetes, "Secrets", on
mounts with subPath. Only `check` and `explain` ask for specifications; of them, names of volumes
and mounts are decoded.
"""

from collections.abc import Iterator, Sequence

import msgspec
from msgspec.structs import replace

from reconciler.kube.api import ApiResource
from reconciler.kube.decoding import resource, struct_decoder
from reconciler.naming import Names


class _Metadata(msgspec.Struct):
    name: str
    namespace: str
    labels: dict[str, str] = {}


class _SecretSource(msgspec.Struct):
    secret: str = msgspec.field(name="secretName", default="")


class _ProjectedSecret(msgspec.Struct):
    name: str = ""


class _Projection(msgspec.Struct):
    secret: _ProjectedSecret | None = None


class _Projected(msgspec.Struct):
    sources: Sequence[_Projection] = ()


class _Volume(msgspec.Struct):
    name: str
    secret: _SecretSource | None = None
    projected: _Projected | None = None


class _Mount(msgspec.Struct):
    name: str
    sub_path: str = msgspec.field(name="subPath", default="")
    sub_path_expr: str = msgspec.field(name="subPathExpr", default="")


class _Container(msgspec.Struct):
    name: str
    mounts: Sequence[_Mount] = msgspec.field(name="volumeMounts", default=())
    restarts: str = msgspec.field(name="restartPolicy", default="")


class _Spec(msgspec.Struct):
    containers: Sequence[_Container] = ()
    init_containers: Sequence[_Container] = msgspec.field(name="initContainers", default=())
    volumes: Sequence[_Volume] = ()


class RawPodSpec(msgspec.Struct):
    """The fields of a session pod that are read here."""

    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)


class SecretMounts(msgspec.Struct, frozen=True):
    """One session pod.

    Args:
        by_subpath: The containers that mount its session's Secret by `subPath` or `subPathExpr`;
            init containers only if they run as long as the pod does.
        other_secrets: The Secrets of its volumes, if its session's Secret is not one of them.
    """

    namespace: str
    pod: str
    by_subpath: tuple[str, ...]
    other_secrets: tuple[str, ...] = ()


def secret_mounts_resource(names: Names) -> ApiResource[SecretMounts]:
    """Describe session pods by their mounts; a pod without the session's label has none."""
    decode_spec = struct_decoder(RawPodSpec)

    def decode(data: bytes) -> SecretMounts:
        pod = decode_spec(data)
        session_id = pod.metadata.labels.get(names.session_id, "")
        found = SecretMounts(pod.metadata.namespace, pod.metadata.name, ())
        if not session_id:
            return found
        secret = names.secret_name(session_id)
        mounted = {each for volume in pod.spec.volumes for each in _secrets(volume)}
        return replace(
            found,
            by_subpath=tuple(_by_subpath(pod.spec, secret)),
            other_secrets=() if secret in mounted else tuple(sorted(mounted)),
        )

    return resource("pods", group="", version="v1", partial=False, decode=decode)


def _by_subpath(spec: _Spec, secret: str) -> Iterator[str]:
    volumes = {volume.name for volume in spec.volumes if secret in _secrets(volume)}
    sidecars = (each for each in spec.init_containers if each.restarts == "Always")
    for container in (*sidecars, *spec.containers):
        if any(
            mount.name in volumes and (mount.sub_path or mount.sub_path_expr)
            for mount in container.mounts
        ):
            yield container.name


def _secrets(volume: _Volume) -> Iterator[str]:
    if volume.secret is not None:
        yield volume.secret.secret
    for source in volume.projected.sources if volume.projected is not None else ():
        if source.secret is not None:
            yield source.secret.name
