"""What single moves do: webhooks, a backup tool, replicas of a neighbouring version."""

import asyncio
from random import Random

import pytest

from reconciler import errors
from reconciler.kube.api import ListOptions, ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.grammar import draw_world, limited
from reconciler.lab.simulation.random_faults import rewriting, webhook
from reconciler.lab.simulation.versions import NEW_ANNOTATION, OtherVersionKube, Version
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.lab.simulation.world import BACKUP, OPERATOR, World
from reconciler.naming import Annotations, Names, SessionKey

NAMES = Names()
SECRETS = metadata_resource("secrets", NAMES)
LABELS = {NAMES.session_id: "S1", NAMES.project_id: "P1", NAMES.managed: "true"}
KEY = SessionKey("default", "S1")
NAME = NAMES.secret_name("S1")
OURS = {NAMES.confirmation: "v1.abc", NAMES.handled_requests: "12", NAMES.refreshed_by: "r/1"}
SECRET = {"metadata": {"name": NAME, "labels": LABELS, "annotations": OURS}}


@pytest.mark.parametrize(
    ("mode", "error"),
    [
        (0, errors.AdmissionDenied),
        (1, errors.AdmissionDenied),
        (2, errors.ServerError),
        (3, errors.ServerError),
    ],
)
def test_a_webhook_refuses_as_the_api_server_words_it(
    mode: int, error: type[errors.KubeError]
) -> None:
    rule = webhook(Random(1), 0.1 + mode * 1e-6)
    fault = rule("patch", "secrets")
    assert fault is not None
    assert type(fault.error) is error
    assert rule("patch", "pods") is None
    assert rule("list", "secrets") is None


@pytest.mark.parametrize(
    ("size", "left"), [(0.1, set(OURS)), (0.4, set(OURS) - {NAMES.refreshed_by}), (0.9, set())]
)
def test_a_webhook_removes_none_one_or_all_of_our_annotations(size: float, left: set[str]) -> None:
    one = list(NAMES.annotations()).index(NAMES.refreshed_by)
    admission = rewriting(size + one * 1e-6, NAMES)
    annotations = admission("secrets", SECRET)["metadata"]["annotations"]
    assert {name for name, text in annotations.items() if text} == left | {"example.com/checked"}
    assert admission("leases", SECRET) is SECRET


@pytest.mark.parametrize(
    ("version", "read", "written"),
    [
        (
            "former",
            Annotations(confirmation="v1.abc", refreshed_by="r/1"),
            {NAMES.confirmation: "v1.abc", NAMES.refreshed_by: "r/1"},
        ),
        (
            "next",
            Annotations(confirmation="v2.abc", handled_requests="12", refreshed_by="r/1"),
            {**OURS, NAMES.confirmation: "v2.abc", NEW_ANNOTATION: "sessions"},
        ),
    ],
)
def test_another_version_reads_and_writes_as_the_rules_of_an_upgrade_allow(
    version: Version, read: Annotations, written: dict[str, str]
) -> None:
    async def main() -> tuple[list[ObjectMeta], ObjectMeta, dict[str, str]]:
        clock = VirtualClock(asyncio.get_running_loop())
        core = Core(clock)
        direct = InProcessKube(core, clock, caller=Caller("reconciler"))
        other = OtherVersionKube(direct, NAMES, version)
        core.create(kinds.SECRETS, "default", SECRET, by=OPERATOR)
        listed = (await other.list(SECRETS, ListOptions("default"))).items
        core.delete(kinds.SECRETS, "default", NAME)
        async with other.watch(SECRETS, ListOptions("default"), version="", timeout_s=60) as watch:
            await watch.receive(idle_s=1.0)  # the end of the initial events
            made = await other.create(SECRETS, "default", SECRET)
            event = await watch.receive(idle_s=1.0)
        assert event is not None
        assert event.object == made
        annotations = core.get(kinds.SECRETS, "default", NAME)["metadata"]["annotations"]
        return listed, made, annotations

    listed, made, annotations = run_virtual(main())
    assert [item.annotations for item in listed] == [read]
    assert annotations == written
    # It reads its own confirmation as this version reads its own.
    assert made.annotations.confirmation == "v1.abc"


@pytest.mark.parametrize("again", [False, True])
def test_a_backup_tool_writes_the_former_state_as_a_new_one(again: bool) -> None:
    async def main() -> None:
        world = World(limited(draw_world(40), moves=(), sessions=0))
        former = world.core.create(
            kinds.SECRETS, "default", {**SECRET, "data": {"api-token": "b25l"}}, by=OPERATOR
        )
        copied = world.secret_of(KEY)
        assert copied == former
        changed = {"data": {"api-token": "dHdv"}, "metadata": {"annotations": {"later": "yes"}}}
        world.core.patch(kinds.SECRETS, "default", NAME, changed, by=OPERATOR)
        world.restore_secret(former, again=again)
        restored = world.secret_of(KEY)
        assert restored is not None
        metadata = restored["metadata"]
        assert restored["data"] == former["data"]
        assert metadata["annotations"] == OURS
        assert int(metadata["resourceVersion"]) > int(former["metadata"]["resourceVersion"]) + 1
        assert (metadata["uid"] != former["metadata"]["uid"]) is again
        assert BACKUP.manager in {entry["manager"] for entry in metadata["managedFields"]}

    run_virtual(main())
