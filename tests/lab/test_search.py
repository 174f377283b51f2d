"""The lab's search language, against the grammar of the real one."""

import pytest

from reconciler.lab.platform.search import BadSearch, UnknownColumn, parse

COLUMNS = frozenset({"id", "phase", "project_id"})
ROW = {"id": "m", "phase": "Running"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("phase = 'Running'", True),
        ("phase='Running'", True),
        ("phase = 'running'", False),
        ("phase != 'Running'", False),
        ("id > 'l'", True),
        ("id > 'm'", False),
        ("id >= 'm' AND id <= 'm'", True),
        ("id < 'm'", False),
        ("id in ('a', 'm')", True),
        ("id IN ('a')", False),
        ("id = 'x' or id = 'm'", True),
        ("id = 'm' or id = 'x' and id = 'y'", True),
        ("(id = 'm' or id = 'x') and id = 'y'", False),
        ("((id = 'm'))", True),
        ("project_id = ''", False),
        ("project_id != 'p'", False),
        ("id = 'it''s'", False),
    ],
)
def test_condition_decides_as_sql_would(text: str, matches: bool) -> None:
    assert parse(text, COLUMNS)(ROW) is matches


def test_a_doubled_quote_is_one_quote() -> None:
    assert parse("id = 'it''s'", COLUMNS)({"id": "it's"})


@pytest.mark.parametrize(
    "text",
    [
        "phase",
        "phase =",
        "phase = Running",
        'phase = "Running"',
        "phase = 'Running",
        "= 'x'",
        "id = 'a' id = 'b'",
        "id = 'a' and",
        "(id = 'a'",
        "id = 'a')",
        "id in ()",
        "id in 'a'",
        "and = 'a'",
        "id = 'a'; drop table sessions",
        "' or ''='",
    ],
)
def test_what_is_not_in_the_language_is_refused(text: str) -> None:
    with pytest.raises(BadSearch):
        parse(text, COLUMNS)


def test_an_unknown_column_is_the_databases_error() -> None:
    with pytest.raises(UnknownColumn):
        parse("id = 'a' and colour = 'red'", COLUMNS)
