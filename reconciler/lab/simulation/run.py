"""Runs the world of one seed and returns its outcome."""

from collections import Counter
from dataclasses import dataclass

from reconciler.lab.simulation.event_log import Violation, captured_logs
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.scenario import Scenario, draw
from reconciler.lab.simulation.scenario_runner import ScenarioRunner
from reconciler.lab.simulation.virtual_time import run_virtual
from reconciler.lab.simulation.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a seed; two runs of one seed are equal.

    Args:
        faults: Kind and number of the faults of the scenario, in the order of their names.
        moves: The moves that had a target, in the order of their starts.
        lived_s: Seconds of all runners.
        expired_s: Expired-token seconds that nothing excuses; more than 0 is a violation.
        excused_s: Expired-token seconds in which the faults made a refresh impossible.
        stopping_s: Expired-token seconds of terminating pods.
        last: The last events before the end, oldest first.
        digest: Digest of all events.
    """

    seed: int
    hours: float
    sessions: int
    faults: tuple[tuple[str, int], ...]
    moves: tuple[Move, ...]
    writes_total: int
    issued_total: int
    projections_total: int
    controller_starts: int
    leader_changes: int
    lived_s: float
    expired_s: float
    excused_s: float
    stopping_s: float
    violations: tuple[Violation, ...]
    events_total: int
    last: tuple[str, ...]
    digest: str

    @property
    def passed(self) -> bool:
        return not self.violations


def simulate(seed: int, hours: float = 1.0) -> Outcome:
    """Run a seed's scenario on virtual time.

    Cost: about 1 s of one core for an hour of 50 sessions.
    """
    return play(draw(seed, hours))


def play(scenario: Scenario) -> Outcome:
    """Run a scenario to its end or to its first violation."""
    return run_virtual(_play(scenario))


async def _play(scenario: Scenario) -> Outcome:
    world = World(scenario)
    with captured_logs(world.event_log):
        runner = ScenarioRunner(world)
        await runner.play()
    exposure, event_log = world.exposure, world.event_log
    return Outcome(
        seed=scenario.seed,
        hours=scenario.length_s / 3600.0,
        sessions=sum(not life.forged for life in scenario.sessions),
        faults=tuple(sorted(Counter(fault.kind for fault in scenario.faults).items())),
        moves=runner.played,
        writes_total=world.writes_total,
        issued_total=world.issuer.issued_total,
        projections_total=world.node.projections_total,
        controller_starts=world.starts_total,
        leader_changes=world.single_writer.changes_total,
        lived_s=round(exposure.lived_s, 3),
        expired_s=round(exposure.expired_s, 3),
        excused_s=round(exposure.excused_s, 3),
        stopping_s=round(exposure.stopping_s, 3),
        violations=tuple(event_log.violations),
        events_total=event_log.events_total,
        last=event_log.last,
        digest=event_log.digest,
    )
