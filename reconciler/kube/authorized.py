"""The seam with a memory of what this account may do: a 403 of a server that has just started is
`AuthorizerNotReady`, whoever asked and for whatever."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import TypeVar

from reconciler.clock import Clock
from reconciler.errors import (
    AdmissionDenied,
    AuthorizerNotReady,
    Forbidden,
    KubeError,
    QuotaExceeded,
    ServerError,
    TooManyRequests,
    TransportError,
    Unauthorized,
)
from reconciler.kube.api import ApiResource, Body, Event, Kube, ListOptions, Page, Permit, Watch
from reconciler.kube.authorization import AccessRight, AuthorizerMemory
from reconciler.kube.status_errors import is_terminating

T = TypeVar("T")

_UNAUTHORIZED = (ServerError, TooManyRequests, TransportError, Unauthorized)
"""Answers that may come before the authorizer was asked."""


class AuthorizedKube(Kube):
    """Passes every request on and learns from every answer; see `AuthorizerMemory`.

    A 403 of admission (a quota, a policy, a webhook, a namespace that terminates) is passed on as
    it is: who gets one was authorized.
    """

    def __init__(self, kube: Kube, authorization: AuthorizerMemory, clock: Clock) -> None:
        self._kube = kube
        self._authorization = authorization
        self._clock = clock

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
        with self._judged(AccessRight("list", resource.plural, scope.namespace)):
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
            with self._judged(AccessRight("watch", resource.plural, scope.namespace)):
                watch = await stack.enter_async_context(opening)
            yield _HeardWatch(watch, self)

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        with self._judged(AccessRight("get", resource.plural, namespace)):
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
        with self._judged(AccessRight("create", resource.plural, namespace)):
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
        with self._judged(AccessRight("patch", resource.plural, namespace)):
            return await self._kube.patch(
                resource, namespace, name, body, limit_s=limit_s, permit=permit
            )

    async def ready(self, *, limit_s: float = 5.0) -> None:
        await self._kube.ready(limit_s=limit_s)

    def heard(self, error: KubeError) -> None:
        """Take note of how a request, or an open watch, has failed."""
        if isinstance(error, (TransportError, ServerError)):
            self._authorization.lost(self._clock.monotonic())

    @contextmanager
    def _judged(self, right: AccessRight) -> Iterator[None]:
        try:
            yield
        except KubeError as error:
            self.heard(error)
            if isinstance(error, _UNAUTHORIZED):
                raise
            if not _is_authorizers(error):
                self._authorization.granted(right, self._clock.monotonic())
                raise
            if not self._authorization.refused(right, self._clock.monotonic()):
                raise
            raise AuthorizerNotReady(
                f"{error}, as it does when it has just started",
                status=error.status,
                reason=error.reason,
                retry_after_s=error.retry_after_s,
                causes=error.causes,
            ) from error
        self._authorization.granted(right, self._clock.monotonic())


class _HeardWatch(Watch[T]):
    """An open watch whose failures are taken note of."""

    def __init__(self, watch: Watch[T], kube: AuthorizedKube) -> None:
        self._watch = watch
        self._kube = kube

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        try:
            return await self._watch.receive(idle_s=idle_s)
        except KubeError as error:
            self._kube.heard(error)
            raise


def _is_authorizers(error: KubeError) -> bool:
    """Tell a 403 of the authorizer, or of a proxy, from one of admission."""
    is_admissions = isinstance(error, QuotaExceeded | AdmissionDenied) or is_terminating(error)
    return isinstance(error, Forbidden) and not is_admissions
