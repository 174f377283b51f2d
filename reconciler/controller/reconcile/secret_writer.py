"""The writes: each with its preconditions, inside the fence, its answer taken into the store.

`decide/write_errors.py` decides what their errors cause.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from reconciler.clock import NEVER, EpochTime
from reconciler.controller.decide.annotations import (
    new_secret,
    revocation_patch,
    secret_patch,
    touch_patch,
)
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.runtime import Runtime, Stores
from reconciler.errors import NotLeaderError
from reconciler.informer.store import Store
from reconciler.kube.api import ApiResource, Kube, ListOptions, ObjectMeta
from reconciler.leadership.api import WriteFence
from reconciler.naming import LIVE_PODS, SessionKey
from reconciler.telemetry.trace import span
from reconciler.tokens.token import Token


class Written(NamedTuple):
    """A write that was applied; `already_observed`: the watch has delivered it already."""

    secret: ObjectMeta
    already_observed: bool


class SecretWriter:
    """Sends the writes and the consistent reads of one session's objects.

    A write starts only if the fence stays open for the request's time limit.

    Args:
        on_rewound: Called with a namespace and a reason when a read shows that the store holds
            versions of a history that the API server has lost.
    """

    def __init__(
        self,
        *,
        kube: Kube,
        stores: Stores,
        fence: WriteFence,
        confirmation_mac: ConfirmationMac,
        runtime: Runtime,
        on_rewound: Callable[[str, str], None],
    ) -> None:
        self._kube = kube
        self._pods = stores.pod_resource
        self._secrets = stores.secret_resource
        self._store = stores.secrets
        self._pod_store = stores.pods
        self._names = runtime.config.names
        self._confirmation_mac = confirmation_mac
        self._fence = fence
        self._limit_s = runtime.config.request_limit_s
        self._on_rewound = on_rewound

    async def refresh(
        self,
        secret: ObjectMeta,
        token: Token | None,
        *,
        now_s: EpochTime,
        handled_requests: tuple[str, ...],
        readable_until_s: EpochTime = NEVER,
    ) -> Written:
        """Patch a Secret (`token` None: its annotations alone) and return its new state.

        Args: as of `secret_patch`.
        Raises:
            Conflict: Another version; nothing changed.
            Invalid: Another object of that name, or one that cannot be changed.
            NotLeaderError: Stopped at the fence; nothing was sent.
        Cancel: May have been applied; the watch will show it.
        """
        body = secret_patch(
            secret,
            token,
            self._names,
            now_s=now_s,
            written_by=self._fence.term,
            confirmation=self._confirmation_mac.make(secret.key, secret.uid),
            handled_requests=handled_requests,
            readable_until_s=readable_until_s,
        )
        return self._store_response(await self._patch(self._secrets, secret, body))

    async def create(
        self, key: SessionKey, pod: ObjectMeta, token: Token, *, now_s: EpochTime
    ) -> Written:
        """Create a session's Secret, owned by its pod; its confirmation needs the UID and follows.

        Raises:
            AlreadyExists: The name is taken.
            Forbidden: No right, or the namespace is terminating.
        """
        body = new_secret(key, pod, token, self._names, now_s=now_s, written_by=self._fence.term)
        self._check_fence()
        created = await self._kube.create(
            self._secrets, key.namespace, body, limit_s=self._limit_s, permit=self._fence.check
        )
        return self._store_response(created)

    async def write_confirmation(self, secret: ObjectMeta, *, now_s: EpochTime) -> Written:
        """Write the confirmation alone.

        Raises: as `refresh`.
        """
        return await self.refresh(secret, None, now_s=now_s, handled_requests=())

    async def remove_confirmation(self, secret: ObjectMeta) -> Written:
        """Remove the confirmation from a Secret; its token stays until it expires.

        Raises: as `refresh`.
        """
        return self._store_response(
            await self._patch(self._secrets, secret, revocation_patch(secret, self._names))
        )

    async def touch(self, pod: ObjectMeta, *, now_s: EpochTime) -> None:
        """Patch a pod's annotation so that the kubelet syncs its volumes now."""
        await self._patch(self._pods, pod, touch_patch(pod, self._names, now_s=now_s))

    async def refetch(self, key: SessionKey) -> bool:
        """List one Secret's metadata from a consistent read into the store.

        Used where a stale store would cause harm or endless retries: before a create, after
        repeated conflicts, and after a `NotFound`. The store takes the result, even if its version
        is lower.

        Returns: Whether the store held something else.
        """
        name = self._names.secret_name(key.session_id)
        return await self._read(self._secrets, self._store, key.namespace, name)

    async def refetch_pod(self, pod: ObjectMeta) -> bool:
        """Do the same for a pod: no Secret is created for one that does not exist any more."""
        return await self._read(
            self._pods, self._pod_store, pod.namespace, pod.name, fields=f",{LIVE_PODS}"
        )

    async def _read(
        self,
        resource: ApiResource[ObjectMeta],
        store: Store,
        namespace: str,
        name: str,
        *,
        fields: str = "",
    ) -> bool:
        """Read one object by a list, since we have no permission to get it."""
        scope = ListOptions(namespace, self._names.selector(), f"metadata.name={name}{fields}")
        entry = store.entry(namespace, name)
        with span(f"refetch_{resource.plural}", name, "GET"):
            page = await self._kube.list(resource, scope, limit_s=self._limit_s)
        if page.skipped:
            return False  # it exists, but cannot be decoded
        found = page.items[0] if page.items else None
        applied = store.apply_read(namespace, name, found, page.version, entry)
        if applied.rewound:
            known = entry.meta.version if entry.meta is not None else entry.reached
            shown = found.version if found is not None else page.version
            why = f"{name} has version {shown}, and {known} was known: was etcd restored?"
            self._on_rewound(namespace, why)
        return applied.change is not None

    async def _patch(
        self, resource: ApiResource[ObjectMeta], target: ObjectMeta, body: dict[str, Any]
    ) -> ObjectMeta:
        self._check_fence()
        return await self._kube.patch(
            resource,
            target.namespace,
            target.name,
            body,
            limit_s=self._limit_s,
            permit=self._fence.check,
        )

    def _check_fence(self) -> None:
        if not self._fence.may_write(self._limit_s):
            raise NotLeaderError("this replica may not write for the time limit of a request")

    def _store_response(self, secret: ObjectMeta) -> Written:
        """Put a response into the store, which has it already if its watch event came first."""
        return Written(secret, self._store.apply_write_response(secret) is None)
