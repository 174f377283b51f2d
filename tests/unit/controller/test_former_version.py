"""Objects that the former version wrote on a real API server are read as this version's own.

The files of `former/` are its answers: a Secret and its pod as metadata, and the Lease. The version
is 0.1.0 before the chart; each later release adds its objects when a format changes.
"""

import json
from pathlib import Path

import msgspec
import pytest

from reconciler.clock import EpochTime, parse_utc
from reconciler.controller.decide.annotations import parse_annotations
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.decide.evidence import owner_of
from reconciler.controller.decide.refresh_plan import Action, Confirmation, SessionState, plan
from reconciler.kube.api import ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.leadership.lease import Identity, LeaseObject, read
from reconciler.naming import Names, SessionKey
from tests.unit.controller.build import decision_context

FORMER = Path(__file__).with_name("former")
NAMES = Names()
TTL_S = 900.0
CLIENT_SECRET = "lab-client-secret"
"""The lab's, under which the former version signed the confirmation."""


def observed(plural: str, file: str) -> ObjectMeta:
    """Return an object as a watch gives it to the controller."""
    body = json.loads((FORMER / file).read_text())
    line = json.dumps({"type": "ADDED", "object": body}).encode()
    found = metadata_resource(plural, NAMES).decode_event(line).object
    assert found is not None
    return found


@pytest.fixture
def secret() -> ObjectMeta:
    return observed("secrets", "secret.json")


@pytest.fixture
def pod() -> ObjectMeta:
    return observed("pods", "pod.json")


@pytest.fixture
def issued_s(secret: ObjectMeta) -> EpochTime:
    found = parse_utc(secret.annotations.issued_at or "")
    assert found is not None
    return found


def test_the_token_of_its_secret_is_ours_with_both_instants(
    secret: ObjectMeta, issued_s: EpochTime
) -> None:
    owner = owner_of(secret, NAMES.field_manager, None)
    found = parse_annotations(
        secret, NAMES, owner=owner, now_s=issued_s + 10, longest_ttl_s=TTL_S, static=False
    )
    assert (found.problem, found.is_ours) == ("", True)
    assert (found.issued_s, found.expires_s) == (issued_s, issued_s + TTL_S)
    assert found.refreshed_by.startswith("reconciler-0/0-")
    assert found.refreshed_s == pytest.approx(issued_s, abs=2.0)


def test_its_confirmation_is_valid_under_the_same_client_secret(secret: ObjectMeta) -> None:
    key = SessionKey(secret.namespace, secret.session_id)
    confirmation = secret.annotations.confirmation or ""
    assert ConfirmationMac(CLIENT_SECRET).is_from_current_key(confirmation, key, secret.uid)
    assert not ConfirmationMac("obviously-another").is_from_current_key(
        confirmation, key, secret.uid
    )


@pytest.mark.parametrize(
    ("age_s", "action", "reason"),
    [
        (60.0, Action.WAIT, "scheduled"),
        (0.61 * TTL_S, Action.WRITE, "scheduled"),
        (TTL_S - 89.0, Action.WRITE, "expiring"),
    ],
)
def test_a_standby_replica_of_this_version_plans_as_for_its_own_write(
    age_s: float,
    action: Action,
    reason: str,
    secret: ObjectMeta,
    pod: ObjectMeta,
    issued_s: EpochTime,
) -> None:
    key = SessionKey(secret.namespace, secret.session_id)
    state = SessionState(key, pod, secret, Confirmation.YES, is_running=True)
    now_s = issued_s + age_s
    found = plan(state, decision_context(term_started_s=now_s, startup="none"), now_s)
    assert (found.action, found.reason) == (action, reason)


def test_its_lease_names_the_holder_and_the_next_process_of_that_pod_knows_it() -> None:
    lease = msgspec.json.decode((FORMER / "lease.json").read_bytes(), type=LeaseObject)
    record = read(lease)
    pod_uid = "11111111-2222-3333-4444-000000000000"
    assert record.holder.startswith(f"reconciler-0_{pod_uid}_")
    assert (record.duration_s, record.transitions, record.edited) == (4, 0, False)
    assert not record.released
    assert Identity("reconciler-0", pod_uid, "obviously-new").is_predecessor(record.holder)
    assert not Identity("reconciler-1", "another-uid", "x").is_predecessor(record.holder)
