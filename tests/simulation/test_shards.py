"""Shards on virtual time: each session has one writer, also while the number of shards changes.

A Deployment of two replicas a shard is rolled out as Kubernetes does it: a new replica is ready
before an old one ends.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from reconciler.clock import Instant
from reconciler.controller.decide import evidence, refresh_plan
from reconciler.controller.decide.annotations import TokenAnnotations
from reconciler.controller.decide.refresh_plan import DecisionContext
from reconciler.controller.decide.sharding import owns
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.simulation.commit_checks import WRITE_BUDGET
from reconciler.lab.simulation.event_log import captured_logs
from reconciler.lab.simulation.invariants import NO_EXPIRED_TOKEN, US, value_of
from reconciler.lab.simulation.replica import SimulatedReplica
from reconciler.lab.simulation.scenario import TTL_S, PodLifetime, Scenario, SessionPlan
from reconciler.lab.simulation.virtual_time import run_virtual
from reconciler.lab.simulation.world import World
from reconciler.naming import SessionKey, Shard

SESSIONS = 16
PROJECTS = ("Team-a", "Team-b")
HOUR_S = 3600.0
PERIOD_S = 0.4 * TTL_S
"""Time in which each session is refreshed once."""

LIMIT_S = 60.0
"""Virtual seconds in which a replica is ready, or leads."""

TWICE_S = 0.1 * TTL_S
"""Two writes of a session in one term that are closer than this were made for one cause. A token is
refreshed at age 0.2 of its life at the earliest, and is 0.1 of it old when it is written, at most.
"""


def scenario() -> Scenario:
    """Return sessions that run all the time, on tokens of the platform of different ages."""
    lives = tuple(
        SessionPlan(
            f"Sess{index:04d}",
            PROJECTS[index % len(PROJECTS)],
            (PodLifetime(0.0, HOUR_S, 120.0 + 45.0 * index, False),),
        )
        for index in range(SESSIONS)
    )
    rates = (1.0, 1.002, 0.998)
    return Scenario(7, 1.0, HOUR_S, PROJECTS, lives, (), 0.0, rates)


class Shards:
    """A world with Deployments, by the shard's index; None is the Deployment without a shard."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.deployments: dict[int | None, list[int]] = {}
        self._started = 0
        self._tokens: dict[str, str] = {}
        self._writes: dict[tuple[str, str], list[Instant]] = defaultdict(list)
        """When a term wrote a session's token."""
        world.core.on_commit.append(self._note)

    def _note(self, commit: Commit) -> None:
        if commit.kind is not kinds.SECRETS or commit.user != US:
            return
        metadata = commit.object["metadata"]
        token = value_of(commit.object, self.world.names)
        if self._tokens.get(metadata["uid"]) != token:
            self._tokens[metadata["uid"]] = token
            term = metadata["annotations"][self.world.names.refreshed_by]
            self._writes[metadata["name"], term].append(commit.at)

    def _start(self, shard: Shard) -> int:
        self._started += 1
        self.world.start(self._started, shard)
        return self._started

    async def create(self, shard: Shard) -> None:
        """Create a Deployment, and wait until one of its replicas leads."""
        self.deployments[_index(shard)] = [self._start(shard), self._start(shard)]
        await self.until(lambda: self.leader(_index(shard)) is not None)

    async def roll_out(self, shard: Shard) -> None:
        """Give a Deployment another shard setting: one new replica for each old one in turn."""
        pods = self.deployments[_index(shard)]
        for old in list(pods):
            new = self._start(shard)
            pods.append(new)
            await self.until(partial(self._is_ready, new))
            pods.remove(old)
            await self.world.terminate(old)
        await self.until(lambda: self.leader(_index(shard)) is not None)

    def _is_ready(self, pod: int) -> bool:
        return not self.world.replicas[pod].controller.health.readiness_problem()

    async def delete(self, index: int | None) -> None:
        """Delete a Deployment: all its replicas end at the same time."""
        pods = self.deployments.pop(index)
        await asyncio.gather(*(self.world.terminate(pod) for pod in pods))

    def leader(self, index: int | None) -> SimulatedReplica | None:
        pods = [self.world.replicas[pod] for pod in self.deployments[index]]
        return next((pod for pod in pods if pod.fence.is_open), None)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_S):
            while not condition():
                await asyncio.sleep(0.1)

    def owners(self) -> dict[SessionKey, list[Shard]]:
        """Return the shards of which the leader has a session in its store and in its queue."""
        found: dict[SessionKey, list[Shard]] = {key: [] for key in self.world.live_keys()}
        for index in self.deployments:
            leader = self.leader(index)
            assert leader is not None
            for key in leader.controller.sessions.live_keys():
                assert leader.controller.queue.entry_info(key) is not None
                found[key].append(leader.shard)
        return found

    def assert_one_owner_each(self) -> None:
        owners = self.owners()
        assert len(owners) == SESSIONS
        assert all(len(shards) == 1 for shards in owners.values())
        assert all(owns(shards[0], key) for key, shards in owners.items())

    def shortest_pause_s(self) -> float:
        """Return the shortest time between two writes of one session in one term."""
        pauses = [
            after - before for times in self._writes.values() for before, after in pairwise(times)
        ]
        return min(pauses)

    def assert_nothing_lost(self) -> None:
        self.world.exposure.settle(now_s=self.world.clock.wall())
        assert self.world.event_log.violations == []
        assert self.world.exposure.expired_s == 0
        assert self.shortest_pause_s() >= TWICE_S


def _index(shard: Shard) -> int | None:
    return None if shard.count == 1 else shard.index


def shards_of(count: int) -> list[Shard]:
    return [Shard(index, count) for index in range(count)]


@asynccontextmanager
async def opened(first: Iterable[Shard]) -> AsyncIterator[Shards]:
    world = World(scenario())
    with captured_logs(world.event_log):
        for life in world.scenario.sessions:
            world.begin_pod(life, life.pods[0])
        shards = Shards(world)
        await asyncio.gather(*(shards.create(shard) for shard in first))
        try:
            yield shards
        finally:
            await world.kill_all()


def play(course: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run_virtual(course())


def test_three_shards_have_each_session_once_and_the_loss_of_a_leader_is_its_own() -> None:
    async def course() -> None:
        async with opened(shards_of(3)) as shards:
            await asyncio.sleep(PERIOD_S)
            shards.assert_one_owner_each()
            others = [shards.leader(index) for index in (0, 2)]
            leader = shards.leader(1)
            assert leader is not None
            shards.deployments[1].remove(leader.index)
            await shards.world.kill(leader.index, with_pod=True)
            await shards.until(lambda: shards.leader(1) is not None)
            await asyncio.sleep(PERIOD_S)
            assert [shards.leader(index) for index in (0, 2)] == others
            shards.assert_one_owner_each()
            shards.assert_nothing_lost()

    play(course)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (2, 5)])
def test_more_shards_first_the_new_ones_then_the_others(before: int, after: int) -> None:
    async def course() -> None:
        async with opened(shards_of(before)) as shards:
            await asyncio.sleep(PERIOD_S)
            old, new = shards_of(after)[:before], shards_of(after)[before:]
            await asyncio.gather(*(shards.create(shard) for shard in new))
            await asyncio.sleep(TTL_S)  # a rollout may stop here for as long as it likes
            for shard in old:
                await shards.roll_out(shard)
                await asyncio.sleep(PERIOD_S)
            await asyncio.sleep(PERIOD_S)
            shards.assert_one_owner_each()
            shards.assert_nothing_lost()

    play(course)


@pytest.mark.parametrize(("before", "after"), [(4, 3), (5, 2)])
def test_fewer_shards_first_those_that_stay_then_the_others_end(before: int, after: int) -> None:
    async def course() -> None:
        async with opened(shards_of(before)) as shards:
            await asyncio.sleep(PERIOD_S)
            for shard in shards_of(after):
                await shards.roll_out(shard)
                await asyncio.sleep(PERIOD_S)
            for index in range(after, before):
                await shards.delete(index)
            await asyncio.sleep(PERIOD_S)
            shards.assert_one_owner_each()
            shards.assert_nothing_lost()

    play(course)


def test_from_one_deployment_to_three_shards_and_back() -> None:
    async def course() -> None:
        async with opened([Shard(0, 1)]) as shards:
            await asyncio.sleep(PERIOD_S)
            await asyncio.gather(*(shards.create(shard) for shard in shards_of(3)))
            await asyncio.sleep(PERIOD_S)
            assert all(len(found) == 2 for found in shards.owners().values())
            await shards.delete(None)
            await asyncio.sleep(PERIOD_S)
            shards.assert_one_owner_each()
            await shards.create(Shard(0, 1))
            await asyncio.sleep(PERIOD_S)
            for index in range(3):
                await shards.delete(index)
            await asyncio.sleep(PERIOD_S)
            shards.assert_one_owner_each()
            shards.assert_nothing_lost()

    play(course)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (4, 3)])
def test_all_deployments_at_once_as_kubectl_apply_does(before: int, after: int) -> None:
    async def course() -> None:
        async with opened(shards_of(before)) as shards:
            await asyncio.sleep(PERIOD_S)
            old, new = shards_of(after)[:before], shards_of(after)[before:]
            await asyncio.gather(
                *(shards.create(shard) for shard in new), *(shards.roll_out(shard) for shard in old)
            )
            for index in range(after, before):  # `apply` deletes nothing: a person does
                await shards.delete(index)
            await asyncio.sleep(TTL_S)
            shards.assert_one_owner_each()
            shards.assert_nothing_lost()

    play(course)


def test_sessions_without_a_shard_for_longer_than_the_slack_would_expire() -> None:
    async def course() -> None:
        async with opened(shards_of(3)) as shards:
            await asyncio.sleep(PERIOD_S)
            for shard in shards_of(4)[:3]:
                await shards.roll_out(shard)
            await asyncio.sleep(TTL_S)
            lost = [key for key, found in shards.owners().items() if not found]
            assert lost
            assert all(owns(Shard(3, 4), key) for key in lost)
            shards.world.exposure.settle(now_s=shards.world.clock.wall())
            found = {each.invariant for each in shards.world.event_log.violations}
            assert found == {NO_EXPIRED_TOKEN}

    play(course)


def test_two_shards_that_took_themselves_for_the_only_writer_would_write_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def is_due(annotations: TokenAnnotations, context: DecisionContext, now_s: float) -> bool:
        return context.startup == "all" and annotations.refreshed_by != context.term

    monkeypatch.setattr(refresh_plan, "_is_startup_due", is_due)
    for module in (refresh_plan, evidence):
        monkeypatch.setattr(module, "last_applied", lambda record, secret: None)

    async def course() -> None:
        async with opened([Shard(0, 1)]) as shards:
            await asyncio.sleep(10.0)
            violations = shards.world.event_log.violations
            creating = [asyncio.create_task(shards.create(shard)) for shard in shards_of(2)]
            await shards.until(lambda: bool(violations))
            assert violations[0].invariant == WRITE_BUDGET
            for task in creating:
                task.cancel()
            await asyncio.wait(creating)

    play(course)
