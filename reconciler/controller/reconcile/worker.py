"""One session at a time: plan, carry out, plan again; failures get their class and their time."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Protocol

import structlog

from reconciler import backoff, errors
from reconciler.clock import Clock, format_utc, format_utc_millis
from reconciler.controller.decide import retry_policy
from reconciler.controller.decide.annotations import requests
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.ownership import Owner
from reconciler.controller.decide.plan import Action, Plan, SessionState, dependency_of
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.progress import (
    Evidence,
    TokenLife,
    Undone,
    WriteRecord,
    undone,
    wait_s,
)
from reconciler.controller.decide.retry_policy import RetryDecision
from reconciler.controller.decide.write_conflicts import ISOLATED, WriteConflicts
from reconciler.controller.reconcile import token_choice
from reconciler.controller.reconcile.bulkhead_shell import (
    ISSUER,
    PLATFORM,
    BulkheadFull,
    BulkheadShell,
)
from reconciler.controller.reconcile.pod_toucher import PodToucher
from reconciler.controller.reconcile.run import Observer, ReconcileRun
from reconciler.controller.reconcile.secret_writer import SecretWriter, Written
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import NotLeaderError, ProtocolError, RemoteError
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.telemetry.log_dedup import LogDedup
from reconciler.telemetry.trace import Tracer, span
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token
from reconciler.workqueue.items import NotBefore, Priority, Requeue, WorkItem
from reconciler.workqueue.queue import QueueClosed, WorkQueue

log = structlog.get_logger()

MAX_PASSES = 4
"""Plans in one run: confirm, create, write; a fourth means that the world moves under us."""

PARKED_S = 60.0
"""A key that waits for room in a place is called when there is some; it looks by itself as seldom
as this, lest a call be lost."""

STALE_CONFLICTS = 3
"""Failures in a row, a conflict the last, after which the Secret is read again: the watch should
have brought its version seconds ago."""

NOT_LEADER_S = 1.0
"""A fence that is shut and ours opens with the next renewal of the Lease, some 2 s apart."""

ROUTINE = (backoff.CONFLICT, backoff.STARTING)
"""What heals by planning again, or by itself within seconds."""


class SessionConfirmer(Protocol):
    """Asks the platform about one session and tells the directory."""

    async def __call__(self, key: SessionKey, view: SessionState) -> None:
        """Ask; a session that was once confirmed goes on by that word if no answer comes."""
        ...

    def skip(self, key: SessionKey, view: SessionState) -> bool:
        """Go on without asking; False if the session was never confirmed."""
        ...

    def revoked(self, key: SessionKey) -> None:
        """Note that the proof of a former confirmation is off the session's Secret."""
        ...

    def resealed(self, key: SessionKey) -> None:
        """Note that the proof of a confirmation was made again."""
        ...


Settled = Callable[[SessionKey, str], None]
"""Called with the outcome of each run: `refreshed`, `unchanged`, `failed` or `blocked`."""


class NoBetterTokenError(Exception):
    """Every token at hand ends no later than the one that is there."""


class NoProgressError(Exception):
    """The same write was made already, and nothing has changed since; it will in `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


@dataclass(slots=True)
class ReconcileStats:
    """Counts since start; `refreshes` by reason, `failures` by error class."""

    refreshes: dict[str, int]
    failures: dict[str, int]
    pod_touches_total: int = 0
    created_total: int = 0
    reconcile_panics_total: int = 0
    last_forbidden: str = ""
    """The last write or read for a session that the API server answered 403 for want of a right."""


class Reconciler:
    """Takes sessions from the queue until it closes.

    Args:
        workers: Runs that go side by side, but for those that wait for a slow request.
        platform_parallel: Look-ups that wait for the platform at one time.
    """

    def __init__(
        self,
        *,
        planner: SessionStateReader,
        queue: WorkQueue[SessionKey],
        writer: SecretWriter,
        source: TokenSource,
        lookup: SessionConfirmer,
        touches: PodTouches | None,
        workers: int,
        platform_parallel: int,
        kube_breaker: CircuitBreaker,
        clock: Clock,
        random: Random,
        once: LogDedup,
        settled: Settled,
        tracer: Tracer,
        witnesses: Sequence[Observer] = (),
    ) -> None:
        self._planner = planner
        self._queue = queue
        self._writer = writer
        self._source = source
        self._lookup = lookup
        self._touches = touches
        self._places = BulkheadShell(
            queue, clock, once, workers=workers, most={PLATFORM: platform_parallel}
        )
        self.runs_at_most = self._places.runs_at_most
        self.slow_places = self._places.slow
        """How many `run` go side by side: most of them wait for a free worker."""
        self._toucher = (
            None
            if touches is None
            else PodToucher(
                touches,
                planner=planner,
                writer=writer,
                clock=clock,
                random=random,
                once=once,
                places=self._places,
            )
        )
        self._kube_breaker = kube_breaker
        self._clock = clock
        self._random = random
        self._once = once
        self._settled = settled
        self._tracer = tracer
        self._witnesses = witnesses
        self._fights = WriteConflicts()
        self.stats = ReconcileStats({}, {})

    async def run(self) -> None:
        """Work until the queue closes.

        Cancel: a write in flight may have been applied; its session comes again to whoever leads.
        """
        while True:
            run = await self._places.begin()
            try:
                await self._work(run)
            except QueueClosed:
                return
            finally:
                self._places.end(run)

    async def _work(self, run: BulkheadRun) -> None:
        work = await self._queue.get()
        self._places.taken(work.key)
        following: Requeue | None = None
        trace = self._tracer.begin("reconcile", queued_at=work.ready_at)
        attempt = ReconcileRun(work, trace, self._planner.term_began_at)
        try:
            with attempt.trace:
                following = await self._attempt(attempt, run)
        finally:
            if attempt.outcome != "bulkhead_full":
                self._places.served(work.key)
            self._queue.done(work.key, next=following)
            self._notify(attempt)

    def _notify(self, attempt: ReconcileRun) -> None:
        """Tell of a run; whoever fails to listen must not take the tokens along."""
        attempt.trace.p95_s = self._planner.run_times.p95_s
        attempt.trace.failed = attempt.outcome == "failed"
        for witness in self._witnesses:
            try:
                witness(attempt)
            except Exception:
                self.stats.reconcile_panics_total += 1
                if self._once.should_log("observer_failed"):
                    log.exception("observer_failed", **_named(attempt.key))
        # Nothing of a run may point to itself: such garbage is collected late, in stalls.
        attempt.error = None
        attempt.trace.release()

    async def _attempt(self, attempt: ReconcileRun, run: BulkheadRun) -> Requeue | None:
        """Run once; whatever happens, return when the session is due next."""
        work, started_at = attempt.work, self._clock.monotonic()
        try:
            following = await self._reconcile(attempt, run)
        except BulkheadFull as full:
            return self._parked(attempt, full.place)
        except NoBetterTokenError:
            attempt.outcome = "no_better_token"
            self._settled(work.key, "unchanged")
            verdict = RetryDecision(backoff.TRANSIENT, retry_policy.ISSUER)
            return self._later(work, verdict, self._queue.record_failure(work.key))
        except NoProgressError as error:
            return self._without_effect(attempt, error.wait_s)
        except NotLeaderError:
            attempt.outcome = "not_leader"
            _, plan = self._planner.plan(work.key)
            return self._in_about(NOT_LEADER_S, plan, work)
        except RemoteError as error:
            return self._failed(attempt, await self._checked(error, work, run))
        except ProtocolError as error:
            return self._failed(attempt, errors.ServerError(str(error)))
        except Exception as error:
            # A defect of ours that one session provokes must not take the others' tokens along.
            self.stats.reconcile_panics_total += 1
            log.exception("reconcile_crashed", **_named(work.key))
            attempt.outcome, attempt.error = "failed", error
            self._settled(work.key, "failed")
            wait_s = backoff.MISCONFIGURED.delay_s(
                self._queue.record_failure(work.key),
                fraction_of_life_s=None,
                draw=self._random.random(),
            )
            # Not planned again: that may be what crashed.
            hold = NotBefore(started_at, started_at + wait_s, dependency_of(Action.WRITE))
            return Requeue(
                hold.retry_at,
                Priority.ROUTINE,
                0.0,
                "crashed",
                not_before=hold,
                first_due_at=work.first_due_at,
            )
        self._queue.forget(work.key)
        self._planner.run_times.add(self._clock.monotonic() - started_at)
        return following

    async def _checked(
        self, error: RemoteError, work: WorkItem[SessionKey], run: BulkheadRun
    ) -> RemoteError:
        """Read the Secret again where an error says that it is not what the store holds.

        Returns: The error to go by: one about an object that is known to be gone, or another, only
            means that the plan was of yesterday.
        """
        is_gone = isinstance(error, errors.NotFound)
        is_stale = isinstance(error, errors.Conflict) or retry_policy.is_replaced(error)
        if not is_gone and not (is_stale and work.attempt >= STALE_CONFLICTS):
            return error
        # Whatever keeps it from being read, the error's own retry follows anyway.
        with (
            suppress(RemoteError, ProtocolError, BulkheadFull),
            self._places.at(work.key.namespace, run),
        ):
            if await self._writer.refetch(work.key) and is_gone:
                return errors.Conflict(str(error), status=error.status)
        return error

    async def _reconcile(self, attempt: ReconcileRun, run: BulkheadRun) -> Requeue | None:
        key = attempt.key
        if self._toucher is not None:
            await self._toucher.touch_if_due(key, run)
            self.stats.pod_touches_total = self._toucher.touched_total
        for _ in range(MAX_PASSES):
            view, plan = self._planner.plan(key)
            attempt.pod = view.pod
            log.debug(
                "decided",
                **_named(key),
                action=plan.action.value,
                reason=plan.reason,
                band=plan.priority.name.lower(),
                due_in_s=round(plan.due_s - self._planner.now_s(), 3),
                slack_s=round(plan.slack_s, 3),
            )
            if plan.action in (Action.WAIT, Action.BLOCKED, Action.REMOVE):
                return self._finish(attempt, view, plan)
            if plan.action is Action.CONFIRM and plan.due_s > self._planner.now_s():
                attempt.outcome = "unchanged"  # a list is under way that may confirm it
                return self._deadline(key, plan)
            attempt.reason = plan.reason
            if self._kube_breaker.is_open:
                raise errors.TransportError("the API server is away")
            if plan.action is Action.REVOKE or self._undone(view, plan):
                until_at = self._fights.paused_until(key, self._clock.monotonic())
                if until_at is not None:
                    attempt.outcome = "conflict_backoff"
                    since_at = attempt.work.first_due_at
                    return Requeue(
                        until_at, plan.priority, plan.slack_s, plan.reason, first_due_at=since_at
                    )
            await self._execute(attempt, run, view, plan)
        raise errors.Conflict(f"{key}: still not settled after {MAX_PASSES} rounds")

    async def _execute(
        self, attempt: ReconcileRun, run: BulkheadRun, view: SessionState, plan: Plan
    ) -> None:
        if plan.action is Action.CONFIRM:
            await self._confirm(attempt.key, run, view)
            return
        # Before a token is asked for: a key that finds its namespace full has no use for one.
        self._places.check(attempt.key.namespace, run)
        match plan.action:
            case Action.CREATE:
                await self._create(attempt, run, view, plan)
            case Action.REVOKE:
                await self._revoke(attempt.key, run, view)
            case Action.SEAL:
                await self._seal(attempt.key, run, view)
            case _:
                await self._write(attempt, run, view, plan)

    async def _confirm(self, key: SessionKey, run: BulkheadRun, view: SessionState) -> None:
        try:
            with self._places.at(PLATFORM, run), span("lookup", str(key)):
                await self._lookup(key, view)
        except BulkheadFull:
            if not self._lookup.skip(key, view):
                raise

    def _finish(self, attempt: ReconcileRun, view: SessionState, plan: Plan) -> Requeue | None:
        """Say what blocks, once, and return the next deadline."""
        key = attempt.key
        if plan.action is Action.REMOVE:
            attempt.outcome = "removed"
            if self._touches is not None:
                self._touches.drop(key)
            self._planner.records.put(key, None)
            self._settled(key, "unchanged")
            return None
        if plan.action is Action.BLOCKED:
            if self._once.should_log(plan.reason, *key):
                log.warning("session_blocked", why=plan.reason, **_named(key), **_subject(view))
            attempt.outcome, attempt.reason = "blocked", plan.reason
            self._settled(key, "blocked")
        else:
            attempt.outcome = "refreshed" if attempt.wrote else "unchanged"
            self._settled(key, attempt.outcome)
        return self._deadline(key, plan)

    def _deadline(self, key: SessionKey, plan: Plan) -> Requeue:
        at = self._planner.at(plan.due_s)
        touch_at = self._touches.next_at(key) if self._touches is not None else None
        if touch_at is not None and touch_at < at:
            return Requeue(touch_at, Priority.EXPIRING, plan.slack_s, "touch")
        return Requeue(at, plan.priority, plan.slack_s, plan.reason)

    async def _write(
        self, attempt: ReconcileRun, run: BulkheadRun, view: SessionState, plan: Plan
    ) -> None:
        secret, facts = view.secret, plan.facts
        assert secret is not None and facts is not None  # noqa: S101, PT018 - WRITE is planned so
        token = await self._obtain(plan, run)
        standing = requests(self._planner.names, secret, view.pod)
        if token is None and not plan.requests:
            raise NoBetterTokenError
        evidence, names = self._evidence(plan.requests), self._planner.names
        life = None
        if token is not None:
            life = TokenLife(token.expires_s, token.remaining_s(self._clock.monotonic()))
        again_s = wait_s(view.record, secret, facts.owner, evidence, names, life=life)
        if again_s > 0:
            raise NoProgressError(again_s)
        now_s = self._planner.now_s()
        record = self._record(secret, token, plan, now_s, self._evidence(standing))
        with (
            self._places.at(attempt.key.namespace, run),
            span("patch", secret.name),
            self._sent(attempt.key, record),
        ):
            written = await self._writer.refresh(
                secret, token, now_s=now_s, honoured=standing, held_until_s=plan.readable_until_s
            )
        self._answered(attempt.key, written.secret)
        attempt.wrote = True
        if token is None:
            return
        attempt.before = facts
        if found := self._undone(view, plan):
            self._overwritten(attempt, plan, found)
        self._refreshed(attempt, written, token.expires_s, plan, now_s)

    async def _seal(self, key: SessionKey, run: BulkheadRun, view: SessionState) -> None:
        assert view.secret is not None  # noqa: S101 - SEAL is planned for a Secret that is there
        await self._write_seal(key, run, view.secret, view.record)
        self._lookup.resealed(key)

    async def _write_seal(
        self, key: SessionKey, run: BulkheadRun, secret: ObjectMeta, record: WriteRecord | None
    ) -> None:
        """Write the proof alone; what is remembered of the last write goes on with its answer."""
        now_s = self._planner.now_s()
        sent_at = self._clock.monotonic()
        with self._places.at(key.namespace, run), span("patch", secret.name):
            written = await self._writer.seal(secret, now_s=now_s)
        if record is not None and record.uid == secret.uid:
            self._planner.records.put(key, replace(record, written_at=sent_at).after(record))
            self._answered(key, written.secret)

    def _evidence(self, asked: Sequence[str]) -> Evidence:
        # Of the token just obtained: a policy may be a moment older.
        source, term = self._source, self._planner.context().term
        return Evidence(term, source.generation, frozenset(asked), source.rotated_s)

    def _record(
        self, secret: ObjectMeta, token: Token | None, plan: Plan, now_s: float, evidence: Evidence
    ) -> WriteRecord:
        """Return what is remembered of a write that is about to be sent."""
        now_at, facts = self._clock.monotonic(), plan.facts
        sent: tuple[str | None, ...] = (format_utc_millis(now_s), evidence.term)
        if token is not None:
            expires_s, remaining_s = token.expires_s, token.remaining_s(now_at)
        else:
            ends_s = facts.expires_s if facts is not None else None
            expires_s = math.inf if ends_s is None else ends_s
            remaining_s = expires_s - now_s
            sent = ()  # unanswered, it shows in nothing: what it honours would be asked for again
        return WriteRecord(secret.uid, sent, evidence, expires_s, remaining_s, now_at)

    @contextmanager
    def _sent(self, key: SessionKey, record: WriteRecord) -> Iterator[None]:
        """Remember a write as it is sent; what was surely not applied is none."""
        records = self._planner.records
        before = records.of(key)
        records.put(key, record.after(before))
        try:
            yield
        except errors.KubeError as error:
            if 400 <= error.status < 500:
                records.put(key, before)
            raise
        except NotLeaderError:
            records.put(key, before)
            raise

    def _answered(self, key: SessionKey, secret: ObjectMeta) -> None:
        """Remember what the answer to a write shows."""
        records = self._planner.records
        if (record := records.of(key)) is not None:  # else the term has ended
            now_at = self._clock.monotonic()
            records.put(key, record.record_response(secret, self._planner.names, now_at=now_at))

    def _undone(self, view: SessionState, plan: Plan) -> Undone:
        """Return what another took back of our last write, and this plan would make again."""
        facts, names = plan.facts, self._planner.names
        if plan.action is Action.CREATE:
            return undone(view.record, None, Owner.UNOWNED, names)
        if plan.action is not Action.WRITE or facts is None or (facts.ours and not facts.problem):
            return ""
        found = undone(view.record, view.secret, facts.owner, names)
        return found or ("token" if _is_overwritten(plan) else "")

    async def _revoke(self, key: SessionKey, run: BulkheadRun, view: SessionState) -> None:
        assert view.secret is not None  # noqa: S101 - REVOKE is planned for a Secret that is there
        with self._places.at(key.namespace, run), span("patch", view.secret.name):
            await self._writer.revoke(view.secret)
        # Who puts the proof back each time is answered ever more slowly.
        self._fights.overwritten(key, self._clock.monotonic(), draw=self._random.random())
        self._lookup.revoked(key)

    async def _create(
        self, attempt: ReconcileRun, run: BulkheadRun, view: SessionState, plan: Plan
    ) -> None:
        key, pod = attempt.key, view.pod
        assert pod is not None  # noqa: S101 - CREATE is planned for a pod that is there
        name = self._planner.names.secret_name(key.session_id)
        with self._places.at(key.namespace, run), span("read_again", name):
            is_stale = await self._writer.refetch(key) or await self._writer.refetch_pod(pod)
        if is_stale:
            return
        token = await self._obtain(plan, run)
        if token is None:
            raise NoBetterTokenError
        now_s = self._planner.now_s()
        with self._places.at(key.namespace, run), span("create", name):
            made = await self._writer.create(key, pod, token, now_s=now_s)
        record = self._record(made.secret, token, plan, now_s, self._evidence(()))
        self._planner.records.put(key, record.after(None))
        self._answered(key, made.secret)
        attempt.wrote = attempt.created = True
        self.stats.created_total += 1
        if found_undone := self._undone(view, plan):
            self._overwritten(attempt, plan, found_undone)
        log.warning("secret_recreated", **_named(key), secret=made.secret.name, pod=pod.name)
        self._refreshed(attempt, made, token.expires_s, plan, now_s)
        # Last: where it fails, the token is there, remembered, said and to be touched for.
        await self._write_seal(key, run, made.secret, self._planner.records.of(key))

    async def _obtain(self, plan: Plan, run: BulkheadRun) -> Token | None:
        began_at = self._planner.term_began_at
        with span("mint"):
            # Who needs no answer of the issuer does not wait behind those who do.
            if (token := token_choice.best_available(self._source, plan)) is not None:
                return token
            with self._places.at(ISSUER, run):
                return await token_choice.choose(self._source, plan, term_began_at=began_at)

    def _refreshed(
        self, attempt: ReconcileRun, written: Written, expires_s: float, plan: Plan, now_s: float
    ) -> None:
        secret, now_at = written.secret, self._clock.monotonic()
        key, attempt.written_s = attempt.key, now_s
        attempt.touched = plan.touch and self._touches is not None
        if plan.touch and self._touches is not None:
            self._touches.request(key, secret, now_at)
            if written.already_observed:
                self._touches.observed(secret, now_at)
        self.stats.refreshes[plan.reason] = self.stats.refreshes.get(plan.reason, 0) + 1
        log.info(
            "runner_token_refreshed",
            namespace=key.namespace,
            secret=secret.name,
            session_id=key.session_id,
            expires_at=format_utc(expires_s) if expires_s != float("inf") else None,
            reason=plan.reason,
            late_s=round(max(0.0, now_at - attempt.due_at), 3),
        )

    def _overwritten(self, attempt: ReconcileRun, plan: Plan, what: Undone) -> None:
        """Note that a write of ours had been undone; say who does it again and again."""
        key, now_at = attempt.key, self._clock.monotonic()
        writer = plan.facts.writer if what == "token" and plan.facts is not None else ""
        count = self._fights.overwritten(key, now_at, draw=self._random.random())
        if what != "secret" or count > ISOLATED:
            attempt.overwrites, attempt.writer, attempt.undone = count, writer, what
        if count > ISOLATED and self._once.should_log("competing_writer", *key):
            log.warning(
                "competing_writer",
                **_named(key),
                writer=writer or "unknown",
                what=what,
                overwrites=count,
            )

    def _without_effect(self, attempt: ReconcileRun, again_s: float) -> Requeue:
        """Say once that a write changes nothing; wait for news, or for a token worth writing."""
        key, now_at = attempt.key, self._clock.monotonic()
        view, plan = self._planner.plan(key)
        attempt.outcome = "refreshed" if attempt.wrote else "no_better_token"
        self._settled(key, "refreshed" if attempt.wrote else "unchanged")
        # Two renewals in a row may come this close where the first was late.
        if plan.reason != "renewal" and self._once.should_log("write_without_effect", *key):
            log.warning("write_without_effect", **_named(key), **_subject(view), reason=plan.reason)
        pause_s = backoff.MISCONFIGURED.delay_s(
            self._queue.record_failure(key),
            fraction_of_life_s=again_s,
            draw=self._random.random(),
        )
        hold = NotBefore(now_at, now_at + pause_s, dependency_of(plan.action))
        return Requeue(hold.retry_at, plan.priority, plan.slack_s, plan.reason, not_before=hold)

    def _failed(self, attempt: ReconcileRun, error: RemoteError) -> Requeue:
        work, name = attempt.work, type(error).__name__
        self.stats.failures[name] = self.stats.failures.get(name, 0) + 1
        failures = self._queue.record_failure(work.key)
        verdict = retry_policy.classify(error, failures)
        attempt.outcome, attempt.error, attempt.failures = "failed", error, failures
        attempt.shared, attempt.routine = verdict.blocked_on, verdict.policy in ROUTINE
        self._report(work.key, error, verdict, failures)
        self._settled(work.key, "failed")
        return self._later(work, verdict, failures, retry_after_s=error.retry_after_s)

    def _report(
        self, key: SessionKey, error: RemoteError, verdict: RetryDecision, attempt: int
    ) -> None:
        """Log a failure once for what it is about: a namespace, a Secret, or an endpoint.

        That an endpoint refuses us has a line of its own, and names no session that met it.
        """
        if isinstance(error, errors.IssuerRefused | errors.PlatformRefused):
            return
        if verdict.event == "write_forbidden":
            self.stats.last_forbidden = str(error)
        if verdict.event in ("write_forbidden", "quota_exceeded"):
            said = self._once.should_log(verdict.event, key.namespace)
        elif verdict.event:
            said = self._once.should_log(verdict.event, *key)
        else:
            said = self._once.should_log(
                type(error).__name__, verdict.blocked_on or verdict.policy.name
            )
        if said:
            log.warning(
                verdict.event or "refresh_failed", **_named(key), error=str(error), attempt=attempt
            )

    def _parked(self, attempt: ReconcileRun, place: str) -> Requeue:
        """Have a key wait until it is called: as many requests are under way where it would ask."""
        attempt.outcome = "bulkhead_full"
        _, plan = self._planner.plan(attempt.key)
        self._places.park(place, attempt.key, plan)
        return self._in_about(PARKED_S, plan, attempt.work)

    def _in_about(self, wait_s: float, plan: Plan, work: WorkItem[SessionKey]) -> Requeue:
        at = self._clock.monotonic() + self._random.uniform(0.5, 1.5) * wait_s
        return Requeue(at, plan.priority, plan.slack_s, plan.reason, first_due_at=work.first_due_at)

    def _later(
        self,
        work: WorkItem[SessionKey],
        verdict: RetryDecision,
        attempt: int,
        *,
        retry_after_s: float | None = None,
    ) -> Requeue:
        """Return the retry's time: never later than a fraction of the life that is left."""
        _, plan = self._planner.plan(work.key)
        life_s = retry_policy.max_retry_after_s(
            plan.slack_s, plan.readable_until_s - self._planner.now_s()
        )
        wait_s = verdict.policy.delay_s(
            attempt,
            fraction_of_life_s=life_s if verdict.policy is not backoff.MISCONFIGURED else None,
            draw=self._random.random(),
            retry_after_s=retry_after_s,
        )
        now_at = self._clock.monotonic()
        hold = NotBefore(now_at, now_at + wait_s, dependency_of(plan.action))
        is_seal = plan.action is Action.SEAL  # the token keeps a deadline of its own
        at = min(hold.retry_at, self._planner.at(plan.due_s)) if is_seal else hold.retry_at
        return Requeue(
            at,
            plan.priority,
            plan.slack_s,
            plan.reason,
            verdict.blocked_on,
            hold,
            first_due_at=None if is_seal else work.first_due_at,
        )


def _is_overwritten(plan: Plan) -> bool:
    """Whether somebody else wrote over a token of ours."""
    facts = plan.facts
    return plan.reason == "foreign_writer" and facts is not None and bool(facts.refreshed_by)


def _named(key: SessionKey) -> dict[str, Any]:
    return {"namespace": key.namespace, "session_id": key.session_id}


def _subject(view: SessionState) -> dict[str, Any]:
    return {
        "pod": view.pod.name if view.pod else None,
        "secret": view.secret.name if view.secret else None,
    }
