"""Who led when, and who wrote without leadership, by table."""

import pytest

from reconciler.clock import Instant
from reconciler.lab.apiserver.write_log import HolderChange, ProcessWrite
from reconciler.lab.demo.leader_terms import (
    LeaderTerm,
    failover_s,
    leader_terms,
    writes_without_leadership,
)


def turn(version: int, holder: str) -> HolderChange:
    return HolderChange(version, Instant(version), "home", "lease", holder)


def write(version: int, process: str) -> ProcessWrite:
    return ProcessWrite(version, Instant(version), process)


def test_a_term_lasts_until_another_process_takes_the_lease() -> None:
    found = leader_terms([turn(1, "a"), turn(5, ""), turn(6, "a"), turn(9, "b"), turn(12, "")])
    assert found == [
        LeaderTerm("a", 1, Instant(1)),
        LeaderTerm("b", 9, Instant(9)),
    ]


@pytest.mark.parametrize(
    ("process", "version", "deposed"),
    [
        pytest.param("a", 2, False, id="in its term"),
        pytest.param("a", 4, False, id="released, and not acquired again"),
        pytest.param("a", 6, True, id="after another took it"),
        pytest.param("b", 2, True, id="before its own term"),
        pytest.param("c", 7, True, id="never led"),
        pytest.param("a", 0, True, id="before the first term"),
    ],
)
def test_a_write_outside_its_processs_term_is_without_leadership(
    process: str, version: int, deposed: bool
) -> None:
    found = leader_terms([turn(1, "a"), turn(3, ""), turn(5, "b")])
    assert bool(writes_without_leadership(found, [write(version, process)])) is deposed


def test_a_failover_ends_with_the_successors_first_write() -> None:
    found = leader_terms([turn(1, "a"), turn(10, "b"), turn(20, "c")])
    writes = [write(2, "a"), write(11, "b"), write(12, "b"), write(25, "c")]
    assert failover_s(found, writes, [Instant(7), Instant(19)]) == 6.0
    assert failover_s(found, writes, [Instant(30)]) is None
    assert failover_s(found, writes, []) is None
