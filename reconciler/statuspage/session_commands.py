"""Commands about one session that a reader copies into a shell (pure)."""

import re

from reconciler.controller.status.snapshot import SessionStatus
from reconciler.statuspage.identity import PageIdentity

_SAFE = re.compile(r"[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?")
"""Words without a meaning to a shell or to `grep`. Names of objects are such words; an ID that a
tenant wrote need not be one."""


def commands(row: SessionStatus, identity: PageIdentity) -> tuple[str, ...]:
    """Return commands that explain, refresh and follow a session; none with an unsafe word."""
    namespace, pod = row.namespace, row.pod
    log = f"kubectl -n {identity.namespace} logs {identity.replica} | grep {row.session_id}"
    found = (
        (f"reconciler explain {namespace}/{pod}", (namespace, pod)),
        (f"kubectl -n {namespace} describe pod {pod}", (namespace, pod)),
        (f"reconciler refresh {namespace}/{pod}", (namespace, pod)),
        (log, (identity.namespace, identity.replica, row.session_id)),
    )
    return tuple(text for text, words in found if all(_SAFE.fullmatch(word) for word in words))
