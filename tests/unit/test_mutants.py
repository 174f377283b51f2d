"""Each mutant still applies to the code, and each row of docs/failures.md and each promise has one.

`make mutants` runs them. A mutant whose text has changed fails here: the defence was renamed, moved
or removed, and its mutant follows it.
"""

import re

import pytest

from tests.mutants.catalogue import ROOT, Mutant, MutantError, load, outside, unmutated_rows
from tests.unit.test_documents import DOCS, table_rows

MUTANTS = load()
FAULTS = [row[0] for row in table_rows(DOCS / "failures.md", "fault")]
PROMISES = set(
    map(int, re.findall(r"^(\d+)\. ", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE))
)


def faults_of(row: str) -> list[str]:
    """Return the faults that a row's start names: the equal one, or else all that begin so."""
    return [row] if row in FAULTS else [fault for fault in FAULTS if fault.startswith(row)]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_changes_the_code_that_is_there(mutant: Mutant) -> None:
    mutant.apply((ROOT / mutant.file).read_text())
    assert mutant.tests or mutant.worlds
    assert not (mutant.worlds and mutant.outside)
    for selection in mutant.tests:
        file, *names = selection.split()[0].split("::")
        assert (ROOT / file).exists(), selection
        for name in names:
            definition = rf"^(\s*(async )?def {name}\(|class {name}\b|{name} = )"
            assert re.search(definition, (ROOT / file).read_text(), re.MULTILINE), selection
    assert [len(faults_of(row)) for row in mutant.rows] == [1] * len(mutant.rows), mutant.rows
    assert set(mutant.promises) <= PROMISES


def test_each_path_that_no_world_runs_has_a_mutant_and_no_other_reason() -> None:
    reasons = {mutant.outside for mutant in MUTANTS}
    for start, reason in outside().items():
        assert [mutant for mutant in MUTANTS if mutant.file.startswith(start)], start
        assert reason in reasons, start


def test_the_names_differ() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_each_fault_has_a_mutant_or_a_reason_for_none() -> None:
    with_mutant = {fault for mutant in MUTANTS for row in mutant.rows for fault in faults_of(row)}
    without = {fault for row in unmutated_rows() for fault in faults_of(row)}
    assert not with_mutant & without
    assert with_mutant | without == set(FAULTS)


def test_each_promise_has_a_mutant() -> None:
    assert {number for mutant in MUTANTS for number in mutant.promises} == PROMISES


@pytest.mark.parametrize(
    ("old", "new"),
    [("absent", "x"), ("1", "2"), ("one = 1", "one  =  1  # the same")],
    ids=["text that is absent", "text that is there twice", "a replacement that changes nothing"],
)
def test_a_mutant_that_does_not_apply_is_refused(old: str, new: str) -> None:
    mutant = Mutant(name="any", file="any.py", old=old, new=new)
    with pytest.raises(MutantError):
        mutant.apply("one = 1\nother = 1\n")
