"""Every live session pod with the state of its token, in the order of expiry (pure)."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from reconciler.clock import NEVER, EpochTime
from reconciler.controller.decide.refresh_plan import DecisionContext
from reconciler.controller.decide.token_state import HEALTHY, TokenState
from reconciler.controller.state.session_state import newest_live_pod
from reconciler.controller.status.fleet import FleetSummary
from reconciler.humanize import count, duration
from reconciler.inspection.pod_token import PodToken, assess
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey


@dataclass(frozen=True, slots=True)
class PodFleet:
    """All pods at one instant, the next to expire first.

    `summary` counts each pod for itself: a command shows every pod, those that are paused too.
    """

    rows: Sequence[PodToken]
    now_s: EpochTime
    summary: FleetSummary

    @property
    def expired(self) -> int:
        """Return the number of live pods with an expired token."""
        return self.summary.states[TokenState.EXPIRED]

    @property
    def unhealthy(self) -> int:
        """Return the number of pods for which there is something to do."""
        return sum(row.state not in HEALTHY for row in self.rows)

    @property
    def next(self) -> PodToken | None:
        """Return the pod that is next to expire, None where no expiry is known."""
        key = self.summary.next_to_expire
        return next((row for row in self.rows if row.pod.key == key and row.expires_s), None)

    def counts(self) -> dict[TokenState, int]:
        """Return how many pods are in each state that occurs, the worst state first."""
        return {state: number for state, number in self.summary.states.items() if number}

    def headline(self) -> list[str]:
        """Return the totals, and the next to expire if that is known, as two phrases."""
        counts = ", ".join(f"{number:,} {state}" for state, number in self.counts().items())
        totals = f"{count(len(self.rows), 'session pod')}: {counts or 'nothing to refresh'}"
        if self.next is None or self.next.expires_s is None:
            return [totals]
        left = duration(self.next.expires_s - self.now_s)
        return [totals, f"next to expire: {name_of(self.next.pod)} in {left}"]


def name_of(pod: ObjectMeta) -> str:
    """Return `NAMESPACE/POD`, which `reconciler explain` takes as it is."""
    return f"{pod.namespace}/{pod.name}"


def assess_fleet(
    pods: Iterable[ObjectMeta],
    secrets: Iterable[ObjectMeta],
    context: DecisionContext,
    now_s: EpochTime,
) -> PodFleet:
    """Join pods and Secrets by the Secret's expected name, and assess each pod.

    Cost: O(n log n); 10,000 pods in 0.35 s.
    """
    by_name = {(secret.namespace, secret.name): secret for secret in secrets}
    sessions: defaultdict[SessionKey, list[ObjectMeta]] = defaultdict(list)
    for pod in pods:
        sessions[pod.key].append(pod)
    rows = []
    for key, own in sessions.items():
        secret = by_name.get((key.namespace, context.names.secret_name(key.session_id)))
        newest = newest_live_pod(own)
        rows += [assess(pod, secret, context, now_s, newest=newest) for pod in own]
    rows.sort(key=lambda row: _expiry_order(row, now_s))
    return PodFleet(rows, now_s, _summary(rows, now_s))


def _summary(rows: Iterable[PodToken], now_s: EpochTime) -> FleetSummary:
    summary = FleetSummary()
    for row in rows:
        summary.add(
            row.pod.key,
            row.state,
            row.remaining_s(now_s),
            block_reason="",
            confirmed=True,
            has_pod=True,
            standby_s=None,
        )
    return summary


def _expiry_order(row: PodToken, now_s: EpochTime) -> tuple[EpochTime, str, str]:
    """An expiry that is not known may be now; a token without one comes last."""
    expires_s = NEVER if row.endless else now_s if row.expires_s is None else row.expires_s
    return expires_s, row.pod.namespace, row.pod.name
