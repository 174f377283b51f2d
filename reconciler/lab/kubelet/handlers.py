"""Handlers of the two watches: they call the node and its cache of Secrets."""

from collections.abc import Callable

from reconciler.lab.kubelet.pods import Pod, SecretRef, decode_pod
from reconciler.lab.kubelet.secrets import SecretCache, decode_secret
from reconciler.naming import Names


class PodHandler:
    """Pods by UID: a pod with the same name and another UID is another pod.

    Args:
        on_pod: Called with each new or changed pod.
        on_removed: Called with the UID of each removed pod.
    """

    def __init__(
        self, names: Names, on_pod: Callable[[Pod], None], on_removed: Callable[[str], None]
    ) -> None:
        self._names = names
        self._on_pod = on_pod
        self._on_removed = on_removed
        self._known: set[str] = set()

    def replace(self, items: list[bytes]) -> None:
        pods = [decode_pod(item, self._names) for item in items]
        for uid in self._known - {pod.uid for pod in pods}:
            self._forget(uid)
        for pod in pods:
            self._take(pod)

    def put(self, data: bytes) -> None:
        self._take(decode_pod(data, self._names))

    def drop(self, data: bytes) -> None:
        self._forget(decode_pod(data, self._names).uid)

    def _take(self, pod: Pod) -> None:
        self._known.add(pod.uid)
        self._on_pod(pod)

    def _forget(self, uid: str) -> None:
        self._known.discard(uid)
        self._on_removed(uid)


class SecretHandler:
    """Puts Secrets into the cache; `changed` gets only their digests (None: removed)."""

    def __init__(
        self, cache: SecretCache, changed: Callable[[SecretRef, str | None], None]
    ) -> None:
        self._cache = cache
        self._changed = changed

    def replace(self, items: list[bytes]) -> None:
        refs = {self._take(item) for item in items}
        for ref in self._cache.refs() - refs:
            self._forget(ref)

    def put(self, data: bytes) -> None:
        self._take(data)

    def drop(self, data: bytes) -> None:
        self._forget(decode_secret(data)[0])

    def _take(self, data: bytes) -> SecretRef:
        ref, payload = decode_secret(data)
        if self._cache.put(ref, payload):
            self._changed(ref, payload.digest)
        return ref

    def _forget(self, ref: SecretRef) -> None:
        self._cache.drop(ref)
        self._changed(ref, None)
