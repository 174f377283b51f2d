"""A `Kube` in front of another one, with one hook around each request."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from reconciler.kube.api import ApiResource, Body, Kube, ListOptions, Page, Permit, Watch

T = TypeVar("T")


class KubeCall(NamedTuple):
    """One call of a verb on a kind.

    Args:
        verb: `list`, `watch`, `get`, `create` or `patch`.
        namespace: None = all namespaces.
        name: "" for `list`, `watch` and `create`.
        body: None for a read.
    """

    verb: str
    resource: ApiResource[Any]
    namespace: str | None
    name: str = ""
    body: Body | None = None


class ForwardingKube(Kube):
    """Forwards every request to another `Kube`, within the context of `around`."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube

    def around(self, call: KubeCall) -> AbstractContextManager[None]:
        """Return the context of one request; it gets the request's error.

        That of a watch ends when the watch is open.
        """
        raise NotImplementedError

    def opened(self, watch: Watch[T]) -> Watch[T]:
        """Return the watch for the caller."""
        return watch

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
        with self.around(KubeCall("list", resource, scope.namespace)):
            return await self._kube.list(
                resource,
                scope,
                limit=limit,
                continue_token=continue_token,
                version=version,
                limit_s=limit_s,
            )

    @asynccontextmanager
    async def watch(
        self, resource: ApiResource[T], scope: ListOptions, *, version: str, timeout_s: int
    ) -> AsyncIterator[Watch[T]]:
        opening = self._kube.watch(resource, scope, version=version, timeout_s=timeout_s)
        async with AsyncExitStack() as stack:
            with self.around(KubeCall("watch", resource, scope.namespace)):
                watch = await stack.enter_async_context(opening)
            yield self.opened(watch)

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        with self.around(KubeCall("get", resource, namespace, name)):
            return await self._kube.get(resource, namespace, name, limit_s=limit_s)

    async def create(
        self,
        resource: ApiResource[T],
        namespace: str,
        body: Body,
        *,
        limit_s: float = 10.0,
        permit: Permit | None = None,
    ) -> T:
        with self.around(KubeCall("create", resource, namespace, body=body)):
            return await self._kube.create(
                resource, namespace, body, limit_s=limit_s, permit=permit
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
        with self.around(KubeCall("patch", resource, namespace, name, body)):
            return await self._kube.patch(
                resource, namespace, name, body, limit_s=limit_s, permit=permit
            )

    async def ready(self, *, limit_s: float = 5.0) -> None:
        await self._kube.ready(limit_s=limit_s)
