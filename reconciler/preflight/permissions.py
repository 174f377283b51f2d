"""Every right that the product uses, and the RBAC rule that grants it (pure).

The manifests grant exactly this, and a test on a real API server finds each of them used.
"""

from collections.abc import Iterable
from typing import Literal

import msgspec
from msgspec.structs import replace

Where = Literal["sessions", "own"]
"""In the sessions' namespaces, or in the controller's own."""

LEASE = "token-reconciler"
"""Default name of the lease."""


class Permission(msgspec.Struct, frozen=True):
    """Verbs on one kind.

    Args:
        purpose: What is impossible without it, as the end of "cannot ...".
        where: The namespaces in which it is needed.
        name: The only object that it is limited to, or "".
    """

    resource: str
    verbs: tuple[str, ...]
    purpose: str
    group: str = ""
    where: Where = "sessions"
    name: str = ""


TOUCH = Permission(
    "pods", ("patch",), "bring a token into a running pod before the kubelet's next sync"
)

_LEASES = "coordination.k8s.io"

PERMISSIONS = (
    Permission("pods", ("list", "watch"), "see which sessions are live"),
    TOUCH,
    Permission("secrets", ("list", "watch"), "see when each token expires, from metadata alone"),
    Permission("secrets", ("patch",), "write a token"),
    Permission("secrets", ("create",), "create a Secret again that was deleted"),
    Permission("events", ("create", "patch"), "record Events on pods"),
    Permission("events", ("create", "patch"), "record Events on the Lease", where="own"),
    Permission("leases", ("create",), "elect a leader", _LEASES, "own"),
    Permission("leases", ("list", "watch", "patch"), "elect a leader", _LEASES, "own", LEASE),
)

EXCESS_PERMISSIONS = (
    Permission("secrets", ("get", "delete"), ""),
    Permission("pods", ("create", "delete"), ""),
)
"""Rights that a security review asks about: they are never used."""


class AccessQuery(msgspec.Struct, frozen=True, order=True):
    """One question to the authorizer; `namespace` "" is all namespaces."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str = ""


def used(*, touch: bool, elects: bool, lease: str) -> list[Permission]:
    """Return the rights that a replica needs under its settings."""
    return [
        replace(right, name=lease) if right.name else right
        for right in PERMISSIONS
        if (touch or right is not TOUCH) and (elects or right.group != _LEASES)
    ]


def questions(
    rights: Iterable[Permission], *, namespaces: Iterable[str], own: str
) -> list[tuple[Permission, AccessQuery]]:
    """Return the questions for each right.

    Args:
        namespaces: Of the sessions; none = all, by a ClusterRole.
        own: The controller's own namespace.
    """
    of_sessions = tuple(namespaces) or ("",)
    return [
        (right, AccessQuery(namespace, right.group, right.resource, verb, right.name))
        for right in rights
        for namespace in (of_sessions if right.where == "sessions" else (own,))
        for verb in right.verbs
    ]


def rule(asks: Iterable[AccessQuery]) -> str:
    """Return the RBAC rule, one line of YAML, that grants questions about one kind."""
    sorted_asks = sorted(asks)
    first = sorted_asks[0]
    verbs = ", ".join(dict.fromkeys(ask.verb for ask in sorted_asks))
    group = first.group or '""'
    named = f", resourceNames: [{first.name}]" if first.name else ""
    return f"{{apiGroups: [{group}], resources: [{first.resource}]{named}, verbs: [{verbs}]}}"
