"""The core alone: properties that no real server shows, and those of any history."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import AT_ONCE, Core
from reconciler.lab.apiserver.garbage_collector import collect
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.paging import ListQuery
from reconciler.lab.apiserver.selectors import Selection
from reconciler.lab.apiserver.status_errors import StatusError
from reconciler.lab.apiserver.watch_cache import BACKLOG_LIMIT, WatchEvent, WatchFeed
from reconciler.lab.apiserver.write_log import Caller, Commit, WriteLog
from tests.support import ManualClock

NAMES = "abcd"

Step = tuple[str, str, str]
steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "label", "unlabel", "delete"]),
        st.sampled_from(NAMES),
        st.sampled_from(["default", "kube-system"]),
    ),
    max_size=25,
)


def new_core(**options: Any) -> Core:
    return Core(ManualClock(), **options)


def run(core: Core, step: Step) -> None:
    """Take a step; one that the state does not allow is refused and changes nothing."""
    verb, name, namespace = step
    where = kinds.SECRETS, namespace, name
    try:
        if verb == "create":
            core.create(kinds.SECRETS, namespace, {"metadata": {"name": name}})
        elif verb == "delete":
            core.delete(*where)
        else:
            core.patch(*where, {"metadata": {"labels": {"l": "1" if verb == "label" else None}}})
    except StatusError:
        return


def state(core: Core, selection: Selection) -> dict[str, Object]:
    return {key_of(item): item for item in core.list(kinds.SECRETS, selection).items}


def key_of(item: Object) -> str:
    return kinds.SECRETS.key(item["metadata"]["namespace"], item["metadata"]["name"])


def drain(feed: WatchFeed) -> list[WatchEvent]:
    found: list[WatchEvent] = []
    while (event := feed.next()) is not None:
        found.append(event)
    return found


@given(before=steps, after=steps, labels=st.sampled_from(["", "l", "!l"]), late=st.booleans())
def test_a_list_and_a_watch_after_it_rebuild_the_state(
    before: list[Step], after: list[Step], labels: str, late: bool
) -> None:
    core, selection = new_core(), Selection(labels=labels)
    for step in before:
        run(core, step)
    rebuilt, version = state(core, selection), str(core.version)
    feed = None if late else core.watch(kinds.SECRETS, selection, version=version)
    for step in after:
        run(core, step)
    feed = feed or core.watch(kinds.SECRETS, selection, version=version)
    newest = int(version)
    for event in drain(feed):
        key, at = key_of(event.object), int(event.object["metadata"]["resourceVersion"])
        assert at > newest
        newest = at
        assert (key in rebuilt) is (event.type != "ADDED")
        if event.type == "DELETED":
            del rebuilt[key]
        else:
            rebuilt[key] = event.object
    assert rebuilt == state(core, selection)


@given(before=steps, during=steps, limit=st.integers(1, 4), labels=st.sampled_from(["", "l"]))
def test_pages_are_the_list_of_their_first_moment(
    before: list[Step], during: list[Step], limit: int, labels: str
) -> None:
    core, selection = new_core(), Selection(labels=labels)
    for step in before:
        run(core, step)
    whole = list(core.list(kinds.SECRETS, selection).items)
    page = core.list(kinds.SECRETS, selection, ListQuery(limit=limit))
    found, version, left = list(page.items), page.version, list(during)
    while page.token:
        for step in left[:3]:
            run(core, step)
        left = left[3:]
        page = core.list(kinds.SECRETS, selection, ListQuery(limit=limit, token=page.token))
        assert page.version == version
        assert len(page.items) <= limit
        found += page.items
    assert found == whole


@given(history=steps)
@settings(max_examples=50)
def test_every_version_that_is_not_compacted_can_be_listed(history: list[Step]) -> None:
    core = new_core()
    seen: dict[int, dict[str, Object]] = {}
    for step in history:
        run(core, step)
        seen[core.version] = state(core, Selection())
    for version, then in seen.items():
        query = ListQuery(version=str(version), match="Exact")
        listing = core.list(kinds.SECRETS, Selection(), query)
        assert {key_of(item): item for item in listing.items} == then


@given(history=steps)
def test_one_seed_gives_one_history(history: list[Step]) -> None:
    states: list[dict[str, Object]] = []
    for _ in range(2):
        core = new_core(seed="7")
        for step in history:
            run(core, step)
        states.append(state(core, Selection()))
    assert states[0] == states[1]


def test_two_seeds_give_two_uids() -> None:
    one, two = (
        new_core(seed=seed).get(kinds.NAMESPACES, "", "default")["metadata"]["uid"]
        for seed in ("1", "2")
    )
    assert one != two


def test_objects_that_went_out_never_change() -> None:
    core = new_core()
    body = {"metadata": {"name": "s", "labels": {"l": "1"}}}
    old = core.create(kinds.SECRETS, "default", body)
    body["metadata"]["labels"] = {"l": "9"}
    new = core.patch(kinds.SECRETS, "default", "s", {"metadata": {"labels": {"l": "2"}}})
    assert old["metadata"]["labels"] == {"l": "1"}
    assert new["metadata"]["labels"] == {"l": "2"}
    assert new["metadata"]["uid"] == old["metadata"]["uid"]


def test_history_is_bounded() -> None:
    core = new_core(history=3)
    first = core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}})
    for count in range(4):
        change = {"metadata": {"labels": {"l": str(count)}}}
        core.patch(kinds.SECRETS, "default", "s", change)
    feed = core.watch(kinds.SECRETS, version=first["metadata"]["resourceVersion"])
    (event,) = drain(feed)
    assert (event.type, event.object["code"]) == ("ERROR", 410)
    assert feed.ended


def test_an_open_watch_survives_compaction() -> None:
    core = new_core()
    feed = core.watch(kinds.SECRETS, version=str(core.version))
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}})
    core.compact()
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "t"}})
    assert [event.object["metadata"]["name"] for event in drain(feed)] == ["s", "t"]


def test_a_watch_from_the_compacted_version_itself_misses_nothing() -> None:
    core = new_core()
    core.compact()
    feed = core.watch(kinds.SECRETS, version=str(core.version))
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}})
    assert [event.type for event in drain(feed)] == ["ADDED"]


def test_a_watch_without_a_reader_is_ended() -> None:
    feed = WatchFeed(kinds.SECRETS, lambda _: True, after=0, wake=lambda: None)
    event = WatchEvent("ADDED", {})
    for _ in range(BACKLOG_LIMIT):
        feed.push(event)
    assert not feed.ended
    feed.push(event)
    assert feed.ended


def test_a_write_that_is_refused_changes_nothing() -> None:
    core = new_core()
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}})
    before, version = state(core, Selection()), core.version
    for patch in ({"metadata": {"uid": "x"}}, {"data": {"k": "?"}}, {"metadata": {"name": "t"}}):
        with pytest.raises(StatusError):
            core.patch(kinds.SECRETS, "default", "s", patch)
    assert (state(core, Selection()), core.version) == (before, version)


# The cluster's controllers


def make_pod(core: Core, name: str, *, node: str = "") -> Object:
    return core.create(
        kinds.PODS, "default", {"metadata": {"name": name}, "spec": {"nodeName": node}}
    )


def make_owned(core: Core, name: str, *owners: Object) -> Object:
    references = [
        {"apiVersion": "v1", "kind": "Pod", "name": "any", "uid": owner["metadata"]["uid"]}
        for owner in owners
    ]
    body = {"metadata": {"name": name, "ownerReferences": references}}
    return core.create(kinds.SECRETS, "default", body)


def test_an_owned_secret_goes_with_its_pod() -> None:
    core = new_core()
    make_owned(core, "s", make_pod(core, "p"))
    assert collect(core) == 0
    core.delete(kinds.PODS, "default", "p")
    assert core.count(kinds.SECRETS) == 1
    assert collect(core) == 1
    assert core.count(kinds.SECRETS) == 0


def test_a_secret_stays_while_one_owner_lives() -> None:
    core = new_core()
    make_owned(core, "s", make_pod(core, "p"), make_pod(core, "q"))
    core.delete(kinds.PODS, "default", "p")
    assert collect(core) == 0
    core.delete(kinds.PODS, "default", "q")
    assert collect(core) == 1


def test_a_secret_that_names_a_dead_owner_is_collected() -> None:
    core = new_core()
    pod = make_pod(core, "p")
    core.delete(kinds.PODS, "default", "p")
    make_owned(core, "s", pod)
    assert collect(core) == 1


def test_a_namespace_ends_when_its_last_pod_is_gone() -> None:
    core = new_core()
    core.create(kinds.NAMESPACES, "", {"metadata": {"name": "n"}})
    core.create(kinds.SECRETS, "n", {"metadata": {"name": "s"}})
    core.create(kinds.PODS, "n", {"metadata": {"name": "p"}, "spec": {"nodeName": "x"}})
    core.delete(kinds.NAMESPACES, "", "n")
    assert collect(core) == 2
    assert collect(core) == 0
    assert core.count(kinds.SECRETS) == 0
    assert "deletionTimestamp" in core.get(kinds.PODS, "n", "p")["metadata"]
    core.delete(kinds.PODS, "n", "p", AT_ONCE)
    assert collect(core) == 1
    with pytest.raises(StatusError, match='namespaces "n" not found'):
        core.get(kinds.NAMESPACES, "", "n")


def test_a_scheduler_binds_what_clients_cannot() -> None:
    core = new_core()
    make_pod(core, "p")
    assert core.bind("default", "p", "node-1")["spec"]["nodeName"] == "node-1"


# The write log


def test_a_commit_names_its_writer() -> None:
    core = new_core()
    seen: list[Commit] = []
    core.on_commit.append(seen.append)
    writer = Caller("reconciler", "token-reconciler/1.0", "token-reconciler")
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}}, by=writer)
    core.delete(kinds.SECRETS, "default", "s", by=writer)
    assert [(one.verb, one.kind.plural, one.removed) for one in seen] == [
        ("create", "secrets", False),
        ("delete", "secrets", True),
    ]
    assert {(one.user, one.field_manager) for one in seen} == {("reconciler", "token-reconciler")}
    assert [one.version for one in seen] == [core.version - 1, core.version]


def test_a_restore_tells_of_the_end_of_an_object_before_another_takes_its_name() -> None:
    core = new_core()
    commits: list[tuple[str, bool, str]] = []
    first = core.create(kinds.PODS, "default", {"metadata": {"name": "p"}})
    gone = core.create(kinds.PODS, "default", {"metadata": {"name": "q"}})
    version = core.version
    core.delete(kinds.PODS, "default", "q", AT_ONCE)
    core.delete(kinds.PODS, "default", "p", AT_ONCE)
    second = core.create(kinds.PODS, "default", {"metadata": {"name": "p"}})
    late = core.create(kinds.PODS, "default", {"metadata": {"name": "r"}})

    def hook(commit: Commit) -> None:
        commits.append((commit.verb, commit.removed, commit.object["metadata"]["uid"]))

    core.on_commit.append(hook)
    core.restore(version)
    uids = {
        name: item["metadata"]["uid"]
        for name, item in {"first": first, "gone": gone, "second": second, "late": late}.items()
    }
    assert sorted(commits) == sorted(
        [
            ("delete", True, uids["late"]),
            ("delete", True, uids["second"]),
            ("update", False, uids["first"]),
            ("update", False, uids["gone"]),
        ]
    )
    ended, restored = ("delete", True, uids["second"]), ("update", False, uids["first"])
    assert commits.index(ended) < commits.index(restored)


def test_a_dry_run_is_no_commit() -> None:
    core = new_core()
    seen: list[Commit] = []
    core.on_commit.append(seen.append)
    trial = Caller(dry_run=True)
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}}, by=trial)
    assert (seen, core.count(kinds.SECRETS)) == ([], 0)


def test_the_ledger_orders_secret_writes_against_turns_of_the_lease() -> None:
    core, ledger = new_core(), WriteLog()
    core.on_commit.append(ledger.record)
    first, second = Caller("u", "first/1", "m"), Caller("u", "second/1", "m")
    core.create(kinds.SECRETS, "default", {"metadata": {"name": "s"}})
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a", "leaseTransitions": 0}}
    core.create(kinds.LEASES, "default", lease, by=first)
    note = {"metadata": {"annotations": {"by": "a"}}}
    core.patch(kinds.SECRETS, "default", "s", note, by=first)
    core.patch(kinds.LEASES, "default", "l", {"spec": {"leaseTransitions": 1}}, by=first)
    core.patch(kinds.LEASES, "default", "l", {"spec": {"holderIdentity": "b"}}, by=second)
    late = {"metadata": {"annotations": {"by": "late"}}}
    core.patch(kinds.SECRETS, "default", "s", late, by=first)
    core.delete(kinds.LEASES, "default", "l")
    assert [turn.holder for turn in ledger.holder_changes] == ["a", "b", ""]
    deposed_at = ledger.holder_changes[1].version
    after = [one for one in ledger.secret_writes if one.version > deposed_at]
    assert [(one.agent, one.annotations) for one in after] == [("first/1", {"by": "late"})]
    assert ledger.secret_patches == {"first/1": 2}


def test_the_ledger_keeps_no_value() -> None:
    core, ledger = new_core(), WriteLog()
    core.on_commit.append(ledger.record)
    body = {"metadata": {"name": "s"}, "stringData": {"k": "very-secret"}}
    core.create(kinds.SECRETS, "default", body)
    assert "very-secret" not in repr(ledger.secret_writes)
    assert "dmVyeS1zZWNyZXQ" not in repr(ledger.secret_writes)
