"""What holds once every move has ended and all sessions are served, and how old a written token is.

The other checkers judge what the world shows outside; these compare what each replica knows, and
what its leader has done since its term began.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from reconciler.clock import Instant
from reconciler.controller.decide.refresh_plan import MIN_REMAINING
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.kinds import Kind
from reconciler.lab.apiserver.write_log import RESTORER, Commit
from reconciler.lab.simulation.event_log import CheckedWrites
from reconciler.lab.simulation.invariants import value_of
from reconciler.lab.simulation.obstacles import SERVED_S
from reconciler.lab.simulation.replica import SimulatedReplica
from reconciler.naming import SessionKey

STORES_ARE_TRUE = "stores_are_true"
RECOVERED = "recovered"
TERM_WRITES = "term_writes_each_session"
FRESH = "fresh_token_written"
NOTHING_LEFT = "nothing_left_over"

DELIVERED_S = 5.0
"""A change that is younger may not be in a store yet."""

IN_FLIGHT_S = 30.0
"""Longest time from the choice of a token until its write is committed: the time limit of two
requests, and a wait for room."""

BEFORE_TERM_S = 10.0
"""A token that another replica wrote so shortly before a term may count as written in it."""

PROMPT_S = 10.0
"""Longest time that a key waits for a worker."""

Place = tuple[Kind, str, str]


@dataclass(frozen=True, slots=True)
class Issuance:
    """What the issuer knows of a token: its remaining and its whole life, and whether the issuer
    could have issued a younger one."""

    left_s: float
    life_s: float
    could_be_younger: bool


class SettledChecker:
    """Compares replicas with the world; a commit hook.

    Args:
        issuance: Returns what the issuer knows of a token.
    """

    def __init__(
        self, core: Core, writes: CheckedWrites, *, issuance: Callable[[str], Issuance]
    ) -> None:
        self._core = core
        self._names, self._event_log, self._clock, self._us = writes
        self._issuance = issuance
        self._changed_at: dict[Place, Instant] = {}
        self._values: dict[str, str] = {}
        self._written_at: dict[str, Instant] = {}

    def commit(self, commit: Commit) -> None:
        """Take in one commit, and check the age of a token that we wrote."""
        if commit.kind not in (kinds.SECRETS, kinds.PODS):
            return
        metadata, now_at = commit.object["metadata"], self._clock.monotonic()
        self._changed_at[commit.kind, metadata["namespace"], metadata["name"]] = now_at
        if commit.kind is kinds.PODS or commit.removed:
            return
        uid, value = metadata["uid"], value_of(commit.object, self._names)
        before, self._values[uid] = self._values.get(uid), value
        if commit.user != self._us or commit.caller is RESTORER:
            return
        if commit.field_manager and value != before:
            self._check_age(f"{metadata['namespace']}/{metadata['name']}", self._issuance(value))
        self._written_at[uid] = now_at

    def _check_age(self, name: str, token: Issuance) -> None:
        least_s = MIN_REMAINING * token.life_s - IN_FLIGHT_S
        if token.could_be_younger and token.left_s < least_s:
            what = f"{name}: {token.left_s:.0f} s of {token.life_s:.0f} s are left"
            self._event_log.add_violation(FRESH, what)

    def check_replica(
        self, replica: SimulatedReplica, sessions: int, *, may_refuse_tokens: bool = False
    ) -> None:
        """Check what a replica knows and holds after all moves.

        Args:
            sessions: Number of sessions that have a pod or are running.
            may_refuse_tokens: As in `TruthChecker.may_refuse_tokens`: the issuer's state is not
                checked.
        """
        controller = replica.controller
        for kind, store in ((kinds.PODS, controller.pods), (kinds.SECRETS, controller.secrets)):
            known = {(each.namespace, each.name): each.version for each in store.snapshot()}
            present = {
                place: version for place, version in self._present(kind) if store.synced(place[0])
            }
            for place in sorted(known.keys() | present.keys()):
                if known.get(place) != present.get(place) and self._is_settled(kind, *place):
                    what = f"{replica.me} has {'/'.join(place)} in version {known.get(place)}"
                    self._event_log.add_violation(
                        STORES_ARE_TRUE, f"{what}, not {present.get(place)}, of {kind.plural}"
                    )
        found, endpoints = controller.health.problems(), controller.endpoints
        breakers = list(endpoints.breakers)
        if may_refuse_tokens:
            breakers.remove(endpoints.issuer_breaker)
            if endpoints.platform_breaker.stats().condition == "ok":
                found.pop("EndpointFailing", None)
        problems = [*found.values(), *(f"{each!r}" for each in breakers if each.is_open)]
        if problems:
            self._event_log.add_violation(RECOVERED, f"{replica.me}: {'; '.join(problems)}")
        schedule = controller.queue.stats().schedule
        queued = sum(schedule.ready.values()) + sum(schedule.waiting.values()) + schedule.running
        for name, held in (("keys", queued), ("touches", len(controller.touches))):
            if held > sessions:
                what = f"{replica.me} holds {held} {name} for {sessions} sessions"
                self._event_log.add_violation(NOTHING_LEFT, what)

    def check_leader(self, leader: SimulatedReplica, keys: Iterable[SessionKey]) -> None:
        """Check what a leader has written in its term, if that began long enough ago.

        Args:
            keys: Sessions with a pod that the platform calls running.
        """
        rate = float(leader.clock.monotonic()) / float(self._clock.monotonic())
        began_at = Instant(float(leader.controller.sessions.term_began_at) / rate)
        waits_s = leader.controller.queue.stats().schedule.oldest_ready_s
        if waits_s > PROMPT_S:
            self._event_log.add_violation(RECOVERED, f"a key has waited for {waits_s:.0f} s")
        if self._clock.monotonic() - began_at < SERVED_S:
            return
        for key in keys:
            name = self._names.secret_name(key.session_id)
            secret = self._core.peek(kinds.SECRETS, kinds.SECRETS.key(key.namespace, name))
            if secret is None or not self._is_settled(kinds.SECRETS, key.namespace, name):
                continue
            metadata = secret["metadata"]
            writer = (metadata.get("annotations") or {}).get(self._names.refreshed_by)
            if writer == leader.fence.term:  # also where it held the Lease, lost it, and holds it
                continue
            written_at = self._written_at.get(metadata["uid"])
            if written_at is None or written_at < began_at - BEFORE_TERM_S:
                what = f"{key} was written at {written_at}, the term began at {began_at:.1f}"
                self._event_log.add_violation(TERM_WRITES, what)

    def _present(self, kind: Kind) -> Iterator[tuple[tuple[str, str], str]]:
        for item in self._core.list(kind).items:
            metadata = item["metadata"]
            labels = metadata.get("labels") or {}
            is_ours = self._names.session_id in labels and labels.get(self._names.managed) == "true"
            ended = (item.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if is_ours and not (kind is kinds.PODS and ended):
                yield (metadata["namespace"], metadata["name"]), metadata["resourceVersion"]

    def _is_settled(self, kind: Kind, namespace: str, name: str) -> bool:
        changed_at = self._changed_at.get((kind, namespace, name))
        return changed_at is None or self._clock.monotonic() - changed_at > DELIVERED_S
