"""Health of a replica: live, ready, able to lead, and what keeps it from refreshing tokens."""

import math

from reconciler.controller.namespaces.discovery import NamespaceDiscovery
from reconciler.controller.namespaces.informers import NamespaceInformers
from reconciler.net.circuit_breaker import BreakerStats, CircuitBreaker
from reconciler.tokens.refusals import refusal_hint, refused_part
from reconciler.tokens.source import TokenSource

STUCK_S = 1000.0
"""Three times the longest life of a watch, and beyond the longest pause, list and turn: each end
of a list or a watch, each event and each bookmark shows that the reflector works."""

WITHOUT_LIFE = 0.6
"""For how long no token may come, as a fraction of a life, before a leader leaves the Lease to
another replica. Each session has come due by then, so that each Secret holds the standby token with
0.4 of its life left: enough for a takeover."""

WITHOUT_S = 60.0
"""The same before the first token, when it is not known how long one lives."""

MAX_LOGGED = 10
"""Names in one line."""


class Health:
    """Answers the probes, the election and the report on the Lease.

    Its properties and `not_synced` are also read in the elector's thread.

    Args:
        discovery: None where the watched namespaces do not depend on the platform.
    """

    def __init__(
        self,
        *,
        informers: NamespaceInformers,
        discovery: NamespaceDiscovery | None,
        source: TokenSource,
        kube_breaker: CircuitBreaker,
        platform_breaker: CircuitBreaker,
        issuer_breaker: CircuitBreaker,
    ) -> None:
        self._informers = informers
        self._discovery = discovery
        self._source = source
        self._kube_breaker = kube_breaker
        self._platform_breaker = platform_breaker
        self._issuer_breaker = issuer_breaker

    def liveness_problem(self) -> str:
        """Return "" unless a watch has stalled in a way that only a restart repairs.

        A list that times out is no such case: a restart would not repair the API server, and would
        empty the stores.
        """
        if self._kube_breaker.is_open:
            return ""
        for reflector in self._informers.reflectors:
            stuck_s = reflector.stats().stuck_s
            if stuck_s is not None and stuck_s > STUCK_S:
                return f"the watch of {reflector.name} is stuck for {stuck_s:.0f} s"
        return ""

    @property
    def has_had_token(self) -> bool:
        """Whether the token source has returned a token in this process, expired or not."""
        return self._source.stats().issued_total > 0

    @property
    def lacks_token(self) -> bool:
        """Whether no token has come for so long that another replica may have one."""
        stats = self._source.stats()
        life_s = stats.latest_ttl_s
        return stats.without_s > (WITHOUT_S if life_s is None else WITHOUT_LIFE * life_s)

    @property
    def token_life_s(self) -> float:
        """Whole lifetime of the last token; inf before the first, or without an expiry."""
        life_s = self._source.stats().latest_ttl_s
        return math.inf if life_s is None else life_s

    def readiness_problem(self) -> str:
        """Return "" once the stores are synced and the source has returned a token, else the cause.

        A rollout must not replace replicas that have a standby token by ones that cannot get any.
        After the first token a replica stays ready: a later outage affects the other replicas, too.
        """
        if why := self.not_synced():
            return why
        if self.has_had_token:
            return ""
        last = self._source.stats().last_error
        issuer = self._issuer_breaker.stats()
        code, status = issuer.last_reason, issuer.last_status
        refused = f", and the issuer refuses {refused_part(code, status)}"
        return (
            "waiting for the first token"
            + (refused if issuer.refuses else "")
            + _last_error(last)
            + (f"; {refusal_hint(code, status)}" if issuer.refuses else "")
        )

    def not_synced(self) -> str:
        """Return "" once the stores hold a first list, else what is missing.

        It does not depend on the resync, on the platform, or on one of several namespaces that
        forbids the lists: a replica with synced stores can take over. Only a replica without any
        namespace needs the platform, once; it must not replace one that knows the namespaces.
        """
        if self._discovery is not None and not self._discovery.has_started:
            return "waiting for the platform to name a project" + self._why_not_named()
        if missing := self._informers.uninitialized():
            more = f" and {len(missing) - MAX_LOGGED} more" if len(missing) > MAX_LOGGED else ""
            why = f"waiting for the first list of {', '.join(missing[:MAX_LOGGED])}{more}"
            return why + _last_error(self._list_error())
        if not any(reflector.stats().synced for reflector in self._informers.reflectors):
            return "no right to list pods or Secrets anywhere" + _last_error(self._list_error())
        return ""

    def problems(self) -> dict[str, str]:
        """Return what keeps this replica from refreshing tokens, or a part of them, now.

        Returns: Reason of an Event -> one line that names the cause; empty if there is nothing.
        """
        if why := self.readiness_problem():
            return {"NotReady": why}
        found = {}
        ends = (
            ("issuer", self._issuer_breaker.stats()),
            ("platform", self._platform_breaker.stats()),
        )
        failing = [
            f"the {name} {_condition(stats)}: {stats.last_error}"
            for name, stats in ends
            if stats.condition != "ok"
        ]
        if failing:
            found["EndpointFailing"] = "; ".join(failing)
        refused = [each for each in self._informers.reflectors if each.is_forbidden]
        if refused:
            named = ", ".join(each.name for each in refused[:MAX_LOGGED])
            more = f" and {len(refused) - MAX_LOGGED} more" if len(refused) > MAX_LOGGED else ""
            found["ListForbidden"] = f"no right to list or watch {named}{more}" + _last_error(
                refused[0].stats().protocol.last_error
            )
        return found

    def _list_error(self) -> str:
        """Return the last error of a reflector that is not synced yet, or ""."""
        found = (reflector.stats() for reflector in self._informers.reflectors)
        errors = (stats.protocol.last_error for stats in found if not stats.synced)
        return next((error for error in errors if error), "")

    def _why_not_named(self) -> str:
        """Return which endpoint prevents the list of the projects, or ""."""
        for name, breaker in (
            ("issuer", self._issuer_breaker),
            ("platform", self._platform_breaker),
        ):
            if breaker.refuses:
                stats = breaker.stats()
                what = refused_part(stats.last_reason, stats.last_status)
                return f"; the {name} refuses {what}: {breaker.last_error}"
            if breaker.is_open:
                return f"; the {name} is unreachable: {breaker.last_error}"
        return ""


def _last_error(error: str) -> str:
    return f"; the last error was: {error}" if error else ""


def _condition(stats: BreakerStats) -> str:
    if stats.down:
        return "is unreachable"
    return f"refuses {refused_part(stats.last_reason, stats.last_status)}"
