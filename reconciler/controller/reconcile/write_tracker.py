"""What is remembered of our own writes: each as it is sent, and what its answer shows."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from msgspec.structs import replace

from reconciler.clock import NEVER, Clock, EpochTime, Instant, format_utc_millis
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.controller.decide.ownership import Owner
from reconciler.controller.decide.progress import (
    Evidence,
    TokenLife,
    Undone,
    WriteRecord,
    undone,
    wait_s,
)
from reconciler.controller.decide.refresh_plan import Action, Plan, SessionState
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import KubeError, NotLeaderError
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token


class WriteTracker:
    """Keeps the records of this term's writes, and compares them with what a Secret shows."""

    def __init__(self, sessions: SessionStateReader, source: TokenSource, clock: Clock) -> None:
        self._sessions = sessions
        self._source = source
        self._clock = clock

    def evidence(self, requested: Sequence[str]) -> Evidence:
        """Return the reasons for a write other than the Secret and the time.

        Args:
            requested: Digests of the refresh requests that the write takes into account.
        """
        # Of the token just obtained: the decision's context may be a moment older.
        source, term = self._source, self._sessions.context().term
        return Evidence(term, source.generation, frozenset(requested), source.rotated_s)

    def wait_s(
        self, state: SessionState, plan: Plan, token: Token | None, evidence: Evidence
    ) -> float:
        """Return for how long this write would only repeat the last one, seconds; 0.0: it is new.

        Args:
            token: What is to be written; None for annotations alone.
        """
        secret, annotations = state.secret, plan.annotations
        assert secret is not None and annotations is not None  # noqa: S101, PT018 - of a WRITE
        life = None
        if token is not None:
            life = TokenLife(token.expires_s, token.remaining_s(self._clock.monotonic()))
        return wait_s(state.record, secret, annotations.owner, evidence, life=life)

    def record_of(
        self,
        secret: ObjectMeta,
        token: Token | None,
        annotations: TokenAnnotations | None,
        now_s: EpochTime,
        evidence: Evidence,
    ) -> WriteRecord:
        """Return what is remembered of a write that is about to be sent."""
        now_at = self._clock.monotonic()
        sent: tuple[str | None, ...] = (format_utc_millis(now_s), evidence.term)
        if token is not None:
            expires_s, remaining_s = token.expires_s, token.remaining_s(now_at)
        else:
            ends_s = annotations.expires_s if annotations is not None else None
            expires_s = NEVER if ends_s is None else ends_s
            remaining_s = expires_s - now_s
            sent = ()  # without an answer nothing shows it, and its requests would come again
        return WriteRecord(secret.uid, sent, evidence, expires_s, remaining_s, now_at)

    @contextmanager
    def sending(self, key: SessionKey, record: WriteRecord) -> Iterator[None]:
        """Remember a write while it is sent; forget it if it was certainly not applied."""
        records = self._sessions.records
        before = records.get(key)
        records.put(key, record.following(before))
        try:
            yield
        except KubeError as error:
            if 400 <= error.status < 500:
                records.put(key, before)
            raise
        except NotLeaderError:
            records.put(key, before)
            raise

    def created(self, key: SessionKey, record: WriteRecord, secret: ObjectMeta) -> None:
        """Remember the write that created a Secret, and its answer."""
        self._sessions.records.put(key, record.following(None))
        self.answered(key, secret)

    def answered(self, key: SessionKey, secret: ObjectMeta) -> None:
        """Remember what the answer to a write shows."""
        records = self._sessions.records
        if (record := records.get(key)) is not None:  # else the term has ended
            now_at = self._clock.monotonic()
            records.put(key, record.record_response(secret, now_at=now_at))

    def confirmation_answered(
        self, key: SessionKey, record: WriteRecord | None, secret: ObjectMeta, *, sent_at: Instant
    ) -> None:
        """Remember a write of the confirmation alone: the record of the token goes on.

        Args:
            record: Of the last write of the token.
            secret: The answer.
        """
        if record is None or record.uid != secret.uid:
            return
        self._sessions.records.put(key, replace(record, written_at=sent_at).following(record))
        self.answered(key, secret)

    def undone(self, state: SessionState, plan: Plan) -> Undone:
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
