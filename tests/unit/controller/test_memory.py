"""What one session costs in memory, and what an emptied queue gives back."""

import json

from reconciler.clock import EPOCH, Instant, SystemClock
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.informer.store import Store
from reconciler.kube.api import ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.naming import Annotations, SessionKey
from reconciler.platform.models import PlatformSession, namespace_of
from reconciler.workqueue.items import Priority, ScheduleRequest
from reconciler.workqueue.schedule import Scheduler
from tests.memory import measured
from tests.unit.controller.build import NAMES, SEAL
from tests.unit.controller.virtual import World, finished, running, simulate

SESSIONS = 2000
SECRETS = metadata_resource("secrets", NAMES)
PROJECT = "team-a"


def written_secret(number: int) -> bytes:
    """Return what the API server sends of a Secret after a write of ours."""
    metadata = {
        "name": f"session-{number:024d}-creds",
        "namespace": PROJECT,
        "uid": f"{number:036d}",
        "resourceVersion": f"{number:09d}",
        "labels": {NAMES.session_id: f"{number:024d}", NAMES.project_id: PROJECT},
        "annotations": {
            NAMES.expires_at: "2026-01-31T12:15:00Z",
            NAMES.issued_at: "2026-01-31T12:00:00Z",
            NAMES.previous_expires_at: "unknown",
            NAMES.refreshed_at: f"2026-01-31T12:00:00.{number:03d}Z",
            NAMES.refreshed_by: "replica-0/1",
            NAMES.confirmation: f"{SEAL[:-6]}{number:06d}",
        },
    }
    return json.dumps({"kind": "PartialObjectMetadata", "metadata": metadata}).encode()


def test_a_secret_in_the_store_takes_less_than_eight_hundred_bytes() -> None:
    store = Store("secrets")
    with measured() as memory:
        for number in range(SESSIONS):
            store.apply("ADDED", SECRETS.decode(written_secret(number)))
    assert len(store) == SESSIONS
    assert memory.kept < 800 * SESSIONS


def test_the_leader_keeps_no_second_proof_of_a_session_that_the_platform_named() -> None:
    mac = ConfirmationMac("obviously-fake")
    cache = ConfirmationCache(SystemClock(), mac, lambda row: namespace_of(row, "standard"))
    secrets: list[ObjectMeta] = []
    for number in range(SESSIONS):
        key = SessionKey(PROJECT, f"2Ab{number}")
        proof = Annotations(confirmation=mac.make(key, f"uid-{number}"))
        fields = PROJECT, f"name-{number}", f"uid-{number}", "7", key.session_id, PROJECT
        secrets.append(ObjectMeta(*fields, EPOCH, is_deleting=False, annotations=proof))
        cache.record_running(PlatformSession(id=key.session_id, project_id=PROJECT))
    with measured() as memory:
        for secret in secrets:
            assert cache.confirmation(secret.key, None, secret).value == "yes"
            assert cache.mac_due_at(secret.key, secret) is None
    assert memory.kept < 50 * SESSIONS


def test_a_queue_whose_keys_have_all_run_gives_up_its_tables() -> None:
    scheduler: Scheduler[int] = Scheduler()
    now_at = Instant(1)
    keys = range(20 * SESSIONS)
    with measured() as memory:
        for key in keys:
            request = ScheduleRequest(now_at, Priority.STARTUP, 90.0, "startup_resync")
            scheduler.add(key, request, now_at=now_at)
        while (work := scheduler.pop(now_at)) is not None:
            scheduler.done(work.key, next=None, now_at=now_at)
    assert len(scheduler) == 0
    assert memory.peak > 10 * memory.kept


def test_sessions_that_were_written_for_the_same_reasons_share_these_in_memory() -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        async with running(world):
            await finished(world, 1)
            sessions = world.controller.sessions
            kept = [sessions.records.get(key) for key in sessions.live_keys()]
        reasons = [record.evidence for record in kept if record is not None]
        assert len(reasons) == 3
        assert len({id(evidence) for evidence in reasons}) == 1

    simulate(scenario)
