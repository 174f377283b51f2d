"""The decision: what to do for one session now, or how long to wait (pure).

It is a function of the known state only. Events, timers and resyncs cause it to be computed again.
A lost one costs time, never correctness.

Scheduled refreshes are on a grid of instants that every replica computes alike. A session's are
congruent to its phase modulo `GRID` x TTL, counted from the epoch in the issuer's time. The phase
is derived from the pod's UID. So a new leader computes the same instants, and a fleet of tokens
that were issued at once spreads over the whole period.
"""

import enum
import hashlib
import math
from typing import Literal

import msgspec
from msgspec.structs import replace

from reconciler.clock import EPOCH, LONG_AGO, NEVER, EpochTime
from reconciler.controller.decide.annotations import (
    UNKNOWN_S,
    ClockStep,
    ReadableToken,
    TokenAnnotations,
    parse_annotations,
    pending_requests,
    readable_token,
)
from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.decide.confirmation_mac import is_well_formed
from reconciler.controller.decide.evidence import (
    Owner,
    WriteRecord,
    is_edited,
    last_applied,
    owner_of,
    shows,
)
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names, SessionKey
from reconciler.workqueue.items import Priority

REPLAN_S = 300.0
"""Longest time between two plans of a session, whatever its annotations contain."""

YOUNG_S = 60.0
"""A pod younger than this may have been observed before its session was committed."""

YOUNG_RETRY_S = 6.0
"""Time between two look-ups of a session that the platform does not know, while its pod is young:
the token that it got from the platform may expire in half a minute."""

LIST_WAIT_S = 15.0
"""How long a new leader waits for its first list of running sessions to confirm a session with an
unknown expiry, before it looks that session up. A list takes a second or two, and the platform
writes tokens with 30 s left or more, as it reuses a cached one until then."""

LOOKUPS_PER_S = 100.0
"""Most such look-ups that begin in a second: a list of 100,000 sessions takes a minute, and a page
of it confirms a hundred with one request. A thousand sessions are asked for within 25 s."""

OTHER_FILE_LAG_S = 600.0
"""How long after we read another static token another replica may still have written the previous
one: each replica has its own file, and kubelets of very large clusters update it within 390 s."""


DOUBTED_RETRY_S = 11.0
"""Time until the second look-up of a session after the platform's first "not found"."""


class Confirmation(enum.Enum):
    """The platform's confirmation of a session in this project and namespace."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It was not asked yet, or its list lacks a session that it once confirmed: it is asked now."""
    DOUBTED = "doubted"
    """It answered "not found" once for a session that it had confirmed; it is asked again."""
    REVOKED = "revoked"
    """It answered so again, and the Secret still has the signed confirmation."""


class Action(enum.Enum):
    """What the reconciler executes."""

    WRITE = "write"
    CREATE = "create"
    CONFIRM = "confirm"
    REVOKE = "revoke"
    SIGN = "sign"
    """Sign the confirmation again, if it is missing or under another key; the token stays."""
    WAIT = "wait"
    BLOCKED = "blocked"
    REMOVE = "forget"

    __hash__ = object.__hash__  # that of an enum is a Python function: 4 calls a refresh


DUE = frozenset({Action.WRITE, Action.CREATE, Action.CONFIRM, Action.REVOKE, Action.SIGN})
"""Actions that are executed now; the others only wait."""


def dependency_of(action: Action) -> str:
    """Return what a run with this action depends on: "platform", "sign" or "write".

    A signature that fails delays no token.
    """
    return {Action.CONFIRM: "platform", Action.SIGN: "sign"}.get(action, "write")


class SessionState(msgspec.Struct, frozen=True):
    """The known state of one session at one moment.

    `pod` is the newest that is not being deleted, else the newest. `secret` is the object of the
    expected name, with any session label. `is_running` is from the platform's last readable list.
    `sign_due_s` is when to sign the confirmation again (epoch), never by default. `record` is the
    last write of its Secret that we sent in this term, or None.
    """

    key: SessionKey
    pod: ObjectMeta | None
    secret: ObjectMeta | None
    confirmation: Confirmation
    is_running: bool
    sign_due_s: EpochTime = NEVER
    record: WriteRecord | None = None

    @property
    def own_secret(self) -> ObjectMeta | None:
        """The Secret, if it has the label of this session."""
        secret = self.secret
        return secret if secret is not None and secret.session_id == self.key.session_id else None


class DecisionContext(msgspec.Struct, frozen=True):
    """The inputs of the decision other than the session.

    Args:
        propagation_s: Longest time until the kubelet projects a changed Secret, in seconds.
        longest_ttl_s: Longest lifetime of a token that is accepted from annotations.
        static: The token has no expiry.
        term: This leader's name in `token-refreshed-by`.
        term_started_s: When its term began (epoch, issuer's time), with an allowance for the
            replicas' clocks.
        startup: Which tokens that another replica wrote before that are due at once: all, those
            with less than 0.8 of their lifetime left, or none. Tokens that another writes later
            are left unchanged, and each session is written once, or two overlapping leaders would
            rewrite each other's tokens without end: two shards while n changes, or two replicas
            without an election.
        p95_run_s: p95 of a run, seconds.
        replaced_s: When the present token replaced another; see `TokenSource`.
        generation: Of that token; see `TokenSource`.
        rotated_s: Tokens that were issued before are under a replaced signing key.
        steps: The latest steps forward of the estimate of the issuer's time, the oldest first.
        list_started_s: Since when the list of running sessions that may confirm them all has been
            awaited (epoch, issuer's time); minus infinity if none is.
        pods: Number of pods of sessions while that list is awaited.
    """

    names: Names
    propagation_s: float
    longest_ttl_s: float
    static: bool = False
    term: str = ""
    term_started_s: EpochTime = EPOCH
    startup: Literal["all", "stale", "none"] = "none"
    p95_run_s: float = 0.0
    replaced_s: EpochTime = LONG_AGO
    generation: int = 0
    rotated_s: EpochTime = LONG_AGO
    list_started_s: EpochTime = LONG_AGO
    steps: tuple[ClockStep, ...] = ()
    pods: int = 0


class Plan(msgspec.Struct, frozen=True):
    """What to do, why and how urgently.

    `due_s` (epoch) is when to plan again if nothing happens. For CONFIRM it is when to ask: a list
    may confirm the session until then. For SIGN it is when the token is checked, even if the
    signature fails.

    `slack_s` is the time until a runner would be affected. `touch` asks for a pod touch, after the
    write or, if nothing is to be written, now. `requests` are the digests of the requests that this
    write handles. `annotations` are those that a WRITE found in the Secret, and
    `readable_until_s` the expiry of the worst token that the pod may read until then.
    """

    action: Action
    reason: str
    priority: Priority
    due_s: EpochTime
    slack_s: float
    touch: bool = False
    requests: tuple[str, ...] = ()
    annotations: TokenAnnotations | None = None
    readable_until_s: EpochTime = NEVER


def plan(state: SessionState, context: DecisionContext, now_s: EpochTime) -> Plan:
    """Decide for one session at one instant of the issuer's time.

    A pod without a Secret gets one, as soon as the platform has confirmed its session:

    >>> pod = ObjectMeta("team-a", "runner-1", "uid-1", "7", "s1", "p1", 0.0, False)
    >>> state = SessionState(pod.key, pod, None, Confirmation.UNKNOWN, is_running=True)
    >>> context = DecisionContext(Names(), propagation_s=90.0, longest_ttl_s=3600.0)
    >>> plan(state, context, 1000.0).action
    <Action.CONFIRM: 'confirm'>
    >>> plan(replace(state, confirmation=Confirmation.YES), context, 1000.0).action
    <Action.CREATE: 'create'>
    """
    has_secret = state.secret is not None
    paused = is_paused(state.pod, state.secret)  # it stops every write
    if state.confirmation is Confirmation.REVOKED and has_secret and not paused:
        return replace(_plan(Action.REVOKE, "revoked", now_s), due_s=now_s)
    if state.pod is None and not (state.is_running and has_secret):
        return _plan(Action.REMOVE, "not_running", now_s)
    if state.secret is not None and state.secret.session_id != state.key.session_id:
        return _plan(Action.BLOCKED, BlockReason.NAME_TAKEN, now_s)
    if paused:
        return _plan(Action.BLOCKED, BlockReason.PAUSED, now_s)
    if state.secret is None:
        return _plan_missing(state, context, now_s)
    record = last_applied(state.record, state.secret)
    response = record.response if record is not None else None
    annotations = parse_annotations(
        state.secret,
        context.names,
        now_s=now_s,
        longest_ttl_s=context.longest_ttl_s,
        static=context.static,
        owner=owner_of(state.secret, context.names.field_manager, response),
        pod=state.pod,
    )
    is_valid = annotations.is_ours and not annotations.problem
    if is_valid and record is not None and is_edited(record, state.secret):
        annotations = replace(annotations, issued_s=None, expires_s=None, problem="expiry_edited")
    readable = readable_token(
        annotations,
        state.pod,
        propagation_s=context.propagation_s,
        now_s=now_s,
        steps=context.steps,
    )
    pending = pending_requests(state.secret, state.pod)
    found = _due_now(state.secret, annotations, pending, context, now_s, record)
    if found is None:
        due_s = _scheduled_s(state, state.secret, annotations)
        if due_s > now_s:
            waiting = _plan_wait(annotations, readable, context, now_s, due_s)
            return _sign_first(state, state.secret, waiting, now_s)
        found = "scheduled", Priority.ROUTINE
    reason, priority = found
    if state.confirmation is not Confirmation.YES:
        return _unconfirmed(state, context, now_s, annotations)
    is_known = annotations.problem == "expiry_edited" or (
        response is not None and response.uid == state.secret.uid
    )
    if record is not None and is_known and annotations.is_ours and annotations.problem:
        # Our write shows what the annotations do not.
        readable = readable._replace(until_s=record.expires_s)
    return _plan_write(annotations, readable, context, now_s, reason, priority, pending)


def is_paused(pod: ObjectMeta | None, secret: ObjectMeta | None = None) -> bool:
    """Return whether a person has stopped the writes, on the pod or on the Secret."""
    return (pod is not None and pod.annotations.paused == "true") or (
        secret is not None and secret.annotations.paused == "true"
    )


_FOREIGN_REASONS = {
    Owner.FOREIGN: "foreign_writer",
    Owner.UNCLEAR: "writer_unclear",
    Owner.UNOWNED: "never_written",
}


def _plan_write(
    annotations: TokenAnnotations,
    readable: ReadableToken,
    context: DecisionContext,
    now_s: EpochTime,
    reason: str,
    priority: Priority,
    requests: tuple[str, ...],
) -> Plan:
    """Return the plan of a write; the pod is touched if its token expires before the next sync.

    With or without a pod in the store: its watch event may still arrive.
    """
    delay_s, until_s = context.propagation_s, readable.until_s
    left_s = until_s - now_s if math.isfinite(until_s) else 0.0
    if reason == "token_replaced":
        # The replaced token may have been revoked. A replaced signing key may still be accepted for
        # the whole fleet: the session that would expire first is served first.
        until_s, left_s = UNKNOWN_S, left_s if _is_under_old_key(annotations, context) else 0.0
    if readable.needs_touch:
        priority = Priority.EXPIRING
    return Plan(
        Action.WRITE,
        reason,
        priority,
        now_s,
        left_s - delay_s - context.p95_run_s,
        touch=until_s < now_s + delay_s,
        requests=requests,
        annotations=annotations,
        readable_until_s=until_s,
    )


def _plan_missing(state: SessionState, context: DecisionContext, now_s: EpochTime) -> Plan:
    if state.pod is None or state.pod.is_deleting:
        return _plan(Action.BLOCKED, BlockReason.POD_LEAVING, now_s)
    if state.confirmation is not Confirmation.YES:
        return _unconfirmed(state, context, now_s)
    return Plan(
        Action.CREATE,
        "secret_missing",
        Priority.EXPIRING,
        now_s,
        0.0,
        touch=True,
        readable_until_s=UNKNOWN_S,
    )


def is_young(state: SessionState, now_s: EpochTime) -> bool:
    return state.pod is not None and now_s - state.pod.created_s < YOUNG_S


def _unconfirmed(
    state: SessionState,
    context: DecisionContext,
    now_s: EpochTime,
    annotations: TokenAnnotations | None = None,
) -> Plan:
    if state.confirmation is Confirmation.DOUBTED:
        blocked = _plan(Action.BLOCKED, BlockReason.NOT_CONFIRMED, now_s)
        return replace(blocked, due_s=now_s + DOUBTED_RETRY_S)
    if state.confirmation in (Confirmation.NO, Confirmation.REVOKED):
        blocked = _plan(Action.BLOCKED, BlockReason.NOT_CONFIRMED, now_s)
        is_soon = is_young(state, now_s)
        return replace(blocked, due_s=now_s + YOUNG_RETRY_S) if is_soon else blocked
    # The slack never ends: everyone with permission to create a pod can cause this work, and it
    # must not become as urgent as a token that expires.
    ask_s = max(now_s, _lookup_at_s(state, context, now_s, annotations))
    return Plan(Action.CONFIRM, BlockReason.NOT_CONFIRMED, Priority.CHANGED, ask_s, math.inf)


def _lookup_at_s(
    state: SessionState,
    context: DecisionContext,
    now_s: EpochTime,
    annotations: TokenAnnotations | None,
) -> EpochTime:
    """Return when to look up a session, although a list may confirm it soon."""
    if is_young(state, now_s):
        return now_s  # the list may be older than the session
    if math.isinf(context.list_started_s):
        return now_s
    if annotations is None or annotations.issued_s is None or annotations.expires_s is None:
        found = state.pod or state.secret
        spread_s = min(REPLAN_S, context.pods / LOOKUPS_PER_S)
        own_s = 0.0 if found is None else phase(found.uid) * spread_s
        return context.list_started_s + LIST_WAIT_S + own_s
    ttl_s = annotations.expires_s - annotations.issued_s
    return annotations.expires_s - allowance_s(ttl_s, context.propagation_s)


def _due_now(
    secret: ObjectMeta,
    annotations: TokenAnnotations,
    pending: tuple[str, ...],
    context: DecisionContext,
    now_s: EpochTime,
    record: WriteRecord | None,
) -> tuple[str, Priority] | None:
    """Return the first reason that makes a token due, the most urgent first, or None."""
    if not annotations.is_ours:
        # A token from before our first write does not overwrite ours.
        is_first = not annotations.refreshed_by and record is None
        if is_first and annotations.owner is not Owner.UNOWNED:
            return "first_write", Priority.EXPIRING
        return _FOREIGN_REASONS[annotations.owner], Priority.EXPIRING
    if annotations.problem:
        return annotations.problem, Priority.EXPIRING
    remaining_s = annotations.remaining_s(now_s)
    if remaining_s is not None and annotations.issued_s is not None:
        if remaining_s <= 0:
            return "expired", Priority.EXPIRING
        ttl_s = remaining_s + now_s - annotations.issued_s
        if remaining_s < allowance_s(ttl_s, context.propagation_s):
            return "expiring", Priority.EXPIRING
    if pending:
        return "requested", Priority.CHANGED
    if _is_replaced(secret, annotations, context, record):
        return "token_replaced", Priority.STARTUP
    has_written = record is not None and record.response is not None
    if not has_written and _is_startup_due(annotations, context, now_s):
        return "startup_resync", Priority.STARTUP
    return None


def _is_startup_due(
    annotations: TokenAnnotations, context: DecisionContext, now_s: EpochTime
) -> bool:
    if annotations.refreshed_by == context.term:
        return False
    if annotations.refreshed_s is not None and annotations.refreshed_s >= context.term_started_s:
        return False
    if context.startup != "stale" or annotations.issued_s is None or annotations.expires_s is None:
        return context.startup == "all"
    return annotations.expires_s - now_s < MIN_REMAINING * (
        annotations.expires_s - annotations.issued_s
    )


def _is_replaced(
    secret: ObjectMeta,
    annotations: TokenAnnotations,
    context: DecisionContext,
    record: WriteRecord | None,
) -> bool:
    """Return whether the Secret may hold a replaced token; only leaders ask.

    For writes of this term the record decides, else times do, so that nothing of a value needs to
    be kept. Two replicas that write side by side make no allowance for the other's file, or both
    would write in turns. Of a write that the Secret does not show, nothing says that it was
    applied, or that the store was not restored since.
    """
    if context.startup == "none":
        return False
    if _is_under_old_key(annotations, context):
        return True
    shown = record if record is not None and shows(secret, record) else None
    if shown is not None and annotations.refreshed_by == context.term == shown.evidence.term:
        return shown.evidence.is_older_token_than(context.generation)
    written_s = LONG_AGO if annotations.refreshed_s is None else annotations.refreshed_s
    in_our_term = annotations.refreshed_by == context.term or written_s >= context.term_started_s
    return written_s < context.replaced_s + (0.0 if in_our_term else OTHER_FILE_LAG_S)


def _is_under_old_key(annotations: TokenAnnotations, context: DecisionContext) -> bool:
    """Return whether the issuer signed this token before it took its present key.

    Issue times decide: they are persisted with the token by every writer.
    """
    return annotations.issued_s is not None and annotations.issued_s < context.rotated_s


def _scheduled_s(
    state: SessionState, secret: ObjectMeta, annotations: TokenAnnotations
) -> EpochTime:
    """Return when the token is refreshed if nothing else makes it due; never without an expiry."""
    if annotations.issued_s is None or annotations.expires_s is None:
        return NEVER
    uid = state.pod.uid if state.pod is not None else secret.uid
    return refresh_at_s(annotations.issued_s, annotations.expires_s, uid)


def _plan_wait(
    annotations: TokenAnnotations,
    readable: ReadableToken,
    context: DecisionContext,
    now_s: EpochTime,
    due_s: EpochTime,
) -> Plan:
    touch = readable.needs_touch
    if annotations.expires_s is None:
        return replace(_plan(Action.WAIT, "no_expiry", now_s), touch=touch)
    slack_s = annotations.expires_s - now_s - context.propagation_s - context.p95_run_s
    until_s = min(due_s, now_s + REPLAN_S)
    return Plan(Action.WAIT, "scheduled", Priority.ROUTINE, until_s, slack_s, touch=touch)


def _sign_first(state: SessionState, secret: ObjectMeta, waiting: Plan, now_s: EpochTime) -> Plan:
    """Return the plan, or that of a signature that is due earlier: a write also signs."""
    if state.confirmation is not Confirmation.YES:
        return waiting
    if state.sign_due_s > now_s:
        return replace(waiting, due_s=min(waiting.due_s, state.sign_due_s))
    is_older = is_well_formed(secret.annotations.confirmation or "")
    reason = "confirmation_key_changed" if is_older else "confirmation_missing"
    return replace(waiting, action=Action.SIGN, reason=reason)


def _plan(action: Action, reason: str, now_s: EpochTime) -> Plan:
    return Plan(action, reason, Priority.ROUTINE, now_s + REPLAN_S, REPLAN_S)


GRID = 0.4
"""The refresh period, as a fraction of the token's lifetime."""

EARLIEST = 0.2
"""Youngest age, as a fraction of its lifetime, at which a token is refreshed. The window [0.2, 0.6)
is exactly one period long, so that it contains exactly one scheduled instant."""

MIN_REMAINING = 0.8
"""A cached token with less than this fraction of its lifetime left is not written; a new one is
requested. A token is written at age 0.2 at the latest, and refreshed at 0.2 at the earliest."""


def phase(uid: str) -> float:
    """Return a number in [0, 1) that depends only on the UID."""
    digest = hashlib.blake2b(uid.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def refresh_at_s(issued_s: EpochTime, expires_s: EpochTime, uid: str) -> EpochTime:
    """Return when to refresh a token (epoch, issuer's time).

    The age is at least `EARLIEST` and less than `EARLIEST + GRID` of the token's lifetime.

    The period of a token of 900 s is 360 s. Two pods refresh at different instants of it:

    >>> round(refresh_at_s(EpochTime(0), EpochTime(900), "pod-1"))
    200
    >>> round(refresh_at_s(EpochTime(200), EpochTime(1100), "pod-1"))
    560
    >>> round(refresh_at_s(EpochTime(0), EpochTime(900), "pod-2"))
    413
    """
    ttl_s = expires_s - issued_s
    period_s = GRID * ttl_s
    first_s = EpochTime(phase(uid) * period_s)
    earliest_s = issued_s + EARLIEST * ttl_s
    return first_s + math.ceil((earliest_s - first_s) / period_s) * period_s


def allowance_s(ttl_s: float, propagation_s: float) -> float:
    """Return the remaining lifetime that a Secret needs so that its pod sees it in time.

    For tokens that are too short for the kubelet's sync period the pod is touched at each refresh,
    and only the window after the latest refresh counts: otherwise a token just written would be
    due at once.
    """
    return min(propagation_s, (1 - EARLIEST - GRID) * ttl_s)


def slack_s(ttl_s: float, propagation_s: float) -> float:
    """Return how long a fault may last before a runner is affected, without a standby token."""
    return (1 - EARLIEST - GRID) * ttl_s - propagation_s
