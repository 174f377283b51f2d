"""The workers: each takes keys from the queue, has them reconciled, and decides on retries."""

import math
from collections.abc import Sequence

import structlog

from reconciler import backoff, errors
from reconciler.clock import Instant
from reconciler.controller.decide import write_errors
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.refresh_plan import Action, Plan, dependency_of
from reconciler.controller.decide.write_errors import RetryDecision
from reconciler.controller.reconcile.bulkhead_shell import BulkheadFull, BulkheadShell
from reconciler.controller.reconcile.denied_retries import DeniedRetries
from reconciler.controller.reconcile.reconciler import (
    NoBetterTokenError,
    NoProgressError,
    Reconciler,
)
from reconciler.controller.reconcile.run import (
    Observer,
    ReconcileRun,
    ReconcileStats,
    names_of,
    objects_of,
)
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import NotLeaderError, ProtocolError, RemoteError
from reconciler.naming import SessionKey
from reconciler.workqueue.items import NotBefore, Priority, ScheduleRequest, WorkItem
from reconciler.workqueue.queue import QueueClosed, WorkQueue

log = structlog.get_logger()

PARKED_S = 60.0
"""A key that waits for room is called when there is some. In case that call is lost, it also runs
after this long."""

PARKED_PER_S = 20.0
"""Most such runs in a second: a hundred thousand keys that wait would cost a core each minute."""

MAX_PARKED_S = 200.0
"""Longest such wait, on average: with its jitter it is that between two plans, `REPLAN_S`."""

NOT_LEADER_S = 1.0
"""A closed fence of a leader opens with the next renewal of the Lease, some 2 s apart."""

ROUTINE = (backoff.CONFLICT, backoff.STARTING)
"""What heals by planning again, or without any action within seconds."""


class Workers:
    """Runs sessions from the queue until it closes."""

    def __init__(
        self,
        *,
        queue: WorkQueue[SessionKey],
        reconciler: Reconciler,
        sessions: SessionStateReader,
        denied_retries: DeniedRetries,
        bulkhead: BulkheadShell,
        observers: Sequence[Observer],
        stats: ReconcileStats,
        runtime: Runtime,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._sessions = sessions
        self._denied_retries = denied_retries
        self._bulkhead = bulkhead
        self._observers = observers
        self._stats = stats
        self._clock = runtime.clock
        self._random = runtime.random
        self._log_dedup = runtime.log_dedup
        self._tracer = runtime.tracer

    async def run(self) -> None:
        """Work until the queue closes; `BulkheadShell.runs_at_most` of these run at one time.

        Cancel: a write in flight may have been applied; its session comes again to the next leader.
        """
        while True:
            slot = await self._bulkhead.begin()
            try:
                await self._work(slot)
                while self._bulkhead.keep(slot):
                    await self._work(slot)
            except QueueClosed:
                return
            finally:
                self._bulkhead.end(slot)

    async def _work(self, slot: BulkheadRun) -> None:
        work = await self._queue.get()
        self._bulkhead.record_started(work.key)
        following: ScheduleRequest | None = None
        trace = self._tracer.begin("reconcile", queued_at=work.ready_at, reasons=work.reasons)
        run = ReconcileRun(work, trace, self._sessions.term_began_at)
        try:
            with run.trace:
                following = await self._attempt(run, slot)
        finally:
            if run.outcome != "bulkhead_full":
                self._bulkhead.record_finished(work.key)
            self._queue.done(work.key, next=following)
            self._notify(run)

    def _notify(self, run: ReconcileRun) -> None:
        """Show a run to the observers; a defect in one of them must not stop the refreshes."""
        run.trace.p95_s = self._sessions.run_times.p95_s
        run.trace.failed = run.outcome == "failed"
        for observe in self._observers:
            try:
                observe(run)
            except Exception:
                self._stats.reconcile_panics_total += 1
                if self._log_dedup.should_log("observer_failed"):
                    log.exception("observer_failed", **names_of(run.key))
        # Nothing of a run may point to itself: such garbage is collected late, in stalls.
        run.error = None
        run.trace.release()

    async def _attempt(self, run: ReconcileRun, slot: BulkheadRun) -> ScheduleRequest | None:
        """Reconcile once; return when the session is due next, after every kind of error."""
        work, started_at = run.work, self._clock.monotonic()
        try:
            following = await self._reconciler.reconcile(work.key, run, slot)
        except BulkheadFull as full:
            return self._parked(run, full.target)
        except NoBetterTokenError:
            run.outcome = "no_better_token"
            decision = RetryDecision(backoff.TRANSIENT, write_errors.ISSUER)
            return self._retry(work, decision, self._queue.record_failure(work.key))
        except NoProgressError as error:
            return self._without_effect(run, error.wait_s)
        except NotLeaderError:
            run.outcome = "not_leader"
            _, plan = self._sessions.plan(work.key)
            return self._in_about(NOT_LEADER_S, plan, work)
        except RemoteError as error:
            return self._failed(run, await self._reconciler.check_error(error, work, slot))
        except ProtocolError as error:
            return self._failed(run, errors.ServerError(str(error)))
        except Exception as error:
            # A defect of ours that one session provokes must not stop the others' refreshes.
            log.exception("reconcile_crashed", **names_of(work.key))
            return self._crashed(run, error, started_at)
        self._queue.forget(work.key)
        self._end_denial(run)
        self._sessions.run_times.add(self._clock.monotonic() - started_at)
        return following

    def _end_denial(self, run: ReconcileRun) -> None:
        """Have others tried if a write is accepted that was denied before."""
        if run.accepted:
            self._denied_retries.accepted(run.key, is_touch=False)
        elif run.outcome == "removed":
            self._sessions.denials.forget(run.key)
        else:
            self._sessions.denials.forget_write(run.key)

    def _crashed(self, run: ReconcileRun, error: Exception, started_at: Instant) -> ScheduleRequest:
        work = run.work
        self._stats.reconcile_panics_total += 1
        run.outcome, run.error = "failed", error
        wait_s = backoff.MISCONFIGURED.delay_s(
            self._queue.record_failure(work.key),
            fraction_of_life_s=None,
            rand=self._random.random(),
        )
        # Not planned again: that may be what crashed.
        not_before = NotBefore(started_at, started_at + wait_s, dependency_of(Action.WRITE))
        return ScheduleRequest(
            not_before.retry_at,
            Priority.ROUTINE,
            0.0,
            "crashed",
            not_before=not_before,
            first_due_at=work.first_due_at,
        )

    def _without_effect(self, run: ReconcileRun, again_s: float) -> ScheduleRequest:
        """Log once that a write changes nothing; wait for news, or for a token worth writing."""
        key, now_at = run.key, self._clock.monotonic()
        state, plan = self._sessions.plan(key)
        run.outcome = "refreshed" if run.wrote else "no_better_token"
        # Two scheduled refreshes may come this close if the first was late.
        if plan.reason != "scheduled" and self._log_dedup.should_log("write_without_effect", *key):
            log.warning(
                "write_without_effect", **names_of(key), **objects_of(state), reason=plan.reason
            )
        pause_s = backoff.MISCONFIGURED.delay_s(
            self._queue.record_failure(key),
            fraction_of_life_s=again_s,
            rand=self._random.random(),
        )
        not_before = NotBefore(now_at, now_at + pause_s, dependency_of(plan.action))
        return ScheduleRequest(
            not_before.retry_at, plan.priority, plan.slack_s, plan.reason, not_before=not_before
        )

    def _failed(self, run: ReconcileRun, error: RemoteError) -> ScheduleRequest:
        work, name = run.work, type(error).__name__
        self._stats.failures[name] = self._stats.failures.get(name, 0) + 1
        failures = self._queue.record_failure(work.key)
        decision = write_errors.classify(error, failures)
        run.outcome, run.error, run.failures = "failed", error, failures
        run.blocked_on, run.routine = decision.blocked_on, decision.policy in ROUTINE
        self._report(work.key, error, decision, failures)
        denied = 0
        if decision.policy is backoff.DENIED:
            denied = self._record_denied(work.key, error, decision)
        else:  # an accepted write of another session must not shorten this wait
            self._sessions.denials.forget_write(work.key)
        return self._retry(
            work, decision, failures, retry_after_s=error.retry_after_s, denied=denied
        )

    def _record_denied(self, key: SessionKey, error: RemoteError, decision: RetryDecision) -> int:
        """Return by how many sessions the tries of a denied write are shared."""
        denials = self._sessions.denials
        if decision.blocked_on == write_errors.PERMISSIONS:
            return denials.record_forbidden(key)
        denied_by = error.denied_by if isinstance(error, errors.KubeError) else ""
        return denials.record_denied(key, denied_by)

    def _report(
        self, key: SessionKey, error: RemoteError, decision: RetryDecision, failures: int
    ) -> None:
        """Log a failure once for what it is about: a namespace, a Secret, or an endpoint.

        An endpoint that refuses us has its own log line, which names no session.
        """
        if isinstance(error, errors.IssuerRefused | errors.PlatformRefused):
            return
        if decision.event == "write_forbidden":
            self._stats.last_forbidden = str(error)
        if decision.event in ("write_forbidden", "quota_exceeded"):
            is_new = self._log_dedup.should_log(decision.event, key.namespace)
        elif decision.event:
            is_new = self._log_dedup.should_log(decision.event, *key)
        else:
            is_new = self._log_dedup.should_log(
                type(error).__name__, decision.blocked_on or decision.policy.name
            )
        if is_new:
            log.warning(
                decision.event or "refresh_failed",
                **names_of(key),
                error=str(error),
                attempt=failures,
            )

    def _parked(self, run: ReconcileRun, target: str) -> ScheduleRequest:
        """Park a key until there is room for its request."""
        run.outcome = "bulkhead_full"
        _, plan = self._sessions.plan(run.key)
        self._bulkhead.park(target, run.key, plan)
        wait_s = min(MAX_PARKED_S, max(PARKED_S, self._bulkhead.waiting / PARKED_PER_S))
        return self._in_about(wait_s, plan, run.work)

    def _in_about(self, wait_s: float, plan: Plan, work: WorkItem[SessionKey]) -> ScheduleRequest:
        at = self._clock.monotonic() + self._random.uniform(0.5, 1.5) * wait_s
        return ScheduleRequest(
            at, plan.priority, plan.slack_s, plan.reason, first_due_at=work.first_due_at
        )

    def _retry(
        self,
        work: WorkItem[SessionKey],
        decision: RetryDecision,
        failures: int,
        *,
        retry_after_s: float | None = None,
        denied: int = 0,
    ) -> ScheduleRequest:
        """Return the time of the retry: never later than a fraction of the remaining life.

        Args:
            denied: By how many sessions the tries are shared; 0 for another failure.
        """
        state, plan = self._sessions.plan(work.key)
        now_s, rand = self._sessions.now_s(), self._random.random()
        left_s = plan.readable_until_s - now_s
        if denied:
            wait_s = write_errors.denied_wait_s(
                failures,
                denied,
                slack_s=plan.slack_s,
                left_s=left_s,
                rand=rand,
                pod_age_s=math.inf if state.pod is None else now_s - state.pod.created_s,
            )
        else:
            wait_s = decision.policy.delay_s(
                failures,
                fraction_of_life_s=write_errors.max_wait_s(decision.policy, plan.slack_s, left_s),
                rand=rand,
                retry_after_s=retry_after_s,
            )
        now_at = self._clock.monotonic()
        not_before = NotBefore(now_at, now_at + wait_s, dependency_of(plan.action))
        at = not_before.retry_at
        is_sign = plan.action is Action.SIGN  # the token's deadline does not change
        if is_sign:
            at = min(at, self._sessions.at(plan.due_s))
        return ScheduleRequest(
            at,
            plan.priority,
            plan.slack_s,
            plan.reason,
            decision.blocked_on,
            not_before,
            first_due_at=None if is_sign else work.first_due_at,
        )
