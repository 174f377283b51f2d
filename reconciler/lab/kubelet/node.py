"""What a node does when: decisions from pods, digests of Secrets, and instants (pure).

Time is seconds on one clock of the caller; random numbers come from `rand`. Secret values are not
passed: the digest identifies a version of a Secret.
"""

import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from reconciler.clock import Instant
from reconciler.lab.kubelet.pods import Pod, SecretRef

K = TypeVar("K", bound=Hashable)


class TimerQueue(Generic[K]):
    """A set of keys, each with one instant; a moved key leaves a stale entry, which is skipped.

    Cost: O(log n) a call; `due` also removes the stale entries that it finds.
    """

    def __init__(self) -> None:
        self._at: dict[K, Instant] = {}
        self._heap: list[tuple[Instant, int, K]] = []
        self._serial = 0

    def __repr__(self) -> str:
        return f"<TimerQueue {len(self._at)} keys>"

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def set(self, key: K, at: Instant) -> None:
        """Set the key's instant; replaces an earlier or later one."""
        self._at[key] = at
        self._serial += 1
        heapq.heappush(self._heap, (at, self._serial, key))

    def set_earlier(self, key: K, at: Instant) -> None:
        """Set the key's instant unless it has an earlier one."""
        if key not in self._at or at < self._at[key]:
            self.set(key, at)

    def drop(self, key: K) -> None:
        """Remove the key, if it exists."""
        self._at.pop(key, None)

    def due(self, now_at: Instant, *, limit: int) -> list[K]:
        """Remove and return up to `limit` keys that are due, earliest first."""
        taken: list[K] = []
        while len(taken) < limit and (at := self.next_at()) is not None and at <= now_at:
            _, _, key = heapq.heappop(self._heap)
            del self._at[key]
            taken.append(key)
        return taken

    def next_at(self) -> Instant | None:
        """Return the earliest instant, or None without any key."""
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None


Rand = Callable[[float, float], float]
"""Returns a random number between the two (`Random.uniform`)."""

Kind = Literal["mount", "mount_stale", "report", "stop", "remove"]

BACKOFF_FIRST_S = 0.5
BACKOFF_CAP_S = 122.0
"""Source: kubernetes pkg/util/goroutinemap/exponentialbackoff: 500 ms, doubled, to 2 m 2 s."""

TOUCH_S = (0.15, 0.3)
"""Seconds from a pod's change to its volume, measured on a real node."""


@dataclass(frozen=True, slots=True)
class KubeletAction:
    """One action for one pod; the caller reports the result of a mount or a write to the node."""

    kind: Kind
    pod: Pod


@dataclass(frozen=True, slots=True)
class KubeletTiming:
    """The delays of the node.

    Args:
        projection_s: Range of the time from a Secret's change to the file: sync period and cache.
        grace_cap_s: Longest grace period of a deleted pod's containers.
        stale_touches: Share of touches, 0-1, that are served from a cache one version behind.
    """

    projection_s: tuple[float, float] = (60.0, 90.0)
    grace_cap_s: float = 60.0
    stale_touches: float = 0.0


@dataclass(slots=True)
class _State:
    pod: Pod
    mounted: str = ""
    started: bool = False
    stopped: bool = False
    failures: int = 0
    ends_at: Instant | None = None


class Node:
    """The pods of one node, and one timer queue with their actions."""

    def __init__(self, timing: KubeletTiming, rand: Rand) -> None:
        self.timing = timing
        self._rand = rand
        self._pods: dict[str, _State] = {}
        self._users: dict[SecretRef, set[str]] = {}
        self._timers: TimerQueue[tuple[str, Kind]] = TimerQueue()

    def __repr__(self) -> str:
        started = sum(state.started for state in self._pods.values())
        return f"<Node {len(self._pods)} pods, {started} started>"

    def pods(self) -> list[Pod]:
        """Return the pods as last observed, a copy."""
        return [state.pod for state in self._pods.values()]

    def started(self, uid: str) -> bool:
        """Whether the pod's container runs (and was not stopped)."""
        state = self._pods.get(uid)
        return state is not None and state.started and not state.stopped

    def mountable(self, uid: str) -> bool:
        """Whether the pod exists, has not ended, and is not terminating."""
        state = self._pods.get(uid)
        return state is not None and not state.stopped and state.ends_at is None

    def mounted(self, uid: str) -> str:
        """Return the digest of the pod's volume, "" before the first mount."""
        state = self._pods.get(uid)
        return state.mounted if state is not None else ""

    def next_at(self) -> Instant | None:
        return self._timers.next_at()

    def observe_pod(self, pod: Pod, *, now_at: Instant) -> None:
        """Record a new or changed pod."""
        state = self._pods.get(pod.uid)
        if state is None:
            state = self._pods[pod.uid] = _State(pod)
            self._users.setdefault(pod.secret, set()).add(pod.uid)
            touched = not pod.ended
        else:
            touched = state.pod.touch != pod.touch
            state.pod = pod
        if pod.grace_s is not None:
            self._terminate(state, pod.grace_s, now_at)
        elif pod.ended:
            self._end(state, now_at)
        elif touched:
            kind = self._mount_kind(state)
            self._timers.set_earlier((pod.uid, kind), now_at + self._rand(*TOUCH_S))

    def remove_pod(self, uid: str) -> Pod | None:
        """Remove a pod that the API server no longer has; return it if its container still runs."""
        state = self._pods.pop(uid, None)
        if state is None:
            return None
        self._users[state.pod.secret].discard(uid)
        for kind in ("mount", "mount_stale", "report", "stop", "remove"):
            self._timers.drop((uid, kind))
        return state.pod if state.started and not state.stopped else None

    def observe_secret(self, ref: SecretRef, digest: str | None, *, now_at: Instant) -> None:
        """Record a change of a Secret's values (None: the Secret was removed).

        Running pods mount it at their next sync. A pod before its first mount tries again after its
        back-off or at a touch; the Secret does not wake it.
        """
        for uid in self._users.get(ref, ()):
            state = self._pods[uid]
            if state.started and self.mountable(uid) and state.mounted != digest:
                self._timers.set_earlier((uid, "mount"), self._sync_at(now_at))

    def due(self, now_at: Instant, *, limit: int = 1_000_000) -> list[KubeletAction]:
        """Remove and return at most `limit` actions that are due, earliest first."""
        actions: list[KubeletAction] = []
        for uid, kind in self._timers.due(now_at, limit=limit):
            state = self._pods[uid]
            if kind != "stop" or state.started:
                actions.append(KubeletAction(kind, state.pod))
            if kind == "stop":
                state.stopped = True
                if state.pod.grace_s is not None:
                    self._timers.set((uid, "remove"), now_at)
        return actions

    def note_mounted(self, uid: str, digest: str, *, newest: bool, now_at: Instant) -> bool:
        """Record the digest of a pod's volume after a mount.

        Args:
            newest: Whether this is the newest known version; if not, the next sync mounts again.

        Returns: Whether the container starts with this mount.
        """
        if not self.mountable(uid):
            return False
        state = self._pods[uid]
        first = not state.started
        state.mounted, state.started, state.failures = digest, True, 0
        if newest:
            self._timers.drop((uid, "mount"))
        else:
            self._timers.set((uid, "mount"), self._sync_at(now_at))
        if first and state.pod.phase != "Running":
            self._timers.set((uid, "report"), now_at)
        return first

    def note_done(self, uid: str) -> None:
        """Record that a write succeeded; the next failure has the shortest pause."""
        if uid in self._pods and self._pods[uid].started:
            self._pods[uid].failures = 0

    def note_unchanged(self, uid: str, *, now_at: Instant) -> None:
        """Record that a stale sync found no change: the sync period begins again."""
        if self.mountable(uid):
            self._timers.set((uid, "mount"), self._sync_at(now_at))

    def note_failed(self, uid: str, kind: Kind, *, now_at: Instant) -> None:
        """Record that an action failed; it is due again after the back-off."""
        state = self._pods.get(uid)
        if state is None or (kind == "mount" and not self.mountable(uid)):
            return
        delay_s = min(BACKOFF_FIRST_S * 2.0 ** min(state.failures, 16), BACKOFF_CAP_S)
        state.failures += 1
        self._timers.set_earlier((uid, kind), now_at + delay_s)

    def _mount_kind(self, state: _State) -> Kind:
        """Choose at random whether this touch reads a cache that is one version behind."""
        behind = state.started and self._rand(0.0, 1.0) < self.timing.stale_touches
        return "mount_stale" if behind else "mount"

    def _sync_at(self, now_at: Instant) -> Instant:
        return now_at + self._rand(*self.timing.projection_s)

    def _terminate(self, state: _State, grace_s: float, now_at: Instant) -> None:
        """Schedule the end after the grace period; a second deletion may only shorten it.

        The kubelet does not update the volumes of a terminating pod. Source: kubernetes issue
        116481 (open).
        """
        grace = min(grace_s, self.timing.grace_cap_s) if state.started else 0.0
        ends_at = now_at + grace
        if state.ends_at is None or ends_at < state.ends_at:
            state.ends_at = ends_at
            self._end(state, ends_at)

    def _end(self, state: _State, at: Instant) -> None:
        uid = state.pod.uid
        for kind in ("mount", "mount_stale", "report"):
            self._timers.drop((uid, kind))
        if not state.stopped:
            self._timers.set_earlier((uid, "stop"), at)
        elif state.pod.grace_s is not None:
            self._timers.set_earlier((uid, "remove"), at)
