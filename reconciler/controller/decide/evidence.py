"""Who wrote the token in a Secret, and whether our write of it may be repeated (pure).

Values are never read: `managedFields` and the responses to our own writes show the owner. A write
is repeated only with evidence that is newer than the last one's. The argument, step by step:
docs/design/evidence-for-writes.md.
"""

import enum
import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from reconciler.clock import LONG_AGO, EpochTime, Instant, format_utc_millis
from reconciler.errors import KubeError, NotLeaderError
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from reconciler.tokens.token import Token

CLOCK_TOLERANCE_S = 2.0
"""Times of `managedFields` that are closer than this have no known order: they are whole seconds,
and API servers have separate clocks, some tenths of a second apart."""


class Owner(enum.Enum):
    """The writer of the token in a Secret."""

    OURS = "ours"
    FOREIGN = "foreign"
    UNCLEAR = "unclear"
    """Another manager owns the key, and wrote at about the time of our own write: before it with an
    equal value, or after it."""
    UNOWNED = "unowned"
    """The key is absent, or `managedFields` are not kept for this object."""


class WriteResponse(NamedTuple):
    """The API server's response to our last write of a token.

    Args:
        field_managers: As in `ObjectMeta`, and `foreign_s` too.
        sent_at: When the write was sent, monotonic.
        first_seen_at: When a response to us first showed these same `field_managers` and
            `foreign_s`, monotonic; earlier than `sent_at` from the second such response on.
    """

    uid: str
    version: str
    field_managers: tuple[str, ...]
    foreign_s: EpochTime | None
    sent_at: Instant
    first_seen_at: Instant

    def shows_owners_of(self, secret: ObjectMeta) -> bool:
        """Return whether the owners, and their times, are the same as after our write."""
        return (self.field_managers, self.foreign_s) == (secret.field_managers, secret.foreign_s)


def response_of(
    secret: ObjectMeta, previous: WriteResponse | None, *, sent_at: Instant, now_at: Instant
) -> WriteResponse:
    """Return the evidence in the response `secret` to a write of ours.

    Args:
        previous: The response to our write before, or None.
    """
    is_same = (
        previous is not None and previous.uid == secret.uid and previous.shows_owners_of(secret)
    )
    since_at = previous.first_seen_at if is_same and previous is not None else now_at
    return WriteResponse(
        secret.uid, secret.version, secret.field_managers, secret.foreign_s, sent_at, since_at
    )


def owner_of(secret: ObjectMeta, manager: str, response: WriteResponse | None) -> Owner:
    """Return the owner of a Secret's token.

    Args:
        manager: Our field manager.
        response: The response to our last write of a token into this Secret; None if this process
            has made none.
    """
    if response is not None and response.uid != secret.uid:
        response = None
    # Any write makes another version.
    if response is not None and response.version == secret.version:
        return Owner.OURS
    # A manager that changes a value becomes its only owner.
    if manager in secret.field_managers:
        return Owner.OURS
    if not secret.field_managers:
        return Owner.UNOWNED
    if response is not None:
        # A write of an equal value leaves the other owner, with the time of its last write.
        if not response.shows_owners_of(secret):
            return Owner.FOREIGN
        is_settled = response.sent_at - response.first_seen_at >= CLOCK_TOLERANCE_S
        return Owner.OURS if is_settled else _compare_times(secret, else_foreign=Owner.UNCLEAR)
    return _compare_times(secret, else_foreign=Owner.FOREIGN)


def _compare_times(secret: ObjectMeta, *, else_foreign: Owner) -> Owner:
    """Compare the times of two writers; both are the API server's."""
    if secret.own_s is None or secret.foreign_s is None:
        return else_foreign
    lead_s = secret.own_s - secret.foreign_s
    if lead_s >= CLOCK_TOLERANCE_S:
        return Owner.OURS
    return Owner.UNCLEAR if lead_s > -CLOCK_TOLERANCE_S else else_foreign


MIN_GAIN = 0.08
"""Least gain of the next token's expiry without other new evidence, as a fraction of a token's
whole lifetime. Three writes fit into a fifth of a lifetime then. Scheduled tokens are a tenth of a
lifetime apart at least, since the standby token is requested that often."""

MAX_HELD = 0.2
"""Longest time for which a write is held back for this, as a fraction of the lifetime that is left:
a token that comes with little of its life must be written before the one in the Secret expires."""

MAX_SESSIONS = 20_000
"""Most sessions with a remembered last write, the latest written kept: some 10 MB at the most. A
session that is evicted may be written once more."""

ROTATION_TOLERANCE_S = 1.0
"""Two estimates of one key rotation differ by less than this: issue times are whole seconds."""

MAX_UNANSWERED = 8
"""Most consecutive writes with outstanding or lost responses that are kept, per session."""

Content = tuple[str | None, ...]
"""The values of a token's annotations, in the order of `content_of`."""

Undone = Literal["", "token", "annotations", "secret"]
"""The part of our last write that another writer has undone."""


class Evidence(msgspec.Struct, frozen=True):
    """Reasons for a write other than the Secret and the time.

    Args:
        term: Name of the writer: replica and lease term.
        generation: Of the present token; see `TokenSource`.
        requests: Digests of refresh requests that are not handled yet.
        rotated_s: When the issuer took its present signing key; see `TokenSource`.
    """

    term: str
    generation: int = 0
    requests: frozenset[str] = frozenset()
    rotated_s: EpochTime = LONG_AGO

    def is_older_token_than(self, generation: int) -> bool:
        """Return True if the written token has been replaced since."""
        return generation > self.generation


class TokenLife(NamedTuple):
    """A token's expiry (epoch, issuer's time), and the gain in expiry that is worth a write."""

    expires_s: EpochTime
    min_gain_s: float


def life_of(expires_s: EpochTime, *, ttl_s: float, remaining_s: float) -> TokenLife:
    """Return the life of a token.

    Args:
        ttl_s: Its whole lifetime, seconds.
        remaining_s: Its remaining lifetime by our monotonic clock.
    """
    return TokenLife(expires_s, max(0.0, min(MIN_GAIN * ttl_s, MAX_HELD * remaining_s)))


class WriteRecord(msgspec.Struct, frozen=True):
    """Our last write of a session's Secret.

    Args:
        sent: The annotations as they were sent; empty once `content` has them.
        evidence: Everything that the decision used.
        expires_s: Expiry of the written token (epoch, issuer's time); infinite for none.
        min_gain_s: Least gain in expiry of a token that is worth the next write.
        written_at: When it was sent, monotonic.
        response: None while the response is outstanding, or lost.
        content: The annotations in the response; None while it is outstanding, or lost. Of a write
            that the watch alone has shown, those that were sent: the watch may skip versions.
        previous: The write before, which may be the last applied one while this one's response is
            outstanding or lost.
    """

    uid: str
    sent: Content
    evidence: Evidence
    expires_s: EpochTime
    min_gain_s: float
    written_at: Instant
    response: WriteResponse | None = None
    content: Content | None = None
    previous: "WriteRecord | None" = None

    @property
    def written(self) -> Content:
        """The annotations of this write, as far as they are known; empty for none."""
        return self.sent if self.content is None else self.content

    def following(self, before: "WriteRecord | None") -> "WriteRecord":
        """Return this write, sent after another; `MAX_UNANSWERED` earlier ones are kept."""
        kept: list[WriteRecord] = []
        while before is not None and len(kept) < MAX_UNANSWERED:
            kept.append(before)
            before = before.previous if before.response is None else None
        chain: WriteRecord | None = None
        for record in reversed(kept):
            chain = replace(record, previous=chain)
        return replace(self, previous=chain)

    def record_response(self, secret: ObjectMeta, *, now_at: Instant) -> "WriteRecord":
        """Return this write with its response: it was the last one applied."""
        known = self.previous
        while known is not None and known.response is None:
            known = known.previous
        response = response_of(
            secret,
            known.response if known is not None else None,
            sent_at=self.written_at,
            now_at=now_at,
        )
        content = content_of(secret)
        return replace(
            self, uid=secret.uid, sent=(), response=response, content=content, previous=None
        )

    def missing_gain_s(self, life: TokenLife | None) -> float:
        """Return the gain in expiry that a token lacks to be worth a write without new evidence.

        A new token of its kind needs that much time to reach it; infinite for never.
        """
        if life is None or math.isinf(self.expires_s):
            return math.inf
        return min(self.min_gain_s, life.min_gain_s) - (life.expires_s - self.expires_s)


def new_record(
    secret: ObjectMeta,
    life: TokenLife,
    evidence: Evidence,
    *,
    token: Token | None,
    now_s: EpochTime,
    now_at: Instant,
) -> WriteRecord:
    """Return the record of a write.

    Args:
        life: Of the token in the Secret after it.
        token: The written one; None for annotations alone: without a response nothing shows such a
            write, and its requests would come again.
        now_s: When it is written (epoch, issuer's time).
    """
    sent: Content = ()
    if token is not None:
        at = format_utc_millis(now_s)
        sent = (at, evidence.term, token.issued_text, token.expires_text)
    return WriteRecord(secret.uid, sent, evidence, *life, now_at)


def wait_s(
    record: WriteRecord | None,
    secret: ObjectMeta,
    owner: Owner,
    evidence: Evidence,
    *,
    life: TokenLife | None,
) -> float:
    """Return how many seconds a write would only repeat the last one: 0 if it has new evidence.

    Infinite if time alone makes no difference.

    Args:
        record: The last write, or None if there is none in this term.
        secret: The Secret to write, as known now.
        life: Of the token to be written; None for annotations alone.
    """
    record = last_applied(record, secret)
    if record is None or record.uid != secret.uid or _is_new(record.evidence, evidence):
        return 0.0
    if not is_unchanged(record, secret, owner):
        return 0.0
    return max(0.0, record.missing_gain_s(life))


def is_unchanged(record: WriteRecord, secret: ObjectMeta, owner: Owner) -> bool:
    """Return whether a Secret still has the content of our last write, in any version."""
    if not shows(secret, record):
        return False
    if owner is Owner.UNOWNED:  # without managed fields nothing more is known
        return record.response is None or record.response.shows_owners_of(secret)
    return owner is Owner.OURS


def last_applied(record: WriteRecord | None, secret: ObjectMeta | None) -> WriteRecord | None:
    """Return the last remembered write that a Secret names.

    If it names none, the last one with a response, else the last.
    """
    if secret is None:
        return _last_answered(record)
    seen = record
    while seen is not None:
        if is_named(secret, seen):
            return seen
        seen = seen.previous
    return _last_answered(record)


def _last_answered(record: WriteRecord | None) -> WriteRecord | None:
    seen = record
    while seen is not None and seen.response is None:
        seen = seen.previous
    return seen or record


def shows(secret: ObjectMeta, record: WriteRecord) -> bool:
    """Return whether a Secret's annotations are those of a write."""
    return content_of(secret) == record.written


def is_named(secret: ObjectMeta, record: WriteRecord) -> bool:
    """Return whether a Secret names a write as its last one; the rest may be edited since."""
    return content_of(secret)[:2] == record.written[:2]


def is_edited(record: WriteRecord, secret: ObjectMeta) -> bool:
    """Return whether a Secret names our last write, and another life of its token.

    Another writer has edited the expiry: each write of ours names its own instant. Of another
    replica's write nothing says what it wrote.
    """
    is_ours = record.uid == secret.uid and is_named(secret, record)
    return is_ours and not shows(secret, record)


def is_unanswered(record: WriteRecord | None, secret: ObjectMeta) -> bool:
    """Return whether a Secret names our last write, whose response is outstanding or lost."""
    return record is not None and record.response is None and is_named(secret, record)


def undone(record: WriteRecord | None, secret: ObjectMeta | None, owner: Owner) -> Undone:
    """Return which part of our last write another writer has undone; "" if none is known."""
    record = last_applied(record, secret)
    if record is None or record.response is None:
        return ""
    if secret is None or secret.uid != record.uid:
        return "secret"
    if owner is Owner.FOREIGN:
        return "token"
    return "annotations" if content_of(secret) != record.content else ""


def content_of(secret: ObjectMeta) -> Content:
    """Return a Secret's annotations about its token; the first two identify the write."""
    found = secret.annotations
    return found.refreshed_at, found.refreshed_by, found.issued_at, found.expires_at


def _is_new(before: Evidence, now: Evidence) -> bool:
    return (
        now.term != before.term
        or before.is_older_token_than(now.generation)
        or now.rotated_s > before.rotated_s + ROTATION_TOLERANCE_S
        or not now.requests <= before.requests
    )


class WriteRecords:
    """Remembers the last write of each session in this term; see `MAX_SESSIONS`."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._max_sessions = max_sessions
        # In the order of writes. An LRU cache of cachetools has two tables, and a refresh would
        # make 25 calls in it.
        self._records: OrderedDict[SessionKey, WriteRecord] = OrderedDict()
        # Of the writes in flight alone: the Secret that shows each in the watch, and when it came.
        self._seen: dict[SessionKey, tuple[ObjectMeta, Instant] | None] = {}

    def get(self, key: SessionKey) -> WriteRecord | None:
        return self._records.get(key)

    @contextmanager
    def sending(self, key: SessionKey, record: WriteRecord) -> Iterator[None]:
        """Remember a write while it is sent; forget it if it was certainly not applied.

        A write that the watch has shown was applied, with any answer: a proxy may have repeated the
        request, so that the answer is a 409.
        """
        before = self.get(key)
        self._keep(key, record.following(before))
        self._seen[key] = None
        try:
            yield
        except (KubeError, NotLeaderError) as error:
            if (seen := self._seen[key]) is not None:
                self._seen_applied(key, seen[0], now_at=seen[1])
            elif isinstance(error, NotLeaderError) or 400 <= error.status < 500:
                self.forget(key)
                if before is not None:
                    self._keep(key, before)
            raise
        finally:
            del self._seen[key]

    def record_seen(self, secret: ObjectMeta, *, now_at: Instant) -> None:
        """Remember that the watch shows our last write, if its response is outstanding."""
        if secret.key in self._seen:
            self._seen[secret.key] = secret, now_at

    def was_applied(self, key: SessionKey, record: WriteRecord) -> bool:
        """Return whether a write is the last one of a session, and known to be applied."""
        if (last := self.get(key)) is None:
            return False
        return last.written_at == record.written_at and last.response is not None

    def answered(self, key: SessionKey, secret: ObjectMeta, *, now_at: Instant) -> None:
        """Remember what the response to the last write of a session shows."""
        if (record := self.get(key)) is not None:  # else the term has ended
            self._keep(key, record.record_response(secret, now_at=now_at))

    def _seen_applied(self, key: SessionKey, secret: ObjectMeta, *, now_at: Instant) -> None:
        """Remember a write that the watch alone has shown, perhaps with another's edit."""
        if (record := self.get(key)) is not None:
            shown = record.record_response(secret, now_at=now_at)
            self._keep(key, replace(shown, content=record.sent))

    def created(
        self, key: SessionKey, record: WriteRecord, secret: ObjectMeta, *, now_at: Instant
    ) -> None:
        """Remember the write that created a Secret, and its response."""
        self._keep(key, record.following(None))
        self.answered(key, secret, now_at=now_at)

    def confirmation_answered(
        self,
        key: SessionKey,
        before: ObjectMeta,
        secret: ObjectMeta,
        *,
        sent_at: Instant,
        now_at: Instant,
    ) -> None:
        """Remember a write of the confirmation alone: the record of the token goes on.

        Args:
            before: The Secret that was written.
            secret: The response.
        """
        record = last_applied(self.get(key), before)
        if record is None or record.uid != secret.uid:
            return
        self._keep(key, replace(record, written_at=sent_at).following(record))
        self.answered(key, secret, now_at=now_at)

    def forget(self, key: SessionKey) -> None:
        self._records.pop(key, None)

    def _keep(self, key: SessionKey, record: WriteRecord) -> None:
        self._records[key] = record
        self._records.move_to_end(key)
        if len(self._records) > self._max_sessions:
            self._records.popitem(last=False)

    def clear(self) -> None:
        """Forget all: another replica may have written since."""
        self._records.clear()

    def __len__(self) -> int:
        return len(self._records)
