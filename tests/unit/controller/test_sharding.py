"""Which shard a session belongs to: fixed for all time, even, and stable when n changes."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.controller.decide.sharding import of_shard, owns, shard_of
from reconciler.informer.store import Change, Store
from reconciler.kube.decoding import metadata_resource
from reconciler.naming import Names, SessionKey, Shard
from reconciler.settings import MAX_SHARDS

NAMES = Names()

VECTORS = {
    ("team-a", "2FbX7"): (0, 0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2),
    ("ambient-code", "2Ab0000iM9jHydij25iFp8vsCWf"): (
        0, 1, 1, 1, 1, 1, 1, 7, 8, 8, 8, 8, 8, 8, 8, 8,
    ),
    ("team-b", "2FbX7"): (0, 1, 2, 2, 2, 5, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7),
}  # fmt: skip
"""The shard of a session for each n from 1 on. Another value would be a change of n without an
order: replicas of the release before and after it would have different sessions."""

KEYS = [SessionKey(f"team-{index % 7}", f"2Ab{index:024x}") for index in range(20_000)]


@pytest.mark.parametrize("key", VECTORS)
def test_a_session_keeps_its_shard_in_every_release(key: tuple[str, str]) -> None:
    found = tuple(shard_of(SessionKey(*key), count) for count in range(1, MAX_SHARDS + 1))
    assert found == VECTORS[key]


@pytest.mark.parametrize("count", [2, 3, 5, MAX_SHARDS])
def test_the_shards_are_of_one_size_to_a_tenth(count: int) -> None:
    sizes = Counter(shard_of(key, count) for key in KEYS)
    assert set(sizes) == set(range(count))
    assert max(sizes.values()) < 1.1 * len(KEYS) / count
    assert min(sizes.values()) > 0.9 * len(KEYS) / count


@pytest.mark.parametrize("count", range(1, MAX_SHARDS))
def test_one_shard_more_moves_its_part_to_the_new_shard_and_no_other_session(count: int) -> None:
    moved = [key for key in KEYS if shard_of(key, count) != shard_of(key, count + 1)]
    assert {shard_of(key, count + 1) for key in moved} == {count}
    assert len(moved) == pytest.approx(len(KEYS) / (count + 1), rel=0.1)


@given(st.text(max_size=60), st.integers(1, MAX_SHARDS))
def test_every_session_has_exactly_one_shard(session_id: str, count: int) -> None:
    key = SessionKey("team-a", session_id)
    assert sum(owns(Shard(index, count), key) for index in range(count)) == 1


def test_sessions_that_share_the_name_of_a_secret_are_in_one_shard() -> None:
    long = "2Ab" + "x" * 40
    one, other = SessionKey("team-a", long + "A"), SessionKey("team-a", long.upper() + "B")
    assert NAMES.secret_name(one.session_id) == NAMES.secret_name(other.session_id)
    assert shard_of(one, MAX_SHARDS) == shard_of(other, MAX_SHARDS)


def secret(key: SessionKey, version: str, *, name: str = "") -> dict[str, object]:
    return {
        "metadata": {
            "namespace": key.namespace,
            "name": name or NAMES.secret_name(key.session_id),
            "uid": f"uid-{name or key.session_id}",
            "resourceVersion": version,
            "labels": {NAMES.session_id: key.session_id},
        }
    }


class TestOfShard:
    own, other = SessionKey("team-a", "2FbX7"), SessionKey("team-a", "2FbX2")
    resource = of_shard(metadata_resource("secrets", NAMES), Shard(2, 3))

    def event(self, kind: str, key: SessionKey, version: str, *, name: str = "") -> bytes:
        return json.dumps({"type": kind, "object": secret(key, version, name=name)}).encode()

    def test_a_list_has_the_shards_own_objects_and_its_whole_version(self) -> None:
        items = [secret(self.own, "5"), secret(self.other, "6")]
        listed = {"metadata": {"resourceVersion": "9", "continue": "more"}, "items": items}
        page = self.resource.decode_page(json.dumps(listed).encode())
        assert [meta.key for meta in page.items] == [self.own]
        assert (page.version, page.continue_token, page.skipped) == ("9", "more", 0)

    def test_an_event_of_another_shard_advances_the_version_and_changes_nothing(self) -> None:
        store = Store("secrets")
        assert list(store.replace([], "1", None)) == []
        event = self.resource.decode_event(self.event("MODIFIED", self.other, "7"))
        assert event.type == "DELETED"
        assert event.object is not None
        assert store.apply("DELETED", event.object) is None
        assert store.version(None) == "7"
        assert len(store) == 0

    def test_an_object_that_a_label_moves_to_another_shard_is_removed(self) -> None:
        store = Store("secrets")
        assert list(store.replace([], "1", None)) == []
        ours = self.resource.decode_event(self.event("ADDED", self.own, "2", name="one"))
        assert ours.object is not None
        assert store.apply("ADDED", ours.object) == Change(None, ours.object)
        moved = self.resource.decode_event(self.event("MODIFIED", self.other, "3", name="one"))
        assert moved.object is not None
        assert store.apply("DELETED", moved.object) == Change(ours.object, None)

    def test_a_bookmark_passes(self) -> None:
        line = b'{"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "8"}}}'
        event = self.resource.decode_event(line)
        assert (event.type, event.version, event.object) == ("BOOKMARK", "8", None)

    def test_without_shards_nothing_is_between_server_and_store(self) -> None:
        resource = metadata_resource("secrets", NAMES)
        assert of_shard(resource, Shard(0, 1)) is resource
