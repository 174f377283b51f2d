"""From changes to queue entries: all work comes through here and is planned once."""

from reconciler.clock import Clock
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.refresh_plan import DUE, Action, Plan, SessionState, dependency_of
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.triggers.startup import StartupProgress
from reconciler.informer.store import Change
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.workqueue.items import Priority, ScheduleRequest, Trigger
from reconciler.workqueue.queue import WorkQueue


class EventHandler:
    """Turns changes of the stores into queue entries; before `open` it ignores the first lists.

    A session that needs nothing now gets its next deadline without a run. On a standby, where no
    worker runs, each change replaces the deadline: it is the leader's next one.
    """

    def __init__(
        self,
        sessions: SessionStateReader,
        queue: WorkQueue[SessionKey],
        touches: PodTouches,
        startup: StartupProgress,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._queue = queue
        self._touches = touches
        self._startup = startup
        self._clock = clock
        self._is_open = False

    def open(self) -> None:
        """Handle changes from now on; the caller must enqueue all keys once, right after."""
        self._is_open = True

    def pod_changed(self, change: Change) -> None:
        self._changed(change, "pod")

    def secret_changed(self, change: Change) -> None:
        new = change.new
        if (
            new is not None
            and self._queue.is_running(new.key)
            and self._sessions.is_unanswered_write(new)
        ):
            self._sessions.records.record_seen(new, now_at=self._clock.monotonic())
            return  # the run that waits for the response plans after it
        self._changed(change, "secret")

    def secret_seen(self, secret: ObjectMeta) -> None:
        """Take note of a Secret in the watch: a touch may have waited for its write to appear."""
        if self._touches.observed(secret, self._clock.monotonic()):
            self._touch_now(secret.key)

    def enqueue(
        self,
        key: SessionKey,
        reason: str,
        *,
        ask_in_s: float = 0.0,
        news: Trigger = Trigger.NONE,
    ) -> Action:
        """Plan a session and queue what follows: a run now, a deadline, or nothing.

        Args:
            ask_in_s: The platform is asked no sooner than after this, as a list is in progress.
            news: What shortens the wait of a session that failed; an event as such does not.
        """
        try:
            state, plan = self._sessions.plan(key)
        except Exception:  # a defect of ours that one session provokes: its run logs it
            now_at = self._clock.monotonic()
            self._queue.add(key, ScheduleRequest(now_at, Priority.ROUTINE, 0.0, reason))
            return Action.BLOCKED
        if plan.action is Action.REMOVE:
            self._touches.drop(key)
            self._sessions.denials.forget(key)
            if self._queue.remove(key):
                self._startup.record_result(key, "unchanged")
            return plan.action
        if not self._sessions.leads:
            self._queue.remove(key)
        is_due = plan.action in DUE
        # A run logs what blocks; at its next deadline that would come minutes later.
        waits, is_asked = plan.action is Action.WAIT, plan.action is Action.CONFIRM
        if waits and self._ensure_touch(state, plan):
            self._touch_now(key)
            return plan.action
        at = now_at = self._clock.monotonic()
        if waits or is_asked:
            at = self._sessions.at(plan.due_s)
        priority = plan.priority
        if is_due and reason == "pod":
            priority = min(priority, Priority.CHANGED)
        request = ScheduleRequest(
            max(at, now_at + ask_in_s) if is_asked else at,
            priority,
            plan.slack_s,
            reason if is_due else plan.reason,
            trigger=news,
            dependency=dependency_of(plan.action),
        )
        self._queue.add(key, request)
        return plan.action

    def _ensure_touch(self, state: SessionState, plan: Plan) -> bool:
        """Record a touch that is pending nowhere: its writer crashed, or did not know the pod."""
        if state.secret is None or not (plan.touch and self._sessions.leads):
            return False
        return self._touches.ensure(state.key, state.secret, self._clock.monotonic())

    def _touch_now(self, key: SessionKey) -> None:
        now_at = self._clock.monotonic()
        self._queue.add(key, ScheduleRequest(now_at, Priority.EXPIRING, 0.0, "touch"))

    def _changed(self, change: Change, kind: str) -> None:
        if not self._is_open:
            return
        both = (change.old, change.new)
        keys = {meta.key: None for meta in both if meta is not None and meta.session_id}
        news = _trigger_of(change, kind)
        for key in keys:
            self.enqueue(key, kind, news=news)


def _trigger_of(change: Change, kind: str) -> Trigger:
    """Return what a change means for a session that failed."""
    if change.new is not None:
        asked = change.new.annotations.requested_at
        before = change.old.annotations.requested_at if change.old is not None else None
        if asked and asked != before:
            return Trigger.REQUESTED
        if change.old is None:
            return Trigger.CHANGED  # a new runner, without a token; its pod changes often
    return Trigger.CHANGED if kind == "secret" else Trigger.NONE
