"""What one session's objects say about its token, kept until one of them changes (pure)."""

import msgspec

from reconciler.clock import NEVER, EpochTime
from reconciler.controller.decide.annotations import (
    parse_annotations,
    pending_requests,
)
from reconciler.controller.decide.evidence import owner_of
from reconciler.controller.decide.refresh_plan import (
    DecisionContext,
    allowance_s,
    is_paused,
    refresh_at_s,
)
from reconciler.controller.decide.token_state import TokenState, soon_s, state_at, written_state
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey


class SessionReading(msgspec.Struct, frozen=True, gc=False):
    """`secret` is the session's own or None, `found` the Secret of that name, of any session.

    `expires_s` is None where the token's expiry is not known, `math.inf` where it has none;
    `written`, `refresh_at_s`, `allowance_s`, `soon_s` and `requested` are what `state_at` needs;
    `certain` is False for what time alone may change. `listed` is False while the Secrets of the
    namespace have not been listed: then it is not known whether one exists.
    """

    key: SessionKey
    secret_name: str
    pod: ObjectMeta | None
    secret: ObjectMeta | None
    found: ObjectMeta | None
    project: str
    expires_s: EpochTime | None
    allowance_s: float
    refreshed_by: str
    paused: bool
    longest_ttl_s: float
    certain: bool
    written: TokenState
    listed: bool = True
    refresh_at_s: EpochTime | None = None
    soon_s: float = 0.0
    requested: bool = False

    def is_of(self, pod: ObjectMeta | None, found: ObjectMeta | None, longest_ttl_s: float) -> bool:
        """Whether this is still valid: the same objects, and nothing that time could change."""
        return (
            self.pod is pod
            and self.found is found
            and self.certain
            and self.longest_ttl_s == longest_ttl_s
        )

    def state(self, now_s: EpochTime, *, confirmed: bool) -> TokenState:
        return state_at(
            now_s,
            self.written,
            expires_s=self.expires_s,
            refresh_at_s=self.refresh_at_s,
            allowance_s=self.allowance_s,
            soon_s=self.soon_s,
            confirmed=confirmed,
            paused=self.paused,
            requested=self.requested,
        )


def read(
    key: SessionKey,
    pod: ObjectMeta | None,
    found: ObjectMeta | None,
    context: DecisionContext,
    now_s: EpochTime,
    *,
    listed: bool = True,
) -> SessionReading:
    """Read a session's pod and the Secret of the expected name, of any session."""
    # One text for the two, where there are two: a fleet has as many names as sessions.
    name = found.name if found is not None else context.names.secret_name(key.session_id)
    secret = found if found is not None and found.session_id == key.session_id else None
    project = pod.project_id if pod is not None else secret.project_id if secret else ""
    paused = is_paused(pod, secret)
    if secret is None:
        longest_s = context.longest_ttl_s
        written = written_state(key.session_id, found, None, listed=listed)
        return SessionReading(
            key, name, pod, None, found, project, None, 0.0, "", paused, longest_s, True, written,
            listed,
        )  # fmt: skip
    annotations = parse_annotations(
        secret,
        context.names,
        owner=owner_of(secret, context.names.field_manager, None),
        now_s=now_s,
        longest_ttl_s=context.longest_ttl_s,
        static=context.static,
        lenient=True,
    )
    expires_s, allowed_s = annotations.expires_s, context.propagation_s
    due_s, near_s = None, 0.0
    if expires_s is None and annotations.is_ours and not annotations.problem:
        expires_s = NEVER
    if annotations.expires_s is not None and annotations.issued_s is not None:
        allowed_s = allowance_s(annotations.expires_s - annotations.issued_s, context.propagation_s)
        uid = pod.uid if pod is not None else secret.uid
        due_s = refresh_at_s(annotations.issued_s, annotations.expires_s, uid)
        near_s = soon_s(annotations.issued_s, annotations.expires_s)
    return SessionReading(
        key,
        name,
        pod,
        secret,
        found,
        project,
        expires_s,
        allowed_s,
        annotations.refreshed_by,
        paused,
        context.longest_ttl_s,
        not annotations.problem,
        written_state(key.session_id, secret, annotations, listed=listed),
        listed,
        due_s,
        near_s,
        bool(pending_requests(secret, pod)),
    )
