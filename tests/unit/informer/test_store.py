from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.informer.store import Change, IndexedStore, ReadResult
from reconciler.kube.api import ObjectMeta
from reconciler.naming import SessionKey
from tests.unit.informer.objects import meta


def synced(
    *items: ObjectMeta, version: int | str = 10, namespace: str | None = None
) -> IndexedStore:
    store = IndexedStore("pods")
    replaced(store, items, str(version), namespace)
    return store


def replaced(
    store: IndexedStore, items: Iterable[ObjectMeta], version: str, namespace: str | None
) -> list[Change]:
    """Replace a scope, and return what has changed."""
    steps = store.replace(items, version, namespace)
    return [change for change in steps if change is not None]


def check_indexes(store: IndexedStore) -> None:
    """Compare every read with what a walk over all objects says."""
    objects = store.snapshot()
    assert len(store) == len(objects)
    assert store.namespaces() == {item.namespace for item in objects}
    keys = {item.key for item in objects if item.session_id}
    assert set(store.session_keys()) == keys
    for key in keys:
        expected = sorted((i for i in objects if i.key == key), key=lambda i: i.name)
        assert store.by_session(key) == tuple(expected)
    for item in objects:
        assert store.get(item.namespace, item.name) is item


class TestEvents:
    def test_an_object_is_added_changed_and_deleted(self) -> None:
        store = synced()
        first, second = meta("a", 11), meta("a", 12)
        assert store.apply("ADDED", first) == Change(None, first)
        assert store.apply("MODIFIED", second) == Change(first, second)
        assert store.apply("DELETED", meta("a", 13)) == Change(second, None)
        assert store.apply("DELETED", meta("a", 13)) is None
        assert store.version(None) == "13"

    def test_the_same_version_is_no_change(self) -> None:
        store = synced(meta("a", 5))
        assert store.apply("ADDED", meta("a", 5)) is None

    def test_an_older_event_is_dropped_yet_moves_the_version(self) -> None:
        store = synced(meta("a", 9), version=10)
        assert store.apply("MODIFIED", meta("a", 8)) is None
        assert store.get("ns", "a") == meta("a", 9)
        assert store.version(None) == "8"

    def test_nine_is_older_than_ten(self) -> None:
        store = synced(meta("a", 10))
        assert store.apply("MODIFIED", meta("a", 9)) is None

    def test_opaque_versions_are_taken_in_the_order_of_the_stream(self) -> None:
        store = synced(meta("a", "zz"), version="zz")
        assert store.apply("MODIFIED", meta("a", "aa")) is not None
        assert store.apply("MODIFIED", meta("a", "aa")) is None

    def test_a_recreated_object_carries_both_uids_in_one_change(self) -> None:
        old, new = meta("a", 5, uid="one"), meta("a", 12, uid="two")
        assert synced(old).apply("ADDED", new) == Change(old, new)

    def test_a_late_deletion_of_a_predecessor_leaves_the_successor(self) -> None:
        store = synced(meta("a", 12, uid="two"))
        assert store.apply("DELETED", meta("a", 11, uid="one")) is None
        assert len(store) == 1

    def test_a_deletion_of_a_successor_that_we_never_saw_removes_its_predecessor(self) -> None:
        store = synced(meta("a", 5, uid="one"))
        assert store.apply("DELETED", meta("a", 12, uid="two")) is not None
        assert len(store) == 0

    def test_an_object_that_leaves_the_selection_is_removed_even_if_our_answer_is_newer(
        self,
    ) -> None:
        store = synced(meta("a", 9))
        store.apply_write_response(meta("a", 14))
        assert store.apply("DELETED", meta("a", 12)) == Change(meta("a", 14), None)

    def test_a_changed_session_label_moves_the_index_and_names_both_sessions(self) -> None:
        old, new = meta("a", 5, session="one"), meta("a", 12, session="two")
        store = synced(old)
        assert store.apply("MODIFIED", new) == Change(old, new)
        assert store.by_session(SessionKey("ns", "one")) == ()
        assert store.by_session(SessionKey("ns", "two")) == (new,)

    def test_an_object_without_the_label_belongs_to_no_session(self) -> None:
        store = synced(meta("a", 5))
        store.apply("MODIFIED", meta("a", 12, session=""))
        assert store.by_session(SessionKey("ns", "")) == ()
        assert (len(store), store.session_keys()) == (1, ())
        store.apply("DELETED", meta("a", 13, session=""))
        assert len(store) == 0

    def test_two_objects_share_a_session_and_empty_index_entries_go(self) -> None:
        store = synced(meta("b", 5, session="s"), meta("a", 6, session="s"))
        key = SessionKey("ns", "s")
        assert [item.name for item in store.by_session(key)] == ["a", "b"]
        store.apply("DELETED", meta("a", 11, session="s"))
        store.apply("DELETED", meta("b", 12, session="s"))
        assert store.session_keys() == ()
        assert store.namespaces() == frozenset()


class TestReplace:
    def test_deletions_come_first_then_the_list_in_its_order(self) -> None:
        store = synced(meta("a", 1), meta("b", 2), meta("c", 3))
        changes = replaced(store, [meta("d", 11), meta("b", 12), meta("c", 3)], "20", None)
        assert changes == [
            Change(meta("a", 1), None),
            Change(None, meta("d", 11)),
            Change(meta("b", 2), meta("b", 12)),
        ]

    def test_a_response_between_two_steps_stays_if_it_is_newer_than_the_list(self) -> None:
        for step in range(8):
            store = synced(meta("a", 1), meta("b", 2), version=10)
            steps = store.replace([meta("a", 11), meta("b", 12), meta("c", 13)], "20", None)
            for _ in range(step):
                next(steps)
            store.apply_write_response(meta("b", 21))
            store.apply_write_response(meta("d", 22))
            assert store.version(None) == "10"
            for _ in steps:
                check_indexes(store)
            found = {item.name: item.version for item in store.snapshot()}
            assert found == {"a": "11", "b": "21", "c": "13", "d": "22"}
            assert store.version(None) == "20"

    def test_a_late_response_between_two_steps_brings_back_no_deleted_object(self) -> None:
        for step in range(5):
            store = synced(meta("a", 1), meta("b", 2), version=10)
            read = store.entry("ns", "c")
            steps = store.replace([meta("b", 2)], "20", None)
            for _ in range(step):
                next(steps)
            store.apply_write_response(meta("a", 15))  # both were deleted at 16
            store.apply_read("ns", "c", meta("c", 14), "15", read)
            for _ in steps:
                check_indexes(store)
            assert store.snapshot() == (meta("b", 2),)

    def test_each_step_leaves_an_object_as_it_was_or_as_it_is_listed(self) -> None:
        old = [meta("a", 1), meta("b", 2, uid="one"), meta("c", 3)]
        new = [meta("b", 12, uid="two"), meta("c", 13), meta("d", 14)]
        store = synced(*old)
        for change in store.replace(new, "20", None):
            check_indexes(store)
            assert all(item in [*old, *new] for item in store.snapshot())
            if change is not None:
                shown = store.get("ns", (change.new or change.old or old[0]).name)
                assert shown == change.new
        assert sorted(store.snapshot(), key=lambda item: item.name) == new

    def test_a_recreation_in_a_gap_is_a_deletion_and_an_addition(self) -> None:
        old, new = meta("a", 1, uid="one"), meta("a", 12, uid="two")
        assert replaced(synced(old), [new], "20", None) == [Change(old, None), Change(None, new)]

    def test_a_second_relist_does_not_delete_again(self) -> None:
        store = synced(meta("a", 1))
        assert len(replaced(store, [], "20", None)) == 1
        assert replaced(store, [], "21", None) == []
        assert store.apply("DELETED", meta("a", 22)) is None

    def test_a_namespace_is_replaced_without_its_neighbours(self) -> None:
        store = IndexedStore("pods")
        replaced(store, [meta("a", 1, namespace="x")], "5", "x")
        replaced(store, [meta("a", 2, namespace="y")], "6", "y")
        assert (store.synced("x"), store.synced("z"), store.synced(None)) == (True, False, False)
        assert replaced(store, [], "9", "x") == [Change(meta("a", 1, namespace="x"), None)]
        assert (store.version("x"), store.version("y")) == ("9", "6")
        assert store.namespaces() == {"y"}

    def test_one_list_of_everything_syncs_each_namespace(self) -> None:
        store = synced(version=7)
        assert store.synced("any")
        assert store.version("any") == "7"

    def test_an_empty_list_counts_as_synced(self) -> None:
        assert not IndexedStore("pods").synced(None)
        assert synced().synced(None)

    def test_history_that_was_rewound_is_believed(self) -> None:
        store = synced(meta("a", 900), meta("b", 901), version=1000)
        store.apply_write_response(meta("c", 1001))
        changes = replaced(store, [meta("a", 90)], "100", None)
        assert Change(meta("a", 900), meta("a", 90)) in changes
        assert [item.name for item in store.snapshot()] == ["a"]


class TestOwnAnswers:
    def test_an_answer_is_read_at_once_and_its_event_changes_nothing(self) -> None:
        store = synced(meta("a", 5))
        assert store.apply_write_response(meta("a", 12)) == Change(meta("a", 5), meta("a", 12))
        assert store.apply("MODIFIED", meta("a", 11)) is None
        assert store.apply("MODIFIED", meta("a", 12)) is None
        assert store.get("ns", "a") == meta("a", 12)

    def test_an_answer_that_the_watch_overtook_is_ignored(self) -> None:
        store = synced(meta("a", 5))
        store.apply("MODIFIED", meta("a", 14))
        assert store.apply_write_response(meta("a", 12)) is None

    def test_an_answer_for_an_object_deleted_meanwhile_is_ignored(self) -> None:
        store = synced(meta("a", 5))
        store.apply("DELETED", meta("a", 14))
        assert store.apply_write_response(meta("a", 12)) is None
        assert len(store) == 0

    def test_a_creation_is_stored_before_its_event(self) -> None:
        store = synced(version=10)
        assert store.apply_write_response(meta("a", 12)) == Change(None, meta("a", 12))

    def test_an_answer_newer_than_a_list_survives_it(self) -> None:
        store = synced(meta("a", 5), version=10)
        store.apply_write_response(meta("a", 15))
        store.apply_write_response(meta("new", 16))
        assert replaced(store, [meta("a", 5)], "14", None) == []
        assert store.get("ns", "a") == meta("a", 15)
        assert store.get("ns", "new") == meta("new", 16)
        assert len(replaced(store, [meta("a", 15)], "20", None)) == 1

    def test_an_answer_before_the_first_list_survives_that_list(self) -> None:
        store = IndexedStore("secrets")
        store.apply_write_response(meta("a", 15))
        assert replaced(store, [meta("a", 5)], "14", None) == []
        assert store.get("ns", "a") == meta("a", 15)

    @pytest.mark.parametrize("stored", [[meta("a", "zz")], []])
    def test_an_answer_that_cannot_be_compared_waits_for_the_watch(
        self, stored: list[ObjectMeta]
    ) -> None:
        store = synced(*stored, version="zz")
        assert store.apply_write_response(meta("a", "yy")) is None

    def test_a_bookmark_moves_the_version_of_a_synced_scope_only(self) -> None:
        store = synced(version=10, namespace="x")
        store.set_resource_version("12", "x")
        store.set_resource_version("13", "y")
        assert store.version("x") == "12"
        assert not store.synced("y")


def test_repr_says_what_is_held() -> None:
    assert repr(IndexedStore("pods")) == "<IndexedStore pods 0 objects, not synced>"
    store = synced(meta("a", 1), meta("b", 2, session="s-a"))
    assert repr(store) == "<IndexedStore pods 2 objects, 1 synced>"


@dataclass
class Listener:
    """A mirror built from changes alone; it refuses one that does not follow from the last."""

    mirror: dict[tuple[str, str], ObjectMeta] = field(default_factory=dict)

    def hear(self, changes: Iterable[Change | None]) -> None:
        for change in changes:
            if change is None:
                continue
            item = change.new or change.old
            assert item is not None
            key = item.namespace, item.name
            assert self.mirror.pop(key, None) == change.old
            if change.new is not None:
                self.mirror[key] = change.new


@dataclass
class Cluster:
    """A history of writes with one version each, and how far a watcher has read it."""

    objects: dict[tuple[str, str], ObjectMeta] = field(default_factory=dict)
    history: list[tuple[str, ObjectMeta]] = field(default_factory=list)
    read: int = 0
    version: int = 1
    births: int = 0

    def put(self, key: tuple[str, str], session: str) -> ObjectMeta:
        self.version += 1
        old = self.objects.get(key)
        self.births += old is None
        uid = old.uid if old else f"uid-{self.births}"
        new = meta(key[1], self.version, namespace=key[0], uid=uid, session=session)
        self.objects[key] = new
        self.history.append(("MODIFIED" if old else "ADDED", new))
        return new

    def delete(self, key: tuple[str, str]) -> None:
        self.version += 1
        old = self.objects.pop(key)
        gone = meta(old.name, self.version, namespace=key[0], uid=old.uid, session=old.session_id)
        self.history.append(("DELETED", gone))


KEYS = st.tuples(st.sampled_from(["x", "y"]), st.sampled_from(["a", "b"]))
SESSIONS = st.sampled_from(["", "one", "two"])
STEPS = st.one_of(
    st.tuples(st.just("put"), KEYS, SESSIONS),
    st.tuples(st.just("write"), KEYS, SESSIONS),
    st.tuples(st.just("delete"), KEYS, SESSIONS),
    st.tuples(st.sampled_from(["answer", "read", "relist", "bookmark"]), KEYS, SESSIONS),
)


@given(st.lists(STEPS, max_size=60))
def test_store_and_listeners_follow_any_history_of_a_cluster(
    steps: list[tuple[str, tuple[str, str], str]],
) -> None:
    cluster, store, listener = Cluster(), IndexedStore("pods"), Listener()
    answers: list[ObjectMeta] = []
    listener.hear(replaced(store, [], "1", None))
    for step, key, session in steps:
        match step:
            case "put":
                cluster.put(key, session)
            case "write":
                answers.append(cluster.put(key, session))
            case "delete" if key in cluster.objects:
                cluster.delete(key)
            case "answer" if answers:
                listener.hear([store.apply_write_response(answers.pop(0))])
            case "read" if cluster.read < len(cluster.history):
                kind, item = cluster.history[cluster.read]
                cluster.read += 1
                listener.hear([store.apply(kind, item)])  # type: ignore[arg-type]  # one of three
            case "relist":
                cluster.read = len(cluster.history)
                listener.hear(replaced(store, cluster.objects.values(), str(cluster.version), None))
            case "bookmark" if cluster.read == len(cluster.history):
                store.set_resource_version(str(cluster.version), None)
        check_indexes(store)
        assert listener.mirror == {(i.namespace, i.name): i for i in store.snapshot()}
    for answer in answers:
        listener.hear([store.apply_write_response(answer)])
    for kind, item in cluster.history[cluster.read :]:
        listener.hear([store.apply(kind, item)])  # type: ignore[arg-type]  # one of three
    assert listener.mirror == cluster.objects
    assert {(i.namespace, i.name): i for i in store.snapshot()} == cluster.objects


EVENTS = st.tuples(
    st.sampled_from(["ADDED", "MODIFIED", "DELETED", "ACCEPT", "REPLACE"]),
    st.sampled_from(["a", "b"]),
    st.integers(1, 12),
    st.sampled_from(["one", "two"]),
    SESSIONS,
)


@given(st.lists(EVENTS, max_size=50))
def test_events_in_any_order_leave_what_a_naive_model_says(
    events: list[tuple[str, str, int, str, str]],
) -> None:
    store, listener = IndexedStore("pods"), Listener()
    replaced(store, [], "1", None)
    model: dict[str, ObjectMeta] = {}
    reached = 1
    for kind, name, number, uid, session in events:
        item = meta(name, number, uid=uid, session=session)
        old = model.get(name)
        at = int(old.version) if old else 0
        if kind == "REPLACE":
            own = {
                n: o
                for n, o in model.items()
                if int(o.version) > number >= reached and int(o.version) > reached
            }
            listener.hear(replaced(store, [item], str(number), None))
            # Of two histories one version may name two states: the list's is the one that is.
            model, reached = {name: item} | own, number
        elif kind == "ACCEPT":
            listener.hear([store.apply_write_response(item)])
            if number > (at or reached):
                model[name] = item
        else:
            listener.hear([store.apply(kind, item)])  # type: ignore[arg-type]  # one of three
            reached = number
            if kind == "DELETED":
                if old and (old.uid == uid or at <= number):
                    del model[name]
            elif old is None or number > at or (number == at and old.uid != uid):
                model[name] = item
        check_indexes(store)
        assert {item.name: item for item in store.snapshot()} == model
        assert listener.mirror == {("ns", n): i for n, i in model.items()}
        assert store.version(None) == str(reached)


class TestForget:
    def test_drops_one_scope_with_its_indexes_and_its_version(self) -> None:
        store = IndexedStore("pods")
        replaced(store, [meta("a", 1, namespace="x")], "5", "x")
        replaced(store, [meta("a", 2, namespace="y")], "6", "y")
        assert [item.namespace for item in store.forget("x")] == ["x"]
        check_indexes(store)
        assert store.namespaces() == {"y"}
        assert store.within("x") == ()
        assert not store.synced("x")
        assert store.synced("y")
        assert store.forget("x") == ()

    @pytest.mark.parametrize("is_first", [True, False])
    def test_a_list_that_is_being_taken_in_ends_with_its_scope(self, is_first: bool) -> None:
        items = [meta("a", 1, namespace="x"), meta("b", 2, namespace="x")]
        for step in range(1, 5):
            store = IndexedStore("pods")
            if not is_first:
                replaced(store, items[:1], "1", "x")
            steps = store.replace(items, "5", "x")
            for _ in range(step):
                next(steps)
            store.forget("x")
            assert list(steps) == []
            assert len(store) == 0
            assert not store.synced("x")

    def test_a_scope_that_is_back_begins_anew(self) -> None:
        store = IndexedStore("pods")
        replaced(store, [meta("a", 9, namespace="x")], "9", "x")
        store.forget("x")
        changes = replaced(store, [meta("a", 3, namespace="x")], "4", "x")
        assert [change.old for change in changes] == [None]
        assert store.version("x") == "4"


class TestBelief:
    def test_a_read_that_is_newer_is_taken_and_proves_nothing(self) -> None:
        store = synced(meta("a", 5))
        held = store.entry("ns", "a")
        belief = store.apply_read("ns", "a", meta("a", 12), "12", held)
        assert belief == ReadResult(Change(meta("a", 5), meta("a", 12)), rewound=False)
        assert store.get("ns", "a") == meta("a", 12)

    def test_a_read_that_is_as_known_changes_nothing(self) -> None:
        store = synced(meta("a", 5))
        belief = store.apply_read("ns", "a", meta("a", 5), "10", store.entry("ns", "a"))
        assert belief == ReadResult(None, rewound=False)

    @pytest.mark.parametrize("version", ["8", "200"], ids=["before", "past what was known"])
    def test_an_older_object_is_taken_as_it_was_read_and_proves_a_rewind(
        self, version: str
    ) -> None:
        store = synced(meta("a", 90), version=100)
        belief = store.apply_read("ns", "a", meta("a", 7), version, store.entry("ns", "a"))
        assert belief == ReadResult(Change(meta("a", 90), meta("a", 7)), rewound=True)
        assert store.get("ns", "a") == meta("a", 7)

    def test_the_same_version_may_name_another_state(self) -> None:
        stored, found = meta("a", 90), meta("a", 90, uid="another")
        store = synced(stored, version=100)
        belief = store.apply_read("ns", "a", found, "95", store.entry("ns", "a"))
        assert belief == ReadResult(Change(stored, found), rewound=True)

    def test_an_object_that_is_not_there_is_removed(self) -> None:
        store = synced(meta("a", 5))
        belief = store.apply_read("ns", "a", None, "12", store.entry("ns", "a"))
        assert belief == ReadResult(Change(meta("a", 5), None), rewound=False)
        assert len(store) == 0

    def test_an_absence_in_a_list_of_the_past_proves_a_rewind(self) -> None:
        store = synced(version=100)
        belief = store.apply_read("ns", "a", None, "12", store.entry("ns", "a"))
        assert belief == ReadResult(None, rewound=True)

    def test_an_object_of_a_rewound_history_is_found_again(self) -> None:
        store = synced(version=100)
        belief = store.apply_read("ns", "a", meta("a", 7), "12", store.entry("ns", "a"))
        assert belief == ReadResult(Change(None, meta("a", 7)), rewound=True)

    def test_what_the_stream_brought_meanwhile_stays(self) -> None:
        store = synced(meta("a", 5))
        held = store.entry("ns", "a")
        store.apply("MODIFIED", meta("a", 14))
        assert store.apply_read("ns", "a", meta("a", 12), "12", held) == ReadResult(
            None, rewound=False
        )
        assert store.get("ns", "a") == meta("a", 14)

    def test_what_was_deleted_meanwhile_is_not_brought_back(self) -> None:
        store = synced(meta("a", 5))
        held = store.entry("ns", "a")
        store.apply("DELETED", meta("a", 14))
        assert store.apply_read("ns", "a", meta("a", 5), "12", held) == ReadResult(
            None, rewound=False
        )
        assert len(store) == 0

    def test_what_came_and_went_meanwhile_is_not_brought_back(self) -> None:
        store = synced(version=10)
        held = store.entry("ns", "a")
        store.apply("ADDED", meta("a", 12))
        store.apply("DELETED", meta("a", 14))
        assert store.apply_read("ns", "a", meta("a", 12), "13", held) == ReadResult(
            None, rewound=False
        )
        assert len(store) == 0

    def test_our_own_answer_that_came_meanwhile_is_not_undone(self) -> None:
        store = synced(meta("a", 5))
        held = store.entry("ns", "a")
        store.apply_write_response(meta("a", 14))
        assert store.apply_read("ns", "a", None, "12", held) == ReadResult(None, rewound=False)
        assert store.get("ns", "a") == meta("a", 14)

    def test_versions_that_cannot_be_compared_prove_nothing_and_the_read_is_taken(self) -> None:
        store = synced(meta("a", "zz"), version="zz")
        belief = store.apply_read("ns", "a", meta("a", "aa"), "aa", store.entry("ns", "a"))
        assert belief == ReadResult(Change(meta("a", "zz"), meta("a", "aa")), rewound=False)


def test_a_list_replaces_an_object_that_has_its_version_but_another_content() -> None:
    stored, listed = meta("a", 5), meta("a", 5, session="another")
    assert replaced(synced(stored), [listed], "9", None) == [Change(stored, listed)]
