"""Names in Kubernetes objects, ours and the platform's: labels, annotations, Secrets, keys."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import msgspec

LIVE_PODS = "status.phase!=Succeeded,status.phase!=Failed"
"""Field selector: the server leaves out ended pods; a pod that ends becomes DELETED in a watch."""

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def is_namespace(name: str) -> bool:
    """Return whether a namespace can have this name: a DNS label, RFC 1123."""
    return _LABEL.fullmatch(name) is not None


class SessionKey(NamedTuple):
    """The key of a unit of work: one session in one namespace (original case).

    >>> str(SessionKey("team-a", "2FbX7"))
    'team-a/2FbX7'
    """

    namespace: str
    session_id: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.session_id}"


class Shard(msgspec.Struct, frozen=True):
    """One of `count` parts of all sessions; the parts are numbered from 0.

    >>> str(Shard(0, 3))
    '0/3'
    """

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


ALL_SESSIONS = Shard(0, 1)
"""The only shard of an installation without shards."""


class Annotations(msgspec.Struct, frozen=True, gc=False):
    """The values of an object's annotations, each under the name of its key in `Names`.

    None: absent. A hundred thousand sessions have two hundred thousand of them: a dict of six
    values has 272 bytes, this has 96.
    """

    expires_at: str | None = None
    issued_at: str | None = None
    previous_expires_at: str | None = None
    refreshed_at: str | None = None
    refreshed_by: str | None = None
    confirmation: str | None = None
    handled_requests: str | None = None
    touched_at: str | None = None
    requested_at: str | None = None
    paused: str | None = None


NO_ANNOTATIONS = Annotations()
"""Of each object without one: most pods."""


def object_id(session_id: str) -> str:
    """Return a session's ID as the names of its objects have it; two IDs may share one."""
    return session_id[:40].lower()


@dataclass(frozen=True)
class Names:
    """Label, annotation and object names; the defaults are the platform's.

    Source: the platform's control plane, `kube_reconciler.go` (labels, `session-<id>-creds`,
    key `api-token`; the ID is cut at 40 characters and lower-cased in object names only).

    >>> names = Names()
    >>> names.secret_name("2FbX7")
    'session-2fbx7-creds'
    >>> names.selector()
    'ambient-code.io/session-id,ambient-code.io/managed=true'
    >>> Names(prefix="example.org").paused
    'example.org/refresh-paused'
    """

    prefix: str = "ambient-code.io"
    secret_pattern: str = "session-{id}-creds"  # noqa: S105 - an object's name, not a secret
    secret_key: str = "api-token"  # noqa: S105 - the name of a key
    managed_by: str = "ambient-control-plane"
    field_manager: str = "token-reconciler"

    def _ours(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    @cached_property
    def session_id(self) -> str:
        """Label on pods and Secrets: the session's ID in its original case."""
        return self._ours("session-id")

    @cached_property
    def project_id(self) -> str:
        """Label on pods and Secrets: the project's ID."""
        return self._ours("project-id")

    @cached_property
    def managed(self) -> str:
        """Label `true` on every object of the platform's control plane."""
        return self._ours("managed")

    @cached_property
    def managed_by_label(self) -> str:
        return self._ours("managed-by")

    @cached_property
    def expires_at(self) -> str:
        """Secret annotation: `exp` of the token that was written, RFC 3339."""
        return self._ours("token-expires-at")

    @cached_property
    def issued_at(self) -> str:
        """Secret annotation: `iat` of the token that was written, RFC 3339."""
        return self._ours("token-issued-at")

    @cached_property
    def refreshed_at(self) -> str:
        """Secret annotation: when it was written, issuer's time, RFC 3339 with milliseconds."""
        return self._ours("token-refreshed-at")

    @cached_property
    def previous_expires_at(self) -> str:
        """Secret annotation: `exp` of the token before the last write, or `unknown`."""
        return self._ours("token-former-expires-at")

    @cached_property
    def refreshed_by(self) -> str:
        """Secret annotation: replica and lease term that wrote it."""
        return self._ours("token-refreshed-by")

    @cached_property
    def confirmation(self) -> str:
        """Secret annotation: proof that the platform once confirmed this session here."""
        return self._ours("token-confirmed")

    @cached_property
    def handled_requests(self) -> str:
        """Secret annotation: digests of the refresh requests that are done."""
        return self._ours("refresh-honoured")

    @cached_property
    def touched_at(self) -> str:
        """Pod annotation: changed only to make the kubelet sync the Secret now."""
        return self._ours("token-touched-at")

    @cached_property
    def requested_at(self) -> str:
        """Pod or Secret annotation set by a human: refresh now, once per value."""
        return self._ours("refresh-requested-at")

    @cached_property
    def paused(self) -> str:
        """Pod or Secret annotation set by a human: `true` stops us from writing."""
        return self._ours("refresh-paused")

    @cached_property
    def shard(self) -> str:
        """Lease annotation: the shard `i/n` of the leader that wrote it."""
        return self._ours("shard")

    def annotations(self) -> tuple[str, ...]:
        """Return the annotations of pods and Secrets that are decoded: those of `Annotations`.

        Others may hold secrets, and are skipped.
        """
        return tuple(getattr(self, field) for field in Annotations.__struct_fields__)

    def selector(self) -> str:
        """Return the label selector for pods and Secrets of sessions.

        `session-id` is always required: other Secrets carry `managed` too (a copied vertex
        Secret, for one) and must never be touched.
        """
        return f"{self.session_id},{self.managed}=true"

    def secret_name(self, session_id: str) -> str:
        """Return the name of a session's Secret; two IDs may share one (cut, lower-cased)."""
        return self.secret_pattern.format(id=object_id(session_id))
