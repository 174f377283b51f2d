"""Which namespaces are watched: any name adds one, only repeated absence removes one."""

from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from reconciler.clock import Instant
from reconciler.controller.decide.namespace_set import MIN_LISTS, NamespaceChanges, NamespaceSet

GRACE_S = 300.0


def roster(*seeds: str, at_most: int = 100) -> NamespaceSet:
    return NamespaceSet(seeds, grace_s=GRACE_S, limit=at_most)


def free(_: str) -> bool:
    return False


def test_a_listed_namespace_is_added_once() -> None:
    watched = roster()
    assert watched.update(["b", "a"], now_at=Instant(0), in_use=free) == NamespaceChanges(
        added=("b", "a")
    )
    assert watched.update(["a", "b"], now_at=Instant(1), in_use=free) == NamespaceChanges()
    assert watched.names == {"a", "b"}


def test_static_names_are_never_added_and_never_removed() -> None:
    watched = roster("seed")
    for now_at in (0.0, GRACE_S, 2 * GRACE_S):
        assert "seed" not in watched.update(["a"], now_at=Instant(now_at), in_use=free).removed
    assert watched.add(["seed"]) == NamespaceChanges()
    assert watched.names == {"seed", "a"}


def test_absence_must_last_and_be_seen_more_than_once() -> None:
    watched = roster()
    watched.update(["a", "b"], now_at=Instant(0), in_use=free)
    assert watched.update(["a"], now_at=Instant(10), in_use=free) == NamespaceChanges()
    assert watched.leaving == {"b"}
    assert watched.update(["a"], now_at=Instant(GRACE_S), in_use=free) == NamespaceChanges()
    assert watched.update(["a"], now_at=Instant(10.0 + GRACE_S), in_use=free) == NamespaceChanges(
        removed=("b",)
    )
    assert watched.leaving == frozenset()
    assert watched.update(["a", "b"], now_at=Instant(400), in_use=free) == NamespaceChanges(
        added=("b",)
    )


def test_one_list_alone_removes_nothing_however_late_it_comes() -> None:
    watched = NamespaceSet((), grace_s=0.0, limit=9)
    watched.update(["a", "b"], now_at=Instant(0), in_use=free)
    assert watched.update(["a"], now_at=Instant(1e6), in_use=free) == NamespaceChanges()
    assert watched.update(["a"], now_at=Instant(1e6), in_use=free).removed == ("b",)


def test_a_namespace_that_is_back_starts_its_absence_again() -> None:
    watched = roster()
    watched.update(["a", "b"], now_at=Instant(0), in_use=free)
    watched.update(["a"], now_at=Instant(1), in_use=free)
    assert watched.add(["b"]) == NamespaceChanges()
    assert watched.leaving == frozenset()
    assert watched.update(["a"], now_at=Instant(2 * GRACE_S), in_use=free) == NamespaceChanges()


def test_an_empty_list_changes_nothing() -> None:
    watched = roster()
    watched.update(["a"], now_at=Instant(0), in_use=free)
    for number in range(5):
        assert (
            watched.update([], now_at=Instant(number * GRACE_S), in_use=free) == NamespaceChanges()
        )
    assert watched.names == {"a"}
    assert watched.leaving == frozenset()


def test_a_namespace_in_use_stays_until_it_is_not() -> None:
    watched = roster()
    watched.update(["a", "b"], now_at=Instant(0), in_use=free)
    for number in range(1, 5):
        moves = watched.update(["a"], now_at=Instant(number * GRACE_S), in_use={"b"}.__contains__)
        assert moves == NamespaceChanges()
    assert watched.update(["a"], now_at=Instant(5 * GRACE_S), in_use=free).removed == ("b",)


def test_the_limit_leaves_the_latest_out_and_counts_them() -> None:
    watched = roster("seed", at_most=2)
    assert watched.add(["a", "seed", "b", "c", "d", "c"]).added == ("a", "b")
    assert watched.over_limit == 2
    assert watched.add(["a"]).added == ()
    assert watched.over_limit == 0


def test_at_the_limit_a_namespace_with_sessions_replaces_one_that_is_not_in_use() -> None:
    watched = roster(at_most=2)
    watched.add(["used", "empty"])
    later = partial(watched.add_occupied, now_at=Instant(2 * GRACE_S), in_use={"used"}.__contains__)
    assert later(["a"]) == NamespaceChanges(("a",), ("empty",))
    assert watched.names == {"used", "a"}
    # The platform has just listed a session in `a`, and `used` has a pod.
    assert later(["b"]) == NamespaceChanges()
    assert watched.names == {"used", "a"}
    assert watched.over_limit == 1


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(
    st.lists(st.tuples(NAMES, st.booleans(), st.frozensets(st.sampled_from("abcdef"))), max_size=40)
)
def test_nothing_is_removed_that_two_whole_lists_in_a_row_did_not_lack(
    history: list[tuple[list[str], bool, frozenset[str]]],
) -> None:
    watched = NamespaceSet(["seed"], grace_s=0.0, limit=100)
    mirror = {"seed"}
    lacking = dict.fromkeys("abcdef", 0)
    for now_at, (names, whole, held) in enumerate(history):
        if whole:
            moves = watched.update(names, now_at=Instant(now_at), in_use=held.__contains__)
            for name in lacking:
                lacking[name] = 0 if name in names else lacking[name] + bool(names)
        else:
            moves = watched.add(names)
            lacking |= dict.fromkeys(names, 0)
        assert not mirror.intersection(moves.added)
        assert mirror.issuperset(moves.removed)
        assert all(lacking[name] >= MIN_LISTS and name not in held for name in moves.removed)
        mirror = mirror.union(moves.added).difference(moves.removed)
        assert mirror == watched.names
        assert mirror.issuperset(names)
