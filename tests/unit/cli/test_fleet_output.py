"""The options of `status` that need no cluster."""

import pytest

from reconciler.cli import completion
from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError
from reconciler.cli.fleet_output import FORMATS, FleetOutput, parse_fleet_output
from reconciler.inspection.printers import SORT_FIELDS, row_as_json
from tests.unit.controller.build import NAMES, NOW_S
from tests.unit.inspection.build import assessed_pod
from tests.unit.inspection.test_fleet import fleet_of


def test_a_field_to_sort_by_is_one_of_a_rows_json_that_has_an_order() -> None:
    row = row_as_json(assessed_pod(), NAMES, NOW_S)
    assert [*SORT_FIELDS] == [name for name, value in row.items() if not isinstance(value, list)]


@pytest.mark.parametrize("typed", ["session", ".session", "{.session}"])
def test_a_field_is_written_as_kubectl_takes_it(typed: str) -> None:
    found = parse_fleet_output("wide", no_headers=True, sort_by=typed)
    assert found == FleetOutput("wide", headers=False, sort_field="session")


@pytest.mark.parametrize("typed", [".otherWriters", ".a.b", "{", " "])
def test_what_is_no_field_is_refused_with_the_fields(typed: str) -> None:
    with pytest.raises(CommandError, match=r"the fields are \.namespace") as refused:
        parse_fleet_output("table", no_headers=False, sort_by=typed)
    assert refused.value.code == EXIT_SETTINGS


@pytest.mark.parametrize("field", SORT_FIELDS)
def test_every_field_can_be_sorted_by(field: str) -> None:
    fleet = fleet_of({"s10": 10.0, "s9": 500.0, "lost": 1.0, "endless": None}, missing=("lost",))
    ordered = FleetOutput(sort_field=field).sort(fleet, NAMES)
    values = [row_as_json(row, NAMES, NOW_S)[field] for row in ordered.rows]
    known = [value for value in values if value is not None]
    assert values == [None] * (len(values) - len(known)) + known
    assert len(ordered.rows) == len(fleet.rows)


def test_numbers_in_names_are_compared_by_value() -> None:
    fleet = fleet_of({"s10": 10.0, "s9": 500.0, "s9a": 20.0, "t1": 1.0})
    ordered = FleetOutput(sort_field="session").sort(fleet, NAMES)
    assert [row.pod.session_id for row in ordered.rows] == ["s9", "s9a", "s10", "t1"]


def test_formats_and_fields_are_completed() -> None:
    assert completion.suggest("fleet_output", {}, "") == [*FORMATS]
    assert completion.suggest("output", {}, "y") == ["yaml"]
    assert completion.suggest("sort_field", {}, ".expires") == [".expiresAt", ".expiresInSeconds"]
