"""When a node mounts, projects, reports, stops and removes."""

from dataclasses import replace
from random import Random

import pytest

from reconciler.clock import Instant
from reconciler.lab.kubelet.node import BACKOFF_CAP_S, KubeletTiming, Node
from reconciler.lab.kubelet.pods import Pod, SecretRef
from reconciler.naming import SessionKey

SECRET = SecretRef("ns", "session-one-creds")
POD = Pod(
    uid="u1",
    namespace="ns",
    name="session-one-runner",
    session=SessionKey("ns", "one"),
    secret=SECRET,
    files=(("api-token", "bot-token"),),
    phase="Pending",
    touch=frozenset(),
    grace_s=None,
    containers=(),
)
TIMING = KubeletTiming(projection_s=(60.0, 90.0), grace_cap_s=10.0)


def touched(pod: Pod, value: str = "now") -> Pod:
    return replace(pod, touch=frozenset({("touched-at", value)}))


def seeded(timing: KubeletTiming = TIMING) -> Node:
    return Node(timing, Random(7).uniform)


def running(timing: KubeletTiming = TIMING) -> Node:
    """Return a node with one pod, which mounted version v1 and was reported by t=10."""
    node = seeded(timing)
    node.observe_pod(POD, now_at=Instant(0))
    node.due(Instant(1))
    assert node.note_mounted("u1", "v1", newest=True, now_at=Instant(1))
    node.observe_pod(replace(POD, phase="Running"), now_at=Instant(2))
    node.due(Instant(10))
    return node


def next_kinds(node: Node) -> tuple[Instant, list[str]]:
    """Go to the next instant; return it with what is due then."""
    at = node.next_at()
    assert at is not None
    return at, [action.kind for action in node.due(at)]


def test_new_pod_is_mounted_at_once_then_reported() -> None:
    node = seeded()
    node.observe_pod(POD, now_at=Instant(100))

    at, kinds = next_kinds(node)
    first = node.note_mounted("u1", "v1", newest=True, now_at=at)

    assert Instant(100.15) <= at <= Instant(100.3)
    assert (kinds, first) == (["mount"], True)
    assert next_kinds(node) == (at, ["report"])
    assert node.next_at() is None


def test_pod_that_runs_already_is_mounted_but_not_reported() -> None:
    node = seeded()
    node.observe_pod(replace(POD, phase="Running"), now_at=Instant(0))
    node.due(Instant(1))

    assert node.note_mounted("u1", "v1", newest=True, now_at=Instant(1))
    assert node.next_at() is None


def test_missing_secret_is_retried_with_doubling_pauses_to_the_cap() -> None:
    node = seeded()
    node.observe_pod(POD, now_at=Instant(0))
    at, _ = next_kinds(node)
    pauses = []
    for _ in range(11):
        node.note_failed("u1", "mount", now_at=at)
        again, kinds = next_kinds(node)
        assert kinds == ["mount"]
        pauses.append(round(again - at, 6))
        at = again

    assert pauses == [0.5, 1, 2, 4, 8, 16, 32, 64, BACKOFF_CAP_S, BACKOFF_CAP_S, BACKOFF_CAP_S]
    assert not node.started("u1")


def test_secret_that_appears_does_not_wake_a_pod_that_waits_for_its_first_mount() -> None:
    node = seeded()
    node.observe_pod(POD, now_at=Instant(0))
    node.due(Instant(1))
    for now_at in (1, 2, 4, 8, 16):
        node.note_failed("u1", "mount", now_at=Instant(now_at))
        node.due(Instant(now_at + 8))
    node.note_failed("u1", "mount", now_at=Instant(100))

    node.observe_secret(SECRET, "v1", now_at=Instant(101))

    assert node.next_at() == Instant(116)


def test_touch_wakes_a_blocked_pod_at_once() -> None:
    node = seeded()
    node.observe_pod(POD, now_at=Instant(0))
    node.due(Instant(1))
    for _ in range(8):
        node.note_failed("u1", "mount", now_at=Instant(1))
        node.due(Instant(200))
    node.note_failed("u1", "mount", now_at=Instant(200))

    node.observe_pod(touched(POD), now_at=Instant(210))
    at, kinds = next_kinds(node)

    assert Instant(210.15) <= at <= Instant(210.3)
    assert kinds == ["mount"]


def test_changed_secret_is_projected_after_the_drawn_delay() -> None:
    node = running()
    node.observe_secret(SECRET, "v2", now_at=Instant(100))

    at, kinds = next_kinds(node)

    assert Instant(160) <= at <= Instant(190)
    assert kinds == ["mount"]


def test_second_change_does_not_postpone_the_sync_of_the_first() -> None:
    node = running()
    node.observe_secret(SECRET, "v2", now_at=Instant(100))
    first = node.next_at()

    node.observe_secret(SECRET, "v3", now_at=Instant(150))

    assert node.next_at() == first


def test_same_values_again_are_no_reason_to_sync() -> None:
    node = running()
    node.observe_secret(SECRET, "v1", now_at=Instant(100))

    assert node.next_at() is None


def test_touch_projects_at_once_and_leaves_nothing_to_do() -> None:
    node = running()
    node.observe_secret(SECRET, "v2", now_at=Instant(100))
    node.observe_pod(touched(replace(POD, phase="Running")), now_at=Instant(100.05))

    at, kinds = next_kinds(node)
    node.note_mounted("u1", "v2", newest=True, now_at=at)

    assert Instant(100.2) <= at <= Instant(100.35)
    assert kinds == ["mount"]
    assert node.next_at() is None


def test_status_change_is_no_touch() -> None:
    node = running()
    node.observe_pod(
        replace(POD, phase="Running", containers=(("runner", "image"),)), now_at=Instant(100)
    )

    assert node.next_at() is None


def test_stale_touch_waits_for_the_next_drawn_sync() -> None:
    node = running(replace(TIMING, stale_touches=1.0))
    node.observe_secret(SECRET, "v2", now_at=Instant(100))
    node.observe_pod(touched(replace(POD, phase="Running")), now_at=Instant(100))

    at, kinds = next_kinds(node)
    node.note_unchanged("u1", now_at=at)
    later, then = next_kinds(node)

    assert (kinds, then) == (["mount_stale"], ["mount"])
    assert 60 <= later - at <= 90


def test_stale_touch_that_projects_an_older_value_is_mended_by_the_next_drawn_sync() -> None:
    node = running(replace(TIMING, stale_touches=1.0))
    node.observe_secret(SECRET, "v3", now_at=Instant(100))

    node.note_mounted("u1", "v2", newest=False, now_at=Instant(101))

    assert node.mounted("u1") == "v2"
    assert Instant(161) <= next_kinds(node)[0] <= Instant(191)


def test_first_mount_is_never_stale() -> None:
    node = seeded(replace(TIMING, stale_touches=1.0))
    node.observe_pod(POD, now_at=Instant(0))

    assert next_kinds(node)[1] == ["mount"]


@pytest.mark.parametrize(("asked_s", "given_s"), [(3, 3), (60, 10), (0, 0)])
def test_deleted_pod_gets_its_grace_under_the_cap_then_is_removed(
    asked_s: float, given_s: float
) -> None:
    node = running()
    node.observe_pod(replace(POD, phase="Running", grace_s=asked_s), now_at=Instant(100))
    node.observe_pod(replace(POD, phase="Running", grace_s=asked_s), now_at=Instant(101))

    at, kinds = next_kinds(node)

    assert (at, kinds) == (Instant(100 + given_s), ["stop"])
    assert next_kinds(node) == (at, ["remove"])
    assert not node.started("u1")
    assert node.next_at() is None


def test_second_deletion_may_shorten_the_grace() -> None:
    node = running()
    node.observe_pod(replace(POD, grace_s=9), now_at=Instant(100))
    node.observe_pod(replace(POD, grace_s=1), now_at=Instant(102))

    assert next_kinds(node) == (Instant(103), ["stop"])


def test_terminating_pod_is_not_projected_any_more() -> None:
    node = running()
    node.observe_secret(SECRET, "v2", now_at=Instant(100))
    node.observe_pod(replace(POD, grace_s=9), now_at=Instant(101))
    node.observe_secret(SECRET, "v3", now_at=Instant(102))
    node.observe_pod(touched(replace(POD, grace_s=9)), now_at=Instant(103))

    assert next_kinds(node) == (Instant(110), ["stop"])


def test_pod_deleted_before_its_first_mount_is_removed_without_a_stop() -> None:
    node = seeded()
    node.observe_pod(POD, now_at=Instant(0))
    node.observe_pod(replace(POD, grace_s=30), now_at=Instant(0.1))

    assert next_kinds(node) == (Instant(0.1), [])
    assert next_kinds(node) == (Instant(0.1), ["remove"])


def test_removal_that_fails_is_tried_again() -> None:
    node = running()
    node.observe_pod(replace(POD, grace_s=0), now_at=Instant(100))
    node.due(Instant(100))
    node.due(Instant(100))

    node.note_failed("u1", "remove", now_at=Instant(100))

    assert next_kinds(node) == (Instant(100.5), ["remove"])


def test_pod_that_ended_stops_and_stays() -> None:
    node = running()
    node.observe_pod(replace(POD, phase="Failed"), now_at=Instant(100))

    assert next_kinds(node) == (Instant(100), ["stop"])
    assert node.next_at() is None


def test_ended_pod_that_is_deleted_is_removed_without_a_second_stop() -> None:
    node = running()
    node.observe_pod(replace(POD, phase="Succeeded"), now_at=Instant(100))
    node.due(Instant(100))
    node.observe_pod(replace(POD, phase="Succeeded", grace_s=0), now_at=Instant(200))

    assert next_kinds(node)[1] == ["remove"]


def test_pod_that_vanished_is_handed_back_once_if_its_container_ran() -> None:
    node = running()

    assert node.remove_pod("u1") is not None
    assert node.remove_pod("u1") is None
    assert node.next_at() is None


def test_mount_of_a_vanished_pod_starts_nothing() -> None:
    node = seeded()
    node.observe_pod(POD, now_at=Instant(0))
    node.remove_pod("u1")

    assert not node.note_mounted("u1", "v1", newest=True, now_at=Instant(1))


def test_restarted_session_is_a_pod_of_its_own() -> None:
    node = running()
    node.observe_pod(replace(POD, phase="Running", grace_s=5), now_at=Instant(100))
    node.observe_pod(replace(POD, uid="u2"), now_at=Instant(100))

    at, kinds = next_kinds(node)
    assert node.note_mounted("u2", "v1", newest=True, now_at=at)

    assert kinds == ["mount"]
    assert (node.started("u1"), node.started("u2")) == (True, True)


def test_running_pod_whose_secret_vanished_looks_again_until_it_is_back() -> None:
    node = running()
    node.observe_secret(SECRET, None, now_at=Instant(100))
    at, kinds = next_kinds(node)
    node.note_failed("u1", "mount", now_at=at)

    again, then = next_kinds(node)

    assert (kinds, then) == (["mount"], ["mount"])
    assert again == at + 0.5
    assert node.mounted("u1") == "v1"


def test_batch_takes_no_more_than_its_limit() -> None:
    node = seeded()
    for number in range(5):
        node.observe_pod(replace(POD, uid=f"u{number}"), now_at=Instant(0))

    assert [len(node.due(Instant(1), limit=2)) for _ in range(4)] == [2, 2, 1, 0]
