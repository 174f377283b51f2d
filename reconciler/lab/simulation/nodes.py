"""The kubelet of a simulated world: the lab's node, with commits as events, on virtual time."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import msgspec

from reconciler.clock import LONG_AGO, Clock, EpochTime, Instant
from reconciler.controller.decide.refresh_plan import GRID
from reconciler.lab.apiserver import garbage_collector, kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.deletion import DeleteOptions
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.status_errors import StatusError
from reconciler.lab.apiserver.write_log import Caller, Commit
from reconciler.lab.kubelet.node import KubeletAction, KubeletTiming, Node
from reconciler.lab.kubelet.pods import Pod, SecretRef, decode_pod
from reconciler.lab.kubelet.secrets import Payload, SecretCache
from reconciler.lab.simulation.conditions import PROPAGATION_S
from reconciler.lab.simulation.event_log import EventLog
from reconciler.lab.simulation.invariants import ExposureChecker, value_of
from reconciler.naming import Names

KUBELET = Caller("system:node:simulated", manager="kubelet")

STALE_S = 1.0
"""Longest time after a change of a Secret for which the kubelet's cache may lack it."""

TIMING = KubeletTiming(projection_s=(60.0, 85.0), stale_touches=0.2)
"""Five seconds less than the controller's default allowance: a write takes time, too."""


class VirtualNode:
    """All pods of the world; reports their files to the exposure checker.

    Args:
        token_times: Returns a token's remaining and whole life, in seconds.
        excused_until_s: Returns until when a pod that starts needs no valid token.
    """

    def __init__(
        self,
        core: Core,
        clock: Clock,
        names: Names,
        exposure: ExposureChecker,
        event_log: EventLog,
        node: Node,
        *,
        token_times: Callable[[str], tuple[float, float]],
        excused_until_s: Callable[[Pod], EpochTime],
    ) -> None:
        self.projections_total = 0
        self._core = core
        self._clock = clock
        self._names = names
        self._exposure = exposure
        self._event_log = event_log
        self._token_times = token_times
        self._excused_until_s = excused_until_s
        self._node = node
        self._cache = SecretCache()
        self._changed_at: dict[SecretRef, Instant] = {}
        self._timer: asyncio.TimerHandle | None = None

    def commit(self, commit: Commit) -> None:
        """Handle one commit, as an event of the kubelet's watches."""
        if commit.kind is kinds.SECRETS:
            self._observe_secret(commit)
        elif commit.kind is kinds.PODS:
            self._observe_pod(commit)
        else:
            return
        self._set_timer()

    def _observe_secret(self, commit: Commit) -> None:
        metadata = commit.object["metadata"]
        ref, now_at = SecretRef(metadata["namespace"], metadata["name"]), self._now()
        if commit.removed:
            self._cache.drop(ref)
            self._node.observe_secret(ref, None, now_at=now_at)
            return
        value = value_of(commit.object, self._names)
        payload = Payload({self._names.secret_key: value.encode()} if value else {})
        if self._cache.put(ref, payload):
            self._changed_at[ref] = now_at
            self._node.observe_secret(ref, payload.digest, now_at=now_at)

    def _observe_pod(self, commit: Commit) -> None:
        pod = decode_pod(_bytes(commit.object), self._names)
        if commit.removed:
            self._node.remove_pod(pod.uid)
            self._exposure.stopped(pod.uid, now_s=self._clock.wall())
            return
        if pod.grace_s is not None:
            self._exposure.stopping(pod.uid, now_s=self._clock.wall())
        self._node.observe_pod(pod, now_at=self._now())

    def _act(self) -> None:
        self._timer = None
        for action in self._node.due(self._now(), limit=1000):
            self._do(action)
        self._set_timer()

    def _do(self, action: KubeletAction) -> None:
        pod = action.pod
        if action.kind in ("mount", "mount_stale"):
            self._mount(pod, stale=action.kind == "mount_stale")
        elif action.kind == "report":
            self._report(pod)
        elif action.kind == "stop":
            self._exposure.stopped(pod.uid, now_s=self._clock.wall())
        else:
            self._remove(pod)

    def _mount(self, pod: Pod, *, stale: bool) -> None:
        now_at, newest = self._now(), True
        payload = self._cache.get(pod.secret)
        if stale and now_at - self._changed_at.get(pod.secret, LONG_AGO) < STALE_S:
            payload = self._cache.stale(pod.secret, mounted=self._node.mounted(pod.uid))
            newest = False
            if payload is None:
                self._node.note_unchanged(pod.uid, now_at=now_at)
                return
        files = payload.select(pod.files) if payload is not None else None
        if payload is None or files is None:
            self._node.note_failed(pod.uid, "mount", now_at=now_at)
            return
        changed = payload.digest != self._node.mounted(pod.uid)
        first = self._node.note_mounted(pod.uid, payload.digest, newest=newest, now_at=now_at)
        if changed or first:
            self._project(pod, next(iter(files.values())).decode(), first=first)

    def _project(self, pod: Pod, token: str, *, first: bool) -> None:
        now_s = self._clock.wall()
        left_s, life_s = self._token_times(token)
        expires_s = now_s + left_s
        due_s = expires_s - GRID * life_s
        self.projections_total += 1
        self._event_log.note(f"projected {pod.session} first={first} left={left_s:.3f}")
        if first:
            until_s = self._excused_until_s(pod)
            self._exposure.started(
                pod.uid,
                str(pod.session),
                expires_s,
                due_s=due_s,
                now_s=now_s,
                excused_until_s=until_s,
            )
        else:
            self._exposure.projected(pod.uid, expires_s, due_s=due_s, now_s=now_s)

    def _report(self, pod: Pod) -> None:
        try:
            self._core.patch(
                kinds.PODS,
                pod.namespace,
                pod.name,
                {"metadata": {"uid": pod.uid}, "status": {"phase": "Running"}},
                by=KUBELET,
                subresource="status",
            )
        except StatusError:
            return  # the pod with this UID no longer exists

    def _remove(self, pod: Pod) -> None:
        options = DeleteOptions(grace_s=0, uid=pod.uid)
        try:
            self._core.delete(kinds.PODS, pod.namespace, pod.name, options, by=KUBELET)
        except StatusError:
            return
        garbage_collector.collect(self._core)

    def _set_timer(self) -> None:
        next_at = self._node.next_at()
        if self._timer is not None:
            if next_at is not None and self._timer.when() <= float(next_at):
                return
            self._timer.cancel()
            self._timer = None
        if next_at is not None:
            self._timer = asyncio.get_running_loop().call_at(float(next_at), self._act)

    def _now(self) -> Instant:
        return self._clock.monotonic()


def kubelet_timing(propagation_s: float) -> KubeletTiming:
    """Return the kubelet's delays, in proportion to the controllers' allowance."""
    first_s, last_s = (delay_s * propagation_s / PROPAGATION_S for delay_s in TIMING.projection_s)
    return replace(TIMING, projection_s=(first_s, last_s))


def _bytes(item: Object) -> bytes:
    return msgspec.json.encode(item)
