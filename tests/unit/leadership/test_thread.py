"""The elector's thread, the heartbeat and the leadership state, seen from the main loop."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from reconciler.clock import SystemClock
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import FaultInjection
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.kinds import LEASES, NAMESPACES
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.leadership.api import LeadershipState
from reconciler.leadership.elector import ElectionConfig, LeaderElector
from reconciler.leadership.lease import Identity
from reconciler.leadership.lease_election import HEARTBEAT_S, Heartbeat
from reconciler.leadership.lease_fence import LeaseFence
from reconciler.leadership.lease_timing import ElectionTiming
from reconciler.leadership.thread import ElectorFactory, ElectorThread
from tests.unit.leadership.electors import NAME, NAMESPACE, Ready

LIMIT_S = 10.0
ME = Identity("replica-0", "pod-0", "n0")


class Threaded:
    """An elector with its own core, on a thread; `calls` is filled on that thread."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.is_broken = is_broken
        self.clock = SystemClock()
        self.fence = LeaseFence(self.clock, "replica-0")
        self.core = Core(self.clock)
        self.core.create(NAMESPACES, "", {"metadata": {"name": NAMESPACE}})
        self.began = threading.Event()
        self.calls: list[str] = []
        self.threads: list[str] = []
        self.closed = threading.Event()

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[LeaderElector]:
        self.threads.append(threading.current_thread().name)
        caller = Caller(str(ME), str(ME), "token-reconciler")
        try:
            yield LeaderElector(
                InProcessKube(self.core, self.clock, caller=caller, faults=FaultInjection()),
                ElectionConfig(NAMESPACE, NAME, ME, ElectionTiming(), Ready(), lambda: 0.0),
                self.fence,
                clock=self.clock,
                random=Random(1),
                on_started_leading=self._begin,
                on_stopped_leading=self.calls.append,
            )
        finally:
            self.closed.set()

    def _begin(self, term: str) -> None:
        self.calls.append(term)
        self.began.set()
        if self.is_broken:
            raise ZeroDivisionError

    def is_open(self) -> bool:
        return self.fence.is_open

    @property
    def holder(self) -> str:
        return str(self.core.get(LEASES, NAMESPACE, NAME)["spec"]["holderIdentity"])


def thread_of(opening: ElectorFactory) -> ElectorThread:
    return ElectorThread(opening, asyncio.new_event_loop)


async def until(event: threading.Event) -> None:
    assert await asyncio.to_thread(event.wait, LIMIT_S)


class TestThread:
    async def test_it_elects_on_a_loop_of_its_own_until_it_releases(self) -> None:
        world = Threaded()
        async with thread_of(world.opening) as elector:
            running = asyncio.create_task(elector.run())
            await until(world.began)
            assert world.is_open()
            await elector.release()
            await running
            assert not world.is_open()
            assert world.holder == ""
            assert world.closed.is_set()
        assert world.threads == ["elector"]
        assert world.calls == ["replica-0/0-n0", "resigned"]

    async def test_it_elects_while_the_main_loop_is_blocked(self) -> None:
        world = Threaded()
        async with thread_of(world.opening):
            assert world.began.wait(LIMIT_S)  # blocks this very loop
            assert world.is_open()

    async def test_leaving_it_closes_the_fence_and_keeps_the_lease_to_run_out(self) -> None:
        world = Threaded()
        async with thread_of(world.opening):
            await until(world.began)
        assert not world.is_open()
        assert world.closed.is_set()
        assert world.holder == str(ME)
        assert "elector" not in {thread.name for thread in threading.enumerate()}

    async def test_releasing_twice_is_releasing_once(self) -> None:
        world = Threaded()
        async with thread_of(world.opening) as elector:
            await until(world.began)
            await asyncio.gather(elector.release(), elector.release())
            await elector.release()
        assert world.calls[1:] == ["resigned"]

    async def test_giving_up_on_run_leaves_the_elector_alone(self) -> None:
        world = Threaded()
        async with thread_of(world.opening) as elector:
            await until(world.began)
            running = asyncio.create_task(elector.run())
            await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert world.is_open()
            await elector.release()

    async def test_what_cannot_be_opened_is_raised_where_it_is_entered(self) -> None:
        async def connect() -> LeaderElector:
            raise OSError("no credentials")

        @asynccontextmanager
        async def broken() -> AsyncIterator[LeaderElector]:
            yield await connect()

        with pytest.raises(OSError, match="no credentials"):
            async with thread_of(broken):
                pytest.fail("it was entered")

    async def test_a_defect_of_the_elector_is_raised_by_run_and_closes_the_fence(self) -> None:
        world = Threaded(is_broken=True)
        async with thread_of(world.opening) as elector:
            with pytest.raises(ZeroDivisionError):
                await elector.run()
            assert not world.is_open()


def test_a_heartbeat_is_as_old_as_the_loop_is_stalled() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        heartbeat = Heartbeat(VirtualClock(loop))
        await asyncio.sleep(100.0)
        assert heartbeat.age_s() == 100.0
        beating = asyncio.create_task(heartbeat.run())
        for _ in range(50):
            await asyncio.sleep(0.3)
            assert heartbeat.age_s() <= HEARTBEAT_S
        beating.cancel()
        await asyncio.wait([beating])
        await asyncio.sleep(40.0)
        assert heartbeat.age_s() >= 40.0

    run_virtual(scenario())


class TestLeadershipState:
    @staticmethod
    def leadership() -> tuple[LeadershipState, list[str]]:
        resigned: list[str] = []

        async def release() -> None:
            resigned.append("resigned")

        return LeadershipState(release), resigned

    async def test_it_waits_for_the_beginning_and_for_the_end(self) -> None:
        leadership, _ = self.leadership()
        await leadership.wait_stopped()
        waiting = asyncio.create_task(leadership.wait_started())
        await asyncio.sleep(0)
        leadership.started("term")
        await waiting
        waiting = asyncio.create_task(leadership.wait_stopped())
        await asyncio.sleep(0)
        assert not waiting.done()
        assert leadership.leads
        leadership.stopped("why")
        await waiting

    async def test_an_end_is_not_missed_though_the_next_term_begins_at_once(self) -> None:
        leadership, _ = self.leadership()
        leadership.started("one")
        waiting = asyncio.create_task(leadership.wait_stopped())
        await asyncio.sleep(0)
        leadership.stopped("why")
        leadership.started("two")
        await waiting
        assert leadership.leads

    async def test_it_releases_through_the_elector(self) -> None:
        leadership, resigned = self.leadership()
        await leadership.release()
        assert resigned == ["resigned"]
