"""Replicas of a neighbouring version: what they read and write differs as docs/upgrade.md allows.

The process is of this version. Between it and the API server, annotations that the other version
does not know are absent, and its confirmations have another form.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from reconciler.kube.api import (
    ApiResource,
    Body,
    Event,
    Kube,
    ListOptions,
    ObjectMeta,
    Page,
    Permit,
    Watch,
)
from reconciler.kube.forwarding import ForwardingKube, KubeCall
from reconciler.naming import Names

T = TypeVar("T")

Version = Literal["this", "former", "next"]

UNKNOWN_TO_FORMER = ("previous_expires_at", "handled_requests")
"""Fields of `Annotations` that a former version does not know."""

NEXT_FORM = "v2."
THIS_FORM = "v1."

NEW_ANNOTATION = "ambient-code.io/token-audience"
"""An annotation that only the next version writes."""


class OtherVersionKube(ForwardingKube):
    """Shows another `Kube` to a replica of this version as to one of another version."""

    def __init__(self, kube: Kube, names: Names, version: Version) -> None:
        super().__init__(kube)
        self._names = names
        self._version = version
        self._unknown = {getattr(names, field) for field in UNKNOWN_TO_FORMER}

    def around(self, call: KubeCall) -> AbstractContextManager[None]:
        return nullcontext()

    async def list(
        self,
        resource: ApiResource[T],
        scope: ListOptions,
        *,
        limit: int = 0,
        continue_token: str = "",
        version: str = "",
        limit_s: float = 30.0,
    ) -> Page[T]:
        page = await super().list(
            resource,
            scope,
            limit=limit,
            continue_token=continue_token,
            version=version,
            limit_s=limit_s,
        )
        return replace(page, items=[self._shown(item) for item in page.items])

    def opened(self, watch: Watch[T]) -> Watch[T]:
        return _OtherVersionWatch(watch, self)

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        return self._shown(await super().get(resource, namespace, name, limit_s=limit_s))

    async def create(
        self,
        resource: ApiResource[T],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        sent = self._sent(body)
        return self._shown(
            await super().create(resource, namespace, sent, limit_s=limit_s, permit=permit)
        )

    async def patch(
        self,
        resource: ApiResource[T],
        namespace: str,
        name: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        sent = self._sent(body)
        return self._shown(
            await super().patch(resource, namespace, name, sent, limit_s=limit_s, permit=permit)
        )

    def event(self, event: Event[T]) -> Event[T]:
        """Return an event with its object as the other version decodes it."""
        return event if event.object is None else replace(event, object=self._shown(event.object))

    def _shown(self, item: T) -> T:
        if not isinstance(item, ObjectMeta):
            return item
        annotations = item.annotations
        if self._version == "former":
            annotations = replace(annotations, **dict.fromkeys(UNKNOWN_TO_FORMER))
        elif annotations.confirmation:
            annotations = replace(annotations, confirmation=_swapped(annotations.confirmation))
        return replace(item, annotations=annotations)

    def _sent(self, body: Body) -> Body:
        metadata: Mapping[str, Any] = body.get("metadata") or {}
        annotations: Mapping[str, Any] = metadata.get("annotations") or {}
        if not annotations:
            return body
        if self._version == "former":
            sent = {name: text for name, text in annotations.items() if name not in self._unknown}
        else:
            sent = {**annotations, NEW_ANNOTATION: "sessions"}
            if confirmation := annotations.get(self._names.confirmation):
                sent[self._names.confirmation] = _swapped(confirmation)
        return {**body, "metadata": {**metadata, "annotations": sent}}


class _OtherVersionWatch(Watch[T]):
    def __init__(self, watch: Watch[T], kube: OtherVersionKube) -> None:
        self._watch = watch
        self._kube = kube

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        event = await self._watch.receive(idle_s=idle_s)
        return None if event is None else self._kube.event(event)


def _swapped(confirmation: str) -> str:
    """Return a confirmation in the form that the other version reads as its own, or writes."""
    if confirmation.startswith(THIS_FORM):
        return NEXT_FORM + confirmation.removeprefix(THIS_FORM)
    if confirmation.startswith(NEXT_FORM):
        return THIS_FORM + confirmation.removeprefix(NEXT_FORM)
    return confirmation
