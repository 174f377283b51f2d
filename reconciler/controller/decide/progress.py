"""Whether a write may be repeated: only with evidence that is newer than the last one's (pure).

docs/design/evidence-for-writes.md, steps 6-11.
"""

import math
from typing import Literal, NamedTuple

import msgspec
from cachetools import LRUCache
from msgspec.structs import replace

from reconciler.clock import LONG_AGO, EpochTime, Instant
from reconciler.controller.decide.ownership import Owner, WriteResponse, response_of
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey

MIN_GAIN = 0.08
"""Least gain of the next token's expiry without other new evidence, as a fraction of the lifetime
that our last write left. Three writes fit into a fifth of a lifetime then. Scheduled tokens are a
tenth of a lifetime apart at least, since the standby token is requested that often."""

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
    """A token's expiry (epoch, issuer's time) and its remaining lifetime by our monotonic clock."""

    expires_s: EpochTime
    remaining_s: float


class WriteRecord(msgspec.Struct, frozen=True):
    """Our last write of a session's Secret.

    Args:
        sent: `token-refreshed-at` and `token-refreshed-by` as they were sent; empty once `content`
            has them.
        evidence: Everything that the decision used.
        expires_s: Expiry of the written token (epoch, issuer's time); infinite for none.
        remaining_s: Its remaining lifetime then, by our monotonic clock.
        written_at: When it was sent, monotonic.
        response: None while the response is outstanding, or lost.
        content: The annotations in the response; None while it is outstanding, or lost.
        previous: The write before, which may be the last applied one while this one's response is
            outstanding or lost.
    """

    uid: str
    sent: Content
    evidence: Evidence
    expires_s: EpochTime
    remaining_s: float
    written_at: Instant
    response: WriteResponse | None = None
    content: Content | None = None
    previous: "WriteRecord | None" = None

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
        enough_s = MIN_GAIN * max(0.0, min(self.remaining_s, life.remaining_s))
        return enough_s - (life.expires_s - self.expires_s)


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
    if record is None or record.uid != secret.uid or _is_new(record.evidence, evidence):
        return 0.0
    if not is_unchanged(record, secret, owner):
        return 0.0
    return max(0.0, record.missing_gain_s(life))


def is_unchanged(record: WriteRecord, secret: ObjectMeta, owner: Owner) -> bool:
    """Return whether a Secret still has the content of our last write, in any version."""
    if not _shows(secret, record):
        return False
    if owner is Owner.UNOWNED:  # without managed fields nothing more is known
        return record.response is None or record.response.shows_owners_of(secret)
    return owner is Owner.OURS


def last_applied(record: WriteRecord | None, secret: ObjectMeta | None) -> WriteRecord | None:
    """Return the last remembered write that a Secret shows.

    If it shows none, the last one with a response, else the last.
    """
    if secret is None:
        return _last_answered(record)
    seen = record
    while seen is not None:
        if _shows(secret, seen):
            return seen
        seen = seen.previous
    return _last_answered(record)


def _last_answered(record: WriteRecord | None) -> WriteRecord | None:
    seen = record
    while seen is not None and seen.response is None:
        seen = seen.previous
    return seen or record


def _shows(secret: ObjectMeta, record: WriteRecord) -> bool:
    content = content_of(secret)
    return content[:2] == record.sent if record.content is None else content == record.content


def is_unanswered(record: WriteRecord | None, secret: ObjectMeta) -> bool:
    """Return whether a Secret shows our last write, whose response is outstanding or lost."""
    return record is not None and record.response is None and _shows(secret, record)


def undone(record: WriteRecord | None, secret: ObjectMeta | None, owner: Owner) -> Undone:
    """Return which part of our last write another writer has undone; "" if none is known."""
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
        self._records: LRUCache[SessionKey, WriteRecord] = LRUCache(max_sessions)

    def get(self, key: SessionKey) -> WriteRecord | None:
        return self._records.get(key)

    def put(self, key: SessionKey, record: WriteRecord | None) -> None:
        """Remember a write; None forgets it."""
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record

    def clear(self) -> None:
        """Forget all: another replica may have written since."""
        self._records.clear()

    def __len__(self) -> int:
        return len(self._records)
