"""What one session's objects say of its token, kept until one of them changes (pure)."""

import math

import msgspec

from reconciler.controller.decide.annotations import is_paused, parse_annotations
from reconciler.controller.decide.plan import DecisionContext
from reconciler.controller.decide.refresh_times import allowance_s
from reconciler.controller.status.fleet import State
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey


class SessionReading(msgspec.Struct, frozen=True, gc=False):
    """`secret` is the session's own or None, `found` what has its name, whoever's that is.

    `expires_s` is None where nobody can know the token's end, `math.inf` where there is none;
    `allowance_s` is the life below which it is in danger; `certain` is False for what time alone
    may change. `listed` is False while the Secrets of the namespace have not been listed: then
    nobody knows whether one is there.
    """

    key: SessionKey
    secret_name: str
    pod: ObjectMeta | None
    secret: ObjectMeta | None
    found: ObjectMeta | None
    project: str
    expires_s: float | None
    allowance_s: float
    refreshed_by: str
    paused: bool
    longest_ttl_s: float
    certain: bool
    listed: bool = True

    def is_of(self, pod: ObjectMeta | None, found: ObjectMeta | None, longest_ttl_s: float) -> bool:
        """Whether this still stands: the same objects, and nothing that time could change."""
        return (
            self.pod is pod
            and self.found is found
            and self.certain
            and self.longest_ttl_s == longest_ttl_s
        )

    def state(self, remaining_s: float | None) -> State:
        if self.secret is None:
            return "missing" if self.listed else "unknown"
        if remaining_s is None:
            return "unknown"
        if remaining_s <= 0:
            return "expired"
        if remaining_s == math.inf:
            return "no_expiry"
        return "expiring" if remaining_s < self.allowance_s else "live"


def read(
    key: SessionKey,
    pod: ObjectMeta | None,
    found: ObjectMeta | None,
    policy: DecisionContext,
    now_s: float,
    *,
    listed: bool = True,
) -> SessionReading:
    """Read a session's pod and the object of its Secret's name, whoever's that is."""
    name = policy.names.secret_name(key.session_id)
    secret = found if found is not None and found.session_id == key.session_id else None
    project = pod.project_id if pod is not None else secret.project_id if secret else ""
    paused = is_paused(policy.names, pod, secret)
    if secret is None:
        longest_s = policy.longest_ttl_s
        return SessionReading(
            key, name, pod, None, found, project, None, 0.0, "", paused, longest_s, True, listed
        )
    facts = parse_annotations(
        secret,
        policy.names,
        now_s=now_s,
        longest_ttl_s=policy.longest_ttl_s,
        static=policy.static,
        lenient=True,
    )
    expires_s, allowed_s = facts.expires_s, policy.propagation_s
    if expires_s is None and facts.ours and not facts.problem:
        expires_s = math.inf
    if facts.expires_s is not None and facts.issued_s is not None:
        allowed_s = allowance_s(facts.expires_s - facts.issued_s, policy.propagation_s)
    return SessionReading(
        key,
        name,
        pod,
        secret,
        found,
        project,
        expires_s,
        allowed_s,
        facts.refreshed_by,
        paused,
        policy.longest_ttl_s,
        not facts.problem,
    )
