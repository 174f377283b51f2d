"""Invariants of every world, checked at each commit, each request and each projection.

The checkers know what the controller cannot know: the true expiry of every token, and the
platform's answers. They change nothing in the world.
"""

import asyncio
import base64
import contextvars
import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from reconciler.clock import EPOCH, LONG_AGO, EpochTime, Instant, format_utc
from reconciler.kube.api import Body, Kube
from reconciler.kube.forwarding import ForwardingKube, KubeCall
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.write_log import RESTORER, Commit
from reconciler.lab.simulation.event_log import EventLog
from reconciler.naming import Names, SessionKey

T = TypeVar("T")

MONOTONIC_EXPIRY = "expiry_never_moves_back"
CONFIRMED_FIRST = "no_token_unconfirmed"
PRECONDITIONS = "writes_carry_preconditions"
ONE_AT_A_TIME = "one_run_a_key"
NO_TOKEN_EXPOSED = "no_token_exposed"
TRUE_EXPIRY = "expiry_as_annotated"
NO_READS = "no_secret_read"
NO_EXPIRED_TOKEN = "no_expired_token"
PROGRESS = "progress"

US = "reconciler"
"""The user of every replica's writes; a tenant can use our field manager's name, but not this."""

NAMESPACE: contextvars.ContextVar[str] = contextvars.ContextVar("namespace", default="")
"""The namespace of the present request, "" for all; for faults of one namespace."""

Expiry = Callable[[str], EpochTime | None]
"""A token's value -> its `exp` (epoch seconds, infinite for none), None for an unknown token."""

Confirmed = Callable[[SessionKey, str], bool]
"""Whether the platform confirmed this session, with this project, to a running controller."""


@dataclass(slots=True)
class _SecretState:
    """One Secret, by UID.

    Args:
        value: Its token.
        expires_s: Expiry of that token.
        ours: Whether we wrote that token.
        sealed: Whether we ever wrote a confirmation.
        vouched: Whether we wrote the expiry of that token into an annotation.
    """

    value: str = ""
    expires_s: EpochTime = LONG_AGO
    ours: bool = False
    sealed: bool = False
    vouched: bool = False


class SecretChecker:
    """Checks every committed write of a Secret; a commit hook.

    After a restore of the store, a Secret has the state of that version: a token that we had
    written is ours again, and a confirmation that we wrote later does not count.

    Args:
        confirmed: Called at our first token and our first confirmation in a Secret.
        disbelieves: Whether the writer with this user agent has only seen tokens with a shorter
            life than this one's: it takes the annotation of such an expiry for false.
    """

    def __init__(
        self,
        names: Names,
        event_log: EventLog,
        expiry: Expiry,
        confirmed: Confirmed,
        disbelieves: Callable[[str, str], bool] = lambda agent, token: False,
    ) -> None:
        self._names = names
        self._event_log = event_log
        self._expiry = expiry
        self._confirmed = confirmed
        self._disbelieves = disbelieves
        self._states: dict[str, _SecretState] = {}
        self._history: dict[tuple[str, str], _SecretState] = {}
        """Each state by UID and version, for a restore of the store."""
        self._incomparable_until_at: Instant = LONG_AGO
        self._nodes: list[tuple[Instant, float]] = []
        """Until when the issuer's nodes may differ for a replica, and by how many seconds."""
        self.removes_annotations = False
        """Whether a webhook removes annotations of ours from the writes that it admits."""

    def is_ours(self, uid: str) -> bool:
        """Return whether we wrote the token in a Secret, or our annotations about that token."""
        account = self._states.get(uid)
        return account is not None and (account.ours or account.vouched)

    def forget_expiries(self, until_at: Instant) -> None:
        """Drop all expiry times after a step of the issuer's clock: they cannot be compared.

        Args:
            until_at: Tokens from before the step may be written until then, by the loop's clock.
        """
        self._incomparable_until_at = until_at
        for account in (*self._states.values(), *self._history.values()):
            account.expires_s = LONG_AGO

    def nodes_differ(self, off_s: float, until_at: Instant) -> None:
        """Allow earlier expiries by as much as the clocks of the issuer's nodes differ.

        Three tokens in a row of the node that is behind prove its time. By that a token of the
        other node was issued in the future, and is written again.

        Args:
            until_at: When every replica has proved the time since they differ no more.
        """
        self._nodes.append((until_at, abs(off_s)))

    def commit(self, commit: Commit) -> None:
        """Take in one commit."""
        metadata = commit.object["metadata"]
        if commit.user == US or commit.kind is kinds.EVENTS:
            self._check_no_token(commit)
        if commit.kind is not kinds.SECRETS:
            return
        uid, place = metadata["uid"], (metadata["uid"], metadata["resourceVersion"])
        if commit.removed:
            self._states.pop(uid, None)
            return
        if commit.caller is RESTORER:
            self._states[uid] = replace(self._history[place])
            return
        account = self._states.setdefault(uid, _SecretState())
        value = value_of(commit.object, self._names)
        ours = commit.user == US
        if ours:
            self._check_ours(commit, account, value)
        annotated = self._names.expires_at in metadata.get("annotations", {})
        account.vouched = annotated and (ours or (account.vouched and value == account.value))
        if value != account.value:
            account.value, account.ours = value, ours
            loop_at = Instant(asyncio.get_running_loop().time())
            comparable = loop_at >= self._incomparable_until_at
            account.expires_s = self._ends(value) if comparable else LONG_AGO
        self._history[place] = replace(account)

    def _check_ours(self, commit: Commit, account: _SecretState, value: str) -> None:
        metadata = commit.object["metadata"]
        name = f"{metadata['namespace']}/{metadata['name']}"
        annotations = metadata.get("annotations", {})
        if value != account.value:
            expires_s = self._ends(value)
            now_at = Instant(asyncio.get_running_loop().time())
            # `exp` is a whole second.
            earlier_s = max((off_s + 1.0 for at, off_s in self._nodes if now_at < at), default=0.0)
            is_earlier = account.ours and expires_s < account.expires_s - earlier_s
            if is_earlier and not self._disbelieves(commit.caller.agent, account.value):
                back_s = account.expires_s - expires_s
                self._event_log.add_violation(
                    MONOTONIC_EXPIRY, f"{name}: {back_s:g} s earlier than before"
                )
            annotated = annotations.get(self._names.expires_at)
            is_removed = self.removes_annotations and annotated is None
            if annotated != _shown(expires_s) and not is_removed:
                self._event_log.add_violation(TRUE_EXPIRY, f"{name}: ends at {_shown(expires_s)}")
        first = value != account.value and not account.ours
        seals = not account.sealed and self._names.confirmation in annotations
        if (first or seals) and not account.sealed:
            labels = metadata.get("labels", {})
            key = SessionKey(metadata["namespace"], labels.get(self._names.session_id, ""))
            if not self._confirmed(key, labels.get(self._names.project_id, "")):
                self._event_log.add_violation(
                    CONFIRMED_FIRST, f"{name}: written, {key} is not confirmed"
                )
        if self._names.confirmation in annotations:
            account.sealed = True

    def _check_no_token(self, commit: Commit) -> None:
        public = {**commit.object, "data": None} if commit.kind is kinds.SECRETS else commit.object
        metadata = commit.object["metadata"]
        where = f"{commit.kind.plural} {metadata.get('namespace', '')}/{metadata['name']}"
        self._event_log.check_clean(json.dumps(public), where)

    def _ends(self, value: str) -> EpochTime:
        ends_s = self._expiry(value)
        return LONG_AGO if ends_s is None else ends_s


def value_of(secret: Object, names: Names) -> str:
    """Return the token in a Secret, "" if it has none."""
    data = (secret.get("data") or {}).get(names.secret_key, "")
    return base64.b64decode(data).decode(errors="replace")


def _shown(expires_s: EpochTime) -> str | None:
    return format_utc(expires_s) if math.isfinite(expires_s) else None


class CheckedKube(ForwardingKube):
    """A `Kube` that checks each request and passes it to another one.

    Args:
        on_write: Called with kind and name of each object before it is written.
    """

    def __init__(
        self,
        kube: Kube,
        names: Names,
        event_log: EventLog,
        on_write: Callable[[str], None] = lambda what: None,
    ) -> None:
        super().__init__(kube)
        self._names = names
        self._event_log = event_log
        self._on_write = on_write
        self._in_flight: set[tuple[str, str]] = set()

    @contextmanager
    def around(self, call: KubeCall) -> Iterator[None]:
        plural, namespace = call.resource.plural, call.namespace or ""
        if call.verb == "get":
            if plural == "secrets":
                self._event_log.add_violation(NO_READS, f"get {namespace}/{call.name}")
        elif plural == "secrets" and not call.resource.partial:
            self._event_log.add_violation(NO_READS, "a request for whole Secrets")
        NAMESPACE.set(namespace)
        if call.body is None:
            yield
            return
        metadata = {"name": call.name} if call.name else call.body["metadata"]
        if call.verb == "create":
            self._check_creation(plural, metadata)
        elif plural != "events":  # an Event's count needs no precondition
            self._check_patch(plural, f"{namespace}/{call.name}", call.body)
        if plural == "events":
            yield
            return
        self._on_write(f"{plural} {namespace}/{metadata['name']}")
        with self._exclusive(namespace, metadata):
            yield

    def _check_creation(self, plural: str, metadata: Mapping[str, Any]) -> None:
        owners = metadata.get("ownerReferences") or [{}]
        if plural == "secrets" and not owners[0].get("uid"):
            self._event_log.add_violation(PRECONDITIONS, f"create {metadata['name']}: no owner")

    def _check_patch(self, plural: str, name: str, body: Body) -> None:
        metadata: Mapping[str, Any] = body.get("metadata") or {}
        if not metadata.get("uid"):
            self._event_log.add_violation(PRECONDITIONS, f"patch {plural} {name}: no uid")
        if plural == "secrets" and not metadata.get("resourceVersion"):
            self._event_log.add_violation(
                PRECONDITIONS, f"patch {plural} {name}: no resourceVersion"
            )
        if plural == "pods" and {*body, *metadata} > {"metadata", "uid", "annotations"}:
            self._event_log.add_violation(
                PRECONDITIONS, f"patch {plural} {name}: more than a touch"
            )

    @contextmanager
    def _exclusive(self, namespace: str, metadata: Mapping[str, Any]) -> Iterator[None]:
        """Mark a session as being written; its pod's and its Secret's name differ only at the end.

        Two writes of one session at the same time mean that two workers have the same key.
        """
        session = metadata["name"].rpartition("-")[0]
        place = namespace, session
        if place in self._in_flight:
            self._event_log.add_violation(
                ONE_AT_A_TIME, f"{namespace}/{session} is written twice at once"
            )
        self._in_flight.add(place)
        try:
            yield
        finally:
            self._in_flight.discard(place)


@dataclass(slots=True)
class _Runner:
    """One container; `due_s` is when the refresh of its token was due."""

    session: str
    expires_s: EpochTime
    due_s: EpochTime
    settled_s: EpochTime
    excused_until_s: EpochTime
    stopping: bool = False


class ExposureChecker:
    """Counts the seconds in which a running container had only an expired token in its file.

    All instants are epoch seconds of the validator's clock.

    Attributes:
        lived_s: Seconds of all containers.
        expired_s: Seconds that nothing excuses.
        excused_s: Seconds in which the faults made a refresh impossible.
        stopping_s: Seconds of terminating pods, since a kubelet does not update their volumes.

    Args:
        late_until_s: Until when a refresh was impossible that was due at the first instant, and
            needed at the second, in a namespace; EPOCH if it was possible.
    """

    def __init__(
        self,
        event_log: EventLog,
        late_until_s: Callable[[EpochTime, EpochTime, str], EpochTime] = lambda *_: EPOCH,
    ) -> None:
        self.lived_s = 0.0
        self.expired_s = 0.0
        self.excused_s = 0.0
        self.stopping_s = 0.0
        self._event_log = event_log
        self._late_until_s = late_until_s
        self._runners: dict[str, _Runner] = {}
        self._paused: set[str] = set()

    def started(
        self,
        uid: str,
        session: str,
        expires_s: EpochTime,
        *,
        due_s: EpochTime,
        now_s: EpochTime,
        excused_until_s: EpochTime = EPOCH,
    ) -> None:
        """Record the start of a container with a token that expires at `expires_s`."""
        self._runners[uid] = _Runner(session, expires_s, due_s, now_s, excused_until_s)

    def projected(
        self, uid: str, expires_s: EpochTime, *, due_s: EpochTime, now_s: EpochTime
    ) -> None:
        """Record that a container's file has another token now."""
        if (runner := self._runners.get(uid)) is not None:
            self._settle(runner, now_s)
            runner.expires_s, runner.due_s = expires_s, due_s

    def stopping(self, uid: str, *, now_s: EpochTime) -> None:
        """Record that a container is being stopped."""
        if (runner := self._runners.get(uid)) is not None:
            self._settle(runner, now_s)
            runner.stopping = True

    def stopped(self, uid: str, *, now_s: EpochTime) -> None:
        """Record that a container ended."""
        if (runner := self._runners.pop(uid, None)) is not None:
            self._settle(runner, now_s)

    def excuse(self, *, now_s: EpochTime, until_s: EpochTime, session: str = "") -> None:
        """Excuse the seconds from now to `until_s`, of one session, or ("") of all."""
        for runner in self._runners.values():
            if session in ("", runner.session):
                self._settle(runner, now_s)
                runner.excused_until_s = max(runner.excused_until_s, until_s)

    def pause(self, session: str, *, now_s: EpochTime) -> None:
        """Excuse a session from now on, until `resume`."""
        self.settle(now_s=now_s)
        self._paused.add(session)

    def resume(self, session: str, *, now_s: EpochTime, until_s: EpochTime) -> None:
        """Excuse a session that was paused no longer than to `until_s`."""
        if session in self._paused:
            self.excuse(now_s=now_s, until_s=until_s, session=session)
            self._paused.discard(session)

    def shift(self, by_s: float, *, now_s: EpochTime) -> None:
        """Move the expiry of every projected token after a step of the validator's clock.

        A refresh that the step makes due was not due before it.
        """
        self.settle(now_s=now_s)
        for runner in self._runners.values():
            runner.expires_s += by_s
            runner.due_s = max(runner.due_s + by_s, min(runner.due_s, now_s))

    def end_tokens(self, expires_s: EpochTime, *, now_s: EpochTime) -> None:
        """Limit the expiry of every projected token to `expires_s`."""
        self.settle(now_s=now_s)
        for runner in self._runners.values():
            runner.expires_s, runner.due_s = min(runner.expires_s, expires_s), now_s

    def settle(self, *, now_s: EpochTime) -> None:
        """Count all seconds up to now."""
        for runner in self._runners.values():
            self._settle(runner, now_s)

    def _settle(self, runner: _Runner, now_s: EpochTime) -> None:
        expired_from_s = max(runner.expires_s, runner.settled_s)
        self.lived_s += now_s - runner.settled_s
        runner.settled_s = now_s
        if expired_from_s >= now_s:
            return
        if runner.stopping:
            self.stopping_s += now_s - expired_from_s
            return
        if runner.session in self._paused:
            self.excused_s += now_s - expired_from_s
            return
        namespace = runner.session.partition("/")[0]
        late_until_s = self._late_until_s(runner.due_s, runner.expires_s, namespace)
        counted_from_s = min(max(expired_from_s, runner.excused_until_s, late_until_s), now_s)
        self.excused_s += counted_from_s - expired_from_s
        expired_s = now_s - counted_from_s
        self.expired_s += expired_s
        if expired_s > 0:
            what = f"the runner of {runner.session} had an expired token for {expired_s:.3f} s"
            self._event_log.add_violation(NO_EXPIRED_TOKEN, what)
