"""The course of events: what the scenario says, carried out at its time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from reconciler.simulation.scenario import TTL_S, Fault, Life
from reconciler.simulation.trouble import trouble
from reconciler.simulation.world import CLOCK_STEP_S, World

STEP_S = 10.0
"""How often accounts are settled, so that a violation is told near its time."""

REQUEST_S = 400.0
"""Mean time between two refreshes that somebody asks for by hand."""


class Course:
    """Plays a scenario on a world; ends early at the first violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random("course")

    async def play(self) -> None:
        """Run until the scenario's end or a violation."""
        world = self._world
        tasks = [asyncio.create_task(part) for part in self._parts()]
        loop, end_at = asyncio.get_running_loop(), world.scenario.length_s
        try:
            while loop.time() < end_at and not world.journal.violations:
                await asyncio.sleep(min(STEP_S, end_at - loop.time()))
                world.exposure.settle(now_s=world.clock.wall())
                for task in tasks:
                    if task.done():
                        task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await world.kill_all()

    def _parts(self) -> Iterator[Coroutine[Any, Any, None]]:
        scenario = self._world.scenario
        early = [life for life in scenario.lives if life.stays[0].start_s <= 0.0]
        for life in early:
            self._world.begin_stay(life, life.stays[0])
        self._world.start_all()
        for life in scenario.lives:
            yield self._live(life)
        for fault in scenario.faults:
            yield self._break(fault)
        yield self._ask_by_hand()

    async def _live(self, life: Life) -> None:
        for stay in life.stays:
            if stay.start_s > 0.0:
                await _sleep_until(stay.start_s)
                self._world.begin_stay(life, stay)
            await _sleep_until(stay.end_s)
            self._world.end_stay(life, stay)

    async def _ask_by_hand(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._random.expovariate(1 / REQUEST_S))
            keys = self._world.live_keys()
            if keys:
                number += 1
                self._world.request_refresh(self._random.choice(keys), f"request {number}")

    async def _break(self, fault: Fault) -> None:
        await _sleep_until(fault.at_s)
        self._world.journal.note(f"fault {fault.kind} {fault.length_s:.3f} {fault.size:.3f}")
        async with self._broken(fault):
            await _sleep_until(fault.end_s)
        self._world.journal.note(f"fault {fault.kind} over")

    @asynccontextmanager
    async def _broken(self, fault: Fault) -> AsyncIterator[None]:
        """Switch a fault on, then off again."""
        begin, end = self._switches(fault)
        if (begun := begin()) is not None:
            await begun
        repeated = asyncio.create_task(self._repeat(fault))
        try:
            yield
        finally:
            repeated.cancel()
        end()

    def _switches(
        self, fault: Fault
    ) -> tuple[Callable[[], Awaitable[None] | None], Callable[[], None]]:
        world = self._world
        match fault.kind:
            case "issuer_away":
                return _switch(world.issuer, "away", True, False)
            case "issuer_refusing":
                return _switch(world.issuer, "refusing", True, False)
            case "issuer_slow":
                return _switch(world.issuer, "slow_s", 1.0 + 6.0 * fault.size, 0.0)
            case "issuer_short":
                return _switch(world.issuer, "ttl_s", 300.0 + 300.0 * fault.size, TTL_S)
            case "platform_away":
                return _switch(world.estate, "away", True, False)
            case "platform_empty":
                return _switch(world.estate, "empty", True, False)
            case "platform_partial":
                projects = world.scenario.projects
                failing = frozenset(projects[: 1 + int(fault.size * len(projects))])
                return _switch(world.estate, "failing", failing, frozenset())
            case "kube_errors":
                judge = trouble(self._random, 0.2 + 0.6 * fault.size)
                return _switch(world.faults, "judge", judge, None)
            case "kube_away":
                cut = world.faults.partition
                return partial(cut, cut=True), partial(cut, cut=False)
            case "watch_silence":
                silence = world.faults.silence_watches
                return partial(silence, silent=True), partial(silence, silent=False)
            case "controller_killed":
                return world.kill_all, world.start_all
            case "leader_killed" | "leader_frozen" | "leader_stalled" | "leader_cut":
                return self._switches_of_leader(fault)
            case "clock_step":
                return partial(self._step_clocks, 1.0), partial(self._step_clocks, -1.0)
            case "secret_deleted" | "secret_overwritten":
                return partial(self._meddle, fault), _nothing
            case "watch_drop" | "compaction":
                return _nothing, _nothing

    def _switches_of_leader(
        self, fault: Fault
    ) -> tuple[Callable[[], Awaitable[None] | None], Callable[[], None]]:
        """Strike whoever leads when the fault begins; nobody, if nobody does."""
        leader = self._world.leader()
        if leader is None:
            return _nothing, _nothing
        match fault.kind:
            case "leader_killed":
                place = leader.place
                kill = partial(self._world.kill, place, with_pod=fault.size < 0.5)
                return kill, self._world.start_all
            case "leader_frozen":
                return leader.freeze, leader.thaw
            case "leader_stalled":
                return leader.main.freeze, leader.main.thaw
            case _:
                cut = leader.faults.partition
                return partial(cut, cut=True), partial(cut, cut=False)

    def _step_clocks(self, sign: float) -> None:
        """Step every other clock an hour ahead, the others back; or all of them back again."""
        for place, replica in self._world.replicas.items():
            replica.clock.step_s += sign * (CLOCK_STEP_S if place % 2 else -CLOCK_STEP_S)

    def _meddle(self, fault: Fault) -> None:
        keys = self._world.live_keys()
        self._random.shuffle(keys)
        for key in keys[: 1 + int(fault.size * 5)]:
            if fault.kind == "secret_deleted":
                self._world.delete_secret(key)
            else:
                remaining_s = self._random.uniform(100.0, TTL_S)
                self._world.overwrite_secret(key, remaining_s=remaining_s)

    async def _repeat(self, fault: Fault) -> None:
        """Do what a fault does again and again while it lasts."""
        if fault.kind not in ("watch_drop", "compaction"):
            return
        while True:
            if fault.kind == "compaction":
                self._world.core.compact()
            self._world.faults.drop_watches()
            await asyncio.sleep(self._random.uniform(0.5, 20.0))


def _switch(
    target: object, name: str, during: object, after: object
) -> tuple[Callable[[], None], Callable[[], None]]:
    return partial(setattr, target, name, during), partial(setattr, target, name, after)


def _nothing() -> None:
    return None


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
