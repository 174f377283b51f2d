"""The product with one of its peers behind a proxy, during a fault and after it."""

import asyncio
import ssl
from collections import Counter
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from time import monotonic

from tests.bench.procfs import rss_mb
from tests.cluster.admin import SECRETS, Admin
from tests.cluster.controlplane import ControlPlane
from tests.cluster.credentials import kubeconfig
from tests.cluster.installed import ACCOUNT
from tests.cluster.world import ExpiryWatch, World, open_world
from tests.controller import Controller, running
from tests.faults.breaks import Break
from tests.faults.proxy import FaultProxy
from tests.lab.tls import serving

TTL_S = 40.0
SESSIONS = 6
FAULT_S = 6.0
"""Shorter than what tokens of 40 s survive: 16 s are left of each when its refresh is due."""

OTHER_FAULT_S = 10.0
"""Of issuer and platform, which get a request each 4 s: a standby token outlasts it."""

PARALLEL = 6
"""Faults that are played at one time, each for half a minute, nearly all of it waiting. The start
of 13 products at one time took two busy cores longer than their tokens lived."""

LIMIT_S = 90.0
SAMPLE_S = 0.25

SETTINGS = {
    "RECONCILER_PROPAGATION_ALLOWANCE_S": "2",
    "RECONCILER_LEASE_DURATION_S": "6",
    "RECONCILER_RENEW_DEADLINE_S": "4",
    "RECONCILER_RETRY_PERIOD_S": "0.8",
    "RECONCILER_REQUEST_LIMIT_S": "4",
    "RECONCILER_RESYNC_S": "5",
}
"""The default times in proportion to the token's life."""

MOST_A_SECOND = 12.0
MOST_IN_A_BURST = 60
MOST_GROWTH_MB = 200.0


class Peer(Enum):
    """Who is behind the proxy."""

    API_SERVER = "API server"
    ISSUER = "issuer"
    PLATFORM = "platform"


@dataclass
class Outcome:
    """What the product did.

    Attributes:
        requests_a_second: To the peer, during the fault, or connections if there are more.
        burst: Most requests to the peer in a second of the 15 s after the fault.
        recovered_s: From the fault's end until each Secret had a token that was issued after it.
        growth_mb: Most resident memory less that before the fault.
        warnings: Log lines of level warning and above during the fault, by event.
        failures: Errors of the lines among them, less time-outs, which a busy machine causes, too.
    """

    expired_s: float = 0.0
    requests_a_second: float = 0.0
    burst: int = 0
    recovered_s: float = 0.0
    growth_mb: float = 0.0
    exit_code: int = -1
    warnings: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    log: list[str] = field(default_factory=list, repr=False)

    def judge(self, *, is_legal: bool) -> None:
        """Add to `problems` each promise that was broken."""
        found = {
            f"{self.expired_s:.1f} expired-token seconds": self.expired_s > 0.0,
            f"{self.requests_a_second:.1f} requests a second": (
                self.requests_a_second > MOST_A_SECOND
            ),
            f"{self.burst} requests in a second after the fault": self.burst > MOST_IN_A_BURST,
            f"{self.growth_mb:.0f} MB more": self.growth_mb > MOST_GROWTH_MB,
            f"exit code {self.exit_code}": self.exit_code != 0,
            "a traceback in the log": any("Traceback" in line for line in self.log),
            f"failures: {self.failures}": is_legal and bool(self.failures),
        }
        self.problems += [words for words, is_broken in found.items() if is_broken]


async def play_all(
    control_plane: ControlPlane,
    folder: Path,
    peer: Peer,
    breaks: Mapping[str, Break],
    *,
    parallel: int = PARALLEL,
) -> dict[str, Outcome]:
    """Play each fault in a world and with a product of its own, `parallel` at a time."""
    slots = asyncio.Semaphore(parallel)

    async def play(number: int, broken: Break) -> Outcome:
        own = folder / str(number)
        own.mkdir()
        async with slots, Admin.connect(
            control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
        ) as admin, open_world(control_plane, admin, own, ttl_s=TTL_S) as world:  # fmt: skip
            return await _play(world, peer, broken)

    plays = (play(number, broken) for number, broken in enumerate(breaks.values()))
    return dict(zip(breaks, await asyncio.gather(*plays), strict=True))


async def _play(world: World, peer: Peer, broken: Break) -> Outcome:
    outcome, watch = Outcome(), ExpiryWatch(world)
    project = await world.add_project()
    for _ in range(SESSIONS):
        await world.add(project)
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(open_proxy(world, peer).running())
        await stack.enter_async_context(watch.running())
        controller = await stack.enter_async_context(running(environment(world, peer, proxy.url)))
        try:
            await _during(world, peer, proxy, controller, broken, project, outcome)
        except (AssertionError, TimeoutError) as error:
            outcome.problems.append(repr(error))
        else:
            watch.close()
            outcome.expired_s = watch.expired_s
        outcome.log = list(controller.text)
        outcome.judge(is_legal=broken.is_legal)
    return outcome


async def _during(
    world: World,
    peer: Peer,
    proxy: FaultProxy,
    controller: Controller,
    broken: Break,
    project: str,
    outcome: Outcome,
) -> None:
    count = len(world.runners)
    await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
    await controller.wait_for_event("runner_token_refreshed", count=count, limit_s=LIMIT_S)
    pid, lines, before_mb = controller.process.pid, len(controller.lines), _rss_mb(controller)
    proxy.play, proxy.mangle, began_at = broken.play, broken.mangle, monotonic()
    # Events for the watches, a write, and a session that the platform must confirm.
    await world.admin.patch(
        project, SECRETS, world.runners[0].secret, {"stringData": {"api-token": "obviously-fake"}}
    )
    await world.add(project)
    peak_mb = 0.0
    fault_s = FAULT_S if peer is Peer.API_SERVER else OTHER_FAULT_S
    while monotonic() - began_at < fault_s:
        await asyncio.sleep(SAMPLE_S)
        peak_mb = max(peak_mb, rss_mb(pid))
    proxy.play, proxy.mangle, ended_at = None, None, monotonic()
    said = [line for line in controller.lines[lines:] if line["level"] != "info"]
    outcome.warnings.update(line["event"] for line in said)
    outcome.failures = [
        line["error"] for line in said if "error" in line and "no answer in" not in line["error"]
    ]
    old = set(world.issuer.issued)
    async with asyncio.timeout(LIMIT_S):
        for runner in world.runners:
            while (token := await world.token(runner)) in old or token not in world.issuer.issued:
                await asyncio.sleep(SAMPLE_S)
                peak_mb = max(peak_mb, rss_mb(pid))
    # Each token from before the fault has been replaced: what was late would have been counted.
    outcome.recovered_s = monotonic() - ended_at
    outcome.growth_mb = peak_mb - before_mb
    came = max((proxy.connections, [at for at, _ in proxy.requests]), key=len)
    during = sum(began_at <= at < ended_at for at in came)
    outcome.requests_a_second = during / (ended_at - began_at)
    after = Counter(int(at - ended_at) for at in came if ended_at <= at < ended_at + 15)
    outcome.burst = max(after.values(), default=0)
    outcome.exit_code = await controller.terminate()


def _rss_mb(controller: Controller) -> float:
    return rss_mb(controller.process.pid)


def open_proxy(world: World, peer: Peer) -> FaultProxy:
    plane = world.control_plane
    if peer is Peer.API_SERVER:
        trust = ssl.create_default_context(cafile=str(plane.ca_file))
        return FaultProxy([plane.url], serving(plane.certificate), trust)
    return FaultProxy([world.issuer.url if peer is Peer.ISSUER else world.platform.url])


def environment(world: World, peer: Peer, url: str) -> dict[str, str]:
    found = world.environment(**SETTINGS)
    if peer is Peer.API_SERVER:
        text = kubeconfig(
            url=url, ca_file=world.control_plane.ca_file, user=ACCOUNT, token=world.account_token
        )
        Path(found["KUBECONFIG"]).write_text(text)
        return found
    if peer is Peer.ISSUER:
        return found | {"OIDC_TOKEN_URL": f"{url}/token"}
    return found | {"AMBIENT_API_SERVER_URL": url}
