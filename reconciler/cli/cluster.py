"""The user's own connection to the cluster: their kubeconfig, their rights, the server's time.

Every failure is raised as a `CommandError` of one line. The commands request only the metadata of
Secrets, never a value; of pods `explain` also requests how the pod mounts its Secret.
"""

import sys
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import TypeVar

from reconciler.cli.exit_codes import (
    EXIT_FORBIDDEN,
    EXIT_NO_API_SERVER,
    EXIT_NOT_FOUND,
    EXIT_SETTINGS,
    EXIT_UNREACHABLE,
    CommandError,
)
from reconciler.clock import Clock, EpochTime, SystemClock
from reconciler.errors import (
    AdmissionDenied,
    Forbidden,
    Gone,
    KubeError,
    NotFound,
    ProtocolError,
    Unauthorized,
)
from reconciler.kube.api import ApiResource, Body, Kube, ListOptions, ObjectMeta, Page, is_endless
from reconciler.kube.auth.contexts import Context, read_context
from reconciler.kube.auth.credentials import find_credentials
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.kube.client import HttpKube
from reconciler.kube.decoding import metadata_resource
from reconciler.naming import LIVE_PODS, Names
from reconciler.settings import Settings, read_settings
from reconciler.tokens.date_clock import DateClock

T = TypeVar("T")

PAGE = 500
"""Items a page. Source: kubectl's `--chunk-size`."""

LIMIT_S = 15.0
"""Longest wait for one response; a page of 500 takes a busy server a second or two."""

CONNECTIONS = 16

LABEL_LENGTH = 63
"""Longest value of a label; the API server rejects a selector with a longer one."""

FIELD_MANAGER = "token-reconciler-cli"
"""What a person requests is not owned by the controller."""

SKEW_S = 5.0
"""A clock that is wrong by more than this gives a warning; durations by it would be wrong."""


@dataclass(frozen=True, slots=True)
class Access:
    """The kubeconfig and its context; "" = kubectl's default."""

    kubeconfig: str = ""
    context: str = ""


class Cluster:
    """The requests that the commands send: reads, and one kind of write."""

    def __init__(
        self, kube: Kube, settings: Settings, context: Context, clock: Clock, time: DateClock
    ) -> None:
        self.kube = kube
        self.settings = settings
        self.names = settings.names()
        self.context = context
        self.pod_kind = metadata_resource("pods", self.names)
        self.secret_kind = metadata_resource(
            "secrets", self.names, on_data=self._warn_of_secret_data
        )
        self._is_warned = False
        self._clock = clock
        self._time = time

    def _warn_of_secret_data(self) -> None:
        """Warn once that a response holds a Secret's data, of which nothing is decoded."""
        if not self._is_warned:
            sys.stderr.write(
                "reconciler: the cluster sends the data of Secrets, which was not requested\n"
            )
        self._is_warned = True

    def now_s(self) -> EpochTime:
        """Return the API server's time, with which times in annotations are compared."""
        return self._time.now_s()

    def skew_s(self) -> float:
        """Return the server's time minus this machine's in seconds; 0.0 up to `SKEW_S`."""
        skew_s = self._time.skew_s
        return skew_s if abs(skew_s) > SKEW_S else 0.0

    async def session_pods(self, namespace: str | None, labels: str = "") -> list[ObjectMeta]:
        """Return the live pods of sessions; `namespace` None = all."""
        selector = self.names.selector() + (f",{labels}" if labels else "")
        return await self.list_all(self.pod_kind, ListOptions(namespace, selector, LIVE_PODS))

    async def session_secrets(self, namespace: str | None) -> list[ObjectMeta]:
        return await self.list_all(self.secret_kind, ListOptions(namespace, self.names.selector()))

    async def secret(self, namespace: str, session_id: str) -> ObjectMeta | None:
        """Return a session's Secret by name, labelled or not, by a list (needs no right to get)."""
        name = self.names.secret_name(session_id)
        found = await self.list_all(
            self.secret_kind, ListOptions(namespace, fields=f"metadata.name={name}")
        )
        return found[0] if found else None

    async def pod(self, namespace: str | None, name: str) -> tuple[ObjectMeta, bool]:
        """Return a pod, by its name or its session's ID, and whether it is live.

        Args:
            namespace: None = look in all of them.

        Raises:
            CommandError: There is no such pod, or one in more than one namespace.
        """
        is_live = True
        found = await self.live_pods(namespace, name)
        if not found:
            is_live = False
            ended = ListOptions(namespace, fields=f"metadata.name={name}")
            found = await self.list_all(self.pod_kind, ended)
        if not found:
            problem = f"no pod or session {name} {in_namespace(namespace)}"
            raise CommandError(problem, EXIT_NOT_FOUND)
        namespaces = sorted({pod.namespace for pod in found})
        if len(namespaces) > 1:
            problem = f"{name} is in the namespaces {', '.join(namespaces)}: use NAMESPACE/POD"
            raise CommandError(problem, EXIT_SETTINGS)
        return max(found, key=lambda pod: (not pod.is_deleting, pod.created_s)), is_live

    async def live_pods(self, namespace: str | None, name: str) -> list[ObjectMeta]:
        """Return the live pods of that name, or else of that session; `namespace` None = all."""
        if name == name.lower():
            live = f"metadata.name={name},{LIVE_PODS}"
            if found := await self.list_all(self.pod_kind, ListOptions(namespace, fields=live)):
                return found
        if len(name) > LABEL_LENGTH:
            return []
        session = f"{self.names.session_id}={name}"
        return await self.list_all(self.pod_kind, ListOptions(namespace, session, LIVE_PODS))

    async def annotate(self, pod: ObjectMeta, annotations: dict[str, str | None]) -> ObjectMeta:
        """Set annotations of this very pod (None removes one), and return the pod."""
        body: Body = {"metadata": {"uid": pod.uid, "annotations": annotations}}
        patch = self.kube.patch(self.pod_kind, pod.namespace, pod.name, body, limit_s=LIMIT_S)
        return await self.ask(f"patch pod {pod.name}", pod.namespace, "pods", patch)

    async def list_all(self, resource: ApiResource[T], scope: ListOptions) -> list[T]:
        """Return all items, page by page; once, in one page, if the continue token has expired."""
        return (await self.list_whole(resource, scope))[0]

    async def list_whole(self, resource: ApiResource[T], scope: ListOptions) -> tuple[list[T], str]:
        """Return all items as `list_all` does, and the version of the list."""
        try:
            return await self._pages(resource, scope, PAGE)
        except _Expired:
            return await self._pages(resource, scope, 0)

    async def _pages(
        self, resource: ApiResource[T], scope: ListOptions, limit: int
    ) -> tuple[list[T], str]:
        items: list[T] = []
        what, token, pages = f"list {resource.plural}", "", 0
        while True:
            pages += 1
            page: Page[T] = await self.ask(
                what,
                scope.namespace,
                resource.plural,
                self.kube.list(resource, scope, limit=limit, continue_token=token, limit_s=LIMIT_S),
            )
            items += page.items
            if is_endless(page, token, pages=pages, items=len(items)):
                error = ProtocolError(f"{what}: the list does not end")
                raise self._failure(error, what, scope.namespace, resource.plural)
            token = page.continue_token
            if not token:
                return items, page.version

    async def ask(self, what: str, namespace: str | None, plural: str, answer: Awaitable[T]) -> T:
        """Await one response, and observe the server's time in it.

        Raises:
            CommandError: The request failed; the line says what to do.
        """
        self._time.sent_at = self._clock.monotonic()
        try:
            return await answer
        except (KubeError, ProtocolError) as error:
            failure = self._failure(error, what, namespace, plural)
        raise failure

    def _failure(
        self, error: KubeError | ProtocolError, what: str, namespace: str | None, plural: str
    ) -> CommandError:
        where = "in all namespaces" if namespace is None else f"in namespace {namespace}"
        if isinstance(error, Gone):
            return _Expired(
                f"cannot {what} {where}: the list expired while it was read", EXIT_UNREACHABLE
            )
        if isinstance(error, Unauthorized):
            who = f" of context {self.context.name}" if self.context.name else ""
            return CommandError(f"the cluster rejects the credentials{who}", EXIT_FORBIDDEN)
        if isinstance(error, Forbidden) and not isinstance(error, AdmissionDenied):
            scope = "-A" if namespace is None else f"-n {namespace}"
            check = f"kubectl auth can-i {what.partition(' ')[0]} {plural} {scope}"
            return CommandError(f"no right to {what} {where}; check with: {check}", EXIT_FORBIDDEN)
        if isinstance(error, NotFound) and error.reason != "NotFound":
            whose = f" of context {self.context.name}" if self.context.name else ""
            problem = f"the server{whose} is no Kubernetes API server: it answered 404"
            return CommandError(f"cannot {what} {where}: {problem}", EXIT_NO_API_SERVER)
        if isinstance(error, NotFound):
            return CommandError(f"cannot {what} {where}: not found", EXIT_NOT_FOUND)
        is_selector = isinstance(error, KubeError) and error.status == HTTPStatus.BAD_REQUEST
        if is_selector and not isinstance(error, AdmissionDenied):
            problem = "the API server rejects the selector"
            return CommandError(f"cannot {what} {where}: {problem}", EXIT_SETTINGS)
        problem = str(error).partition(": ")[2] or str(error)
        return CommandError(f"cannot {what} {where}: {problem}", EXIT_UNREACHABLE)


def in_namespace(namespace: str | None) -> str:
    """Return where something was looked for, as the end of a sentence that says it is missing."""
    return "in any namespace" if namespace is None else f"in namespace {namespace}"


class _Expired(CommandError):
    """The list's continue token has expired."""


@asynccontextmanager
async def open_cluster(access: Access) -> AsyncIterator[Cluster]:
    """Connect with the user's own credentials.

    Raises:
        SettingsError: The kubeconfig, its context, or a RECONCILER_* variable is wrong.
    """
    settings = read_settings()
    kubeconfig = access.kubeconfig or settings.kubeconfig
    context = read_context(kubeconfig, access.context or None)
    clock = SystemClock()
    time = DateClock(clock)
    credentials = find_credentials(
        kubeconfig, clock, context=context.name or None, ignored=_warn_of_ignored
    )
    names: Names = replace(settings.names(), field_manager=FIELD_MANAGER)
    async with HttpKube(
        credentials, names, connections=CONNECTIONS, on_date=time.observe_date
    ) as kube:
        # A restarted API server refuses every account for a moment: that is no missing right.
        authorized = AuthorizedKube(kube, AuthorizerMemory(), clock)
        yield Cluster(authorized, settings, context, clock, time)


def _warn_of_ignored(field: str) -> None:
    sys.stderr.write(f"reconciler: {field} of the kubeconfig has no effect here\n")
