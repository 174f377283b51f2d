"""What is known of one namespace, across stores, directory and queue: is it in use, drop it."""

from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.informer.store import Store
from reconciler.naming import SessionKey
from reconciler.workqueue.queue import WorkQueue


class NamespaceUsage:
    """Asked before a namespace is let go, and told when it is."""

    def __init__(
        self,
        *,
        pods: Store,
        secrets: Store,
        directory: ConfirmationCache,
        planner: SessionStateReader,
        queue: WorkQueue[SessionKey],
        touches: PodTouches | None,
    ) -> None:
        self._pods = pods
        self._secrets = secrets
        self._directory = directory
        self._planner = planner
        self._queue = queue
        self._touches = touches

    def in_use(self, namespace: str, *, refused: bool) -> bool:
        """Tell whether a namespace has a pod, a session that should, or a write under way.

        A namespace that is deleted may take our rights along before its last pod is gone: pods that
        the API server refuses to show hold nothing, or those would for ever.

        Args:
            refused: Whether the API server refuses to show its pods.
        """
        if namespace in self._pods.namespaces() and not refused:
            return True
        running = self._directory.running() if self._planner.leads else ()
        if any(key.namespace == namespace for key in running):
            return True
        looks = (self._queue.entry_info(secret.key) for secret in self._secrets.within(namespace))
        return any(look is not None and look.stage == "running" for look in looks)

    def evict(self, namespace: str) -> None:
        """Drop a namespace's objects, and their sessions' entries in the queue and touches."""
        for dropped in (*self._pods.forget(namespace), *self._secrets.forget(namespace)):
            self._queue.remove(dropped.key)
            if self._touches is not None:
                self._touches.drop(dropped.key)
