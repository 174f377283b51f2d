"""From what changed to queue entries: every source of work passes here and is planned once."""

from collections.abc import Collection

from reconciler.clock import Clock
from reconciler.control.plan import DUE, Action
from reconciler.control.planner import Planner
from reconciler.control.touch import Touches
from reconciler.informer.store import Change
from reconciler.kube.api import Meta
from reconciler.names import SessionKey
from reconciler.queue.bands import Band
from reconciler.queue.workqueue import WorkQueue


class Feed:
    """Turns changes of stores into entries; before `open` it lets the first lists pass by.

    A session that needs nothing now gets its next deadline directly, without a worker's run. On a
    follower, where nobody works, each change replaces the deadline: it is the leader's next one.
    """

    def __init__(
        self,
        planner: Planner,
        queue: WorkQueue[SessionKey],
        touches: Touches | None,
        clock: Clock,
    ) -> None:
        self._planner = planner
        self._queue = queue
        self._touches = touches
        self._clock = clock
        self._is_open = False

    def open(self) -> None:
        """Let changes through from now on; the caller considers all keys once, right after."""
        self._is_open = True

    def pod_changed(self, change: Change) -> None:
        self._changed(change, "pod")
        if self._is_open and self._planner.leads and change.old is None and change.new:
            self._touch_if_missed(change.new)

    def secret_changed(self, change: Change) -> None:
        self._changed(change, "secret")

    def secret_seen(self, secret: Meta) -> None:
        """Take note of a Secret in the watch: a write that came back may ask for a touch."""
        now_at = self._clock.monotonic()
        if self._touches is not None and self._touches.seen(secret, now_at):
            self._queue.add(secret.key, reason="touch", at=now_at, band=Band.EXPIRING, slack_s=0.0)

    def consider(self, key: SessionKey, reason: str, *, leave: Collection[Action] = ()) -> Action:
        """Plan a session and queue what follows: a run now, a deadline, or nothing.

        Args:
            leave: Actions that are reported but not queued.
        """
        _, plan = self._planner.plan(key)
        if plan.action in leave:
            return plan.action
        if plan.action is Action.FORGET:
            self._queue.remove(key)
            return plan.action
        if not self._planner.leads:
            self._queue.remove(key)
        is_due = plan.action in DUE
        # What blocks is said by the run; waiting for its next look would keep it quiet for minutes.
        waits = plan.action is Action.WAIT
        self._queue.add(
            key,
            reason=reason if is_due else plan.reason,
            at=self._planner.at(plan.due_s) if waits else self._clock.monotonic(),
            band=min(plan.band, Band.CHANGED) if is_due and reason == "pod" else plan.band,
            slack_s=plan.slack_s,
        )
        return plan.action

    def _touch_if_missed(self, pod: Meta) -> None:
        secret = self._planner.missed_write(pod)
        if secret is not None and self._touches is not None:
            self._touches.want(pod.key, secret, self._clock.monotonic())
            self.secret_seen(secret)

    def _changed(self, change: Change, kind: str) -> None:
        if not self._is_open:
            return
        both = (change.old, change.new)
        keys = {meta.key: None for meta in both if meta is not None and meta.session_id}
        for key in keys:
            self.consider(key, kind)
