"""Which namespaces are watched: any name adds one, only repeated absence removes one."""

from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.decide.namespace_set import LISTS, NamespaceChanges, NamespaceSet

GRACE_S = 300.0


def roster(*seeds: str, at_most: int = 100) -> NamespaceSet:
    return NamespaceSet(seeds, grace_s=GRACE_S, at_most=at_most)


def free(_: str) -> bool:
    return False


def test_a_listed_namespace_is_added_once() -> None:
    watched = roster()
    assert watched.listed(["b", "a"], now_at=0.0, is_held=free) == NamespaceChanges(
        added=("b", "a")
    )
    assert watched.listed(["a", "b"], now_at=1.0, is_held=free) == NamespaceChanges()
    assert watched.names == {"a", "b"}


def test_static_names_are_never_added_and_never_removed() -> None:
    watched = roster("seed")
    for now_at in (0.0, GRACE_S, 2 * GRACE_S):
        assert "seed" not in watched.listed(["a"], now_at=now_at, is_held=free).removed
    assert watched.named(["seed"]) == NamespaceChanges()
    assert watched.names == {"seed", "a"}


def test_absence_must_last_and_be_seen_more_than_once() -> None:
    watched = roster()
    watched.listed(["a", "b"], now_at=0.0, is_held=free)
    assert watched.listed(["a"], now_at=10.0, is_held=free) == NamespaceChanges()
    assert watched.leaving == {"b"}
    assert watched.listed(["a"], now_at=GRACE_S, is_held=free) == NamespaceChanges()
    assert watched.listed(["a"], now_at=10.0 + GRACE_S, is_held=free) == NamespaceChanges(
        removed=("b",)
    )
    assert watched.leaving == frozenset()
    assert watched.listed(["a", "b"], now_at=400.0, is_held=free) == NamespaceChanges(added=("b",))


def test_one_list_alone_removes_nothing_however_late_it_comes() -> None:
    watched = NamespaceSet((), grace_s=0.0, at_most=9)
    watched.listed(["a", "b"], now_at=0.0, is_held=free)
    assert watched.listed(["a"], now_at=1e6, is_held=free) == NamespaceChanges()
    assert watched.listed(["a"], now_at=1e6, is_held=free).removed == ("b",)


def test_a_namespace_that_is_back_starts_its_absence_again() -> None:
    watched = roster()
    watched.listed(["a", "b"], now_at=0.0, is_held=free)
    watched.listed(["a"], now_at=1.0, is_held=free)
    assert watched.named(["b"]) == NamespaceChanges()
    assert watched.leaving == frozenset()
    assert watched.listed(["a"], now_at=2 * GRACE_S, is_held=free) == NamespaceChanges()


def test_an_empty_list_changes_nothing() -> None:
    watched = roster()
    watched.listed(["a"], now_at=0.0, is_held=free)
    for number in range(5):
        assert watched.listed([], now_at=number * GRACE_S, is_held=free) == NamespaceChanges()
    assert watched.names == {"a"}
    assert watched.leaving == frozenset()


def test_a_namespace_in_use_stays_until_it_is_not() -> None:
    watched = roster()
    watched.listed(["a", "b"], now_at=0.0, is_held=free)
    for number in range(1, 5):
        moves = watched.listed(["a"], now_at=number * GRACE_S, is_held={"b"}.__contains__)
        assert moves == NamespaceChanges()
    assert watched.listed(["a"], now_at=5 * GRACE_S, is_held=free).removed == ("b",)


def test_the_limit_leaves_the_latest_out_and_counts_them() -> None:
    watched = roster("seed", at_most=2)
    assert watched.named(["a", "seed", "b", "c", "d", "c"]).added == ("a", "b")
    assert watched.left_out == 2
    assert watched.named(["a"]).added == ()
    assert watched.left_out == 0


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=6)


@given(
    st.lists(st.tuples(NAMES, st.booleans(), st.frozensets(st.sampled_from("abcdef"))), max_size=40)
)
def test_nothing_is_removed_that_two_whole_lists_in_a_row_did_not_lack(
    history: list[tuple[list[str], bool, frozenset[str]]],
) -> None:
    watched = NamespaceSet(["seed"], grace_s=0.0, at_most=100)
    mirror = {"seed"}
    lacking = dict.fromkeys("abcdef", 0)
    for now_at, (names, whole, held) in enumerate(history):
        if whole:
            moves = watched.listed(names, now_at=float(now_at), is_held=held.__contains__)
            for name in lacking:
                lacking[name] = 0 if name in names else lacking[name] + bool(names)
        else:
            moves = watched.named(names)
            lacking |= dict.fromkeys(names, 0)
        assert not mirror.intersection(moves.added)
        assert mirror.issuperset(moves.removed)
        assert all(lacking[name] >= LISTS and name not in held for name in moves.removed)
        mirror = mirror.union(moves.added).difference(moves.removed)
        assert mirror == watched.names
        assert mirror.issuperset(names)
