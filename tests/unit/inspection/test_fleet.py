"""The fleet: joined by name, sorted by expiry, counted by state."""

from reconciler.controller.decide.token_state import TokenState
from reconciler.inspection.fleet import PodFleet, assess_fleet
from reconciler.inspection.printers import cells, fleet_as_json, plain
from reconciler.naming import Names
from tests.unit.controller.build import NAMES, NOW_S, TTL_S, secret
from tests.unit.inspection.build import pod, reader_context

ROW_KEYS = [
    "namespace", "pod", "session", "project", "terminating", "secret", "state", "reason",
    "expiresAt", "expiresInSeconds", "issuedAt", "refreshAt", "refreshedAt", "refreshedBy",
    "otherWriters", "paused", "requested", "confirmed",
]  # fmt: skip


def fleet_of(ages: dict[str, float | None], *, missing: tuple[str, ...] = ()) -> PodFleet:
    """Survey a session for each name; None is a static token."""
    pods = [pod(name=f"{name}-runner", uid=name, session_id=name) for name in ages]
    static = {NAMES.refreshed_by: "r/1"}
    secrets = [
        secret(
            age_s=age_s,
            session_id=name,
            name=NAMES.secret_name(name),
            annotations=static if age_s is None else None,
        )
        for name, age_s in ages.items()
        if name not in missing
    ]
    return assess_fleet(pods, secrets, reader_context(), NOW_S)


def test_the_next_to_expire_comes_first_and_the_unknown_counts_as_now() -> None:
    ages = {"endless": None, "young": 10.0, "old": 500.0, "gone": TTL_S + 60, "lost": 10.0}
    fleet = fleet_of(ages, missing=("lost",))
    assert [row.pod.session_id for row in fleet.rows] == ["gone", "lost", "old", "young", "endless"]
    assert fleet.next is not None
    assert fleet.next.pod.session_id == "old"
    assert fleet.expired == 1


def test_totals_name_the_worst_state_first() -> None:
    fleet = fleet_of({"a": 10.0, "b": TTL_S, "c": 10.0}, missing=("c",))
    assert list(fleet.counts()) == [TokenState.EXPIRED, TokenState.NO_SECRET, TokenState.OK]
    assert fleet.headline() == [
        "3 session pods: 1 expired, 1 no_secret, 1 ok",
        "next to expire: team-a/a-runner in 14m",
    ]


def test_an_empty_fleet_is_no_problem() -> None:
    fleet = assess_fleet([], [], reader_context(), NOW_S)
    assert fleet.headline() == ["0 session pods: nothing to refresh"]
    assert (fleet.expired, fleet.next) == (0, None)
    assert fleet_as_json(fleet, NAMES)["summary"]["next"] is None


def test_two_pods_of_one_session_share_its_secret() -> None:
    old = pod(uid="old", name="old", is_deleting=True)
    new = pod(uid="new", name="new")
    rows = assess_fleet([old, new], [secret()], reader_context(), NOW_S).rows
    assert len({row.refresh_at_s for row in rows}) == 1
    assert {row.pod.name: cells(row, NOW_S)["STATE"] for row in rows} == {
        "new": "ok",
        "old": "ok,terminating",
    }


def test_a_secret_of_another_namespace_is_not_used_here() -> None:
    [row] = assess_fleet([pod()], [secret(namespace="team-b")], reader_context(), NOW_S).rows
    assert row.state is TokenState.NO_SECRET


def test_columns_line_up_and_every_cell_is_one_word() -> None:
    fleet = fleet_of({"a": 10.0, "a-much-longer-name": TTL_S + 60, "s": None})
    lines = plain([cells(row, NOW_S) for row in fleet.rows], ("POD", "EXPIRES", "STATE", "BY"))
    assert lines == [
        "POD                         EXPIRES   STATE       BY",
        "a-much-longer-name-runner   -60s      expired     replica-0/1",
        "a-runner                    14m       ok          replica-0/1",
        "s-runner                    never     no_expiry   r/1",
    ]
    assert {len(line.split()) for line in lines} == {4}


def test_the_keys_of_the_json_are_a_contract() -> None:
    found = fleet_as_json(fleet_of({"a": 10.0}), Names())
    assert list(found) == ["at", "summary", "sessions"]
    assert list(found["summary"]) == [
        "pods", "expired", "unhealthy", "states", "next", "nextExpiresAt",
    ]  # fmt: skip
    [row] = found["sessions"]
    assert list(row) == ROW_KEYS
    assert (row["expiresAt"], row["expiresInSeconds"]) == ("2026-01-01T00:14:50Z", 890.0)
