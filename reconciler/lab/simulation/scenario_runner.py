"""Executes a scenario: each session and each fault at its time."""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.fault_injection import FaultInjection
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.invariants import US
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.obstacles import slow_s
from reconciler.lab.simulation.random_faults import local_fault, random_fault, starting
from reconciler.lab.simulation.scenario import SessionPlan
from reconciler.lab.simulation.world import CLOCK_STEP_S, World
from reconciler.naming import SessionKey

STEP_S = 10.0
"""Period of the exposure count, so that a violation is found near its time."""

LOOK_S = 30.0
"""Period of the comparison of the replicas' status with the world."""

RESTLESS_S = 1.0
"""Period of the changes of a pod in `pod-churn`."""

STEPS_AHEAD = (0.01, 0.2, 0.5, 0.8)
STEPS_BACK = (-0.01, -0.3, -0.8, -3.0)
"""Steps of an issuer's clock, as parts of a token's life."""

MISSED_S = 120.0
"""Longest time before now to which the store is restored: beyond the slack, tokens would expire."""

RESTLESS = 5
"""Number of pods that change at the same time."""

DOWN_S = 3.5
"""Time from the end of an API server to the first answer of the next one."""

REQUEST_S = 400.0
"""Mean time between two refreshes that an operator requests."""


Change = Callable[[], None]


class ScenarioRunner:
    """Runs a scenario in a world; ends early at the first violation."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = world.random("course")
        self._values: dict[tuple[int, str], list[object]] = defaultdict(list)
        self._holds: Counter[str] = Counter()
        self._without_effect: set[Move] = set()

    @property
    def played(self) -> tuple[Move, ...]:
        """The moves that had a target, in the order of their starts."""
        now_s = asyncio.get_running_loop().time()
        moves = sorted(self._world.scenario.faults, key=lambda move: move.at_s)
        return tuple(m for m in moves if m.at_s < now_s and m not in self._without_effect)

    async def play(self) -> None:
        """Run until the scenario's end or a violation."""
        world = self._world
        tasks = [asyncio.create_task(part) for part in self._parts()]
        loop, end_at = asyncio.get_running_loop(), world.scenario.length_s
        try:
            look_at = LOOK_S
            while loop.time() < end_at and not world.event_log.violations:
                await asyncio.sleep(min(STEP_S, end_at - loop.time()))
                world.exposure.settle(now_s=world.clock.wall())
                if loop.time() >= look_at:
                    look_at = loop.time() + LOOK_S
                    for replica in list(world.replicas.values()):
                        await world.truth.check(replica)
                for task in tasks:
                    if task.done():
                        task.result()
            world.check_progress()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await world.kill_all()

    def _parts(self) -> Iterator[Coroutine[Any, Any, None]]:
        scenario = self._world.scenario
        early = [life for life in scenario.sessions if life.pods[0].start_s <= 0.0]
        for life in early:
            self._world.begin_pod(life, life.pods[0])
        self._world.start_all()
        for life in scenario.sessions:
            yield self._run_session(life)
        for fault in scenario.faults:
            yield self._inject(fault)
        yield self._request_refreshes()

    async def _run_session(self, life: SessionPlan) -> None:
        for stay in life.pods:
            if stay.start_s > 0.0:
                await _sleep_until(stay.start_s)
                self._world.begin_pod(life, stay)
            await _sleep_until(stay.end_s)
            self._world.end_pod(life, stay)
        if life.revived_s is not None:
            await _sleep_until(life.revived_s)
            self._world.revive(life)

    async def _request_refreshes(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._random.expovariate(1 / REQUEST_S))
            keys = self._world.live_keys()
            if keys:
                number += 1
                self._world.request_refresh(self._random.choice(keys), f"request {number}")

    async def _inject(self, fault: Move) -> None:
        await _sleep_until(fault.at_s)
        self._world.event_log.note(f"fault {fault.kind} {fault.length_s:.3f} {fault.size:.3f}")
        async with self._injected(fault):
            await _sleep_until(fault.end_s)
        self._world.event_log.note(f"fault {fault.kind} over")

    @asynccontextmanager
    async def _injected(self, fault: Move) -> AsyncIterator[None]:
        """Begin a fault, then end it."""
        begin, end = self._switches(fault)
        if (begun := begin()) is not None:
            await begun
        self._world.truth.issuer_changed()
        repeated = asyncio.create_task(self._repeat(fault))
        try:
            yield
        finally:
            repeated.cancel()
        end()
        self._world.truth.issuer_changed()

    def _switches(self, fault: Move) -> tuple[Callable[[], Awaitable[None] | None], Change]:
        world, switch = self._world, self._switch
        match fault.kind:
            case Fault.ISSUER_OUTAGE:
                return switch(world.issuer, "unreachable", True, False)
            case Fault.ISSUER_REFUSAL:
                return switch(world.issuer, "refusing", True, False)
            case Fault.ISSUER_SLOW:
                return switch(world.issuer, "slow_s", slow_s(fault), 0.0)
            case Fault.ISSUER_SHORT_TTL:
                life_s = world.conditions.ttl_s
                shorter_s = life_s / 3 + life_s / 3 * fault.size
                return switch(world.issuer, "ttl_s", shorter_s, life_s)
            case Fault.ISSUER_CLOCK_STEP:
                # A step forward expires tokens; after a step back, tokens are from the future.
                parts = STEPS_AHEAD if fault.size < 0.7 else STEPS_BACK
                by_s = world.conditions.ttl_s * parts[int(fault.size * 1e6) % len(parts)]
                return partial(world.step_issuer, by_s), _nothing
            case Fault.ROTATE_STATIC_TOKEN:
                return world.rotate_static, _nothing
            case Fault.PLATFORM_OUTAGE:
                return switch(world.platform, "unreachable", True, False)
            case Fault.PLATFORM_EMPTY_LISTS:
                return switch(world.platform, "empty", True, False)
            case Fault.PLATFORM_PARTIAL_OUTAGE:
                projects = world.scenario.projects
                failing = frozenset(projects[: 1 + int(fault.size * len(projects))])
                return switch(world.platform, "failing", failing, frozenset())
            case Fault.API_ERRORS:
                rule = random_fault(self._random, 0.2 + 0.6 * fault.size)
                return switch(world.faults, "rule", rule, None)
            case Fault.API_OUTAGE:
                return self._counted("api", partial(_cut, world.faults))
            case Fault.WATCH_SILENCE:
                return self._counted("watches", partial(_silence, world.faults))
            case Fault.RESTART_ALL:
                return world.kill_all, world.start_all
            case (
                Fault.KILL_LEADER
                | Fault.FREEZE_LEADER
                | Fault.STALL_LEADER
                | Fault.PARTITION_LEADER
            ):
                return self._switches_of_leader(fault)
            case Fault.CLOCK_STEP:
                return partial(self._step_clocks, 1.0), partial(self._step_clocks, -1.0)
            case Fault.DELETE_SECRET | Fault.STALE_SECRET:
                return partial(self._change_secrets, fault), _nothing
            case Fault.WATCH_RESET | Fault.COMPACTION | Fault.POD_CHURN | Fault.STRIP_ANNOTATIONS:
                return _nothing, _nothing
            case Fault.NAMESPACE_SLOW | Fault.NAMESPACE_HANG | Fault.NAMESPACE_ERRORS:
                rule = local_fault(fault, world.scenario.namespace_of(fault))
                return switch(world.faults, "rule", rule, None)
            case Fault.RESTORE_STORE:
                return partial(world.restore_store, MISSED_S * fault.size), _nothing
            case Fault.API_RESTART:
                rule = starting(asyncio.get_running_loop().time() + DOWN_S)
                world.faults.drop_watches()
                return switch(world.faults, "rule", rule, None)
            case _:
                raise ValueError(f"a simulation cannot inject {fault.kind}")

    def _switches_of_leader(
        self, fault: Move
    ) -> tuple[Callable[[], Awaitable[None] | None], Change]:
        """Return the switches for the leader at the fault's start; without a leader, no-ops."""
        leader = self._world.leader()
        if leader is None:
            self._without_effect.add(fault)
            return _nothing, _nothing
        match fault.kind:
            case Fault.KILL_LEADER:
                index = leader.index
                kill = partial(self._world.kill, index, with_pod=fault.size < 0.5)
                return kill, self._world.start_all
            case Fault.FREEZE_LEADER:
                return leader.freeze, leader.thaw
            case Fault.STALL_LEADER:
                return leader.main.freeze, leader.resume
            case _:
                return self._counted(str(leader.me), partial(_cut, leader.faults))

    def _switch(
        self, target: object, name: str, during: object, after: object
    ) -> tuple[Change, Change]:
        """Set an attribute while a move lasts; of several moves, the latest counts."""
        values = self._values[id(target), name]

        def begin() -> None:
            values.append(during)
            setattr(target, name, during)

        def end() -> None:
            values.remove(during)
            setattr(target, name, values[-1] if values else after)

        return begin, end

    def _counted(self, name: str, change: Callable[[bool], None]) -> tuple[Change, Change]:
        """Hold a state from the start of the first of several moves to the end of the last."""

        def begin() -> None:
            self._holds[name] += 1
            change(True)

        def end() -> None:
            self._holds[name] -= 1
            change(self._holds[name] > 0)

        return begin, end

    def _step_clocks(self, sign: float) -> None:
        """Step every other clock an hour forward, the others back; -1.0 reverts the step."""
        for index, replica in self._world.replicas.items():
            replica.clock.step_s += sign * (CLOCK_STEP_S if index % 2 else -CLOCK_STEP_S)

    def _change_secrets(self, fault: Move) -> None:
        keys = self._world.live_keys()
        self._random.shuffle(keys)
        for key in keys[: 1 + int(fault.size * 5)]:
            if fault.kind == Fault.DELETE_SECRET:
                self._world.delete_secret(key)
            else:
                ttl_s = self._world.conditions.ttl_s
                remaining_s = self._random.uniform(ttl_s / 9, ttl_s)
                self._world.overwrite_secret(key, remaining_s=remaining_s)

    async def _repeat(self, fault: Move) -> None:
        """Do the repeated part of a fault until cancelled."""
        match fault.kind:
            case Fault.WATCH_RESET | Fault.COMPACTION:
                await self._drop_watches(fault)
            case Fault.POD_CHURN | Fault.NAMESPACE_ERRORS:
                await self._change_pods(fault)
            case Fault.STRIP_ANNOTATIONS:
                await self._strip(fault)

    async def _drop_watches(self, fault: Move) -> None:
        while True:
            if fault.kind == Fault.COMPACTION:
                self._world.core.compact()
            self._world.faults.drop_watches()
            await asyncio.sleep(self._random.uniform(0.5, 20.0))

    async def _change_pods(self, fault: Move) -> None:
        """Change a few pods each second, for `namespace-errors` in that namespace."""
        for number in itertools.count():
            keys = self._world.live_keys()
            if fault.kind == Fault.NAMESPACE_ERRORS:
                namespace = self._world.scenario.namespace_of(fault)
                keys = [key for key in keys if key.namespace == namespace]
            for key in keys[:RESTLESS]:
                self._world.change_pod(key, f"{number}")
            await asyncio.sleep(RESTLESS_S)

    async def _strip(self, fault: Move) -> None:
        """Remove our annotations from a few Secrets, a moment after each of our writes."""
        keys = set(self._world.live_keys()[: 1 + int(fault.size * 3)])
        loop, world = asyncio.get_running_loop(), self._world

        def undo(commit: Commit) -> None:
            if commit.kind is not kinds.SECRETS or commit.removed or commit.user != US:
                return
            metadata = commit.object["metadata"]
            session = (metadata.get("labels") or {}).get(world.names.session_id, "")
            key = SessionKey(metadata["namespace"], session)
            if key in keys:
                loop.call_later(self._random.uniform(0.05, 2.0), world.strip_annotations, key)

        for key in sorted(keys):
            world.strip_annotations(key)
        world.core.on_commit.append(undo)
        try:
            await asyncio.Event().wait()
        finally:
            world.core.on_commit.remove(undo)


def _cut(faults: FaultInjection, is_cut: bool) -> None:
    faults.partition(cut=is_cut)


def _silence(faults: FaultInjection, is_silent: bool) -> None:
    faults.silence_watches(silent=is_silent)


def _nothing() -> None:
    return None


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
