"""Who wrote what and when, by the API server itself: independent of what the controller reports."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from reconciler.clock import Instant
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Kind, Object

WriteVerb = Literal["create", "update", "patch", "delete"]


@dataclass(frozen=True, slots=True)
class Caller:
    """The client of a request. `manager` owns the fields that a write changes."""

    user: str = "system:lab"
    agent: str = ""
    manager: str = "lab"
    dry_run: bool = False


CONTROLLER_MANAGER = Caller(manager="kube-controller-manager")
"""The cluster's controllers: garbage collection and namespaces."""


RESTORER = Caller("system:restore", manager="etcd")
"""The writer of a restored state of the store."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed write.

    Args:
        object: As stored; after a removal its last state.
        removed: Whether the object was removed.
        at: Monotonic seconds of the core's clock.
    """

    verb: WriteVerb
    kind: Kind
    object: Object
    removed: bool
    version: int
    caller: Caller
    at: Instant

    @property
    def user(self) -> str:
        return self.caller.user

    @property
    def field_manager(self) -> str:
        return self.caller.manager


@dataclass(frozen=True, slots=True)
class SecretWrite:
    """A write of a Secret; of its content only the annotations."""

    version: int
    at: Instant
    agent: str
    manager: str
    verb: WriteVerb
    namespace: str
    name: str
    annotations: dict[str, str]


@dataclass(frozen=True, slots=True)
class HolderChange:
    """A change of a lease's holder; `holder` "": released or deleted."""

    version: int
    at: Instant
    namespace: str
    name: str
    holder: str


@dataclass(frozen=True, slots=True)
class ProcessWrite:
    """A write of a Secret or pod by a client whose user agent names its process."""

    version: int
    at: Instant
    process: str


_PROCESS_AGENT = re.compile(r"[^ ]+ \((?P<process>[^ )]+)\)")
"""A user agent that ends in one word in parentheses; an elector's connection adds a second word."""


class WriteLog:
    """Writes of Secrets and pods, and changes of lease holders, in the order of their versions.

    A commit hook: `core.on_commit.append(write_log.record)`.
    """

    def __init__(self) -> None:
        self.secret_writes: list[SecretWrite] = []
        self.holder_changes: list[HolderChange] = []
        self.process_writes: list[ProcessWrite] = []
        self.secret_patches: Counter[str] = Counter()
        """Patches applied to Secrets, by user agent."""
        self._holders: dict[tuple[str, str], str] = {}

    def __repr__(self) -> str:
        holders = len(self.holder_changes)
        return f"<WriteLog {len(self.secret_writes)} writes, {holders} changes of holders>"

    def record(self, commit: Commit) -> None:
        """Record one commit."""
        if commit.kind in (kinds.SECRETS, kinds.PODS):
            signed = _PROCESS_AGENT.fullmatch(commit.caller.agent)
            if signed is not None:
                write = ProcessWrite(commit.version, commit.at, signed["process"])
                self.process_writes.append(write)
        if commit.kind is kinds.SECRETS:
            self._record_secret(commit)
        elif commit.kind is kinds.LEASES:
            self._record_lease(commit)

    def _record_secret(self, commit: Commit) -> None:
        metadata, caller = commit.object["metadata"], commit.caller
        if commit.verb == "patch":
            self.secret_patches[caller.agent] += 1
        self.secret_writes.append(
            SecretWrite(
                commit.version, commit.at, caller.agent, caller.manager, commit.verb,
                metadata["namespace"], metadata["name"], dict(metadata.get("annotations", {})),
            )
        )  # fmt: skip

    def _record_lease(self, commit: Commit) -> None:
        metadata = commit.object["metadata"]
        key = metadata["namespace"], metadata["name"]
        spec = commit.object.get("spec") or {}
        holder = "" if commit.removed else spec.get("holderIdentity") or ""
        if self._holders.get(key, "") != holder:
            self._holders[key] = holder
            self.holder_changes.append(HolderChange(commit.version, commit.at, *key, holder))
