"""The kinds that the lab's API server serves, as one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
"""A JSON object of the API. Never changed in place: every write creates a new one."""

_WRITES = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_NAMES = ("metadata.name", "metadata.namespace")


@dataclass(frozen=True, slots=True)
class Kind:
    """One resource.

    Args:
        fields: Paths that a field selector may name.
        status: Whether `status` is a subresource.
        graceful: Whether a delete only marks the object until its kubelet removes it.
        answers_deleted: Whether a delete answers with the object instead of a Status.
        blind_put: Whether a PUT may leave out the resourceVersion.
    """

    plural: str
    kind: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True
    short: tuple[str, ...] = ()
    verbs: tuple[str, ...] = _WRITES
    fields: tuple[str, ...] = _NAMES
    status: bool = False
    graceful: bool = False
    answers_deleted: bool = False
    blind_put: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name in error messages: `secrets`, `leases.coordination.k8s.io`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def key(self, namespace: str, name: str) -> str:
        """Return the key that orders lists, as etcd does."""
        return f"{namespace}/{name}" if self.namespaced else name


_INVOLVED = tuple(
    f"involvedObject.{part}"
    for part in (
        "apiVersion", "fieldPath", "kind", "name", "namespace", "resourceVersion", "uid",
    )
)  # fmt: skip

PODS = Kind(
    "pods",
    "Pod",
    short=("po",),
    status=True,
    graceful=True,
    answers_deleted=True,
    fields=(
        *_NAMES, "spec.nodeName", "spec.restartPolicy", "spec.schedulerName",
        "spec.serviceAccountName", "status.nominatedNodeName", "status.phase", "status.podIP",
    ),
)  # fmt: skip
SECRETS = Kind("secrets", "Secret", fields=(*_NAMES, "type"))
LEASES = Kind("leases", "Lease", group="coordination.k8s.io", blind_put=False)
EVENTS = Kind(
    "events", "Event", short=("ev",), fields=(*_NAMES, *_INVOLVED, "reason", "source", "type")
)
NAMESPACES = Kind(
    "namespaces",
    "Namespace",
    namespaced=False,
    short=("ns",),
    status=True,
    answers_deleted=True,
    fields=("metadata.name", "status.phase"),
)
NODES = Kind(
    "nodes",
    "Node",
    namespaced=False,
    short=("no",),
    status=True,
    fields=("metadata.name", "spec.unschedulable"),
)
SERVICE_ACCOUNTS = Kind("serviceaccounts", "ServiceAccount", short=("sa",), answers_deleted=True)

ACCESS_REVIEWS = Kind(
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
    group="authorization.k8s.io",
    namespaced=False,
    verbs=("create",),
)
TOKEN_REVIEWS = Kind(
    "tokenreviews",
    "TokenReview",
    group="authentication.k8s.io",
    namespaced=False,
    verbs=("create",),
)

STORED = (PODS, SECRETS, LEASES, EVENTS, NAMESPACES, NODES, SERVICE_ACCOUNTS)
KINDS = (*STORED, ACCESS_REVIEWS, TOKEN_REVIEWS)

_BY_NAME = {(kind.group, kind.version, kind.plural): kind for kind in KINDS}


def find_kind(group: str, version: str, plural: str) -> Kind | None:
    """Return the kind behind a path, or None."""
    return _BY_NAME.get((group, version, plural))
