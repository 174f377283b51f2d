"""How `status` prints the fleet: kubectl's `-o`, `--no-headers` and `--sort-by`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from reconciler.cli.exit_codes import EXIT_SETTINGS, CommandError
from reconciler.cli.output import JSONPATH, check_format
from reconciler.cli.table import columns_for
from reconciler.inspection.fleet import PodFleet
from reconciler.inspection.printers import (
    SORT_FIELDS,
    WIDE_COLUMNS,
    cells,
    plain,
    pod_name,
    row_as_json,
    wide_cells,
)
from reconciler.naming import Names

FORMATS = ("table", "wide", "yaml", "json", "name", JSONPATH)

_FIELD = re.compile(r"\{?\.?(\w+)\}?")
_NUMBER = re.compile(r"(\d+)")


@dataclass(frozen=True, slots=True)
class FleetOutput:
    """The output options of `status`.

    Args:
        format: One of `FORMATS`, or `JSONPATH` with its template.
        headers: False = `--no-headers`.
        sort_field: A field of a row's JSON; "" = the order of expiry.
    """

    format: str = "table"
    headers: bool = True
    sort_field: str = ""

    @property
    def is_document(self) -> bool:
        """Return whether the output is made from the fleet's JSON."""
        return self.format in ("json", "yaml") or self.format.startswith(JSONPATH)

    @property
    def is_for_terminal(self) -> bool:
        """Return whether a terminal may get colours, and fewer columns where it is narrow."""
        return self.format == "table" and self.headers

    def sort(self, fleet: PodFleet, names: Names) -> PodFleet:
        """Return the fleet in the order of the field, rows without a value first.

        Source: kubectl's TableSorter; text with numbers is compared as natsort does.
        """
        field = self.sort_field
        if not field:
            return fleet
        rows = sorted(
            fleet.rows, key=lambda row: _order(row_as_json(row, names, fleet.now_s)[field])
        )
        return replace(fleet, rows=rows)

    def lines(self, fleet: PodFleet, names: Names, *, everywhere: bool) -> Iterator[str]:
        """Return the lines of `table`, `wide` and `name`, as into a pipe."""
        if self.format == "name":
            yield from (pod_name(row.pod) for row in fleet.rows)
            return
        columns = columns_for(everywhere=everywhere)
        rows = [cells(row, fleet.now_s) for row in fleet.rows]
        if self.format == "wide":
            columns += WIDE_COLUMNS
            for row, shown in zip(fleet.rows, rows, strict=True):
                shown |= wide_cells(row, names, fleet.now_s)
        yield from plain(rows, columns)[0 if self.headers else 1 :]


def parse_fleet_output(output: str, *, no_headers: bool, sort_by: str) -> FleetOutput:
    """Return the options; raises `CommandError` for an unknown format or field."""
    check_format(output, FORMATS)
    field = ""
    if sort_by:
        found = _FIELD.fullmatch(sort_by)
        field = found[1] if found else ""
        if field not in SORT_FIELDS:
            fields = ", ".join(f".{name}" for name in SORT_FIELDS)
            raise CommandError(f"--sort-by={sort_by}: the fields are {fields}", EXIT_SETTINGS)
    return FleetOutput(output, not no_headers, field)


def _order(value: Any) -> tuple[bool, Any]:
    """Return a key that sorts null first, and numbers in text by their value."""
    if value is None:
        return False, ()
    if not isinstance(value, str):
        return True, value
    parts = _NUMBER.split(value)
    return True, [(part, 0) if n % 2 == 0 else ("", int(part)) for n, part in enumerate(parts)]
