"""SelfSubjectAccessReview: the authorizer's own word on what this account may do."""

import asyncio
from collections.abc import Iterable

import msgspec

from reconciler.errors import KubeError, WireError
from reconciler.kube.api import Kube
from reconciler.kube.objects import resource, struct_decoder
from reconciler.preflight.rights import Ask, Right
from reconciler.preflight.verdicts import Answer

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
    kube: Kube, questions: Iterable[tuple[Right, Ask]], *, limit_s: float
) -> list[Answer]:
    """Ask each question and return the answers, in order.

    Raises:
        KubeError, WireError: The first question that got no answer; the rest are not waited for.
    """
    places = asyncio.Semaphore(PARALLEL)

    async def answer(right: Right, ask: Ask) -> Answer | KubeError | WireError:
        async with places:
            try:
                review = await kube.create(REVIEWS, "", body_of(ask), limit_s=limit_s)
            except (KubeError, WireError) as error:
                return error
        return right, ask, review.status.allowed

    answers: list[Answer] = []
    for found in await asyncio.gather(*(answer(*question) for question in questions)):
        if isinstance(found, KubeError | WireError):
            raise found
        answers.append(found)
    return answers


def body_of(ask: Ask) -> dict[str, object]:
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
