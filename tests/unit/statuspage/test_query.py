"""A URL says which sessions are shown: any URL some of them, and each view one URL."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.statuspage.query import PAGE_ROWS, SHOWS, SessionQuery, select
from tests.exhibit import row

FLEET = [row(n, remaining_s=900.0 - n) for n in range(3 * PAGE_ROWS + 4)]

queries = st.builds(
    SessionQuery,
    text=st.sampled_from(["", "2Ab000", "team-1 creds", "<&%+#"]),
    show=st.sampled_from(["", *SHOWS]),
    sort=st.sampled_from(["life", "session", "next", "failures"]),
    down=st.booleans(),
    page=st.integers(1, 9),
    opened=st.sampled_from(["", "team-0/2Ab00000", "a/b&c=d"]),
)


def names(query: SessionQuery, rows: list[object] | None = None) -> list[str]:
    return [each.session_id for each in select(FLEET if rows is None else rows, query).rows]  # type: ignore[arg-type]


@given(queries)
def test_a_view_and_its_url_are_one(query: SessionQuery) -> None:
    assert SessionQuery.parse(dict(parse_qsl(query.url().removeprefix("?")))) == query


@given(st.dictionaries(st.sampled_from(["q", "show", "sort", "down", "page", "open"]), st.text()))
def test_no_url_is_an_error(parameters: dict[str, str]) -> None:
    query = SessionQuery.parse(parameters)

    found = select(FLEET, query)

    assert 1 <= found.page <= found.pages
    assert SessionQuery.parse(dict(parse_qsl(query.url().removeprefix("?")))).url() == query.url()


@pytest.mark.parametrize("number", ["0", "-1", "x", "²", "1e3", "", "٣"])
def test_a_page_that_is_invalid_is_the_first(number: str) -> None:
    assert SessionQuery.parse({"page": number}).page == 1


def test_the_pages_are_all_rows_once_in_order() -> None:
    seen = [name for page in range(1, 5) for name in names(SessionQuery(page=page))]

    assert seen == [each.session_id for each in reversed(FLEET)]
    assert names(SessionQuery(page=99)) == names(SessionQuery(page=4))


@pytest.mark.parametrize(
    ("query", "first"),
    [
        (SessionQuery(), ["soon", "late", "endless", "unknown"]),
        (SessionQuery(down=True), ["late", "soon", "endless", "unknown"]),
        (SessionQuery(sort="next"), ["late", "unknown", "endless", "soon"]),
        (SessionQuery(sort="failures", down=True), ["unknown", "late", "soon", "endless"]),
        (SessionQuery(sort="session"), ["late", "soon", "endless", "unknown"]),
        (SessionQuery(sort="session", down=True), ["unknown", "endless", "soon", "late"]),
    ],
)
def test_what_is_not_known_comes_last_in_either_direction(
    query: SessionQuery, first: list[str]
) -> None:
    rows = [
        row(1, None, session_id="unknown", namespace="b", failures=3, due_s=2.0),
        row(2, float("inf"), session_id="endless", namespace="b", due_s=3.0),
        row(3, 5.0, session_id="soon", namespace="a", due_s=None),
        row(4, 50.0, session_id="late", namespace="a", due_s=1.0, failures=1),
    ]
    found = [each.session_id for each in select(rows, query).rows]

    known = [name for name in found if name not in ("unknown", "endless")]
    if query.sort == "life":
        assert known == first[:2]
        assert set(found[2:]) == {"unknown", "endless"}
    else:
        assert found == first


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2ab00003", {"2Ab00003"}),
        ("TEAM-3/2Ab00003", {"2Ab00003"}),
        ("team-3 00003-creds", {"2Ab00003"}),
        ("session-2ab00003-runner", {"2Ab00003"}),
        ("team-3 2Ab00004", set()),
    ],
)
def test_every_word_of_a_search_must_be_in_a_name(text: str, expected: set[str]) -> None:
    assert set(names(SessionQuery(text=text))) == expected


def test_the_list_is_narrowed_by_state_failure_and_hold() -> None:
    rows = [row(1, 5.0), row(2, failures=2), row(3, block_reason="paused"), row(4, -1.0)]

    shown = {
        show: {each.session_id[-1] for each in select(rows, SessionQuery(show=show)).rows}
        for show in ("expiring", "failing", "blocked", "expired", "ok")
    }

    assert shown == {
        "expiring": {"1"}, "failing": {"2"}, "blocked": {"3"}, "expired": {"4"}, "ok": {"2"},
    }  # fmt: skip


def test_what_is_open_stays_in_sight_wherever_its_place_is() -> None:
    last, first = FLEET[0], FLEET[-1]

    there = select(FLEET, SessionQuery(opened=str(first.key)))
    elsewhere = select(FLEET, SessionQuery(opened=str(last.key)))
    not_matching = select(FLEET, SessionQuery(text="no such", opened=str(last.key)))
    gone = select(FLEET, SessionQuery(opened="team-9/gone"))

    assert [there.rows.count(first), len(there.rows)] == [1, PAGE_ROWS]
    assert [elsewhere.rows[0], len(elsewhere.rows)] == [last, PAGE_ROWS + 1]
    assert elsewhere.total == len(FLEET)
    assert (not_matching.rows, not_matching.total) == ((last,), 0)
    assert gone == select(FLEET, SessionQuery())


def test_another_order_begins_at_the_first_page_and_other_rows_close_the_open_one() -> None:
    query = SessionQuery(text="a", show="ok", sort="next", down=True, page=3, opened="a/b")

    assert query.url(sort="life", down=False) == "?q=a&show=ok"
    assert query.url(page=4) == "?q=a&show=ok&sort=next&down=1&page=4"
    assert query.url(opened="c/d") == "?q=a&show=ok&sort=next&down=1&page=3&open=c%2Fd"
    assert SessionQuery().url() == "?"
