"""One fault a minute, drawn from a seed, on real servers; each is shorter than what tokens survive.

The faults are drawn like cards: each comes once before one comes again. The first ones come faster,
so that each has come once, at its longest, when the warm-up ends: the allocator keeps what the
burst of a fault needs, and no later one needs more. The one with the greatest need is the last of
them, when the records of runs have their full size.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp

from tests.bench.say import say
from tests.cluster import etcd
from tests.cluster.accounts import account_token
from tests.cluster.admin import PODS, SECRETS, AdminError
from tests.cluster.installed import ACCOUNT, account_file
from tests.cluster.world import ExpiryWatch, Runner, World
from tests.controller import Controller

MINUTE_S = 60.0
WARM_UP_S = 600.0
"""Each fault has come once, and caches, pools and the allocator have reached their sizes in this
time; no slope is judged before."""

KILLED = "API server killed and started"
"""It takes the most memory at one time: all connections are opened again beside all lists."""

GAP_S = 5.0
"""Least time between two faults: what is due by then is refreshed."""

SLOW_S = 2.0
CHANGED = 0.05
"""Part of the sessions that a fault of sessions changes."""

API_S, PRODUCT_S, ISSUER_S, PLATFORM_S = 8.0, 8.0, 20.0, 40.0
"""Longest faults, for tokens of 60 s, of which 24 s are left when the next one is due. With an
unreachable issuer the standby token adds to that; the platform is not needed for a refresh."""

SURVIVABLE_S = 15.0
"""A fault of API server or product that took longer, since a machine was busy, may cost tokens."""


@dataclass
class Played:
    """A fault that was played: start and length in seconds, from the begin of the soak."""

    name: str
    start_s: float
    took_s: float


def slots(minutes: int, kinds: int) -> Iterator[tuple[float, float]]:
    """Yield when the slot of each fault begins, and its length, in seconds.

    >>> [round(begin_s) for begin_s, _ in slots(12, 15)]
    [0, 40, 80, 120, 160, 200, 240, 280, 320, 360, 400, 440, 480, 520, 560, 600, 660]
    >>> list(slots(2, 15))
    [(0.0, 60.0), (60.0, 60.0)]
    """
    first_s = 0.0
    if minutes * MINUTE_S > WARM_UP_S:
        first_s, room_s = WARM_UP_S, WARM_UP_S / kinds
        yield from ((number * room_s, room_s) for number in range(kinds))
    for minute in range(minutes - round(first_s / MINUTE_S)):
        yield first_s + minute * MINUTE_S, MINUTE_S


class Chaos:
    """Plays the faults of one soak.

    Attributes:
        faults: Name -> longest length in seconds, and what begins it and ends it.
        played: Those that have ended.
    """

    def __init__(
        self, world: World, controller: Controller, watch: ExpiryWatch, random: Random
    ) -> None:
        self.played: list[Played] = []
        self._world, self._controller, self._watch = world, controller, watch
        self._random = random
        self._began_at = time.monotonic()
        plane = world.control_plane
        self.faults: dict[str, tuple[float, Callable[[], AbstractAsyncContextManager[None]]]] = {
            "API server stopped (SIGSTOP)": (API_S, lambda: _held(plane.pause, plane.resume)),
            KILLED: (0.0, lambda: _held(plane.restart_apiserver)),
            "etcd stopped (SIGSTOP)": (API_S, lambda: _held(plane.etcd.pause, plane.etcd.resume)),
            "etcd compacted to now": (0.0, self._compacted),
            "etcd out of space": (API_S, lambda: _held(
                lambda: etcd.set_no_space(plane.etcd_url, on=True),
                lambda: etcd.set_no_space(plane.etcd_url, on=False),
            )),
            "issuer unreachable": (ISSUER_S, lambda: self._issuer(unreachable=True)),
            "issuer slow": (ISSUER_S, lambda: self._issuer(slow_s=SLOW_S)),
            "issuer refuses the client": (ISSUER_S, lambda: self._issuer(status=401)),
            "platform unreachable": (PLATFORM_S, lambda: self._platform(unreachable=True)),
            "platform slow": (PLATFORM_S, lambda: self._platform(slow_s=SLOW_S)),
            "product stopped (SIGSTOP)": (PRODUCT_S, self._stopped),
            "Secrets deleted": (0.0, lambda: self._some(self._delete_secret)),
            "Secrets overwritten": (0.0, lambda: self._some(self._overwrite)),
            "sessions replaced": (0.0, lambda: self._some(self._replace)),
            "account's token replaced": (0.0, self._account),
        }  # fmt: skip

    async def run(self, minutes: int) -> None:
        """Play each fault once in the warm-up, and then one in each minute."""
        deck: list[str] = []
        for begin_s, room_s in slots(minutes, len(self.faults)):
            if not deck:
                deck = self._random.sample(sorted(self.faults), len(self.faults))
                if not self.played:
                    deck.sort(key=lambda name: name != KILLED)  # the first of a deck comes last
            name = deck.pop()
            longest_s, fault = self.faults[name]
            is_first = minutes * MINUTE_S > WARM_UP_S > begin_s
            length_s = longest_s * (1.0 if is_first else self._random.uniform(0.5, 1.0))
            start_s = begin_s + self._random.uniform(0.0, max(0.0, room_s - GAP_S - longest_s))
            await asyncio.sleep(max(0.0, self._began_at + start_s - time.monotonic()))
            began_at = time.monotonic()
            try:
                async with fault():
                    await asyncio.sleep(length_s)
            except (aiohttp.ClientError, TimeoutError, AdminError) as error:
                say(f"second {start_s:.0f}: {name} could not be played: {error!r}")
            played = Played(name, began_at - self._began_at, time.monotonic() - began_at)
            self.played.append(played)
            say(f"second {start_s:.0f}: {name}, {played.took_s:.1f} s")

    def excuses(self, at_s: float) -> bool:
        """Return whether a token that expired at this time may have, after a fault too long."""
        return any(
            found.took_s > SURVIVABLE_S and found.name.startswith(("API", "etcd", "product"))
            and found.start_s <= at_s <= found.start_s + found.took_s + MINUTE_S
            for found in self.played
        )  # fmt: skip

    @asynccontextmanager
    async def _compacted(self) -> AsyncIterator[None]:
        plane = self._world.control_plane
        await asyncio.to_thread(lambda: etcd.compact(plane.etcd_url, plane.revision()))
        yield

    @asynccontextmanager
    async def _issuer(self, **faults: Any) -> AsyncIterator[None]:
        issuer = self._world.issuer
        for name, value in faults.items():
            setattr(issuer.faults, name, value)
        yield
        issuer.clear_faults()

    @asynccontextmanager
    async def _platform(self, **faults: Any) -> AsyncIterator[None]:
        found = self._world.platform.faults
        before = {name: getattr(found, name) for name in faults}
        for name, value in faults.items():
            setattr(found, name, value)
        yield
        for name, value in before.items():
            setattr(found, name, value)

    @asynccontextmanager
    async def _stopped(self) -> AsyncIterator[None]:
        self._controller.process.send_signal(signal.SIGSTOP)
        yield
        self._controller.process.send_signal(signal.SIGCONT)

    @asynccontextmanager
    async def _account(self) -> AsyncIterator[None]:
        """Replace the account's token, which lasts an hour, in the kubeconfig."""
        world = self._world
        world.account_token = await account_token(world.admin, world.home, ACCOUNT)
        account_file(world.control_plane, world.account_token, world.folder / "kubeconfig")
        yield

    @asynccontextmanager
    async def _some(self, change: Callable[[Runner], Awaitable[None]]) -> AsyncIterator[None]:
        runners = self._world.runners
        chosen = self._random.sample(runners, max(1, round(CHANGED * len(runners))))
        for runner in chosen:
            await change(runner)
        yield

    async def _delete_secret(self, runner: Runner) -> None:
        await self._world.admin.delete(runner.namespace, SECRETS, runner.secret)

    async def _overwrite(self, runner: Runner) -> None:
        body = {"stringData": {"api-token": "obviously-fake-intruder"}}
        await self._world.admin.patch(runner.namespace, SECRETS, runner.secret, body)

    async def _replace(self, runner: Runner) -> None:
        """End a session with its objects, and begin another in its project."""
        world = self._world
        world.platform.set_phase(runner.session_id, "Stopped")
        self._watch.forget(runner)
        world.runners.remove(runner)
        await world.admin.delete(runner.namespace, PODS, runner.pod)
        await world.admin.delete(runner.namespace, SECRETS, runner.secret)
        await world.add(runner.project)


@asynccontextmanager
async def _held(
    begin: Callable[[], None], end: Callable[[], None] = lambda: None
) -> AsyncIterator[None]:
    await asyncio.to_thread(begin)
    yield
    await asyncio.to_thread(end)
