"""The rights of this account, by SelfSubjectAccessReview and by a list of sessions' objects."""

import asyncio
from collections.abc import Iterable

import msgspec

from reconciler.errors import KubeError, ProtocolError, RemoteError
from reconciler.kube.api import Kube, ListOptions
from reconciler.kube.decoding import metadata_resource, resource, struct_decoder
from reconciler.kube.secret_mounts import SecretMounts, secret_mounts_resource
from reconciler.naming import LIVE_PODS
from reconciler.preflight.findings import Answer, Finding
from reconciler.preflight.permissions import AccessQuery, Permission
from reconciler.settings import Settings

PARALLEL = 8
"""Questions in progress at a time. Each takes the server 1 ms; 100 namespaces have 1,000."""


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
        KubeError, ProtocolError: A question had no answer; this is the first such error.
    """
    slots = asyncio.Semaphore(PARALLEL)

    async def answer(right: Permission, ask: AccessQuery) -> Answer | KubeError | ProtocolError:
        async with slots:
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


MAX_COUNTED = 500
"""Most objects of a kind and namespace that are read and counted."""


async def list_sessions(kube: Kube, settings: Settings, namespaces: tuple[str, ...]) -> Finding:
    """List the metadata of sessions' pods and Secrets.

    Args:
        namespaces: None = all of them, by one list of each kind.
    """
    names = settings.names()
    counts = {"pods": 0, "secrets": 0}
    more = False
    for namespace in namespaces or (None,):
        for plural in counts:
            scope = ListOptions(namespace, names.selector(), LIVE_PODS if plural == "pods" else "")
            kind = metadata_resource(plural, names)
            try:
                page = await kube.list(
                    kind, scope, limit=MAX_COUNTED, limit_s=settings.request_limit_s
                )
            except (RemoteError, ProtocolError) as error:
                where = f"in namespace {namespace}" if namespace else "in all namespaces"
                message = f"cannot list the metadata of {plural} {where}: {error}"
                remedy = "check the API server, and the proxies in front of it"
                return Finding("cluster", "FAIL", message, remedy)
            counts[plural] += len(page.items)
            more |= bool(page.continue_token)
    found = f"{counts['pods']} pods and {counts['secrets']} Secrets of sessions"
    return Finding("cluster", "OK", f"lists the metadata of {found}{', and more' if more else ''}")


async def list_mounts(
    kube: Kube, settings: Settings, namespaces: tuple[str, ...]
) -> list[SecretMounts]:
    """List how sessions' pods mount their Secret: the first `MAX_COUNTED` of each namespace.

    Args:
        namespaces: None = all of them, by one list.

    Raises:
        KubeError, ProtocolError: A list failed.
    """
    names = settings.names()
    found: list[SecretMounts] = []
    for namespace in namespaces or (None,):
        scope = ListOptions(namespace, names.selector(), LIVE_PODS)
        page = await kube.list(
            secret_mounts_resource(names),
            scope,
            limit=MAX_COUNTED,
            limit_s=settings.request_limit_s,
        )
        found += page.items
    return found
