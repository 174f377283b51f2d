"""What a plan's action does: ask the platform, write the token or the confirmation, create."""

from typing import Any

import structlog

from reconciler.clock import EpochTime, Instant
from reconciler.controller.decide.annotations import requests
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.competing_writers import ISOLATED, CompetingWriters
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.decide.progress import Undone, WriteRecord
from reconciler.controller.decide.refresh_plan import Action, Plan, SessionState
from reconciler.controller.reconcile import token_choice
from reconciler.controller.reconcile.bulkhead_shell import (
    ISSUER,
    PLATFORM,
    BulkheadFull,
    BulkheadShell,
)
from reconciler.controller.reconcile.run import ReconcileRun, ReconcileStats, names_of
from reconciler.controller.reconcile.secret_writer import SecretWriter, Written
from reconciler.controller.reconcile.session_lookup import SessionLookup
from reconciler.controller.reconcile.write_tracker import WriteTracker
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.telemetry.trace import span
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token

log = structlog.get_logger()


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
        self._writes = WriteTracker(sessions, source, runtime.clock)
        self._competing_writers = CompetingWriters()

    def paused_until(self, key: SessionKey, state: SessionState, plan: Plan) -> Instant | None:
        """Return when (monotonic) a write that others keep undoing may be made again, or None."""
        if self._writes.undone(state, plan):
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
            case Action.SIGN:
                await self._confirm_again(run.key, slot, state)
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
            with self._bulkhead.at(PLATFORM, slot), span("lookup", str(key)):
                await self._session_lookup.confirm(key, state)
        except BulkheadFull:
            if not self._session_lookup.continue_unanswered(key, state):
                raise

    async def _refresh(
        self, run: ReconcileRun, slot: BulkheadRun, state: SessionState, plan: Plan
    ) -> None:
        secret, annotations = state.secret, plan.annotations
        assert secret is not None and annotations is not None  # noqa: S101, PT018 - of a WRITE
        token = await self._obtain(plan, slot)
        handled = requests(secret, state.pod)
        if token is None and not plan.requests:
            raise NoBetterTokenError
        again_s = self._writes.wait_s(state, plan, token, self._writes.evidence(plan.requests))
        if again_s > 0:
            raise NoProgressError(again_s)
        now_s = self._sessions.now_s()
        evidence = self._writes.evidence(handled)
        record = self._writes.record_of(secret, token, annotations, now_s, evidence)
        with (
            self._bulkhead.at(run.key.namespace, slot),
            span("patch", secret.name, "PATCH"),
            self._writes.sending(run.key, record),
        ):
            written = await self._writer.refresh(
                secret, token, now_s=now_s, honoured=handled, held_until_s=plan.readable_until_s
            )
        self._writes.answered(run.key, written.secret)
        run.wrote = True
        if token is None:
            return
        run.before = annotations
        if undone := self._writes.undone(state, plan):
            self._note_conflict(run, plan, undone)
        self._note_refresh(run, written, token, plan, now_s)

    async def _confirm_again(self, key: SessionKey, slot: BulkheadRun, state: SessionState) -> None:
        assert state.secret is not None  # noqa: S101 - SEAL is planned for a Secret that is there
        await self._write_confirmation(key, slot, state.secret, state.record)
        self._session_lookup.record_rewritten(key)

    async def _write_confirmation(
        self, key: SessionKey, slot: BulkheadRun, secret: ObjectMeta, record: WriteRecord | None
    ) -> None:
        """Write the confirmation alone; the record of the token's write goes on."""
        now_s = self._sessions.now_s()
        sent_at = self._clock.monotonic()
        with self._bulkhead.at(key.namespace, slot), span("patch", secret.name, "PATCH"):
            written = await self._writer.write_confirmation(secret, now_s=now_s)
        self._writes.confirmation_answered(key, record, written.secret, sent_at=sent_at)

    async def _revoke(self, key: SessionKey, slot: BulkheadRun, state: SessionState) -> None:
        assert state.secret is not None  # noqa: S101 - REVOKE is planned for a Secret that is there
        with self._bulkhead.at(key.namespace, slot), span("patch", state.secret.name, "PATCH"):
            await self._writer.remove_confirmation(state.secret)
        self._session_lookup.record_removed(key)

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
        evidence = self._writes.evidence(())
        record = self._writes.record_of(created.secret, token, plan.annotations, now_s, evidence)
        self._writes.created(key, record, created.secret)
        run.wrote = run.created = True
        self._stats.created_total += 1
        if undone := self._writes.undone(state, plan):
            self._note_conflict(run, plan, undone)
        log.warning("secret_recreated", **names_of(key), secret=created.secret.name, pod=pod.name)
        self._note_refresh(run, created, token, plan, now_s)
        # Last: if this fails, the token is there, remembered, logged and due for a touch.
        await self._write_confirmation(key, slot, created.secret, self._sessions.records.get(key))

    async def _obtain(self, plan: Plan, slot: BulkheadRun) -> Token | None:
        began_at = self._sessions.term_began_at
        with span("token_request"):
            # A run that needs no request to the issuer does not wait behind those that do.
            if (token := token_choice.best_available(self._source, plan)) is not None:
                return token
            with self._bulkhead.at(ISSUER, slot):
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

    def _note_conflict(self, run: ReconcileRun, plan: Plan, what: Undone) -> None:
        """Count that a write of ours had been undone; log it when it happens again and again."""
        key, now_at = run.key, self._clock.monotonic()
        writer = plan.annotations.writer if what == "token" and plan.annotations is not None else ""
        count = self._competing_writers.record_overwrite(key, now_at, rand=self._random.random())
        if what != "secret" or count > ISOLATED:
            run.overwrites, run.writer, run.undone = count, writer, what
        if count > ISOLATED and self._log_dedup.should_log("competing_writer", *key):
            details: dict[str, Any] = {"writer": writer or "unknown", "what": what}
            log.warning("competing_writer", **names_of(key), **details, overwrites=count)
