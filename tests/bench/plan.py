"""How much a run measures: the whole, a quick one, or a given number of sessions (pure)."""

from dataclasses import dataclass

FIRST_SIZE = 1000
"""Growth of CPU a refresh is measured against this number of sessions."""

LARGE = 10_000


@dataclass(frozen=True)
class Plan:
    """Sizes and rounds of a run.

    Args:
        sizes: Numbers of sessions in the fleets, ascending.
        old_loop_most: Most sessions with which the replaced loop is run.
        steady_rate: Renewals a second in the steady state.
        steady_s: For how long it is measured.
        failovers: Rounds of each kind of failover.
        idle_s: Over how long an idle leader is measured.
        storm_sessions: Sessions whose pods change in the storm.
        storm_s: How long it lasts.
        telemetry_sessions: Sessions of the fleet in which a refresh's cost is measured.
        renews: Whether to wait until 15-minute tokens are refreshed.
    """

    sizes: tuple[int, ...]
    old_loop_most: int = FIRST_SIZE
    steady_rate: float = 278.0
    steady_s: float = 60.0
    failovers: int = 20
    idle_s: float = 60.0
    storm_sessions: int = 1000
    storm_s: float = 60.0
    telemetry_sessions: int = 1000
    renews: bool = True

    def rounds(self, sessions: int) -> int:
        """Return the rounds of the startup resync.

        >>> [plan(quick=False).rounds(sessions) for sessions in (1000, 10_000, 100_000)]
        [5, 3, 1]
        """
        if self.failovers < 5:
            return 1
        return 1 if sessions > LARGE else 3 if sessions > FIRST_SIZE else 5


def plan(*, quick: bool, sessions: int = 0, alone: bool = False) -> Plan:
    """Return the plan of a run.

    Args:
        sessions: Measure a fleet of so many, and smaller ones to compare with; 0: the usual fleets.
        alone: Of the fleets that one alone.

    >>> plan(quick=False).sizes, plan(quick=False, sessions=100_000).sizes
    ((1000, 10000), (1000, 10000, 100000))
    >>> plan(quick=False, sessions=3000).sizes
    (1000, 3000)
    >>> plan(quick=False, sessions=100_000, alone=True).sizes
    (100000,)
    """
    if quick:
        sizes = (sessions // 5, sessions) if sessions else (200, 1000)
        return Plan(
            sizes, old_loop_most=sizes[0], steady_rate=50.0, steady_s=15.0, failovers=2, idle_s=5.0,
            storm_sessions=500, storm_s=10.0, telemetry_sessions=200, renews=False,
        )  # fmt: skip
    usual = {size for size in (FIRST_SIZE, LARGE) if not sessions or size <= sessions}
    if sessions and alone:
        usual.clear()
    return Plan(tuple(sorted(usual | {sessions or LARGE})))
