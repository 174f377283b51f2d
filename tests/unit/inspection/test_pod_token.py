"""Every state by table: what an onlooker says of what stands in the cluster."""

from dataclasses import replace

import pytest

from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.session_reading import read
from reconciler.inspection.pod_token import assess
from reconciler.kube.api import ObjectMeta
from tests.unit.controller.build import NAMES, NOW_S, TTL_S, secret
from tests.unit.inspection.build import onlooker, pod, standing

RENEWAL_S = standing().refresh_at_s or 0.0
"""When a token issued 10 s ago is renewed; its age is then 0.2-0.6 of its life."""

CASES: dict[str, tuple[ObjectMeta | None, TokenState, str]] = {
    "fresh": (secret(age_s=10), TokenState.OK, "renewal"),
    "dead": (secret(age_s=TTL_S), TokenState.EXPIRED, "expired"),
    "last seconds": (secret(age_s=TTL_S - 30), TokenState.EXPIRING, "expiring"),
    "dead, without a seal": (
        secret(age_s=TTL_S, sealed=False),
        TokenState.UNCONFIRMED,
        "not_confirmed",
    ),
    "forged to have died": (
        secret(
            sealed=False,
            annotations={
                NAMES.issued_at: "1970-01-01T00:00:00Z",
                NAMES.expires_at: "1970-01-01T00:15:00Z",
                NAMES.confirmation: "forged",
            },
        ),
        TokenState.UNCONFIRMED,
        "not_confirmed",
    ),
    "no secret": (None, TokenState.NO_SECRET, "secret_missing"),
    "lost its labels": (secret(session_id=""), TokenState.NO_SECRET, "secret_without_labels"),
    "another session's": (secret(session_id="2ABCdef"), TokenState.NAME_TAKEN, "secret_name_taken"),
    "empty": (secret(writers=()), TokenState.NO_TOKEN, "never_written"),
    "never ours": (
        secret(age_s=None, writers=("ambient-control-plane",)),
        TokenState.UNMANAGED,
        "never_written",
    ),
    "written over": (
        secret(writers=("kubectl-edit",)),
        TokenState.FOREIGN_WRITER,
        "foreign_writer",
    ),
    "no annotations": (
        secret(age_s=None, annotations={NAMES.issued_at: "2026-01-01T00:00:00Z"}),
        TokenState.UNREADABLE,
        "expiry_unknown",
    ),
    "garbage": (
        secret(annotations={NAMES.expires_at: "soon\x1b[2J"}),
        TokenState.UNREADABLE,
        "expiry_unknown",
    ),
    "forged far ahead": (
        secret(annotations={NAMES.expires_at: "2199-01-01T00:00:00Z"}),
        TokenState.UNREADABLE,
        "expiry_too_far",
    ),
    "ends before it begins": (
        secret(annotations={NAMES.expires_at: "2020-01-01T00:00:00Z"}),
        TokenState.UNREADABLE,
        "expiry_impossible",
    ),
    "static": (
        secret(age_s=None, annotations={NAMES.refreshed_by: "r/1"}),
        TokenState.NO_EXPIRY,
        "no_expiry",
    ),
    "paused": (secret(annotations={NAMES.paused: "true"}), TokenState.PAUSED, "paused"),
    "paused to death": (
        secret(age_s=TTL_S + 5, annotations={NAMES.paused: "true"}),
        TokenState.EXPIRED,
        "expired",
    ),
    "asked for": (
        secret(annotations={NAMES.requested_at: "now"}),
        TokenState.DUE,
        "requested",
    ),
}


@pytest.mark.parametrize(("held", "state", "why"), CASES.values(), ids=CASES.keys())
def test_a_state_follows_from_what_stands_there(
    held: ObjectMeta | None, state: TokenState, why: str
) -> None:
    found = standing(held)
    assert (found.state, found.reason) == (state, why)
    assert found.has_expired_token == (state is TokenState.EXPIRED)


@pytest.mark.parametrize(
    ("held", "static"),
    [(held, name == "static") for name, (held, _, _) in CASES.items()],
    ids=CASES.keys(),
)
@pytest.mark.parametrize("later_s", [0.0, 200.0, 478.0, 600.0, 850.0, 2000.0])
def test_the_controller_gives_the_same_state(
    held: ObjectMeta | None, later_s: float, *, static: bool
) -> None:
    one, now_s = pod(), NOW_S + later_s
    assessed = standing(held, one, now_s=now_s)
    reading = read(one.key, one, held, replace(onlooker(), static=static), now_s)
    confirmed = assessed.state is not TokenState.UNCONFIRMED
    assert reading.state(now_s, confirmed=confirmed) is assessed.state


@pytest.mark.parametrize(
    ("from_renewal_s", "state"),
    [
        (-61, TokenState.OK),
        (-59, TokenState.DUE),
        (1, TokenState.DUE),
        (59, TokenState.DUE),
        (61, TokenState.OVERDUE),
    ],
)
def test_a_renewal_nears_happens_and_fails_to_happen(
    from_renewal_s: float, state: TokenState
) -> None:
    assert standing(now_s=RENEWAL_S + from_renewal_s).state is state


def test_for_short_tokens_soon_and_late_are_a_tenth_of_a_life() -> None:
    short, swift = secret(age_s=0, ttl_s=20), replace(onlooker(), propagation_s=1.0)
    due_s = standing(short).refresh_at_s or 0.0
    states = [
        assess(pod(), short, swift, due_s + late_s).state for late_s in (-2.5, -1.5, 1.5, 2.5)
    ]
    assert states == [TokenState.OK, TokenState.DUE, TokenState.DUE, TokenState.OVERDUE]


def test_what_is_not_known_is_not_given_as_a_time() -> None:
    for held in (None, secret(writers=("kubectl",)), secret(session_id="")):
        found = standing(held)
        assert (found.expires_s, found.refresh_at_s, found.remaining_s(NOW_S)) == (None, None, None)


def test_a_pause_counts_on_the_pod_that_the_controller_looks_at() -> None:
    paused = {NAMES.paused: "true"}
    old, new = pod(uid="old", is_deleting=True, annotations=paused), pod(uid="new")
    assert assess(old, secret(), onlooker(), NOW_S, newest=new).state is TokenState.OK
    assert assess(new, secret(), onlooker(), NOW_S, newest=old).state is TokenState.PAUSED


def test_another_owner_beside_us_is_named() -> None:
    found = standing(secret(writers=("kubectl-edit", NAMES.field_manager)))
    assert found.state is TokenState.OK
    assert found.other_writers(NAMES) == ("kubectl-edit",)
