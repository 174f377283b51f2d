"""The in-process client on virtual time: the same bytes, the same errors, injected faults."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from reconciler import errors
from reconciler.errors import KubeError, NotLeaderError, TransportError
from reconciler.kube.api import Kube, ListOptions, ObjectMeta
from reconciler.kube.decoding import metadata_resource
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.naming import Names

NAMES = Names()
SECRETS = metadata_resource("secrets", NAMES)
PODS = metadata_resource("pods", NAMES)
LABELS = {NAMES.session_id: "S1", NAMES.project_id: "P1", NAMES.managed: "true"}
SECRET = {"metadata": {"name": "s", "labels": LABELS}, "stringData": {"api-token": "t"}}
HERE = ListOptions("default", NAMES.selector())
CALLER = Caller("reconciler", "token-reconciler/1.0", NAMES.field_manager)

Case = Callable[[InProcessKube, Core], Awaitable[None]]


def simulate(case: Case, *, latency_s: float = 0.0) -> None:
    """Run `case` on a fresh core and a virtual loop."""

    async def main() -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        core = Core(clock)
        await case(InProcessKube(core, clock, caller=CALLER, latency_s=latency_s), core)

    run_virtual(main())


def now() -> float:
    return asyncio.get_running_loop().time()


async def version_of(kube: InProcessKube) -> str:
    return (await kube.list(SECRETS, HERE)).version


def test_it_is_a_kube() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        seam: Kube = kube
        await seam.ready()

    simulate(case)


def test_what_is_created_is_decoded_from_the_servers_bytes() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        made = await kube.create(SECRETS, "default", SECRET)
        assert isinstance(made, ObjectMeta)
        assert (made.session_id, made.project_id) == ("S1", "P1")
        assert made.field_managers == (NAMES.field_manager,)
        assert await kube.get(SECRETS, "default", "s") == made
        page = await kube.list(SECRETS, HERE)
        assert (page.items, page.skipped) == ([made], 0)

    simulate(case)


def test_pages_follow_their_token() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        for name in "abc":
            await kube.create(PODS, "default", {"metadata": {"name": name}})
        first = await kube.list(PODS, ListOptions(), limit=2, version="0")
        assert len(first.items) == 3
        first = await kube.list(PODS, ListOptions(), limit=2)
        rest = await kube.list(PODS, ListOptions(), limit=2, continue_token=first.continue_token)
        assert [pod.name for pod in (*first.items, *rest.items)] == ["a", "b", "c"]
        core.compact()
        await kube.create(PODS, "default", {"metadata": {"name": "d"}})
        core.compact()
        with pytest.raises(errors.Gone):
            await kube.list(PODS, ListOptions(), limit=2, continue_token=first.continue_token)

    simulate(case)


def test_refusals_are_the_errors_of_the_real_client() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        await kube.create(SECRETS, "default", SECRET)
        with pytest.raises(errors.AlreadyExists):
            await kube.create(SECRETS, "default", SECRET)
        stale = {"metadata": {"resourceVersion": "1", "annotations": {"a": "1"}}}
        with pytest.raises(errors.Conflict):
            await kube.patch(SECRETS, "default", "s", stale)
        with pytest.raises(errors.Invalid) as invalid:
            await kube.patch(SECRETS, "default", "s", {"metadata": {"uid": "x"}})
        assert [cause.field for cause in invalid.value.causes] == ["metadata.uid"]
        with pytest.raises(errors.NotFound):
            await kube.get(SECRETS, "default", "t")
        with pytest.raises(errors.ResourceVersionTooLarge) as large:
            await kube.list(SECRETS, HERE, version="999999")
        assert large.value.retry_after_s == 1.0

    simulate(case)


def test_a_watch_brings_events_then_bookmarks_then_ends() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        version = await version_of(kube)
        async with kube.watch(SECRETS, HERE, version=version, timeout_s=100) as watch:
            await kube.create(SECRETS, "default", SECRET)
            event = await watch.receive(idle_s=75)
            assert event is not None
            assert (event.type, event.object and event.object.name) == ("ADDED", "s")
            mark = await watch.receive(idle_s=75)
            assert mark is not None
            assert (mark.type, mark.version, now()) == ("BOOKMARK", str(core.version), 60.0)
            assert await watch.receive(idle_s=75) is None
            assert now() == 100.0

    simulate(case)


def test_a_watch_wakes_a_receiver_that_waits() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        async def write() -> None:
            await asyncio.sleep(3)
            core.create(kinds.SECRETS, "default", SECRET)

        version = await version_of(kube)
        async with (
            asyncio.TaskGroup() as group,
            kube.watch(SECRETS, HERE, version=version, timeout_s=100) as watch,
        ):
            group.create_task(write())
            event = await watch.receive(idle_s=75)
        assert event is not None
        assert now() == 3.0

    simulate(case)


def test_a_compacted_version_is_gone_in_the_stream() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        version = await version_of(kube)
        await kube.create(SECRETS, "default", SECRET)
        core.compact()
        async with kube.watch(SECRETS, HERE, version=version, timeout_s=100) as watch:
            with pytest.raises(errors.Gone):
                await watch.receive(idle_s=75)
            assert await watch.receive(idle_s=75) is None

    simulate(case)


def test_a_silent_watch_is_idle_until_it_speaks_again() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        version = await version_of(kube)
        async with kube.watch(SECRETS, HERE, version=version, timeout_s=300) as watch:
            kube.faults.silence_watches(silent=True)
            await kube.create(SECRETS, "default", SECRET)
            with pytest.raises(TransportError, match="silent for 75 s"):
                await watch.receive(idle_s=75)
            assert now() == 75.0
            kube.faults.silence_watches(silent=False)
            event = await watch.receive(idle_s=75)
            assert event is not None
            assert event.type == "ADDED"

    simulate(case)


def test_watches_are_dropped_and_closed_on_order() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        version = await version_of(kube)
        async with kube.watch(SECRETS, HERE, version=version, timeout_s=300) as watch:
            assert kube.faults.close_watches() == 1
            assert await watch.receive(idle_s=75) is None
            assert kube.faults.drop_watches() == 1
            with pytest.raises(TransportError, match="reset"):
                await watch.receive(idle_s=75)
        assert kube.faults.drop_watches() == 0

    simulate(case)


def test_latency_and_delay_take_virtual_time() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        await kube.ready()
        assert now() == 0.25
        kube.faults.fail_next(InjectedFault(delay_s=2.0))
        await kube.ready()
        assert now() == 2.5

    simulate(case, latency_s=0.25)


def test_a_request_ends_at_its_limit() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        kube.faults.fail_next(InjectedFault(delay_s=60.0))
        with pytest.raises(TransportError, match="within 10 s"):
            await kube.create(SECRETS, "default", SECRET)
        assert now() == 10.0
        assert core.count(kinds.SECRETS) == 0

    simulate(case)


def test_a_partition_holds_requests_until_it_is_mended() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        kube.faults.partition(cut=True)
        with pytest.raises(TransportError):
            await kube.get(SECRETS, "default", "s")
        assert now() == 10.0
        asyncio.get_running_loop().call_later(4, lambda: kube.faults.partition(cut=False))
        await kube.create(SECRETS, "default", SECRET)
        assert now() == 14.0

    simulate(case)


def test_an_answer_may_be_lost_after_the_write() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        kube.faults.fail_next(InjectedFault(TransportError("lost"), applied=True), verb="create")
        await kube.ready()
        with pytest.raises(TransportError, match="lost"):
            await kube.create(SECRETS, "default", SECRET)
        assert core.count(kinds.SECRETS) == 1

    simulate(case)


def test_a_write_that_a_proxy_repeats_conflicts_with_itself() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        made = await kube.create(SECRETS, "default", SECRET)
        body = {"metadata": {"resourceVersion": made.version, "labels": {"a": "b"}}}
        kube.faults.fail_next(InjectedFault(repeated_s=0.5), verb="patch", count=2)
        with pytest.raises(errors.Conflict):
            await kube.patch(SECRETS, "default", "s", body)
        assert now() == 0.5
        stored = core.get(kinds.SECRETS, "default", "s")["metadata"]
        assert stored["labels"]["a"] == "b"
        blind = {"metadata": {"labels": {"a": "c"}}}
        written = await kube.patch(SECRETS, "default", "s", blind)
        assert int(written.version) == int(stored["resourceVersion"]) + 1

    simulate(case)


def test_an_answer_arrives_after_the_server_has_acted() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        kube.faults.fail_next(InjectedFault(answer_s=4.0))
        creation = asyncio.create_task(kube.create(SECRETS, "default", SECRET))
        await asyncio.sleep(0.1)
        assert core.count(kinds.SECRETS) == 1
        await creation
        assert now() == 4.0
        kube.faults.fail_next(InjectedFault(answer_s=11.0))
        with pytest.raises(TransportError):
            await kube.get(SECRETS, "default", "s")

    simulate(case)


def test_a_watch_that_repeats_begins_with_its_own_version_and_sends_each_line_twice() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        made = await kube.create(SECRETS, "default", SECRET)
        kube.faults.repeats = lambda: True
        async with kube.watch(SECRETS, HERE, version=made.version, timeout_s=100) as watch:
            lines = [await watch.receive(idle_s=70.0) for _ in range(4)]
        assert [line and (line.type, line.version) for line in lines] == [
            ("ADDED", made.version), ("ADDED", made.version),
            ("BOOKMARK", made.version), ("BOOKMARK", made.version),
        ]  # fmt: skip

    simulate(case)


def test_a_line_that_arrives_late_is_not_lost_with_its_receiver() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        async with kube.watch(SECRETS, HERE, version="1", timeout_s=100) as watch:
            kube.faults.lateness_s = lambda: 2.0
            await kube.create(SECRETS, "default", SECRET)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.0):
                    await watch.receive(idle_s=70.0)
            event = await watch.receive(idle_s=70.0)
            assert event is not None
            assert event.type == "ADDED"

    simulate(case)


def test_a_webhook_changes_what_is_written() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        kube.faults.admission = lambda plural, body: {**body, "type": f"example.com/{plural}"}
        await kube.create(SECRETS, "default", SECRET)
        assert core.get(kinds.SECRETS, "default", "s")["type"] == "example.com/secrets"

    simulate(case)


def test_a_rule_decides_by_verb_and_resource() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        refused = KubeError("no", status=500)
        kube.faults.rule = lambda verb, plural: (
            InjectedFault(refused) if (verb, plural) == ("list", "pods") else None
        )
        with pytest.raises(KubeError, match="no"):
            await kube.list(PODS, ListOptions())
        assert (await kube.list(SECRETS, ListOptions())).items == []

    simulate(case)


def test_a_permit_that_is_refused_stops_the_write() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        def refuse() -> None:
            raise NotLeaderError("not the leader")

        with pytest.raises(NotLeaderError):
            await kube.create(SECRETS, "default", SECRET, permit=refuse)
        assert core.count(kinds.SECRETS) == 0

    simulate(case)


def test_a_cancelled_receive_loses_no_event() -> None:
    async def case(kube: InProcessKube, core: Core) -> None:
        version = await version_of(kube)
        async with kube.watch(SECRETS, HERE, version=version, timeout_s=300) as watch:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await watch.receive(idle_s=75)
            await kube.create(SECRETS, "default", SECRET)
            event = await watch.receive(idle_s=75)
            assert event is not None

    simulate(case)
