"""One session as people are shown it (pure)."""

import msgspec

from reconciler.control.fleet import State
from reconciler.names import SessionKey


class Row(msgspec.Struct, frozen=True, gc=False):
    """One session at the survey's instant; instants are epoch seconds in the issuer's time.

    `pod` and `secret` are names, "" where there is none; `expires_s` is None where it is not known,
    `math.inf` for a token without an end. `due_s` is when a worker takes it next (None: never),
    `reason` why then, `stage` the queue's word (`waiting`, `ready`, `running`, ""), `gate` the
    endpoint that it waits for. `hold` says why nothing is written, "" if nothing holds it.
    """

    namespace: str
    session_id: str
    project: str
    pod: str
    secret: str
    state: State
    expires_s: float | None
    remaining_s: float | None
    due_s: float | None
    reason: str
    stage: str
    gate: str
    hold: str
    failures: int
    refreshed_by: str

    @property
    def key(self) -> SessionKey:
        return SessionKey(self.namespace, self.session_id)
