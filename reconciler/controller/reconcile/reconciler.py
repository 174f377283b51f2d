"""One session: read its state, plan, act, and plan again until nothing is due."""

import logging
from contextlib import suppress

import structlog

from reconciler import errors
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.error_policy import needs_fresh_read
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.refresh_plan import Action, Plan, SessionState
from reconciler.controller.reconcile.actions import SessionActions
from reconciler.controller.reconcile.bulkhead_shell import BulkheadFull
from reconciler.controller.reconcile.pod_toucher import PodToucher
from reconciler.controller.reconcile.run import ReconcileRun, names_of, objects_of
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import ProtocolError, RemoteError
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.workqueue.items import Priority, ScheduleRequest, WorkItem

log = structlog.get_logger()

MAX_PASSES = 4
"""Plans in one run: confirm, create, write. A fourth means that the objects change as we work."""


class Reconciler:
    """Brings one session to the state that its plan asks for; knows nothing of the queue."""

    def __init__(
        self,
        *,
        sessions: SessionStateReader,
        actions: SessionActions,
        touches: PodTouches,
        toucher: PodToucher,
        kube_breaker: CircuitBreaker,
        runtime: Runtime,
    ) -> None:
        self._sessions = sessions
        self._actions = actions
        self._touches = touches
        self._toucher = toucher
        self._kube_breaker = kube_breaker
        self._clock = runtime.clock
        self._log_dedup = runtime.log_dedup

    async def reconcile(
        self, key: SessionKey, run: ReconcileRun, slot: BulkheadRun
    ) -> ScheduleRequest | None:
        """Reconcile one session; return when it is due next, None if it is to be forgotten.

        Args:
            run: Takes the outcome and what was done.
            slot: The run's slot in the bulkhead; each request is counted with it.

        Raises:
            errors.Conflict: Something was still due after `MAX_PASSES` actions.
            errors.TransportError: The API server is unreachable.
            Exception: See `SessionActions.execute`.
        Cancel: A write in flight may have been applied.
        """
        await self._toucher.touch_if_due(key, slot)
        for _ in range(MAX_PASSES):
            state, plan = self._sessions.plan(key)
            run.pod = state.pod
            if log.is_enabled_for(logging.DEBUG):  # the fields alone cost 5 us a plan
                self._log_plan(key, plan)
            if plan.action in (Action.WAIT, Action.BLOCKED, Action.REMOVE):
                return self._finish(run, state, plan)
            if plan.action is Action.CONFIRM and plan.due_s > self._sessions.now_s():
                run.outcome, run.awaits_list = "unchanged", True
                return self._requeue(key, plan)
            run.reason = plan.reason
            if self._kube_breaker.is_open:
                last = self._kube_breaker.last_error
                raise errors.TransportError(
                    f"the API server is unreachable, the last error was: {last}"
                )
            until_at = self._actions.paused_until(key, state, plan)
            if until_at is not None:
                run.outcome = "conflict_backoff"
                return ScheduleRequest(
                    until_at,
                    plan.priority,
                    plan.slack_s,
                    plan.reason,
                    first_due_at=run.work.first_due_at,
                )
            await self._actions.execute(run, slot, state, plan)
        raise errors.Conflict(f"{key}: an action was still due after {MAX_PASSES} passes")

    async def check_error(
        self, error: RemoteError, work: WorkItem[SessionKey], slot: BulkheadRun
    ) -> RemoteError:
        """Read the Secret again if an error shows that the store's version is stale.

        Returns: The error that decides on the retry: a conflict instead of a `NotFound` if the plan
            was made from an old state, and the same error otherwise.
        """
        if not needs_fresh_read(error, work.attempt):
            return error
        # If it cannot be read, the retry follows in any case.
        with suppress(RemoteError, ProtocolError, BulkheadFull):
            is_read = await self._actions.refetch(work.key, slot)
            if is_read and isinstance(error, errors.NotFound):
                return errors.Conflict(str(error), status=error.status)
        return error

    def _finish(self, run: ReconcileRun, state: SessionState, plan: Plan) -> ScheduleRequest | None:
        """Record the outcome, log once what blocks, and return the next deadline."""
        key = run.key
        if plan.action is Action.REMOVE:
            run.outcome = "removed"
            self._touches.drop(key)
            self._sessions.records.put(key, None)
            return None
        if plan.action is Action.BLOCKED:
            if self._log_dedup.should_log(plan.reason, *key):
                log.warning(
                    "session_blocked", reason=plan.reason, **names_of(key), **objects_of(state)
                )
            run.outcome, run.reason = "blocked", plan.reason
        else:
            run.outcome = "refreshed" if run.wrote else "unchanged"
        return self._requeue(key, plan)

    def _log_plan(self, key: SessionKey, plan: Plan) -> None:
        log.debug(
            "decided",
            **names_of(key),
            action=plan.action.value,
            reason=plan.reason,
            priority=plan.priority.name.lower(),
            due_in_s=round(plan.due_s - self._sessions.now_s(), 3),
            slack_s=round(plan.slack_s, 3),
        )

    def _requeue(self, key: SessionKey, plan: Plan) -> ScheduleRequest:
        at = self._sessions.at(plan.due_s)
        touch_at = self._touches.next_at(key)
        if touch_at is not None and touch_at < at:
            return ScheduleRequest(touch_at, Priority.EXPIRING, plan.slack_s, "touch")
        return ScheduleRequest(at, plan.priority, plan.slack_s, plan.reason)
