"""Executes a scenario: each session and each fault at its time."""

import asyncio
import itertools
import math
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.fault_injection import FaultInjection
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.simulation.conditions import OFF_S
from reconciler.lab.simulation.fakes import ExpiresIn
from reconciler.lab.simulation.forgeries import FORGERIES
from reconciler.lab.simulation.invariants import US
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.obstacles import cache_s, other_node, slow_s
from reconciler.lab.simulation.random_faults import (
    LINE_S,
    local_fault,
    random_fault,
    repeating,
    rewriting,
    slow,
    starting,
    throttling,
    trickling,
    webhook,
)
from reconciler.lab.simulation.scenario import OF_ISSUER, SessionPlan
from reconciler.lab.simulation.versions import Version
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

SOME = 5
"""Most sessions that a move of a tenant or an operator changes."""

BURST_S = 4.0
"""Longest time between two bursts of a watch's events."""

SWEEP = 4 / 15
SWEEP_S = 4.0
"""Period of another client's sweep: 240 s of 900 s, as in the replaced control plane."""

EXPIRES_IN: tuple[ExpiresIn, ...] = (
    lambda left_s: None,
    lambda left_s: 0,
    lambda left_s: -1,
    lambda left_s: left_s / 2,
    lambda left_s: left_s * 10,
    lambda left_s: 999_999_999_999.0,
)
"""Values of `expires_in` that no issuer should send, as far as the parser accepts them."""

EDIT = 0.1
"""Period in which a client edits expiries, as a part of a token's life."""

REQUEST_S = 400.0
"""Mean time between two refreshes that an operator requests."""


Change = Callable[[], None]
Effect = Callable[[], Awaitable[None] | None]


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
                    world.check_settled()
                    world.check_memory()
                    for replica in list(world.replicas.values()):
                        await world.truth.check(replica)
                for task in tasks:
                    if task.done():
                        task.result()
            world.check_end()
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
        if (ended := end()) is not None:
            await ended
        self._world.truth.issuer_changed()

    def _switches(self, fault: Move) -> tuple[Effect, Effect]:
        world, switch = self._world, self._switch
        if fault.kind in OF_ISSUER:
            return self._switches_of_issuer(fault)
        match fault.kind:
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
                | Fault.ROLLOUT
            ):
                return self._switches_of_leader(fault)
            case Fault.CLOCK_STEP:
                return partial(self._step_clocks, 1.0), partial(self._step_clocks, -1.0)
            case Fault.DELETE_SECRET | Fault.STALE_SECRET:
                return partial(self._change_secrets, fault), _nothing
            case Fault.API_SLOW:
                return switch(world.faults, "rule", slow(self._random), None)
            case Fault.API_THROTTLE:
                return switch(world.faults, "rule", throttling(self._random), None)
            case Fault.API_TRICKLE:
                late = partial(self._random.uniform, 0.0, LINE_S)
                return _both(
                    switch(world.faults, "rule", trickling(self._random), None),
                    switch(world.faults, "lateness_s", late, None),
                )
            case Fault.API_REPEAT:
                return switch(world.faults, "rule", repeating(self._random), None)
            case Fault.WATCH_DUPLICATES:
                return switch(world.faults, "repeats", self._is_chosen, None)
            case Fault.WEBHOOK_DENIES:
                rule = webhook(self._random, fault.size)
                return switch(world.faults, "webhook", rule, None)
            case Fault.WEBHOOK_CHANGES:
                admission = rewriting(fault.size, world.names)
                return _both(
                    switch(world.faults, "admission", admission, None),
                    switch(world.secrets, "removes_annotations", True, False),
                )
            case Fault.RESTORE_SECRETS:
                return self._back_up(fault)
            case Fault.PLATFORM_SLOW:
                return switch(world.platform, "slow_s", 0.5 + 5.0 * fault.size, 0.0)
            case Fault.PLATFORM_LOST_ROWS:
                return switch(world.platform, "lost", 0.2 + 0.6 * fault.size, 0.0)
            case Fault.PLATFORM_NOT_FOUND_ONCE:
                return switch(world.platform, "forgets_once", True, False)
            case Fault.FORGE_ANNOTATIONS:
                return _nothing, _nothing
            case Fault.PAUSE_COMMANDS:
                return self._pause(fault)
            case Fault.UPGRADE:
                other: Version = "former" if fault.size < 0.5 else "next"
                return partial(world.roll_out, other), partial(world.roll_out, "this")
            case Fault.SCALE_DOWN:
                return self._scale_down, world.start_all
            case (
                Fault.WATCH_RESET
                | Fault.WATCH_CLOSE
                | Fault.WATCH_BURSTS
                | Fault.COMPACTION
                | Fault.POD_CHURN
                | Fault.STRIP_ANNOTATIONS
                | Fault.OVERWRITE_LOOP
                | Fault.REFRESH_COMMANDS
            ):
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

    def _switches_of_issuer(self, fault: Move) -> tuple[Change, Change]:
        world, switch = self._world, self._switch
        modes, issuer = world.conditions, world.issuer
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
            case Fault.ISSUER_WRONG_DATE:
                off_s = OFF_S[int(fault.size * len(OFF_S))] * (-1 if fault.size < 0.5 else 1)
                sends = switch(issuer, "sends_date", True, modes.sends_date)
                return _both(sends, switch(issuer, "date_off_s", off_s, modes.date_off_s))
            case Fault.ISSUER_WRONG_EXPIRES_IN:
                lie = EXPIRES_IN[int(fault.size * len(EXPIRES_IN))]
                return switch(issuer, "expires_in", lie, math.floor)
            case Fault.ISSUER_CACHE:
                cached_s = cache_s(fault, modes.ttl_s)
                return switch(issuer, "cached_s", cached_s, modes.cached_s)
            case Fault.ISSUER_CORRUPT:
                return switch(issuer, "corrupt", True, False)
            case Fault.ISSUER_NODE_BEHIND:
                return switch(issuer, "behind_s", modes.ttl_s * 0.2 * fault.size, 0.0)
            case Fault.ISSUER_NODES_DIFFER:
                node = switch(issuer, "other_node", other_node(fault, modes.ttl_s), None)
                return _both((partial(world.set_nodes, fault), _nothing), node)
            case _:
                raise ValueError(f"the issuer has no {fault.kind}")

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
            case Fault.ROLLOUT:
                return partial(self._world.terminate, leader.index), self._world.start_all
            case Fault.FREEZE_LEADER:
                return leader.freeze, leader.thaw
            case Fault.STALL_LEADER:
                return leader.main.freeze, leader.resume
            case _:
                return self._counted(str(leader.me), partial(_cut, leader.faults))

    def _pause(self, fault: Move) -> tuple[Change, Change]:
        keys = self._some_keys()

        def set_to(value: str | None) -> None:
            for key in keys:
                self._world.annotate(key, self._world.names.paused, value)

        return partial(set_to, "true"), partial(set_to, None)

    def _is_chosen(self) -> bool:
        return self._random.random() < 0.5

    def _back_up(self, fault: Move) -> tuple[Change, Change]:
        """Copy a few Secrets when the move begins, and write them back when it ends."""
        copies: list[Object] = []

        def begin() -> None:
            keys = self._some_keys()
            copies.extend(filter(None, map(self._world.secret_of, keys)))

        def end() -> None:
            for secret in copies:
                self._world.restore_secret(secret, again=fault.size < 0.5)

        return begin, end

    async def _scale_down(self) -> None:
        leader = self._world.leader()
        for index, replica in list(self._world.replicas.items()):
            if replica is not leader and index in self._world.replicas:
                await self._world.terminate(index)

    def _some_keys(self) -> list[SessionKey]:
        """Return a few sessions that have a pod."""
        keys = self._world.live_keys()
        return self._random.sample(keys, min(len(keys), self._random.randint(1, SOME)))

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
                keys = self._world.live_keys()[: 1 + int(fault.size * 3)]
                await self._undo(keys, self._world.strip_annotations)
            case Fault.FORGE_ANNOTATIONS:
                forgery = FORGERIES[int(fault.size * len(FORGERIES))]
                await self._forge(partial(self._world.forge_annotations, forgery=forgery))
            case Fault.WATCH_CLOSE:
                await self._close_watches()
            case Fault.WATCH_BURSTS:
                await self._deliver_in_bursts()
            case Fault.OVERWRITE_LOOP:
                await self._overwrite()
            case Fault.REFRESH_COMMANDS:
                await self._command_refreshes()

    async def _drop_watches(self, fault: Move) -> None:
        while True:
            if fault.kind == Fault.COMPACTION:
                self._world.core.compact()
            self._world.faults.drop_watches()
            await asyncio.sleep(self._random.uniform(0.5, 20.0))

    async def _close_watches(self) -> None:
        while True:
            self._world.faults.close_watches()
            await asyncio.sleep(self._random.uniform(0.5, 20.0))

    async def _deliver_in_bursts(self) -> None:
        begin, end = self._counted("watches", partial(_silence, self._world.faults))
        while True:
            begin()
            try:
                await asyncio.sleep(self._random.uniform(0.1, BURST_S))
            finally:
                end()
            await asyncio.sleep(self._random.uniform(0.0, 0.5))

    async def _overwrite(self) -> None:
        """Write older tokens into a few Secrets again and again, as a sweep does."""
        ttl_s, keys = self._world.conditions.ttl_s, self._some_keys()
        while True:
            for key in keys:
                remaining_s = ttl_s * self._random.uniform(0.3, 0.9)
                self._world.overwrite_secret(key, remaining_s=remaining_s)
            await asyncio.sleep(max(SWEEP_S, SWEEP * ttl_s))

    async def _command_refreshes(self) -> None:
        for number in itertools.count():
            for key in self._some_keys():
                self._world.request_refresh(key, f"command {number}")
            await asyncio.sleep(self._random.uniform(1.0, 5.0))

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

    async def _forge(self, forge: Callable[[SessionKey], None]) -> None:
        """Edit the expiries of a few sessions after each of our writes, and in between, too."""
        keys = self._some_keys()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._undo(keys, forge))
            while True:
                await asyncio.sleep(EDIT * self._world.conditions.ttl_s)
                for key in keys:
                    forge(key)

    async def _undo(
        self, sessions: Iterable[SessionKey], change: Callable[[SessionKey], None]
    ) -> None:
        """Change the Secrets of sessions, now and a moment after each of our writes."""
        keys, loop, world = set(sessions), asyncio.get_running_loop(), self._world

        def undo(commit: Commit) -> None:
            if commit.kind is not kinds.SECRETS or commit.removed or commit.user != US:
                return
            metadata = commit.object["metadata"]
            session = (metadata.get("labels") or {}).get(world.names.session_id, "")
            key = SessionKey(metadata["namespace"], session)
            if key in keys:
                loop.call_later(self._random.uniform(0.05, 2.0), change, key)

        for key in sorted(keys):
            change(key)
        world.core.on_commit.append(undo)
        try:
            await asyncio.Event().wait()
        finally:
            world.core.on_commit.remove(undo)


def _cut(faults: FaultInjection, is_cut: bool) -> None:
    faults.partition(cut=is_cut)


def _silence(faults: FaultInjection, is_silent: bool) -> None:
    faults.silence_watches(silent=is_silent)


def _both(*switches: tuple[Change, Change]) -> tuple[Change, Change]:
    begins, ends = zip(*switches, strict=True)
    return partial(_call_all, begins), partial(_call_all, ends)


def _call_all(changes: tuple[Change, ...]) -> None:
    for change in changes:
        change()


def _nothing() -> None:
    return None


async def _sleep_until(at: float) -> None:
    await asyncio.sleep(max(0.0, at - asyncio.get_running_loop().time()))
