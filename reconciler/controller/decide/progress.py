"""Whether a write may be made again: only with evidence that is newer than the last one (pure).

docs/design/evidence-for-writes.md, steps 6-11.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from cachetools import LRUCache

from reconciler.controller.decide.ownership import Owner, WriteResponse, response_of
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names, SessionKey

GAIN = 0.08
"""Part of the life that our last write left, by which the next token must end later where nothing
else is new. Three writes fit into a fifth of a life then; tokens of the grid are a tenth of a life
apart at least, since the spare is asked for that often."""

MAX_SESSIONS = 20_000
"""Sessions whose last write is remembered, the latest written first: some 10 MB at the most. One
that is forgotten may be written once more."""

SAME_S = 1.0
"""Two estimates of when the issuer took one key differ by less than this: issue times are whole
seconds."""

MAX_LOST = 8
"""Writes in a row whose answers are out or lost, of each session."""

Content = tuple[str | None, ...]
"""The values of what we annotate beside a token, in the order of `content_of`."""

Undone = Literal["", "token", "annotations", "secret"]
"""What another writer took back of our last write."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What asks for a write beside the Secret and the time.

    Args:
        term: As whom we write.
        generation: Of the token at hand; see `TokenSource`.
        requests: Digests of people's requests that are not honoured yet.
        rotated_s: When the issuer took the key that it signs with; see `TokenSource`.
    """

    term: str
    generation: int = 0
    requests: frozenset[str] = frozenset()
    rotated_s: float = -math.inf

    def is_older_token_than(self, generation: int) -> bool:
        """Return True if the token that was written has been replaced since."""
        return generation > self.generation


class TokenLife(NamedTuple):
    """A token's end (epoch, issuer's time) and what is left of its life by our monotonic clock."""

    expires_s: float
    remaining_s: float


@dataclass(frozen=True, slots=True)
class WriteRecord:
    """Our last write of a session's Secret.

    Args:
        sent: `token-refreshed-at` and `token-refreshed-by` as they were sent.
        evidence: All that it took into account.
        expires_s: End of the token that was written (epoch, issuer's time); infinite for none.
        remaining_s: What was left of its life then, by our monotonic clock.
        written_at: When it was sent, monotonic.
        answer: None while the answer is out, or lost.
        content: What the answer showed; None while that is out, or lost.
        before: The write before, which may be the last that was applied while this one's answer is
            out or lost.
    """

    uid: str
    sent: Content
    evidence: Evidence
    expires_s: float
    remaining_s: float
    written_at: float
    response: WriteResponse | None = None
    content: Content | None = None
    before: "WriteRecord | None" = None

    def after(self, before: "WriteRecord | None") -> "WriteRecord":
        """Return this write as one that was sent after another; `MAX_LOST` of them are kept."""
        kept: list[WriteRecord] = []
        while before is not None and len(kept) < MAX_LOST:
            kept.append(before)
            before = before.before if before.response is None else None
        chain: WriteRecord | None = None
        for record in reversed(kept):
            chain = replace(record, before=chain)
        return replace(self, before=chain)

    def record_response(self, secret: ObjectMeta, names: Names, *, now_at: float) -> "WriteRecord":
        """Return this write once its answer is there: it was the last that was applied."""
        known = self.before
        while known is not None and known.response is None:
            known = known.before
        answer = response_of(
            secret,
            known.response if known is not None else None,
            sent_at=self.written_at,
            now_at=now_at,
        )
        content = content_of(secret, names)
        return replace(self, uid=secret.uid, response=answer, content=content, before=None)

    def lacks_s(self, life: TokenLife | None) -> float:
        """Return by how much later a token must end to be worth a write where nothing else is new.

        So much longer it takes until a fresh token of its kind does; infinite for never.
        """
        if life is None or math.isinf(self.expires_s):
            return math.inf
        enough_s = GAIN * max(0.0, min(self.remaining_s, life.remaining_s))
        return enough_s - (life.expires_s - self.expires_s)


def wait_s(
    record: WriteRecord | None,
    secret: ObjectMeta,
    owner: Owner,
    evidence: Evidence,
    names: Names,
    *,
    life: TokenLife | None,
) -> float:
    """Return for how long a write is the last one again, seconds: 0 if it has a reason of its own.

    Infinite where time alone makes no difference.

    Args:
        record: The last one, or None where this term made none.
        secret: What is to be written, as it is known now.
        life: Of the token to be written; None for annotations alone.
    """
    if record is None or record.uid != secret.uid or _is_new(record.evidence, evidence):
        return 0.0
    if not is_as_left(record, secret, owner, names):
        return 0.0
    return max(0.0, record.lacks_s(life))


def is_as_left(record: WriteRecord, secret: ObjectMeta, owner: Owner, names: Names) -> bool:
    """Tell whether a Secret still says what our last write made it say, whatever its version."""
    if not _shows(secret, record, names):
        return False
    if owner is Owner.UNOWNED:  # of a Secret whose managers are not kept nothing more is known
        return record.response is None or record.response.shows_owners_of(secret)
    return owner is Owner.OURS


def last_applied(
    record: WriteRecord | None, secret: ObjectMeta | None, names: Names
) -> WriteRecord | None:
    """Return the last write of those remembered that a Secret shows.

    None of them: the last that was answered, else the last.
    """
    if secret is None:
        return _last_answered(record)
    seen = record
    while seen is not None:
        if _shows(secret, seen, names):
            return seen
        seen = seen.before
    return _last_answered(record)


def _last_answered(record: WriteRecord | None) -> WriteRecord | None:
    seen = record
    while seen is not None and seen.response is None:
        seen = seen.before
    return seen or record


def _shows(secret: ObjectMeta, record: WriteRecord, names: Names) -> bool:
    content = content_of(secret, names)
    return content[:2] == record.sent if record.content is None else content == record.content


def undone(
    record: WriteRecord | None, secret: ObjectMeta | None, owner: Owner, names: Names
) -> Undone:
    """Return what another writer took back of our last write; "" if nothing is known of one."""
    if record is None or record.response is None:
        return ""
    if secret is None or secret.uid != record.uid:
        return "secret"
    if owner is Owner.FOREIGN:
        return "token"
    return "annotations" if content_of(secret, names) != record.content else ""


def content_of(secret: ObjectMeta, names: Names) -> Content:
    """Return what a Secret's annotations say of its token; the first two name the write."""
    found = secret.annotations
    return (
        found.get(names.refreshed_at),
        found.get(names.refreshed_by),
        found.get(names.issued_at),
        found.get(names.expires_at),
    )


def _is_new(before: Evidence, now: Evidence) -> bool:
    return (
        now.term != before.term
        or before.is_older_token_than(now.generation)
        or now.rotated_s > before.rotated_s + SAME_S
        or not now.requests <= before.requests
    )


class WriteRecords:
    """Remembers the last write of each session in this term; see `MAX_SESSIONS`."""

    def __init__(self, max_sessions: int = MAX_SESSIONS) -> None:
        self._records: LRUCache[SessionKey, WriteRecord] = LRUCache(max_sessions)

    def of(self, key: SessionKey) -> WriteRecord | None:
        return self._records.get(key)

    def put(self, key: SessionKey, record: WriteRecord | None) -> None:
        """Remember a write; None forgets it."""
        if record is None:
            self._records.pop(key, None)
        else:
            self._records[key] = record

    def clear(self) -> None:
        """Forget all: another may have written since."""
        self._records.clear()

    def __len__(self) -> int:
        return len(self._records)
