"""Every figure of `make bench`, its unit and its target; what is computed of figures (pure).

What each figure means is in docs/reference/benchmarks.md: a test holds the two against each other.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Target:
    """A limit of a figure.

    >>> str(Target(1.6)), Target(1.6).is_met(1.59)
    ('<= 1.6', True)
    >>> str(Target(0.9, at_least=True)), Target(0.9, at_least=True).is_met(0.89)
    ('>= 0.9', False)
    """

    limit: float
    at_least: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"

    def is_met(self, value: float) -> bool:
        """Return whether `value` meets it; not a number meets none."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Figure:
    """One kind of number.

    Args:
        name: Its key in the report, less the number of sessions.
        targets: By the number of sessions for which it applies; 0: for each number.
    """

    name: str
    unit: str
    targets: Mapping[int, Target] = field(default_factory=dict)

    def target(self, sessions: int) -> Target | None:
        return self.targets.get(sessions, self.targets.get(0))

    @property
    def shown_targets(self) -> str:
        """Return all targets, as the table of the document has them."""
        pairs = self.targets.items()
        return "; ".join(f"{size:,}: {limit}" if size else str(limit) for size, limit in pairs)


def _at_most(limit: float) -> Mapping[int, Target]:
    return {0: Target(limit)}


def _at_least(limit: float) -> Mapping[int, Target]:
    return {0: Target(limit, at_least=True)}


FIGURES = (
    # first start
    Figure("first_start_synced_s", "s"),
    Figure("first_start_wait_s", "s", {100_000: Target(5)}),
    Figure("first_start_resync_s", "s"),
    Figure("first_start_touched_s", "s"),
    Figure("first_start_touches", ""),
    Figure("first_start_rss_mb", "MB", {100_000: Target(250)}),
    Figure("first_start_rss_peak_mb", "MB"),
    Figure("first_start_lag_worst_s", "s", {100_000: Target(0.05)}),
    # startup resync
    Figure("cpu_ms", "ms"),
    Figure("bare_cpu_ms", "ms"),
    Figure("go_cpu_ms", "ms"),
    Figure("kopf_cpu_ms", "ms"),
    Figure("cpu_vs_bare", "", _at_most(1.6)),
    Figure("cpu_vs_go", "", _at_most(1)),
    Figure("cpu_vs_kopf", "", _at_most(0.1)),
    Figure("cpu_growth", "", _at_most(1.2)),
    Figure("rate", "/s"),
    Figure("bare_rate", "/s"),
    Figure("go_rate", "/s"),
    Figure("kopf_rate", "/s"),
    Figure("old_loop_rate", "/s"),
    Figure("rate_vs_bare", "", _at_least(0.9)),
    Figure("rate_vs_go", "", _at_least(1)),
    Figure("rate_vs_kopf", "", _at_least(4)),
    Figure("rate_vs_old_loop", ""),
    Figure("synced_s", "s"),
    Figure("go_synced_s", "s"),
    Figure("bare_lists_s", "s"),
    Figure("synced_vs_bare_lists", "", {100_000: Target(1.5)}),
    Figure("first_refresh_s", "s", {1000: Target(0.5), 10_000: Target(1)}),
    Figure("go_first_refresh_s", "s"),
    Figure("kopf_first_refresh_s", "s"),
    Figure("rss_synced_mb", "MB"),
    Figure("rss_mb", "MB", {10_000: Target(100), 100_000: Target(250)}),
    Figure("rss_peak_mb", "MB"),
    Figure("loop_lag_worst_s", "s", {100_000: Target(0.05)}),
    Figure("go_rss_synced_mb", "MB"),
    Figure("go_rss_mb", "MB"),
    Figure("kopf_rss_mb", "MB"),
    Figure("rss_vs_go", "", {10_000: Target(1)}),
    # profile
    Figure("profile_percent_COMPONENT", "%"),
    # memory
    Figure("event_loop_mb", "MB"),
    Figure("session_bytes", "B"),
    Figure("session_bytes_COMPONENT", "B"),
    # idle
    Figure("idle_cpu_percent", "%"),
    Figure("renewing_cpu_percent", "%", {10_000: Target(1)}),
    # takeover
    Figure("takeover_first_write_s", "s", {100_000: Target(1)}),
    Figure("takeover_relist_s", "s"),
    Figure("takeover_resync_s", "s"),
    # pages
    Figure("page_ms", "ms"),
    Figure("page_bytes", "B"),
    Figure("metrics_ms", "ms"),
    Figure("metrics_bytes", "B"),
    # restart
    Figure("restart_refresh_s", "s"),
    Figure("restart_rss_peak_mb", "MB", {100_000: Target(250)}),
    Figure("restart_lag_worst_s", "s", {100_000: Target(0.05)}),
    Figure("restart_exposure_s", "s", {100_000: Target(0)}),
    # failover
    Figure("failover_rounds", ""),
    Figure("failover_graceful_p50_s", "s"),
    Figure("failover_graceful_worst_s", "s", _at_most(1)),
    Figure("failover_crash_minus_lease_p50_s", "s"),
    Figure("failover_crash_minus_lease_worst_s", "s", _at_most(1)),
    Figure("restart_same_pod_p50_s", "s"),
    Figure("restart_same_pod_worst_s", "s"),
    # storm
    Figure("storm_changes_rate", "/s", _at_least(5000)),
    Figure("storm_urgent_p50_ms", "ms"),
    Figure("storm_urgent_p99_ms", "ms", _at_most(50)),
    Figure("storm_urgent_worst_ms", "ms"),
    Figure("storm_server_lag_p99_ms", "ms"),
    Figure("storm_server_lag_worst_ms", "ms"),
    Figure("storm_cpu_percent", "%"),
    # telemetry
    Figure("refresh_cpu_us", "us"),
    Figure("telemetry_cpu_us", "us"),
    Figure("telemetry_otlp_cpu_us", "us"),
    Figure("telemetry_vs_refresh", ""),
    Figure("telemetry_otlp_vs_refresh", ""),
    # steady
    Figure("steady_rate", "/s"),
    Figure("steady_lateness_p50_s", "s"),
    Figure("steady_lateness_p99_s", "s", _at_most(1)),
    Figure("steady_lateness_worst_s", "s"),
    Figure("steady_cpu_percent", "%"),
    Figure("steady_cpu_ms", "ms"),
)  # fmt: skip

BY_NAME = {figure.name: figure for figure in FIGURES}


@dataclass(frozen=True)
class Value:
    """One number of a run.

    Args:
        name: Of its figure; `COMPONENT` in it is replaced by the component.
        sessions: For how many sessions; 0: the number is fixed by the part.
    """

    name: str
    value: float
    sessions: int = 0
    component: str = ""

    @property
    def figure(self) -> Figure:
        return BY_NAME[self.name]

    @property
    def key(self) -> str:
        """
        >>> Value("cpu_ms", 1.1, 1000).key
        'cpu_ms_1000'
        >>> Value("session_bytes_COMPONENT", 512, 1000, "informer").key
        'session_bytes_informer_1000'
        """
        name = self.name.replace("COMPONENT", self.component)
        return f"{name}_{self.sessions}" if self.sessions else name


def ratio(numerator: float, denominator: float) -> float:
    """Return the ratio; not a number if there is no denominator."""
    return numerator / denominator if denominator else math.nan


def quantile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least this share of all values does not exceed.

    >>> quantile([3.0, 1.0, 2.0, 4.0], 0.5)
    2.0
    >>> quantile(range(1, 101), 0.99)
    99
    """
    ordered = sorted(values)
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def growth(values: Iterable[Value]) -> list[Value]:
    """Return the growth of CPU a refresh from the fewest to the most sessions, if there are two."""
    costs = sorted((v.sessions, v.value) for v in values if v.name == "cpu_ms")
    if len(costs) < 2:
        return []
    return [Value("cpu_growth", ratio(costs[-1][1], costs[0][1]))]
