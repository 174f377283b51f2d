"""`--chaos NAME[@START[+SECONDS]]`, by table."""

import pytest

from reconciler.errors import SettingsError
from reconciler.lab.chaos.actions import ChaosActions
from reconciler.lab.chaos.schedule import ScheduledFault, parse_chaos
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.replicas import Replicas
from reconciler.lab.fault_catalogue import DEMO_FAULTS, SIMULATED_FAULTS, Fault
from reconciler.lab.simulation.grammar import KINDS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("restart-all@4", ScheduledFault(Fault.RESTART_ALL, 4.0, 0.0), id="start"),
        pytest.param(
            "issuer-outage@10+45",
            ScheduledFault(Fault.ISSUER_OUTAGE, 10.0, 45.0),
            id="start+length",
        ),
        pytest.param(
            "issuer-outage@1.5+0.5",
            ScheduledFault(Fault.ISSUER_OUTAGE, 1.5, 0.5),
            id="fractions",
        ),
        pytest.param(
            "issuer-outage",
            ScheduledFault(Fault.ISSUER_OUTAGE, 10.0, 9.0),
            id="length from the TTL",
        ),
        pytest.param("forged-pod", ScheduledFault(Fault.FORGED_POD, 10.0, 0.0), id="at once"),
        pytest.param(
            " watch-close@0 ", ScheduledFault(Fault.WATCH_CLOSE, 0.0, 0.0), id="blanks, start 0"
        ),
    ],
)
def test_a_chaos_is_read(text: str, expected: ScheduledFault) -> None:
    assert parse_chaos(text, ttl_s=20.0, duration_s=60.0) == expected


@pytest.mark.parametrize("name", DEMO_FAULTS)
def test_each_name_of_the_table_is_read_and_printed(name: str) -> None:
    chaos = parse_chaos(f"{name}@3+2", ttl_s=20.0)

    assert parse_chaos(str(chaos), ttl_s=20.0) == chaos
    assert chaos.end_s == 5.0


def test_without_a_start_a_short_run_is_struck_in_its_middle() -> None:
    assert parse_chaos("restart-all", ttl_s=20.0, duration_s=8.0).start_s == 4.0


@pytest.mark.parametrize(
    "text",
    ["", "@3", "restart-all@", "restart-all@x", "restart-all+3", "restart-all@3+", "restart-all@-1",
     "restart-all@3+4+5", "Restart-All", "issuer-outage@nan", "no-such-chaos", "no-such-chaos@1+2"],
)  # fmt: skip
def test_anything_else_is_refused_in_one_line_with_the_names(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_chaos(text, ttl_s=20.0)

    (line,) = str(caught.value).splitlines()
    assert all(name in line for name in DEMO_FAULTS)


async def test_a_demo_injects_exactly_the_faults_that_the_catalogue_gives_it() -> None:
    actions = ChaosActions(LabCluster(), Replicas(0, {}, print))

    assert actions.names == set(DEMO_FAULTS)


def test_a_simulation_draws_exactly_the_faults_that_the_catalogue_gives_it() -> None:
    assert set(KINDS) == set(SIMULATED_FAULTS)


def test_a_start_after_the_end_is_refused() -> None:
    with pytest.raises(SettingsError, match="after the run's end at 10 s"):
        parse_chaos("restart-all@10", ttl_s=20.0, duration_s=10.0)
