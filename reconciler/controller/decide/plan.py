"""The decision: what to do for one session now, or until when nothing (pure).

It is a function of what is known and of nothing else; events, timers and resyncs only cause it to
be asked again. Losing any of them costs time, never correctness.
"""

import enum
import math
from dataclasses import dataclass, replace
from typing import Literal

from reconciler.controller.decide.annotations import (
    TokenAnnotations,
    is_paused,
    parse_annotations,
    pending_requests,
)
from reconciler.controller.decide.confirmation_mac import is_well_formed
from reconciler.controller.decide.ownership import Owner
from reconciler.controller.decide.progress import WriteRecord
from reconciler.controller.decide.projection import UNKNOWN_S, needs_touch, readable_until_s
from reconciler.controller.decide.refresh_times import MIN_REMAINING, allowance_s, refresh_at_s
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names, SessionKey
from reconciler.workqueue.items import Priority

LOOK_AGAIN_S = 300.0
"""A session is planned anew at least this often, whatever an annotation claims."""

YOUNG_S = 60.0
"""A pod younger than this may have been seen before its session was committed."""

YOUNG_LOOK_S = 6.0
"""Between look-ups of a session that the platform does not know while its pod is young: what the
platform gave it may have half a minute to live."""

LIST_FIRST_S = 15.0
"""A new leader's first list of running sessions has so much time to confirm a session whose token's
end is unknown, before that is asked for by itself: a list takes a second or two, and the platform
gives its Secrets tokens of 30 s and more, as it reuses a cached one until then."""

LAG_S = 600.0
"""For so long after we saw another static token, another replica may have written the former one:
each has a file of its own, and kubelets of huge clusters take up to 390 s to change it."""


DOUBTED_LOOK_S = 11.0
"""Until a session is asked about again that the platform said "not found" of for the first time."""


class Confirmation(enum.Enum):
    """What the platform said of a session in this project and namespace."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"
    """It was never asked, or its list lacks a session that it once confirmed: it is asked now."""
    DOUBTED = "doubted"
    """It said "not found" once of a session that it had confirmed; it is asked again."""
    REVOKED = "revoked"
    """It said so again, and the Secret still carries the proof of the former confirmation."""


class Action(enum.Enum):
    """What the worker carries out."""

    WRITE = "write"
    CREATE = "create"
    CONFIRM = "confirm"
    REVOKE = "revoke"
    SEAL = "seal"
    """Make the proof of the confirmation again, missing or under another key; the token stays."""
    WAIT = "wait"
    BLOCKED = "blocked"
    REMOVE = "forget"


DUE = frozenset({Action.WRITE, Action.CREATE, Action.CONFIRM, Action.REVOKE, Action.SEAL})
"""Actions that a worker carries out now; the others only wait."""


def dependency_of(action: Action) -> str:
    """Return what a run that carries this out depends on: "platform", "seal" or "write".

    A seal that is refused holds back no token.
    """
    return {Action.CONFIRM: "platform", Action.SEAL: "seal"}.get(action, "write")


@dataclass(frozen=True, slots=True)
class SessionState:
    """All that is known of one session at one moment.

    `pod` is the one that counts: the newest that is not being deleted, else the newest.
    `secret` is the object of the expected name, whoever's label it carries.
    `running` is the platform's word, as of its last readable list. `seal_due_s` is when the proof
    of the confirmation is to be made again (epoch), never by default.
    `record` is our own last write of its Secret in this term, or None.
    """

    key: SessionKey
    pod: ObjectMeta | None
    secret: ObjectMeta | None
    confirmation: Confirmation
    running: bool
    seal_due_s: float = math.inf
    record: WriteRecord | None = None


@dataclass(frozen=True, slots=True)
class DecisionContext:
    """What the decision depends on beside the session.

    Args:
        propagation_s: Time the kubelet may take to project a changed Secret, in seconds.
        longest_ttl_s: Longest life of a token that is believed.
        static: The token has no expiry.
        term: This leader's name in `token-refreshed-by`.
        started_s: When its term began (epoch, issuer's time); infinite if nobody else writes in it.
        startup: Which tokens that another wrote before that are due at once: all, those with less
            than 0.8 of their life left, or none. What another writes later is left alone, or two
            that overlap would rewrite each other's tokens for ever; only an elected leader need
            not compare the two, whose clocks differ by the second of a Date header.
        run_s: p95 of a run, seconds.
        replaced_s: When the token that there is took another's place; see `TokenSource`.
        generation: Of that token; see `TokenSource`.
        rotated_s: What was issued before is under a signing key that was replaced.
        list_began_s: Since when the list of running sessions that may confirm them all is awaited
            (epoch, issuer's time); minus infinity while none is.
    """

    names: Names
    propagation_s: float
    longest_ttl_s: float
    static: bool = False
    term: str = ""
    started_s: float = 0.0
    startup: Literal["all", "stale", "none"] = "none"
    run_s: float = 0.0
    replaced_s: float = -math.inf
    generation: int = 0
    rotated_s: float = -math.inf
    list_began_s: float = -math.inf


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, why, how urgently; `due_s` (epoch) is when to look again if nothing happens, and
    for CONFIRM when to ask: a list may confirm the session until then; for SEAL when the token is
    looked at, whatever becomes of the seal.

    `slack_s` is the time until somebody would notice; `touch` asks for a pod touch, after the write
    or, if nothing is to be written, now; `requests` are the digests that this write honours;
    `facts` is what a WRITE found in the Secret, and `readable_until_s` when the worst token ends
    that the pod may read until then.
    """

    action: Action
    reason: str
    priority: Priority
    due_s: float
    slack_s: float
    touch: bool = False
    requests: tuple[str, ...] = ()
    facts: TokenAnnotations | None = None
    readable_until_s: float = math.inf


def plan(view: SessionState, policy: DecisionContext, now_s: float) -> Plan:
    """Decide for one session at one instant of the issuer's time."""
    names = policy.names
    alive = view.pod is not None
    if _is_to_be_revoked(view, names):
        return replace(_plan(Action.REVOKE, "revoked", now_s), due_s=now_s)
    if not alive and not (view.running and view.secret is not None):
        return _plan(Action.REMOVE, "not_running", now_s)
    if view.secret is not None and view.secret.session_id != view.key.session_id:
        return _plan(Action.BLOCKED, "secret_name_taken", now_s)
    if is_paused(names, view.pod, view.secret):
        return _plan(Action.BLOCKED, "paused", now_s)
    if view.secret is None:
        return _plan_missing(view, policy, now_s)
    facts = parse_annotations(
        view.secret,
        names,
        now_s=now_s,
        longest_ttl_s=policy.longest_ttl_s,
        static=policy.static,
        answer=view.record.response if view.record is not None else None,
    )
    pending = pending_requests(names, view.secret, view.pod)
    found = _due_now(facts, pending, policy, now_s, view.record)
    if found is None:
        waiting = _plan_wait(view, view.secret, facts, policy, now_s)
        return _seal_first(view, view.secret, waiting, names, now_s)
    reason, band = found
    if view.confirmation is not Confirmation.YES:
        return _unconfirmed(view, policy, now_s, facts)
    return _plan_write(view, facts, policy, now_s, reason, band, pending)


def _is_to_be_revoked(view: SessionState, names: Names) -> bool:
    """Whether the proof of a former confirmation is to be taken off; a pause stops every write."""
    if view.confirmation is not Confirmation.REVOKED or view.secret is None:
        return False
    return not is_paused(names, view.pod, view.secret)


_NOT_OURS = {
    Owner.FOREIGN: "foreign_writer",
    Owner.UNCLEAR: "writer_unclear",
    Owner.UNOWNED: "never_written",
}


def _is_known(view: SessionState, facts: TokenAnnotations) -> bool:
    """Tell whether we know what the Secret holds though its annotations do not say it."""
    record, secret = view.record, view.secret
    if record is None or record.response is None or secret is None or record.uid != secret.uid:
        return False
    return facts.ours and bool(facts.problem)


def _plan_write(
    view: SessionState,
    facts: TokenAnnotations,
    policy: DecisionContext,
    now_s: float,
    reason: str,
    band: Priority,
    requests: tuple[str, ...] = (),
) -> Plan:
    """Return the plan of a write; the pod is touched if what it reads ends before it would look.

    With or without a pod in the store: one may be on its way to us.
    """
    delay_s = policy.propagation_s
    until_s = readable_until_s(facts, view.pod, policy.names, propagation_s=delay_s, now_s=now_s)
    if _is_known(view, facts):
        until_s = view.record.expires_s  # type: ignore[union-attr]  # `_is_known` saw it
    left_s = until_s - now_s if math.isfinite(until_s) else 0.0
    if reason == "token_replaced":
        # Whoever puts another in its place may have revoked it. The signing key of a whole fleet
        # may be accepted still: who would expire first is served first.
        until_s, left_s = UNKNOWN_S, left_s if _is_under_old_key(facts, policy) else 0.0
    if _needs_touch(view, facts, policy, now_s):
        band = Priority.EXPIRING
    return Plan(
        Action.WRITE,
        reason,
        band,
        now_s,
        left_s - delay_s - policy.run_s,
        touch=until_s < now_s + delay_s,
        requests=requests,
        facts=facts,
        readable_until_s=until_s,
    )


def _plan_missing(view: SessionState, policy: DecisionContext, now_s: float) -> Plan:
    if view.pod is None or view.pod.is_deleting:
        return _plan(Action.BLOCKED, "pod_leaving", now_s)
    if view.confirmation is not Confirmation.YES:
        return _unconfirmed(view, policy, now_s)
    return Plan(
        Action.CREATE,
        "secret_missing",
        Priority.EXPIRING,
        now_s,
        0.0,
        touch=True,
        readable_until_s=UNKNOWN_S,
    )


def is_young(view: SessionState, now_s: float) -> bool:
    return view.pod is not None and now_s - view.pod.created_s < YOUNG_S


def _unconfirmed(
    view: SessionState, policy: DecisionContext, now_s: float, facts: TokenAnnotations | None = None
) -> Plan:
    if view.confirmation is Confirmation.DOUBTED:
        blocked = _plan(Action.BLOCKED, "not_confirmed", now_s)
        return replace(blocked, due_s=now_s + DOUBTED_LOOK_S)
    if view.confirmation in (Confirmation.NO, Confirmation.REVOKED):
        blocked = _plan(Action.BLOCKED, "not_confirmed", now_s)
        is_soon = is_young(view, now_s)
        return replace(blocked, due_s=now_s + YOUNG_LOOK_S) if is_soon else blocked
    # No slack ends: anybody who may make a pod makes this work, and it must not become as urgent as
    # a token that expires.
    ask_s = max(now_s, _ask_s(view, policy, now_s, facts))
    return Plan(Action.CONFIRM, "not_confirmed", Priority.CHANGED, ask_s, math.inf)


def _ask_s(
    view: SessionState, policy: DecisionContext, now_s: float, facts: TokenAnnotations | None
) -> float:
    """Return from when on a session is asked for by itself, though a list may confirm it soon."""
    if is_young(view, now_s):
        return now_s  # the list may have been read before it
    if math.isinf(policy.list_began_s):
        return now_s
    if facts is None or facts.issued_s is None or facts.expires_s is None:
        return policy.list_began_s + LIST_FIRST_S
    ttl_s = facts.expires_s - facts.issued_s
    return facts.expires_s - allowance_s(ttl_s, policy.propagation_s)


def _due_now(
    facts: TokenAnnotations,
    pending: tuple[str, ...],
    policy: DecisionContext,
    now_s: float,
    record: WriteRecord | None,
) -> tuple[str, Priority] | None:
    """Return the first reason that makes a token due, the most urgent first, or None."""
    if not facts.ours:
        # What was there before we ever wrote is nobody's overwriting of ours.
        is_first = not facts.refreshed_by and record is None
        if is_first and facts.owner is not Owner.UNOWNED:
            return "first_write", Priority.EXPIRING
        return _NOT_OURS[facts.owner], Priority.EXPIRING
    if facts.problem:
        return facts.problem, Priority.EXPIRING
    remaining_s = facts.remaining_s(now_s)
    if remaining_s is not None and facts.issued_s is not None:
        if remaining_s <= 0:
            return "expired", Priority.EXPIRING
        ttl_s = remaining_s + now_s - facts.issued_s
        if remaining_s < allowance_s(ttl_s, policy.propagation_s):
            return "expiring", Priority.EXPIRING
    if pending:
        return "requested", Priority.CHANGED
    if _is_replaced(facts, policy, record):
        return "token_replaced", Priority.STARTUP
    if _is_startup_due(facts, policy, now_s):
        return "startup_resync", Priority.STARTUP
    return None


def _is_startup_due(facts: TokenAnnotations, policy: DecisionContext, now_s: float) -> bool:
    if facts.refreshed_by == policy.term:
        return False
    if facts.refreshed_s is not None and facts.refreshed_s >= policy.started_s:
        return False
    if policy.startup != "stale" or facts.issued_s is None or facts.expires_s is None:
        return policy.startup == "all"
    return facts.expires_s - now_s < MIN_REMAINING * (facts.expires_s - facts.issued_s)


def _is_replaced(
    facts: TokenAnnotations, policy: DecisionContext, record: WriteRecord | None
) -> bool:
    """Tell whether the Secret may hold the token whose place another has taken; leaders ask.

    Of what we wrote in this term we know it; else times tell, so that nothing of a value needs to
    be kept. Of two that write side by side neither makes allowance for the other's file, or both
    would write in turns.
    """
    if policy.startup == "none":
        return False
    if _is_under_old_key(facts, policy):
        return True
    if record is not None and facts.refreshed_by == policy.term == record.evidence.term:
        return record.evidence.is_older_token_than(policy.generation)
    written_s = -math.inf if facts.refreshed_s is None else facts.refreshed_s
    in_our_term = facts.refreshed_by == policy.term or written_s >= policy.started_s
    return written_s < policy.replaced_s + (0.0 if in_our_term else LAG_S)


def _is_under_old_key(facts: TokenAnnotations, policy: DecisionContext) -> bool:
    """Tell whether the issuer signed this token before it took the key that it has now.

    Issue times tell, which are persisted with the token, whoever wrote it and when.
    """
    return facts.issued_s is not None and facts.issued_s < policy.rotated_s


def _plan_wait(
    view: SessionState,
    secret: ObjectMeta,
    facts: TokenAnnotations,
    policy: DecisionContext,
    now_s: float,
) -> Plan:
    if facts.issued_s is None or facts.expires_s is None:
        touch = _needs_touch(view, facts, policy, now_s)
        return replace(_plan(Action.WAIT, "no_expiry", now_s), touch=touch)
    uid = view.pod.uid if view.pod is not None else secret.uid
    due_s = refresh_at_s(facts.issued_s, facts.expires_s, uid)
    slack_s = facts.expires_s - now_s - policy.propagation_s - policy.run_s
    if due_s > now_s:
        until_s = min(due_s, now_s + LOOK_AGAIN_S)
        touch = _needs_touch(view, facts, policy, now_s)
        return Plan(Action.WAIT, "renewal", Priority.ROUTINE, until_s, slack_s, touch=touch)
    if view.confirmation is not Confirmation.YES:
        return _unconfirmed(view, policy, now_s, facts)
    return _plan_write(view, facts, policy, now_s, "renewal", Priority.ROUTINE)


def _seal_first(
    view: SessionState, secret: ObjectMeta, waiting: Plan, names: Names, now_s: float
) -> Plan:
    """Return the plan, or that of a seal which is due before: a write makes one by the way."""
    if waiting.action is not Action.WAIT or view.confirmation is not Confirmation.YES:
        return waiting
    if view.seal_due_s > now_s:
        return replace(waiting, due_s=min(waiting.due_s, view.seal_due_s))
    is_older = is_well_formed(secret.annotations.get(names.confirmation, ""))
    reason = "seal_renewed" if is_older else "seal_missing"
    return replace(waiting, action=Action.SEAL, reason=reason)


def _needs_touch(
    view: SessionState, facts: TokenAnnotations, policy: DecisionContext, now_s: float
) -> bool:
    return needs_touch(
        facts, view.pod, policy.names, propagation_s=policy.propagation_s, now_s=now_s
    )


def _plan(action: Action, reason: str, now_s: float) -> Plan:
    return Plan(action, reason, Priority.ROUTINE, now_s + LOOK_AGAIN_S, LOOK_AGAIN_S)
