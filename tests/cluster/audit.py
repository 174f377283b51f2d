"""The real API server's audit log: user, verb, kind and result of each request."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [{"level": "Metadata"}],
}
"""A watch is logged when its answer starts, every other request when it is complete."""

CREDENTIAL = "authentication.kubernetes.io/credential-id"
"""Where the server names the token: `JTI=` and the token's `jti`."""


class Use(NamedTuple):
    """A kind and a verb; `resource` includes the subresource, if any."""

    group: str
    resource: str
    verb: str


@dataclass(frozen=True, slots=True)
class Seen:
    """One request about an object or a collection.

    `credential` names the request's token, if it is that of an account.
    """

    user: str
    use: Use
    namespace: str
    name: str
    status: int
    credential: str


class AuditLog:
    """The server's log file, and the position from which a reader starts."""

    def __init__(self, folder: Path) -> None:
        self._policy = folder / "audit-policy.json"
        self._policy.write_text(json.dumps(POLICY))
        self._log = folder / "audit.log"
        self._from = 0

    @property
    def flags(self) -> list[str]:
        """The flags of kube-apiserver."""
        return [f"--audit-policy-file={self._policy}", f"--audit-log-path={self._log}"]

    def forget(self) -> None:
        """Skip all requests up to now."""
        self._from = self._log.stat().st_size

    def of(self, user: str) -> list[Seen]:
        """Return a user's requests, in order; a request with a refused token has no user."""
        with self._log.open("rb") as log:
            log.seek(self._from)
            # The last line may be half written.
            lines = [line for line in log if line.endswith(b"\n")]
        entries = [json.loads(line) for line in lines]
        return [
            _seen(entry)
            for entry in entries
            if entry["user"].get("username") == user and "objectRef" in entry
        ]


def _seen(entry: dict[str, object]) -> Seen:
    reference, user, answer = entry["objectRef"], entry["user"], entry.get("responseStatus", {})
    assert isinstance(reference, dict)
    assert isinstance(user, dict)
    assert isinstance(answer, dict)
    parts = [reference["resource"], reference.get("subresource", "")]
    use = Use(reference.get("apiGroup", ""), "/".join(filter(None, parts)), str(entry["verb"]))
    return Seen(
        user["username"],
        use,
        reference.get("namespace", ""),
        reference.get("name", ""),
        answer.get("code", 0),
        ",".join(user.get("extra", {}).get(CREDENTIAL, ())),
    )
