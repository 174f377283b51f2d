"""A confirmation counts by our own signature, until the platform's answers end it."""

import pytest

from reconciler.clock import EpochTime
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.decide.refresh_plan import Confirmation
from reconciler.controller.state.confirmations import RECHECK_S, ConfirmationCache, Denial
from reconciler.kube.api import ObjectMeta
from reconciler.naming import Annotations, SessionKey
from reconciler.platform.models import PlatformSession, namespace_of
from tests.support import ManualClock
from tests.unit.controller.virtual import NAMES, PROJECT

KEY = SessionKey(PROJECT, "2Ab0")
MAC = ConfirmationMac("obviously-fake-client-secret")
ROW = PlatformSession(id=KEY.session_id, project_id=PROJECT, phase="Running")


def made(clock: ManualClock) -> ConfirmationCache:
    return ConfirmationCache(clock, MAC, lambda row: namespace_of(row, "standard"))


def secret(mac: str, uid: str = "uid-1") -> ObjectMeta:
    annotations = Annotations(confirmation=mac)
    name = NAMES.secret_name(KEY.session_id)
    return ObjectMeta(
        PROJECT, name, uid, "7", KEY.session_id, PROJECT, EpochTime(0), False, annotations, ()
    )


@pytest.mark.parametrize(
    ("mac", "is_believed"),
    [
        (MAC.make(KEY, "uid-1"), True),
        (MAC.make(KEY, "uid-2"), False),
        (MAC.make(SessionKey(PROJECT, "2Ab1"), "uid-1"), False),
        (ConfirmationMac("obviously-fake-other-secret").make(KEY, "uid-1"), False),
        ("true", False),
        ("", False),
    ],
    ids=["ours", "of another Secret", "of another session", "of another key", "text", "empty"],
)
def test_a_confirmation_on_a_secret_counts_with_a_signature_of_ours(
    mac: str, *, is_believed: bool
) -> None:
    cache = made(ManualClock())
    assert cache.was_confirmed(KEY, None, secret(mac)) is is_believed
    wanted = Confirmation.YES if is_believed else Confirmation.UNKNOWN
    assert cache.confirmation(KEY, None, secret(mac)) is wanted


def test_a_second_not_found_counts_only_some_seconds_after_the_first() -> None:
    clock = ManualClock()
    cache = made(clock)
    cache.record_confirmed(ROW)
    assert cache.record_denied(KEY, is_young=False) is Denial.KNOWN
    clock.advance(RECHECK_S - 1)
    assert cache.record_denied(KEY, is_young=False) is Denial.KNOWN
    assert not cache.is_revoked(KEY)
    clock.advance(1)
    assert cache.record_denied(KEY, is_young=False) is Denial.REVOKED


def test_a_confirmation_that_is_restored_after_its_revocation_is_not_believed() -> None:
    clock = ManualClock()
    cache, restored = made(clock), secret(MAC.make(KEY, "uid-1"))
    cache.record_confirmed(ROW)
    cache.record_denied(KEY, is_young=False)
    clock.advance(RECHECK_S)
    cache.record_denied(KEY, is_young=False)
    clock.advance(3600)
    assert not cache.was_confirmed(KEY, None, restored)
    cache.record_confirmed(ROW)
    assert cache.was_confirmed(KEY, None, restored)
