"""The kubelet's I/O: watches, volumes and status writes; `node` decides what happens when."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import structlog

from reconciler.clock import Clock, EpochTime, Instant, format_utc
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
"""Writes in flight: 1,000 pods that start at once must not open 1,000 sockets."""
BATCH = 32
"""Actions in one iteration of the loop: a mount blocks it for 0.1-0.2 ms."""
IDLE_S = 60.0
_SETTLED = (404, 409, 422)
"""Answers to a write with a UID precondition: the pod with this UID no longer exists."""


class Containers(Protocol):
    """Runs the pods' containers. Called synchronously, in the order of events.

    `at_s` is wall time in seconds since the epoch, read directly after the event.
    """

    def projected(self, pod: Pod, files: Mapping[str, bytes], *, at_s: EpochTime) -> None:
        """Handle a change of the volume, which has these files now; `started` follows the first."""
        ...

    def started(self, pod: Pod, directory: Path, *, at_s: EpochTime) -> None: ...

    def stopped(self, pod: Pod, *, at_s: EpochTime) -> None: ...


class Kubelet:
    """All pods of a node, or all session pods if no node is named.

    Args:
        rand: `Random.uniform` of the run's seed.
        root: Directory that gets one directory a pod UID.
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
        """Run until cancelled; the caller must stop the containers that run then."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._secrets.run())
            group.create_task(self._pods.run())
            group.create_task(self._schedule())
            for _ in range(WRITERS):
                group.create_task(self._write())

    def clear(self) -> None:
        """Remove every volume, since they hold tokens; no container may run any more."""
        for pod in self.node.pods():
            remove_volume(self._directory(pod))

    def _now(self) -> Instant:
        return Instant(asyncio.get_running_loop().time())

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
        """After both first lists, execute the actions that are due, and sleep until the next."""
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
        """Mount a Secret that the watch does not deliver, for instance one without its labels.

        The real kubelet watches Secrets by name; this one reads such a Secret again at each sync.
        """
        payload = await self._api.secret(pod.secret)
        if self.node.mountable(pod.uid):
            self._mount(pod, payload, newest=False)


def running(pod: Pod, at_utc: str) -> dict[str, Any]:
    """Return the status patch of a pod whose containers run since `at_utc` (RFC 3339)."""
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
    """Return the delete options that remove the pod with this UID at once."""
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
    """Replace the directory's files by these (name -> content), readable by the owner only.

    Order: new directory, atomic rename of `..data`, links of the names, removal of the old one.
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
    """Remove the volume with its files."""
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
