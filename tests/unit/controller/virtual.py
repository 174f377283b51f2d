"""The whole controller on virtual time: real stores, queue and workers over the lab's core."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter
from random import Random
from typing import Any

import structlog
from structlog.testing import LogCapture

from reconciler.clock import EpochTime, Instant
from reconciler.controller.compose import connect
from reconciler.controller.controller import Controller
from reconciler.controller.ports import Endpoints, IssuerPort, Ports
from reconciler.controller.runtime import ControllerConfig
from reconciler.errors import (
    IssuerRefused,
    IssuerUnavailable,
    NotLeaderError,
    PlatformRefused,
    PlatformUnavailable,
    RemoteError,
)
from reconciler.lab.apiserver.core import AT_ONCE, Core
from reconciler.lab.apiserver.fault_injection import FaultInjection
from reconciler.lab.apiserver.in_process_client import InProcessKube
from reconciler.lab.apiserver.kinds import NAMESPACES, PODS, SECRETS
from reconciler.lab.apiserver.write_log import Caller, Commit
from reconciler.lab.simulation.virtual_time import VirtualClock, run_virtual
from reconciler.leadership.api import NoElection
from reconciler.naming import Names
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.platform.api import Bearer, OnPage
from reconciler.platform.models import RUNNING, PlatformProject, PlatformSession
from reconciler.platform.pagination import ListResult, ignore_page
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource
from reconciler.tokens.token_response import TokenResponse

NAMES = Names()
PROJECT = "team-a"
PLATFORM = Caller("platform", "ambient-control-plane", "ambient-control-plane")
INTRUDER = Caller("intruder", "kubectl", "kubectl")
US = Caller("us", "token-reconciler/0", "token-reconciler")

# A scenario looks at each Secret in each second of hours; most looks find what the last one found.
_secret_name = lru_cache(maxsize=4096)(NAMES.secret_name)


@lru_cache(maxsize=4096)
def _text(value: str) -> str:
    return base64.b64decode(value).decode()


@lru_cache(maxsize=4096)
def _expires_s(token: str) -> EpochTime:
    payload = token.split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return EpochTime(claims["exp"])


class FakeIssuer:
    """Mints unsigned JWTs on the virtual clock.

    `unreachable` answers nothing, `refused` answers 401, `ttl_s` and `kid`, which names the
    signing key of the next token, may change.

    `offset_s` is its clock less the world's; `date_ahead_s` its Date header less its clock, None
    for no such header; `has_expires_in` sends `expires_in`; for `cached_s` seconds the same answer
    is given again, its body unchanged, and if `is_busy` others have it replaced when that time is
    over, however long we do not ask.
    """

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.unreachable = False
        self.refused = False
        self.refusal = (401, "invalid_client")
        self.kid: Callable[[], str] | None = None
        self.ttl_s = 900
        self.offset_s = 0.0
        self.date_ahead_s: float | None = 0.0
        self.has_expires_in = False
        self.cached_s = 0.0
        self.is_busy = False
        self._cached: tuple[str, Instant] | None = None
        self._since_s = 0.0
        self.requests = 0
        self.minted: list[str] = []

    async def ask(self) -> TokenResponse:
        self.requests += 1
        sent_at = self._clock.monotonic()
        await asyncio.sleep(0.02)
        if self.unreachable:
            raise IssuerUnavailable("the issuer is unreachable")
        if self.refused:
            status, code = self.refusal
            raise IssuerRefused(f"answered {status}", status=status, reason=code)
        ahead_s = self.date_ahead_s
        return TokenResponse(
            self._value(),
            sent_at,
            self._clock.monotonic(),
            expires_in_s=float(self.ttl_s) if self.has_expires_in else None,
            date_s=None if ahead_s is None else EpochTime(int(self.now_s() + ahead_s)),
        )

    def now_s(self) -> EpochTime:
        """Return the issuer's time, epoch seconds."""
        return self._clock.wall() + self.offset_s

    def _value(self) -> str:
        now_at = self._clock.monotonic()
        if self._cached is None or now_at - self._cached[1] >= self.cached_s:
            self._since_s = float(now_at) % self.cached_s if self.is_busy else 0.0
            self._cached = self.mint(self.ttl_s), now_at - self._since_s
        return self._cached[0]

    def mint(self, ttl_s: int) -> str:
        now_s = int(self.now_s() - self._since_s)
        claims = {"iat": now_s, "exp": now_s + ttl_s, "jti": f"obviously-fake-{len(self.minted)}"}
        payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        header = "eyJhbGciOiJub25lIn0"
        if self.kid is not None:
            named = json.dumps({"alg": "none", "kid": self.kid()}).encode()
            header = base64.urlsafe_b64encode(named).decode().rstrip("=")
        self.minted.append(f"{header}.{payload}.c2ln")
        return self.minted[-1]


class FakePlatform:
    """What the controller asks of the platform, from a dict; `unreachable` fails every call.

    With `cut_short` the projects list has one project and then fails. `failure` is raised by every
    call; the breaker hears of it, and of answers, as from the real client. A list of sessions comes
    in pages of `page_rows`, `page_s` after one another; `before_page` gets the number of each.
    """

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.allowed: int | None = None
        self.projects = [PROJECT]
        self.sessions: dict[str, PlatformSession] = {}
        self.unreachable = False
        self.failure: RemoteError | None = None
        self.cut_short = False
        self.lookups = 0
        self.page_rows = 100
        self.page_s = 0.0
        self.before_page: Callable[[int], None] = lambda _number: None

    def _guard(self) -> None:
        if self.unreachable:
            raise PlatformUnavailable("the platform is unreachable")
        if isinstance(self.failure, PlatformRefused):
            self.breaker.refused(self.failure)
        if self.failure is not None:
            raise self.failure
        self.breaker.succeeded()

    async def list_projects(self) -> ListResult[PlatformProject]:
        self._guard()
        if self.cut_short:
            error = PlatformUnavailable("the second page is unreachable")
            return ListResult([PlatformProject(id=self.projects[0])], 0, 2, 0, False, error)
        return ListResult([PlatformProject(id=name) for name in self.projects], 0, 1, 0, True, None)

    async def list_running(
        self, project: str | None, on_page: OnPage = ignore_page
    ) -> ListResult[PlatformSession]:
        found: list[PlatformSession] = []
        last, pages = "", 0
        while True:
            try:
                pages += 1
                self.before_page(pages)
                self._guard()
            except RemoteError as error:
                if pages == 1:
                    raise
                return ListResult(found, 0, pages, 0, False, error)
            behind = [
                session
                for session in sorted(self.sessions.values(), key=attrgetter("id"))
                if project in (None, session.project_id)
                and session.phase == RUNNING
                and session.id > last
            ]
            found += (rows := behind[: self.page_rows])
            on_page(rows)
            if len(behind) == len(rows):
                return ListResult(found, 0, pages, 0, True, None)
            last = rows[-1].id
            await asyncio.sleep(self.page_s)

    async def session(self, session_id: str, project: str | None) -> PlatformSession | None:
        self._guard()
        self.lookups += 1
        return self.sessions.get(session_id)

    async def probe(self) -> None:
        self._guard()


class SwitchFence:
    """A fence that a test closes."""

    def __init__(self) -> None:
        self.term = "replica-0/1"
        self.holder = "replica-0"
        self.has_lapsed = False
        self.transitions = 0
        self.fenced_total = 0
        self.is_open = True

    def may_write(self, need_s: float) -> bool:
        return self.is_open

    def check(self) -> None:
        if not self.is_open:
            self.fenced_total += 1
            raise NotLeaderError("closed by the test")


@dataclass
class World:
    """A cluster, an issuer, a platform and one controller, all on the running virtual loop.

    `node` is the controller's own clock; its wall may be stepped against the world's `clock`.
    """

    clock: VirtualClock
    node: VirtualClock
    core: Core
    faults: FaultInjection
    issuer: FakeIssuer
    platform: FakePlatform
    fence: SwitchFence
    ports: Ports
    endpoints: Endpoints
    config: ControllerConfig
    logs: list[MutableMapping[str, Any]]
    commits: list[Commit] = field(default_factory=list)
    _controller: Controller | None = None

    @property
    def controller(self) -> Controller:
        """The controller of `ports`, `endpoints` and `config`, made at its first use."""
        if self._controller is None:
            self._controller = Controller(self.ports, self.endpoints, self.config)
        return self._controller

    @controller.setter
    def controller(self, controller: Controller) -> None:
        self._controller = controller

    @property
    def source(self) -> OidcSource:
        assert isinstance(self.endpoints.source, OidcSource)
        return self.endpoints.source

    def add_project(self, project: str) -> None:
        """Add a project and its namespace, which have one name."""
        self.core.create(NAMESPACES, "", {"metadata": {"name": project}})
        self.platform.projects.append(project)

    def add(self, session_id: str, *, known: bool = True, project: str = PROJECT) -> None:
        """Add a session as the platform does: its row, its Secret with an old token, its pod."""
        if known:
            self.platform.sessions[session_id] = PlatformSession(
                id=session_id, project_id=project, phase="Running"
            )
        self.add_secret(session_id, project)
        self.add_pod(session_id, project=project)

    def add_secret(self, session_id: str, project: str = PROJECT) -> None:
        self.core.create(
            SECRETS,
            project,
            {
                "metadata": {
                    "name": NAMES.secret_name(session_id),
                    "labels": self._labels(session_id, project),
                },
                "stringData": {NAMES.secret_key: "obviously-fake-old-token"},
            },
            by=PLATFORM,
        )

    def add_pod(self, session_id: str, *, name: str = "", project: str = PROJECT) -> None:
        self.core.create(
            PODS,
            project,
            {
                "metadata": {
                    "name": name or f"session-{session_id.lower()}-runner",
                    "labels": self._labels(session_id, project),
                },
                "spec": {"nodeName": "node", "containers": [{"name": "r", "image": "r"}]},
            },
            by=PLATFORM,
        )

    def _labels(self, session_id: str, project: str) -> dict[str, str]:
        return {
            NAMES.session_id: session_id,
            NAMES.project_id: project,
            NAMES.managed: "true",
        }

    def overwrite(self, session_id: str, value: str = "obviously-fake-intruder") -> None:
        body = {"stringData": {NAMES.secret_key: value}}
        self.core.patch(SECRETS, PROJECT, NAMES.secret_name(session_id), body, by=INTRUDER)

    def delete_secret(self, session_id: str) -> None:
        self.core.delete(SECRETS, PROJECT, NAMES.secret_name(session_id), AT_ONCE, by=INTRUDER)

    def delete_pod(self, session_id: str, project: str = PROJECT) -> None:
        name = f"session-{session_id.lower()}-runner"
        self.core.delete(PODS, project, name, AT_ONCE, by=PLATFORM)

    def secret(self, session_id: str, project: str = PROJECT) -> Mapping[str, Any]:
        return self.core.get(SECRETS, project, _secret_name(session_id))

    def token(self, session_id: str, project: str = PROJECT) -> str:
        return _text(self.secret(session_id, project)["data"][NAMES.secret_key])

    def remaining_s(self, session_id: str) -> float:
        return self.left_s(self.token(session_id))

    def left_s(self, token: str) -> float:
        return float(_expires_s(token) - self.issuer.now_s())

    def secret_writes(self) -> list[Commit]:
        return [c for c in self.commits if c.caller == US and c.kind is SECRETS]

    def pod_writes(self) -> list[Commit]:
        return [c for c in self.commits if c.caller == US and c.kind is PODS]

    def events(self, name: str) -> list[MutableMapping[str, Any]]:
        return [line for line in self.logs if line["event"] == name]


def simulate(scenario: Any, **options: Any) -> None:
    """Run `async scenario(world)` on a fresh virtual loop."""
    run_virtual(_main(scenario, options))


def _main(scenario: Any, options: dict[str, Any]) -> Coroutine[Any, Any, None]:
    async def main() -> None:
        async with _world(options) as world:
            await scenario(world)

    return main()


@asynccontextmanager
async def running(world: World, controller: Controller | None = None) -> AsyncIterator[None]:
    """Run a controller, the world's own one by default, until the block ends, then drain it."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task((controller or world.controller).run(stop))
        try:
            yield
        finally:
            stop.set()


async def finished(world: World, times: int) -> None:
    """Wait until so many startup resyncs have finished in this world."""
    async with asyncio.timeout(10):
        while len(world.events("startup_resync_finished")) < times:
            await asyncio.sleep(0.1)


@asynccontextmanager
async def _world(options: dict[str, Any]) -> AsyncIterator[World]:
    clock = VirtualClock(asyncio.get_running_loop())
    node = VirtualClock(asyncio.get_running_loop())
    node.step_s = options.pop("node_ahead_s", 0.0)
    core = Core(clock, seed="test")
    core.create(NAMESPACES, "", {"metadata": {"name": PROJECT}})
    faults, random = FaultInjection(), Random(7)
    issuer, fence = FakeIssuer(clock), SwitchFence()
    platforms: list[FakePlatform] = []

    def connect_platform(*, bearer: Bearer, breaker: CircuitBreaker) -> FakePlatform:
        if not platforms:
            platforms.append(FakePlatform(breaker))
        platforms[0].breaker = breaker
        return platforms[0]

    ports = Ports(
        kube=InProcessKube(core, clock, caller=US, faults=faults, latency_s=0.005),
        tokens=IssuerPort(issuer.ask),
        secret="obviously-fake-client-secret",
        connect_platform=connect_platform,
        issuer_time=IssuerTime(node),
        clock=node,
        random=random,
        fence=fence,
        leadership=NoElection(),
    )
    endpoints = connect(ports)
    capture = LogCapture()
    structlog.configure(processors=[capture], cache_logger_on_first_use=False)
    chosen = ControllerConfig(names=NAMES, **options)
    world = World(
        clock=clock,
        node=node,
        core=core,
        faults=faults,
        issuer=issuer,
        platform=platforms[0],
        fence=fence,
        ports=ports,
        endpoints=endpoints,
        config=chosen,
        logs=capture.entries,
    )
    core.on_commit.append(world.commits.append)
    try:
        yield world
    finally:
        structlog.reset_defaults()
        await endpoints.source.close()
