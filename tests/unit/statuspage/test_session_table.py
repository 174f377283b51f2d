"""The list of sessions: each column has a heading and a cell, each value of a row a place."""

import json
import re
from pathlib import Path

import msgspec
import pytest

from reconciler.controller.status.snapshot import LeaseStatus
from reconciler.statuspage import query
from reconciler.statuspage.page_model import PageModel
from reconciler.statuspage.query import SessionQuery, select
from reconciler.statuspage.render import Render
from reconciler.statuspage.session_row import COLUMNS, SessionRow
from tests.exhibit import IDENTITY, row, survey, trend_of

TEMPLATE = Path(query.__file__).parent / "templates" / "session_table.html"
ROWS = tuple(row(number) for number in range(3))


def model(asked: SessionQuery, *, leading: bool) -> PageModel:
    lease = LeaseStatus("replica-0/3-0a1b2c3d", leading, "replica-1_uid_0a1b2c3d", 3, 0)
    runs = {each.key: () for each in ROWS}
    shown = survey(ROWS, lease=lease)
    return PageModel(shown, ROWS, asked, select(ROWS, asked), runs, {}, trend_of(), "")


@pytest.mark.parametrize("leading", [True, False])
@pytest.mark.parametrize("sort", [column.sort for column in COLUMNS])
def test_each_column_has_a_heading_and_a_cell_in_each_row(sort: str, leading: bool) -> None:
    asked = SessionQuery(sort=sort, opened=str(ROWS[0].key))
    html = Render(IDENTITY).view(model(asked, leading=leading), "part")
    shown = [column for column in COLUMNS if leading or not column.leader_only]

    headings = re.findall(r'role="columnheader"[^>]*><a [^>]*>([^<]+)<', html)
    assert headings == [column.heading for column in shown]
    assert html.count("aria-sort=") == (sort in {column.sort for column in shown})
    rows = re.findall(r'<tr role="row" data-key="[^"#]*".*?</tr>', html, re.DOTALL)
    assert [len(re.findall("<th|<td", each)) for each in rows] == [len(shown)] * len(ROWS)
    assert f'colspan="{len(shown)}"' in html


def test_each_value_of_a_row_is_in_the_table() -> None:
    text = TEMPLATE.read_text()

    fields = SessionRow.__struct_fields__
    assert [name for name in fields if not re.search(rf"\brow\.{name}\b", text)] == []


def test_each_field_of_a_sessions_status_is_in_the_json() -> None:
    found = json.loads(Render(IDENTITY).view(model(SessionQuery(), leading=True), "json"))

    wanted = {
        re.sub("(expires|due)_s$", r"\1_at", name) for name in msgspec.structs.asdict(ROWS[0])
    }
    assert wanted - found["sessions"][0].keys() == set()
