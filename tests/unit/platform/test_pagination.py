"""Reading a list while rows are added and removed between its pages."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.errors import PlatformError, PlatformUnavailable
from reconciler.platform import pagination
from reconciler.platform.models import PlatformPage, PlatformSession
from reconciler.platform.pagination import ListResult, PageQuery, read
from tests.unit.platform.fakes import FakeList

SEARCH = "phase = 'Running'"

NAMES = st.text("abcXYZ019", min_size=1, max_size=3)
ORDERS: dict[str, Callable[[str], str]] = {
    "bytes": str,
    "locale": lambda name: name.lower() + name.swapcase(),
    "reversed": lambda name: "".join(chr(0x10FFFF - ord(letter)) for letter in name) + "\U0010ffff",
}
EDITS = st.lists(st.tuples(st.sampled_from(["add", "drop"]), NAMES), max_size=6)


def ids(listing: ListResult[PlatformSession]) -> list[str]:
    return [session.id for session in listing.items]


def letters(count: int) -> set[str]:
    return {chr(ord("a") + index) for index in range(count)}


@given(st.sets(NAMES, max_size=25), st.sampled_from(sorted(ORDERS)), st.lists(EDITS, max_size=12))
async def test_a_row_that_was_there_throughout_is_found_once_whatever_happens_around_it(
    rows: set[str], order: str, edits: list[list[tuple[str, str]]]
) -> None:
    throughout, ever, script = set(rows), set(rows), iter(edits)
    fake = FakeList(set(rows), order=ORDERS[order])

    def change() -> None:
        for verb, name in next(script, []):
            if verb == "add":
                fake.rows.add(name)
                ever.add(name)
            else:
                fake.rows.discard(name)
                throughout.discard(name)

    fake.change = change
    found = ids(await read(fake, SEARCH, size=3))
    assert len(found) == len(set(found))
    assert throughout <= set(found) <= ever


@given(
    st.sets(NAMES, max_size=25),
    st.sampled_from(["ignored", 400, 500]),
    EDITS,
    EDITS,
)
async def test_offset_pages_find_what_a_shift_in_the_first_pass_hid_and_double_nothing(
    rows: set[str],
    keyset: str | int,
    before: list[tuple[str, str]],
    within: list[tuple[str, str]],
) -> None:
    throughout = set(rows)
    fake = FakeList(set(rows), keyset=keyset)

    def change() -> None:
        for verb, name in {1: before, 3: within}.get(len(fake.queries), []):
            if verb == "add":
                fake.rows.add(name)
            else:
                fake.rows.discard(name)
                throughout.discard(name)

    fake.change = change
    found = ids(await read(fake, SEARCH, size=3))
    assert len(found) == len(set(found))
    assert throughout <= set(found)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
async def test_one_page_is_one_plain_request(count: int) -> None:
    fake = FakeList(letters(count))
    listing = await read(fake, SEARCH, size=3)
    assert ids(listing) == sorted(letters(count))
    assert fake.queries == [PageQuery(SEARCH)]
    assert listing.complete


async def test_later_pages_are_asked_for_behind_the_last_id() -> None:
    fake = FakeList(letters(7))
    assert ids(await read(fake, SEARCH, size=3)) == sorted(letters(7))
    assert fake.queries == [
        PageQuery(SEARCH),
        PageQuery(f"{SEARCH} and id > 'c'", keyset=True),
        PageQuery(f"{SEARCH} and id > 'f'", keyset=True),
    ]


async def test_a_list_without_a_search_asks_for_the_ids_alone() -> None:
    fake = FakeList(letters(4))
    assert ids(await read(fake, size=3)) == sorted(letters(4))
    assert fake.queries[1].search == "id > 'c'"


async def test_an_id_that_would_need_escaping_is_never_quoted() -> None:
    fake = FakeList({"a", "b", "c' or 'a' = 'a", "d"})
    listing = await read(fake, SEARCH, size=3)
    assert len(listing.items) == 4
    assert all(query.search == SEARCH for query in fake.queries)


@pytest.mark.parametrize("keyset", ["ignored", 400, 500])
async def test_where_the_keyset_is_not_honoured_offset_pages_find_every_row(
    keyset: str | int,
) -> None:
    fake = FakeList(letters(10), keyset=keyset)
    listing = await read(fake, SEARCH, size=3)
    assert sorted(ids(listing)) == sorted(letters(10))
    assert (listing.complete, listing.offset_passes) == (True, 2)


@pytest.mark.parametrize("count", [4, 9])
async def test_a_row_lost_to_a_shift_of_offset_pages_is_found_by_the_next_pass(count: int) -> None:
    """Of four rows the pass with the shift finds nothing new and must not be believed."""
    fake = FakeList(letters(count), keyset=400)
    script = iter([None, "a"])  # after page 1, and after offset page 1

    def change() -> None:
        if name := next(script, None):
            fake.rows.discard(name)

    fake.change = change
    listing = await read(fake, SEARCH, size=3)
    assert set(ids(listing)) == letters(count)
    assert (listing.complete, listing.offset_passes) == (True, 3)


async def test_rows_that_shift_in_every_pass_leave_the_list_unsettled() -> None:
    names = iter(f"n{number:03}" for number in range(1000))
    fake = FakeList(letters(5), keyset="ignored")
    fake.change = lambda: fake.rows.add(next(names))
    fake.size = 3
    listing = await read(fake, SEARCH, size=3)
    assert letters(5) <= set(ids(listing))
    assert not listing.complete


async def test_a_server_that_does_not_order_is_noticed_by_its_count() -> None:
    jumble = {name: str(index * 7 % 10) for index, name in enumerate(sorted(letters(10)))}

    class Unordered(FakeList):
        async def __call__(self, query: PageQuery) -> PlatformPage[PlatformSession]:
            if not query.keyset:
                return await super().__call__(query)
            last = query.search[-2]
            rows = [row for row in sorted(self.rows, key=jumble.__getitem__) if row > last]
            return PlatformPage[PlatformSession](
                total=len(rows), items=[PlatformSession(id=row) for row in rows[:3]]
            )

    fake = Unordered(letters(10), order=jumble.__getitem__)
    listing = await read(fake, SEARCH, size=3)
    assert sorted(ids(listing)) == sorted(letters(10))
    assert listing.offset_passes > 0


async def test_rows_that_left_meanwhile_cost_one_count_and_no_second_reading() -> None:
    fake = FakeList(letters(9))
    fake.change = lambda: fake.rows.discard("i")
    listing = await read(fake, SEARCH, size=3)
    assert ids(listing) == sorted(letters(8))
    assert (listing.complete, listing.offset_passes, listing.requests) == (True, 0, 4)


@pytest.mark.parametrize("keyset", ["honoured", "ignored"])
async def test_a_server_that_caps_its_pages_does_not_end_the_list_early(keyset: str) -> None:
    fake = FakeList(letters(9), size=100, cap=2, keyset=keyset)
    assert sorted(ids(await read(fake, SEARCH, size=100))) == sorted(letters(9))


@pytest.mark.parametrize("keyset", ["honoured", "ignored"])
async def test_unreadable_rows_are_counted_once_and_cost_no_other(keyset: str) -> None:
    class Holes(FakeList):
        async def __call__(self, query: PageQuery) -> PlatformPage[PlatformSession]:
            page = await super().__call__(query)
            items = [None if item and item.id in "bcf" else item for item in page.items]
            return PlatformPage[PlatformSession](total=page.total, items=items)

    listing = await read(Holes(letters(8), keyset=keyset), SEARCH, size=3)
    assert sorted(ids(listing)) == ["a", "d", "e", "g", "h"]
    assert listing.skipped == 3


async def test_a_first_page_that_fails_raises() -> None:
    unavailable = PlatformUnavailable("unreachable")
    with pytest.raises(PlatformUnavailable, match="unreachable"):
        await read(FakeList(letters(9), fail_at={1: unavailable}), SEARCH, size=3)


async def test_a_later_page_that_fails_keeps_what_was_read() -> None:
    unavailable = PlatformUnavailable("unreachable")
    listing = await read(FakeList(letters(9), fail_at={3: unavailable}), SEARCH, size=3)
    assert ids(listing) == sorted(letters(6))
    assert (listing.error, listing.complete) == (unavailable, False)


async def test_no_rows_where_the_count_says_some_is_not_settled() -> None:
    async def fetch(query: PageQuery) -> PlatformPage[PlatformSession]:
        return PlatformPage[PlatformSession](total=5, items=[])

    assert not (await read(fetch, SEARCH)).complete


async def test_a_list_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "MAX_REQUESTS", 20)
    numbers = iter(range(10_000))

    async def fetch(query: PageQuery) -> PlatformPage[PlatformSession]:
        return PlatformPage[PlatformSession](
            total=10**9, items=[PlatformSession(id=f"s{next(numbers)}")]
        )

    listing = await read(fetch, SEARCH)
    assert (listing.requests, len(listing.items), listing.complete) == (20, 20, False)
    assert isinstance(listing.error, PlatformError)
