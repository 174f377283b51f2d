"""A `Kube` that records which rights work: a 403 of a server that has just started becomes
`AuthorizerNotReady`, for each caller and each kind."""

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

_BEFORE_AUTHORIZATION = (ServerError, TooManyRequests, TransportError, Unauthorized)
"""Errors that may come before the authorizer has run."""


class AuthorizedKube(Kube):
    """Forwards every request and records every answer in an `AuthorizerMemory`.

    A 403 of admission (a quota, a policy, a webhook, a namespace that terminates) is raised
    unchanged: admission runs after the authorizer has allowed the request.
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
        with self._recorded(AccessRight("list", resource.plural, scope.namespace)):
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
            with self._recorded(AccessRight("watch", resource.plural, scope.namespace)):
                watch = await stack.enter_async_context(opening)
            yield _RecordedWatch(watch, self)

    async def get(
        self, resource: ApiResource[T], namespace: str, name: str, *, limit_s: float = 10.0
    ) -> T:
        with self._recorded(AccessRight("get", resource.plural, namespace)):
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
        with self._recorded(AccessRight("create", resource.plural, namespace)):
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
        with self._recorded(AccessRight("patch", resource.plural, namespace)):
            return await self._kube.patch(
                resource, namespace, name, body, limit_s=limit_s, permit=permit
            )

    async def ready(self, *, limit_s: float = 5.0) -> None:
        await self._kube.ready(limit_s=limit_s)

    def record_failure(self, error: KubeError) -> None:
        """Record the failure of a request or of an open watch."""
        if isinstance(error, (TransportError, ServerError)):
            self._authorization.lost(self._clock.monotonic())

    @contextmanager
    def _recorded(self, right: AccessRight) -> Iterator[None]:
        try:
            yield
        except KubeError as error:
            self.record_failure(error)
            if isinstance(error, _BEFORE_AUTHORIZATION):
                raise
            if not _is_from_authorizer(error):
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


class _RecordedWatch(Watch[T]):
    """An open watch that records its failures in the kube."""

    def __init__(self, watch: Watch[T], kube: AuthorizedKube) -> None:
        self._watch = watch
        self._kube = kube

    async def receive(self, *, idle_s: float) -> Event[T] | None:
        try:
            return await self._watch.receive(idle_s=idle_s)
        except KubeError as error:
            self._kube.record_failure(error)
            raise


def _is_from_authorizer(error: KubeError) -> bool:
    """Return whether this is a 403 of the authorizer or of a proxy, and not one of admission."""
    is_admission = isinstance(error, QuotaExceeded | AdmissionDenied) or is_terminating(error)
    return isinstance(error, Forbidden) and not is_admission
