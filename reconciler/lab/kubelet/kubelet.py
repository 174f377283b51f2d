"""The kubelet's shell: watches in, files and status writes out; `node` decides what and when."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog

from reconciler.clock import Clock, format_utc
from reconciler.errors import KubeError, ProtocolError
from reconciler.lab.kubelet.api_client import ApiClient
from reconciler.lab.kubelet.handlers import PodHandler, SecretHandler
from reconciler.lab.kubelet.list_watch import ListWatch
from reconciler.lab.kubelet.node import KubeletAction, KubeletTiming, Node, Rand
from reconciler.lab.kubelet.pods import Pod, SecretRef
from reconciler.lab.kubelet.secrets import Payload, SecretCache
from reconciler.naming import Names

log = structlog.get_logger()

WRITERS = 16
"""Requests in flight, so that a thousand pods that start at once do not open as many sockets."""
BATCH = 32
"""Actions between two turns of the loop: a mount blocks it for 0.1-0.2 ms."""
IDLE_S = 60.0
_SETTLED = (404, 409, 422)
"""Answers to a write that is conditioned on a UID: this incarnation of the pod is gone."""


class Containers(Protocol):
    """Who runs what is inside the pods. Called synchronously, in the order of events.

    `at_s` is wall time in seconds since the epoch, taken right after the fact.
    """

    def projected(self, pod: Pod, files: Mapping[str, bytes], *, at_s: float) -> None:
        """The volume holds these files now; the first time, `started` follows."""
        ...

    def started(self, pod: Pod, directory: Path, *, at_s: float) -> None: ...

    def stopped(self, pod: Pod, *, at_s: float) -> None: ...


class Kubelet:
    """All pods of a node, or all session pods where no node is named.

    Args:
        draw: `Random.uniform` of the run's seed.
        root: Directory that gets one directory per pod UID.
    """

    def __init__(
        self,
        api: ApiClient,
        containers: Containers,
        *,
        clock: Clock,
        rand: Rand,
        root: Path,
        timing: KubeletTiming,
        names: Names,
        node_name: str | None = None,
    ) -> None:
        self.node = Node(timing, rand)
        self._api = api
        self._containers = containers
        self._clock = clock
        self._root = root
        self._cache = SecretCache()
        self._work: asyncio.Queue[KubeletAction] = asyncio.Queue()
        self._wake = asyncio.Event()
        query = {"labelSelector": names.selector()}
        placed = {"fieldSelector": f"spec.nodeName={node_name}"} if node_name else {}
        pods = PodHandler(names, self._observe_pod, self._remove_pod)
        secrets = SecretHandler(self._cache, self._observe_secret)
        self._pods = ListWatch(api, "/api/v1/pods", query | placed, pods, rand)
        self._secrets = ListWatch(api, "/api/v1/secrets", query, secrets, rand)

    def __repr__(self) -> str:
        return f"<Kubelet {self.node!r}>"

    async def run(self) -> None:
        """Run until cancelled; containers that run then are the caller's to stop."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secrets.run())
            group.create_task(self._pods.run())
            group.create_task(self._schedule())
            for _ in range(WRITERS):
                group.create_task(self._write())

    def clear(self) -> None:
        """Remove every volume: they hold tokens. Nothing may run any more."""
        for pod in self.node.pods():
            remove_volume(self._directory(pod))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _observe_pod(self, pod: Pod) -> None:
        self.node.observe_pod(pod, now_at=self._now())
        self._wake.set()

    def _remove_pod(self, uid: str) -> None:
        pod = self.node.remove_pod(uid)
        if pod is not None:
            self._stop(pod)

    def _observe_secret(self, ref: SecretRef, digest: str | None) -> None:
        self.node.observe_secret(ref, digest, now_at=self._now())
        self._wake.set()

    async def _schedule(self) -> None:
        """Do what is due, then sleep until something is; nothing before both lists are here."""
        await self._secrets.listed.wait()
        await self._pods.listed.wait()
        while True:
            self._wake.clear()
            for action in self.node.due(self._now(), limit=BATCH):
                self._do(action)
            next_at = self.node.next_at()
            wait_s = IDLE_S if next_at is None else next_at - self._now()
            if wait_s <= 0:
                await asyncio.sleep(0)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._wake.wait()

    def _do(self, action: KubeletAction) -> None:
        pod = action.pod
        if action.kind == "stop":
            self._stop(pod)
        elif action.kind == "mount_stale":
            self._mount_stale(pod)
        elif action.kind == "mount" and (payload := self._cache.get(pod.secret)) is not None:
            self._mount(pod, payload, newest=True)
        else:
            self._work.put_nowait(action)

    def _mount(self, pod: Pod, payload: Payload, *, newest: bool) -> None:
        files = payload.select(pod.files)
        try:
            if files is not None and payload.digest != self.node.mounted(pod.uid):
                project_files(self._directory(pod), files)
                self._containers.projected(pod, files, at_s=self._clock.wall())
        except OSError as error:
            log.warning("lab_projection_failed", pod=pod.name, errno=error.errno)
            files = None
        now_at = self._now()
        if files is None:
            self.node.note_failed(pod.uid, "mount", now_at=now_at)
        elif self.node.note_mounted(pod.uid, payload.digest, newest=newest, now_at=now_at):
            self._containers.started(pod, self._directory(pod), at_s=self._clock.wall())

    def _mount_stale(self, pod: Pod) -> None:
        behind = self._cache.stale(pod.secret, mounted=self.node.mounted(pod.uid))
        if behind is None:
            self.node.note_unchanged(pod.uid, now_at=self._now())
        else:
            self._mount(pod, behind, newest=False)

    def _stop(self, pod: Pod) -> None:
        self._containers.stopped(pod, at_s=self._clock.wall())
        remove_volume(self._directory(pod))

    def _directory(self, pod: Pod) -> Path:
        return self._root / pod.uid

    async def _write(self) -> None:
        while True:
            action = await self._work.get()
            try:
                await self._execute(action)
            except (KubeError, ProtocolError) as error:
                status_code = error.status if isinstance(error, KubeError) else 0
                if action.kind == "mount" or status_code not in _SETTLED:
                    self.node.note_failed(action.pod.uid, action.kind, now_at=self._now())
            else:
                self.node.note_done(action.pod.uid)
            self._wake.set()

    async def _execute(self, action: KubeletAction) -> None:
        pod = action.pod
        if action.kind == "report":
            body = running(pod, format_utc(self._clock.wall()))
            await self._api.merge(path_of(pod) + "/status", body)
        elif action.kind == "remove":
            await self._api.delete(path_of(pod), removal(pod))
        else:
            await self._mount_unwatched(pod)

    async def _mount_unwatched(self, pod: Pod) -> None:
        """Mount a Secret that the watch does not show, its labels being gone, say.

        The kubelet knows Secrets by name alone; here such a one is read again at each drawn sync.
        """
        payload = await self._api.secret(pod.secret)
        if self.node.mountable(pod.uid):
            self._mount(pod, payload, newest=False)


def running(pod: Pod, at_utc: str) -> dict[str, Any]:
    """Return the merge patch that says that a pod's containers run since `at_utc` (RFC 3339)."""
    return {
        "metadata": {"uid": pod.uid},
        "status": {
            "phase": "Running",
            "startTime": at_utc,
            "conditions": [
                {"type": kind, "status": "True", "lastTransitionTime": at_utc}
                for kind in ("Initialized", "ContainersReady", "Ready")
            ],
            "containerStatuses": [
                {
                    "name": name,
                    "image": image,
                    "imageID": "",
                    "ready": True,
                    "started": True,
                    "restartCount": 0,
                    "state": {"running": {"startedAt": at_utc}},
                }
                for name, image in pod.containers
            ],
        },
    }


def removal(pod: Pod) -> dict[str, Any]:
    """Return the delete options that remove this incarnation of a pod at once."""
    return {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "gracePeriodSeconds": 0,
        "preconditions": {"uid": pod.uid},
    }


def path_of(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


DATA_LINK = "..data"
_STAGED_LINK = "..data_tmp"


def project_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Make the directory hold exactly these files (name -> content), for the owner only.

    Order: staged directory, `..data` renamed over, links of the names, old directory removed.
    Cost: 0.1-0.2 ms for one file; no fsync, as in a tmpfs volume.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    data = directory / DATA_LINK
    old = data.readlink().name if data.is_symlink() else None
    staged = Path(tempfile.mkdtemp(prefix="..2", dir=directory))
    for name, content in files.items():
        _write(staged / name, content)
    link = directory / _STAGED_LINK
    link.unlink(missing_ok=True)
    link.symlink_to(staged.name)
    link.rename(data)
    _link_names(directory, files)
    if old is not None:
        shutil.rmtree(directory / old, ignore_errors=True)


def remove_volume(directory: Path) -> None:
    """Remove the volume and all that it holds."""
    shutil.rmtree(directory, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def _link_names(directory: Path, files: Mapping[str, bytes]) -> None:
    for name in files:
        visible = directory / name
        if not visible.is_symlink():
            visible.symlink_to(Path(DATA_LINK) / name)
