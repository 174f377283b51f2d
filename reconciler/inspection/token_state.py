"""How one pod's token stands: the controller's own arithmetic, asked by an onlooker (pure)."""

import enum
from dataclasses import dataclass, replace

from reconciler.controller.decide.annotations import (
    TokenAnnotations,
    is_paused,
    parse_annotations,
    pending_requests,
)
from reconciler.controller.decide.confirmation_mac import is_well_formed
from reconciler.controller.decide.plan import (
    Action,
    Confirmation,
    DecisionContext,
    SessionState,
    plan,
)
from reconciler.controller.decide.refresh_times import refresh_at_s
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

SOON_S = 60.0
"""A renewal this near is about to happen; one this late does not happen by itself."""

SOON_TTL = 0.1
"""The same as a fraction of a life, for tokens so short that a minute is most of it."""


class State(enum.StrEnum):
    """What there is to say of a pod's token, the worst first."""

    EXPIRED = "expired"
    """The newest token that was written is dead by now."""
    NO_SECRET = "no-secret"  # noqa: S105 - a state
    """The pod lives, its Secret is not there, or not labelled."""
    NO_TOKEN = "no-token"  # noqa: S105 - a state
    """The Secret is there and holds no token."""
    NAME_TAKEN = "name-taken"
    """The Secret of that name belongs to another session."""
    UNREADABLE = "unreadable"
    """The annotations give no expiry, or one that cannot be believed."""
    FOREIGN_WRITER = "foreign-writer"
    """Somebody else wrote over our token, so that its expiry is not known."""
    UNCONFIRMED = "unconfirmed"
    """Our annotations are there without the proof that the platform confirmed the session: it was
    taken off, or somebody else wrote them. Nothing is written before the platform confirms it."""
    UNMANAGED = "unmanaged"
    """The token was never written by us, so that its expiry is not known."""
    EXPIRING = "expiring"
    """Alive, with less life left than the way to the pod's file may take."""
    OVERDUE = "overdue"
    """Alive, and its renewal should have happened a while ago."""
    PAUSED = "paused"
    """Nothing is written, because somebody asked for that."""
    RENEWING_SOON = "renewing-soon"
    """The renewal is asked for, under way, or less than a minute off."""
    OK = "ok"


@dataclass(frozen=True, slots=True)
class TokenState:
    """One pod, instants in epoch seconds of the issuer's time.

    `expires_s` and `refresh_at_s` are None where they are not known; `endless` tells a token
    without expiry from an unknown one. `why` is the reason that the controller itself would give.
    `unlabelled` is a Secret of the right name that our selector does not find.
    """

    pod: ObjectMeta
    secret: ObjectMeta | None
    state: State
    reason: str
    issued_s: float | None = None
    expires_s: float | None = None
    refresh_at_s: float | None = None
    endless: bool = False
    refreshed_by: str = ""
    refreshed_s: float | None = None
    paused: bool = False
    requested: bool = False
    confirmed: bool = False
    unlabelled: bool = False

    @property
    def has_expired_token(self) -> bool:
        """A live pod holds a dead token: the one thing that must never be."""
        return self.state is State.EXPIRED

    def sibling_pods(self, names: Names) -> tuple[str, ...]:
        """Return the managers beside us that own the token's value."""
        writers = self.secret.field_managers if self.secret is not None else ()
        return tuple(writer for writer in writers if writer != names.field_manager)

    def remaining_s(self, now_s: float) -> float | None:
        return None if self.expires_s is None else self.expires_s - now_s


def assess(
    pod: ObjectMeta,
    secret: ObjectMeta | None,
    policy: DecisionContext,
    now_s: float,
    *,
    leading: ObjectMeta | None = None,
) -> TokenState:
    """Say how a live pod's token stands.

    Args:
        secret: The object of the expected name, whoever's label it carries.
        leading: The session's pod that counts for the controller, where that is another one.
    """
    names, counts = policy.names, leading or pod
    known = TokenState(
        pod,
        secret,
        State.OK,
        "",
        paused=is_paused(names, counts, secret),
        requested=names.requested_at in counts.annotations,
    )
    if secret is None:
        return replace(known, state=State.NO_SECRET, reason="secret_missing")
    if not secret.session_id:
        return replace(
            known, state=State.NO_SECRET, reason="secret_without_labels", unlabelled=True
        )
    if secret.session_id != pod.session_id:
        return replace(known, state=State.NAME_TAKEN, reason="secret_name_taken", paused=False)
    facts = _read(secret, policy, now_s)
    known = replace(
        known,
        refreshed_by=facts.refreshed_by,
        refreshed_s=facts.refreshed_s,
        requested=bool(pending_requests(names, secret, counts)),
        confirmed=is_well_formed(secret.annotations.get(names.confirmation, "")),
    )
    if facts.ours and not known.confirmed:
        return replace(known, state=State.UNCONFIRMED, reason="not_confirmed")
    if not facts.ours or facts.problem:
        state, why = _unknown(facts)
        return replace(known, state=state, reason=why)
    if facts.issued_s is None or facts.expires_s is None:
        known = replace(known, endless=True)
    else:
        known = replace(
            known,
            issued_s=facts.issued_s,
            expires_s=facts.expires_s,
            refresh_at_s=refresh_at_s(facts.issued_s, facts.expires_s, counts.uid),
        )
    state, why = _known(known, counts, policy, now_s)
    return replace(known, state=state, reason=why)


def soon_s(issued_s: float, expires_s: float) -> float:
    return min(SOON_S, SOON_TTL * (expires_s - issued_s))


def _read(secret: ObjectMeta, policy: DecisionContext, now_s: float) -> TokenAnnotations:
    """Read the facts; a token without any times is one without expiry, if we wrote it."""
    names = policy.names
    untimed = not {names.expires_at, names.issued_at} & secret.annotations.keys()
    return parse_annotations(
        secret,
        names,
        now_s=now_s,
        longest_ttl_s=policy.longest_ttl_s,
        static=untimed,
        lenient=True,
    )


def _unknown(facts: TokenAnnotations) -> tuple[State, str]:
    """Word a token of which nothing is known."""
    if facts.ours:
        return State.UNREADABLE, facts.problem
    if not facts.writer:
        return State.NO_TOKEN, "never_written"
    if facts.refreshed_by:
        return State.FOREIGN_WRITER, "foreign_writer"
    return State.UNMANAGED, "never_written"


def _known(
    known: TokenState, pod: ObjectMeta, policy: DecisionContext, now_s: float
) -> tuple[State, str]:
    """Word a token of ours whose life is known; death comes before every other news."""
    if known.expires_s is not None and known.expires_s <= now_s:
        return State.EXPIRED, "expired"
    if known.paused:
        return State.PAUSED, "paused"
    view = SessionState(pod.key, pod, known.secret, Confirmation.YES, running=True)
    found = plan(view, replace(policy, static=known.endless), now_s)
    if found.reason == "expiring":
        return State.EXPIRING, found.reason
    if known.refresh_at_s is None or known.issued_s is None or known.expires_s is None:
        return (State.OK if found.action is Action.WAIT else State.RENEWING_SOON), found.reason
    late_s = now_s - known.refresh_at_s
    soon = soon_s(known.issued_s, known.expires_s)
    if late_s > soon:
        return State.OVERDUE, "renewal"
    if found.action is not Action.WAIT or late_s > -soon:
        return State.RENEWING_SOON, found.reason
    return State.OK, found.reason
