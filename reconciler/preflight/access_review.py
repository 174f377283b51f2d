"""What this account may do: by SelfSubjectAccessReview, and by a list of the sessions' objects."""

import asyncio
from collections.abc import Iterable

import msgspec

from reconciler.errors import KubeError, ProtocolError, RemoteError
from reconciler.kube.api import Kube, ListOptions
from reconciler.kube.decoding import metadata_resource, resource, struct_decoder
from reconciler.naming import LIVE_PODS
from reconciler.preflight.findings import Answer, Finding
from reconciler.preflight.permissions import AccessQuery, Permission
from reconciler.settings import Settings

PARALLEL = 8
"""A question takes the server a millisecond; a hundred namespaces have a thousand."""


class _Status(msgspec.Struct):
    allowed: bool


class _Review(msgspec.Struct):
    status: _Status


REVIEWS = resource(
    "selfsubjectaccessreviews",
    group="authorization.k8s.io",
    version="v1",
    partial=False,
    decode=struct_decoder(_Review),
)


async def ask_all(
    kube: Kube, questions: Iterable[tuple[Permission, AccessQuery]], *, limit_s: float
) -> list[Answer]:
    """Ask each question and return the answers, in order.

    Raises:
        KubeError, ProtocolError: The first question that got no answer; the rest are not waited
        for.
    """
    places = asyncio.Semaphore(PARALLEL)

    async def answer(right: Permission, ask: AccessQuery) -> Answer | KubeError | ProtocolError:
        async with places:
            try:
                review = await kube.create(REVIEWS, "", body_of(ask), limit_s=limit_s)
            except (KubeError, ProtocolError) as error:
                return error
        return right, ask, review.status.allowed

    answers: list[Answer] = []
    for found in await asyncio.gather(*(answer(*question) for question in questions)):
        if isinstance(found, KubeError | ProtocolError):
            raise found
        answers.append(found)
    return answers


def body_of(ask: AccessQuery) -> dict[str, object]:
    """Return the review that asks one question."""
    attributes = {
        "namespace": ask.namespace,
        "group": ask.group,
        "resource": ask.resource,
        "verb": ask.verb,
        "name": ask.name,
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }


COUNTED = 500
"""Objects of a kind and namespace that are read and counted at most."""


async def list_sessions(kube: Kube, settings: Settings, namespaces: tuple[str, ...]) -> Finding:
    """List the metadata of sessions' pods and Secrets.

    Args:
        namespaces: Where; none = everywhere, in one list of each kind.
    """
    names = settings.names()
    counts = {"pods": 0, "secrets": 0}
    more = False
    for namespace in namespaces or (None,):
        for plural in counts:
            scope = ListOptions(namespace, names.selector(), LIVE_PODS if plural == "pods" else "")
            kind = metadata_resource(plural, names)
            try:
                page = await kube.list(kind, scope, limit=COUNTED, limit_s=settings.request_limit_s)
            except (RemoteError, ProtocolError) as error:
                where = f"in namespace {namespace}" if namespace else "in all namespaces"
                says = f"cannot list the metadata of {plural} {where}: {error}"
                hint = "look at the API server and at what is between it and here"
                return Finding("cluster", "missing", says, hint)
            counts[plural] += len(page.items)
            more |= bool(page.continue_token)
    found = f"{counts['pods']} pods and {counts['secrets']} Secrets of sessions"
    return Finding("cluster", "ok", f"lists the metadata of {found}{', and more' if more else ''}")
