"""One session: read its state, plan, act, and plan again until nothing is due."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import structlog

from reconciler import errors
from reconciler.clock import NEVER, EpochTime, Instant
from reconciler.controller.decide.annotations import requests
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.competing_writers import ISOLATED, CompetingWriters
from reconciler.controller.decide.evidence import (
    Evidence,
    Owner,
    TokenLife,
    Undone,
    life_of,
    new_record,
    undone,
    wait_s,
)
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.refresh_plan import Action, Plan, SessionState
from reconciler.controller.decide.write_errors import needs_fresh_read
from reconciler.controller.reconcile import token_choice
from reconciler.controller.reconcile.bulkhead_shell import (
    ISSUER_TARGET,
    PLATFORM_TARGET,
    BulkheadFull,
    BulkheadShell,
)
from reconciler.controller.reconcile.pod_toucher import PodToucher
from reconciler.controller.reconcile.run import ReconcileRun, ReconcileStats, names_of, objects_of
from reconciler.controller.reconcile.secret_writer import SecretWriter, Written
from reconciler.controller.reconcile.session_lookup import SessionLookup
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import ProtocolError, RemoteError
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.telemetry.trace import span
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token
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
        actions: "SessionActions",
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
        is_debug = log.is_enabled_for(logging.DEBUG)
        for _ in range(MAX_PASSES):
            state, plan = self._sessions.plan(key)
            run.pod = state.pod
            if is_debug:  # the fields alone cost 5 us a plan
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
            self._sessions.records.forget(key)
            return None
        if plan.action is Action.BLOCKED:
            if self._log_dedup.should_log(plan.reason, *key):
                log.warning(
                    "session_blocked", reason=plan.reason, **names_of(key), **objects_of(state)
                )
            run.outcome, run.reason = "blocked", plan.reason
        else:
            run.outcome = "refreshed" if run.wrote else "unchanged"
            if plan.touch and state.secret is not None and self._sessions.leads:
                # The write's answer was lost: it requested none, and its watch event was left to
                # its run.
                self._touches.ensure(key, state.secret, self._clock.monotonic())
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


class NoBetterTokenError(Exception):
    """No available token ends later than the one in the Secret."""


class NoProgressError(Exception):
    """The same write was made already, and nothing has changed since; it will in `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


class SessionActions:
    """Carries out one action of a plan; the next plan decides whether another one follows."""

    def __init__(
        self,
        *,
        sessions: SessionStateReader,
        writer: SecretWriter,
        source: TokenSource,
        session_lookup: SessionLookup,
        touches: PodTouches,
        bulkhead: BulkheadShell,
        stats: ReconcileStats,
        runtime: Runtime,
    ) -> None:
        self._sessions = sessions
        self._writer = writer
        self._source = source
        self._session_lookup = session_lookup
        self._touches = touches
        self._bulkhead = bulkhead
        self._stats = stats
        self._clock = runtime.clock
        self._random = runtime.random
        self._log_dedup = runtime.log_dedup
        self._confirmations = sessions.confirmations
        self._records = sessions.records
        self._competing_writers = CompetingWriters()
        self._latest_evidence = Evidence("")

    def paused_until(self, key: SessionKey, state: SessionState, plan: Plan) -> Instant | None:
        """Return when (monotonic) a write that others keep undoing may be made again, or None."""
        if _undone(state, plan):
            return self._competing_writers.paused_until(key, self._clock.monotonic())
        return None

    async def execute(
        self, run: ReconcileRun, slot: BulkheadRun, state: SessionState, plan: Plan
    ) -> None:
        """Carry out a plan's action, and note in `run` what was written.

        Raises:
            BulkheadFull: Too many requests are under way where it would ask; nothing was sent.
            NoBetterTokenError: There is no token worth writing.
            NoProgressError: The write would only repeat the last one.
            NotLeaderError: The fence is closed.
            RemoteError, ProtocolError: What a request ended with.
        """
        if plan.action is Action.CONFIRM:
            await self._confirm(run.key, slot, state)
            return
        # Before a token is requested: without room in its namespace, a key has no use for one.
        self._bulkhead.check(run.key.namespace, slot)
        match plan.action:
            case Action.CREATE:
                await self._create(run, slot, state, plan)
            case Action.REVOKE:
                await self._revoke(run.key, slot, state)
                run.accepted = True
            case Action.SIGN:
                await self._confirm_again(run.key, slot, state)
                run.accepted = True
            case _:
                await self._refresh(run, slot, state, plan)

    async def refetch(self, key: SessionKey, slot: BulkheadRun) -> bool:
        """Read the session's Secret into the store; return whether the store held something else.

        Raises: as `execute`.
        """
        with self._bulkhead.at(key.namespace, slot):
            return await self._writer.refetch(key)

    async def _confirm(self, key: SessionKey, slot: BulkheadRun, state: SessionState) -> None:
        try:
            with self._bulkhead.at(PLATFORM_TARGET, slot), span("lookup", str(key)):
                await self._session_lookup.confirm(key, state)
        except BulkheadFull:
            if not self._confirmations.was_confirmed(key, state.pod, state.own_secret):
                raise
            self._confirmations.record_unanswered(key)

    async def _refresh(
        self, run: ReconcileRun, slot: BulkheadRun, state: SessionState, plan: Plan
    ) -> None:
        secret, annotations = state.secret, plan.annotations
        assert secret is not None and annotations is not None  # noqa: S101, PT018 - of a WRITE
        moves = self._sessions.time_moves_total
        token = await self._obtain(plan, slot)
        if self._sessions.time_moves_total != moves:
            return  # the next plan knows the time that this token has shown, and has the token
        handled = requests(secret, state.pod)
        if token is None and not plan.requests:
            raise NoBetterTokenError
        now_s, now_at = self._sessions.now_s(), self._clock.monotonic()
        life = None if token is None else _life_of(token, now_at)
        evidence = self._evidence(plan.requests)
        again_s = wait_s(state.record, secret, annotations.owner, evidence, life=life)
        if again_s > 0:
            raise NoProgressError(again_s)
        ends_s = NEVER if annotations.expires_s is None else annotations.expires_s
        left_s = ends_s - now_s
        record = new_record(
            secret,
            life or life_of(ends_s, ttl_s=left_s, remaining_s=left_s),
            self._evidence(handled),
            token=token,
            now_s=now_s,
            now_at=now_at,
        )
        what = "" if token is None else _undone(state, plan)
        try:
            with (
                self._bulkhead.at(run.key.namespace, slot),
                span("patch", secret.name, "PATCH"),
                self._records.sending(run.key, record),
            ):
                written = await self._writer.refresh(
                    secret,
                    token,
                    now_s=now_s,
                    handled_requests=handled,
                    readable_until_s=plan.readable_until_s,
                )
        except errors.KubeError:
            if what and self._records.was_applied(run.key, record):
                self._record_competing_write(run, plan, what)
            raise
        self._records.answered(run.key, written.secret, now_at=self._clock.monotonic())
        run.wrote = run.accepted = True
        if token is None:
            return
        run.before = annotations
        if what:
            self._record_competing_write(run, plan, what)
        self._note_refresh(run, written, token, plan, now_s)

    def _evidence(self, requests: Sequence[str]) -> Evidence:
        """Return the reasons for a write other than the Secret and the time.

        Args:
            requests: Digests of the refresh requests that the write takes into account.
        """
        # Of the token just obtained: the decision's context may be a moment older.
        source, term = self._source, self._sessions.context().term
        found = Evidence(term, source.generation, frozenset(requests), source.rotated_s)
        # Each session keeps that of its write: one of its own would be 0.3 KB.
        if found != self._latest_evidence:
            self._latest_evidence = found
        return self._latest_evidence

    async def _confirm_again(self, key: SessionKey, slot: BulkheadRun, state: SessionState) -> None:
        assert state.secret is not None  # noqa: S101 - SIGN is planned for a Secret that is there
        await self._write_confirmation(key, slot, state.secret)
        self._confirmations.record_rewritten(key)

    async def _write_confirmation(
        self, key: SessionKey, slot: BulkheadRun, secret: ObjectMeta
    ) -> None:
        """Write the confirmation alone; the record of the token's write goes on."""
        now_s = self._sessions.now_s()
        sent_at = self._clock.monotonic()
        with self._bulkhead.at(key.namespace, slot), span("patch", secret.name, "PATCH"):
            written = await self._writer.write_confirmation(secret, now_s=now_s)
        self._records.confirmation_answered(
            key, secret, written.secret, sent_at=sent_at, now_at=self._clock.monotonic()
        )

    async def _revoke(self, key: SessionKey, slot: BulkheadRun, state: SessionState) -> None:
        assert state.secret is not None  # noqa: S101 - REVOKE is planned for a Secret that is there
        with self._bulkhead.at(key.namespace, slot), span("patch", state.secret.name, "PATCH"):
            await self._writer.remove_confirmation(state.secret)
        self._confirmations.record_removed(key)

    async def _create(
        self, run: ReconcileRun, slot: BulkheadRun, state: SessionState, plan: Plan
    ) -> None:
        key, pod = run.key, state.pod
        assert pod is not None  # noqa: S101 - CREATE is planned for a pod that is there
        name = self._sessions.names.secret_name(key.session_id)
        with self._bulkhead.at(key.namespace, slot):
            is_stale = await self._writer.refetch(key) or await self._writer.refetch_pod(pod)
        if is_stale:
            return
        token = await self._obtain(plan, slot)
        if token is None:
            raise NoBetterTokenError
        now_s = self._sessions.now_s()
        with self._bulkhead.at(key.namespace, slot), span("create", name, "POST"):
            created = await self._writer.create(key, pod, token, now_s=now_s)
        now_at = self._clock.monotonic()
        life = _life_of(token, now_at)
        evidence = self._evidence(())
        record = new_record(created.secret, life, evidence, token=token, now_s=now_s, now_at=now_at)
        self._records.created(key, record, created.secret, now_at=now_at)
        run.wrote = run.accepted = run.created = True
        self._stats.created_total += 1
        if what := _undone(state, plan):
            self._record_competing_write(run, plan, what)
        log.warning("secret_recreated", **names_of(key), secret=created.secret.name, pod=pod.name)
        self._note_refresh(run, created, token, plan, now_s)
        # Last: if this fails, the token is there, remembered, logged and due for a touch.
        await self._write_confirmation(key, slot, created.secret)

    async def _obtain(self, plan: Plan, slot: BulkheadRun) -> Token | None:
        began_at = self._sessions.term_began_at
        with span("token_request"):
            # A run that needs no request to the issuer does not wait behind those that do.
            token = token_choice.best_available(self._source, plan, term_began_at=began_at)
            if token is not None:
                return token
            with self._bulkhead.at(ISSUER_TARGET, slot):
                return await token_choice.choose(self._source, plan, term_began_at=began_at)

    def _note_refresh(
        self,
        run: ReconcileRun,
        written: Written,
        token: Token,
        plan: Plan,
        now_s: EpochTime,
    ) -> None:
        secret, now_at = written.secret, self._clock.monotonic()
        key, run.written_s = run.key, now_s
        run.touched = plan.touch and self._touches.request(key, secret, now_at)
        if run.touched and written.already_observed:
            self._touches.observed(secret, now_at)
        self._stats.refreshes[plan.reason] = self._stats.refreshes.get(plan.reason, 0) + 1
        log.info(
            "runner_token_refreshed",
            namespace=key.namespace,
            secret=secret.name,
            session_id=key.session_id,
            expires_at=token.expires_text,
            reason=plan.reason,
            lateness_seconds=round(max(0.0, now_at - run.due_at), 3),
        )

    def _record_competing_write(self, run: ReconcileRun, plan: Plan, what: Undone) -> None:
        """Count that a write of ours had been undone; log it when it happens again and again."""
        key, now_at = run.key, self._clock.monotonic()
        writer = plan.annotations.writer if what == "token" and plan.annotations is not None else ""
        count = self._competing_writers.record_overwrite(key, now_at, rand=self._random.random())
        if what != "secret" or count > ISOLATED:
            run.overwrites, run.writer, run.undone = count, writer, what
        if count > ISOLATED and self._log_dedup.should_log("competing_writer", *key):
            details: dict[str, Any] = {"writer": writer or "unknown", "what": what}
            log.warning("competing_writer", **names_of(key), **details, overwrites=count)


def _life_of(token: Token, now_at: Instant) -> TokenLife:
    remaining_s = token.remaining_s(now_at)
    return life_of(token.expires_s, ttl_s=token.ttl_s, remaining_s=remaining_s)


def _undone(state: SessionState, plan: Plan) -> Undone:
    """Return what another writer took back of our last write, if this plan writes it again."""
    annotations = plan.annotations
    if plan.action is Action.CREATE:
        return undone(state.record, None, Owner.UNOWNED)
    if plan.action is not Action.WRITE or annotations is None:
        return ""
    if annotations.is_ours and not annotations.problem:
        return ""
    found = undone(state.record, state.secret, annotations.owner)
    is_token = plan.reason == "foreign_writer" and bool(annotations.refreshed_by)
    return found or ("token" if is_token else "")
