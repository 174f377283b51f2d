"""What the cluster's objects say of one pod's token, by the controller's own arithmetic (pure)."""

import msgspec
from msgspec.structs import replace

from reconciler.clock import NEVER, EpochTime
from reconciler.controller.decide.annotations import (
    TokenAnnotations,
    parse_annotations,
    pending_requests,
)
from reconciler.controller.decide.block_reasons import BlockReason
from reconciler.controller.decide.confirmation_mac import is_well_formed
from reconciler.controller.decide.evidence import owner_of
from reconciler.controller.decide.refresh_plan import (
    Confirmation,
    DecisionContext,
    SessionState,
    allowance_s,
    is_paused,
    plan,
    refresh_at_s,
)
from reconciler.controller.decide.token_state import TokenState, soon_s, state_at, written_state
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Names

_REASONS = {
    TokenState.NO_SECRET: "secret_missing",
    TokenState.NAME_TAKEN: BlockReason.NAME_TAKEN,
    TokenState.NO_TOKEN: "never_written",
    TokenState.UNMANAGED: "never_written",
    TokenState.FOREIGN_WRITER: "foreign_writer",
    TokenState.UNCONFIRMED: BlockReason.NOT_CONFIRMED,
    TokenState.EXPIRED: "expired",
    TokenState.PAUSED: BlockReason.PAUSED,
    TokenState.EXPIRING: "expiring",
    TokenState.OVERDUE: "scheduled",
}
"""The plan's reason that follows from the state alone."""


class PodToken(msgspec.Struct, frozen=True):
    """One pod and the token that it reads. Instants are epoch seconds in the issuer's time.

    `expires_s` and `refresh_at_s` are None where they are not known; `endless` is True for a token
    without an expiry. `reason` is the reason that the controller itself gives. `unlabelled` is True
    for a Secret of the right name that our selector does not find.
    """

    pod: ObjectMeta
    secret: ObjectMeta | None
    state: TokenState
    reason: str
    issued_s: EpochTime | None = None
    expires_s: EpochTime | None = None
    refresh_at_s: EpochTime | None = None
    endless: bool = False
    refreshed_by: str = ""
    refreshed_s: EpochTime | None = None
    paused: bool = False
    requested: bool = False
    confirmed: bool = False
    unlabelled: bool = False

    @property
    def has_expired_token(self) -> bool:
        """Whether the pod's token has expired: the one thing that must never happen."""
        return self.state is TokenState.EXPIRED

    def other_writers(self, names: Names) -> tuple[str, ...]:
        """Return the field managers other than ours that own the token's value."""
        writers = self.secret.field_managers if self.secret is not None else ()
        return tuple(writer for writer in writers if writer != names.field_manager)

    def remaining_s(self, now_s: EpochTime) -> float | None:
        return None if self.expires_s is None else self.expires_s - now_s


def assess(
    pod: ObjectMeta,
    secret: ObjectMeta | None,
    context: DecisionContext,
    now_s: EpochTime,
    *,
    newest: ObjectMeta | None = None,
) -> PodToken:
    """Return the state of a live pod's token, and what it follows from.

    Args:
        secret: The object of the expected name, with the label of any session.
        newest: The session's newest pod, if it is another: the controller reads its annotations.
    """
    counted = newest or pod
    found = PodToken(
        pod,
        secret,
        written_state(pod.session_id, secret, None, listed=True),
        "",
        paused=is_paused(counted, secret),
        requested=counted.annotations.requested_at is not None,
    )
    if secret is None:
        return replace(found, reason="secret_missing")
    if not secret.session_id:
        return replace(found, reason="secret_without_labels", unlabelled=True)
    if secret.session_id != pod.session_id:
        return replace(found, reason=BlockReason.NAME_TAKEN, paused=False)
    annotations = _read(secret, context, now_s)
    found = replace(
        found,
        refreshed_by=annotations.refreshed_by,
        refreshed_s=annotations.refreshed_s,
        requested=bool(pending_requests(secret, counted)),
        confirmed=is_well_formed(secret.annotations.confirmation or ""),
    )
    return _timed(found, annotations, counted, context, now_s)


def _read(secret: ObjectMeta, context: DecisionContext, now_s: EpochTime) -> TokenAnnotations:
    """Parse the annotations; a token without any times has no expiry, if we wrote it."""
    found = secret.annotations
    untimed = found.expires_at is None and found.issued_at is None
    return parse_annotations(
        secret,
        context.names,
        owner=owner_of(secret, context.names.field_manager, None),
        now_s=now_s,
        longest_ttl_s=context.longest_ttl_s,
        static=untimed,
        lenient=True,
    )


def _timed(
    found: PodToken,
    annotations: TokenAnnotations,
    counted: ObjectMeta,
    context: DecisionContext,
    now_s: EpochTime,
) -> PodToken:
    """Add the token's times, if they are known and believed, and the state that follows."""
    issued_s, expires_s = annotations.issued_s, annotations.expires_s
    is_ours = annotations.is_ours and not annotations.problem and found.confirmed
    endless = is_ours and (issued_s is None or expires_s is None)
    allowed_s, near_s = context.propagation_s, 0.0
    if is_ours and issued_s is not None and expires_s is not None:
        allowed_s = allowance_s(expires_s - issued_s, context.propagation_s)
        near_s = soon_s(issued_s, expires_s)
        found = replace(
            found,
            issued_s=issued_s,
            expires_s=expires_s,
            refresh_at_s=refresh_at_s(issued_s, expires_s, counted.uid),
        )
    state = state_at(
        now_s,
        written_state(found.pod.session_id, found.secret, annotations, listed=True),
        expires_s=NEVER if endless else found.expires_s,
        refresh_at_s=found.refresh_at_s,
        allowance_s=allowed_s,
        soon_s=near_s,
        confirmed=found.confirmed,
        paused=found.paused,
        requested=found.requested,
    )
    found = replace(found, state=state, endless=endless)
    return replace(found, reason=_reason(found, annotations, counted, context, now_s))


def _reason(
    found: PodToken,
    annotations: TokenAnnotations,
    counted: ObjectMeta,
    context: DecisionContext,
    now_s: EpochTime,
) -> str:
    """Return the reason that the plan gives, or would give if it knew no more than we do."""
    if found.state is TokenState.UNREADABLE:
        return annotations.problem
    if found.state in _REASONS:
        return _REASONS[found.state]
    session = SessionState(counted.key, counted, found.secret, Confirmation.YES, is_running=True)
    return plan(session, replace(context, static=found.endless), now_s).reason
