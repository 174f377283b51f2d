"""A `Kube` that records which rights work: a 403 of a server that has just started becomes
`AuthorizerNotReady`, for each caller and each kind."""

from collections.abc import Iterator
from contextlib import contextmanager
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
from reconciler.kube.api import Event, Kube, Watch
from reconciler.kube.authorization import AccessRight, AuthorizerMemory
from reconciler.kube.forwarding import ForwardingKube, KubeCall
from reconciler.kube.status_errors import is_terminating

T = TypeVar("T")

_BEFORE_AUTHORIZATION = (ServerError, TooManyRequests, TransportError, Unauthorized)
"""Errors that may come before the authorizer has run."""


class AuthorizedKube(ForwardingKube):
    """Forwards every request and records every answer in an `AuthorizerMemory`.

    A 403 of admission (a quota, a policy, a webhook, a namespace that terminates) is raised
    unchanged: admission runs after the authorizer has allowed the request.
    """

    def __init__(self, kube: Kube, authorization: AuthorizerMemory, clock: Clock) -> None:
        super().__init__(kube)
        self._authorization = authorization
        self._clock = clock

    @contextmanager
    def around(self, call: KubeCall) -> Iterator[None]:
        right = AccessRight(call.verb, call.resource.plural, call.namespace)
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

    def opened(self, watch: Watch[T]) -> Watch[T]:
        return _RecordedWatch(watch, self)

    def record_failure(self, error: KubeError) -> None:
        """Record the failure of a request or of an open watch."""
        if isinstance(error, (TransportError, ServerError)):
            self._authorization.lost(self._clock.monotonic())


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
