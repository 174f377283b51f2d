"""Every state by table: what follows from the objects in the cluster."""

import pytest
from msgspec.structs import replace

from reconciler.clock import EPOCH
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.status.session_reading import read
from reconciler.inspection.pod_token import assess
from reconciler.kube.api import ObjectMeta
from tests.unit.controller.build import NAMES, NOW_S, TTL_S, secret
from tests.unit.inspection.build import assessed_pod, pod, reader_context

REFRESH_S = assessed_pod().refresh_at_s or EPOCH
"""When a token issued 10 s ago is refreshed; its age is then 0.2-0.6 of its life."""

CASES: dict[str, tuple[ObjectMeta | None, TokenState, str]] = {
    "fresh": (secret(age_s=10), TokenState.OK, "scheduled"),
    "expired": (secret(age_s=TTL_S), TokenState.EXPIRED, "expired"),
    "last seconds": (secret(age_s=TTL_S - 30), TokenState.EXPIRING, "expiring"),
    "expired, without a confirmation": (
        secret(age_s=TTL_S, sealed=False),
        TokenState.UNCONFIRMED,
        "not_confirmed",
    ),
    "with a forged expiry in the past": (
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
    "paused until it expired": (
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


@pytest.mark.parametrize(("found_secret", "state", "why"), CASES.values(), ids=CASES.keys())
def test_a_state_follows_from_the_objects(
    found_secret: ObjectMeta | None, state: TokenState, why: str
) -> None:
    found = assessed_pod(found_secret)
    assert (found.state, found.reason) == (state, why)
    assert found.has_expired_token == (state is TokenState.EXPIRED)


@pytest.mark.parametrize(
    ("found_secret", "static"),
    [(found_secret, name == "static") for name, (found_secret, _, _) in CASES.items()],
    ids=CASES.keys(),
)
@pytest.mark.parametrize("later_s", [0.0, 200.0, 478.0, 600.0, 850.0, 2000.0])
def test_the_controller_gives_the_same_state(
    found_secret: ObjectMeta | None, later_s: float, *, static: bool
) -> None:
    one, now_s = pod(), NOW_S + later_s
    assessed = assessed_pod(found_secret, one, now_s=now_s)
    reading = read(one.key, one, found_secret, replace(reader_context(), static=static), now_s)
    confirmed = assessed.state is not TokenState.UNCONFIRMED
    assert reading.state(now_s, confirmed=confirmed) is assessed.state


@pytest.mark.parametrize(
    ("from_refresh_s", "state"),
    [
        (-61, TokenState.OK),
        (-59, TokenState.DUE),
        (1, TokenState.DUE),
        (59, TokenState.DUE),
        (61, TokenState.OVERDUE),
    ],
)
def test_a_refresh_is_due_soon_is_due_and_is_overdue(
    from_refresh_s: float, state: TokenState
) -> None:
    assert assessed_pod(now_s=REFRESH_S + from_refresh_s).state is state


def test_for_short_tokens_soon_and_late_are_a_tenth_of_a_life() -> None:
    short, swift = secret(age_s=0, ttl_s=20), replace(reader_context(), propagation_s=1.0)
    due_s = assessed_pod(short).refresh_at_s or EPOCH
    states = [
        assess(pod(), short, swift, due_s + late_s).state for late_s in (-2.5, -1.5, 1.5, 2.5)
    ]
    assert states == [TokenState.OK, TokenState.DUE, TokenState.DUE, TokenState.OVERDUE]


def test_what_is_not_known_is_not_given_as_a_time() -> None:
    for found_secret in (None, secret(writers=("kubectl",)), secret(session_id="")):
        found = assessed_pod(found_secret)
        assert (found.expires_s, found.refresh_at_s, found.remaining_s(NOW_S)) == (None, None, None)


def test_a_pause_counts_on_the_pod_that_the_controller_looks_at() -> None:
    paused = {NAMES.paused: "true"}
    old, new = pod(uid="old", is_deleting=True, annotations=paused), pod(uid="new")
    assert assess(old, secret(), reader_context(), NOW_S, newest=new).state is TokenState.OK
    assert assess(new, secret(), reader_context(), NOW_S, newest=old).state is TokenState.PAUSED


def test_another_owner_beside_us_is_named() -> None:
    found = assessed_pod(secret(writers=("kubectl-edit", NAMES.field_manager)))
    assert found.state is TokenState.OK
    assert found.other_writers(NAMES) == ("kubectl-edit",)
