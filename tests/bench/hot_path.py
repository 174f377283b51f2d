"""`python -m tests.bench.hot_path`: what the parts of a refresh cost, each against its alternative.

CPU of one process each, sides in turn, the best of `ROUNDS`: other work on the machine adds to a
figure and never takes from it. No API server is needed.
"""

import asyncio
import contextlib
import cProfile
import os
import ssl
import subprocess
import sys
import tempfile
import time
import timeit
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec
import structlog
import uvloop
from msgspec.structs import replace
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from reconciler.clock import EPOCH, SystemClock, format_utc, parse_utc
from reconciler.controller.controller import Controller
from reconciler.controller.decide import bulkhead
from reconciler.controller.decide.refresh_plan import plan
from reconciler.controller.reconcile.reconciler import Reconciler
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.kube.api import ObjectMeta
from reconciler.kube.auth.token_file import bearer
from reconciler.kube.authorization import AuthorizerMemory
from reconciler.kube.authorized import AuthorizedKube
from reconciler.kube.client import HttpKube
from reconciler.kube.decoding import metadata_resource
from reconciler.net.client_pool import ClientPool, Connection
from reconciler.net.client_session import Trust
from reconciler.net.exchange import Answer
from reconciler.telemetry.log_setup import configure_logs
from tests.lab.tls import make_certificate, serving
from tests.unit.controller.build import NAMES, NOW_S, decision_context, pod, secret, session_state
from tests.unit.controller.virtual import World, running, simulate

ROUNDS = 5
REQUESTS = 4000
CONNECTIONS = 64
SESSIONS = 400
HEADERS = {"Authorization": "Bearer obviously-fake", "Accept": "a/b", "Content-Type": "c/d"}
BODY = b"x" * 1500
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 1500\r\n\r\n" + BODY

Send = Callable[[int], Awaitable[None]]

PRODUCT = "its connections and parser (the product)"
RENEWALS = 28
"""A second: those of 10,000 sessions with tokens of 15 minutes."""


class _Server(asyncio.Protocol):
    """Answers each request; a request comes whole, since each is smaller than one TLS record."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(ANSWER)


async def _serve(cert: str, key: str) -> None:
    tls = serving((Path(cert), Path(key)))
    server = await asyncio.get_running_loop().create_server(_Server, "127.0.0.1", 0, ssl=tls)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class _Fixed:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def version(self, *, fresh: bool = False) -> str:
        return ""

    async def connection(self) -> Connection:
        return self._connection


class _Credentials(_Fixed):
    async def headers(self, _url: str = "") -> dict[str, str]:
        return bearer("obviously-fake")

    async def renew(self) -> None: ...


async def _patches() -> None:
    """Show what a PATCH costs outside of its connection: client, headers, limits, the answer."""
    meta = secret(age_s=100.0)
    answer = Answer(200, CIMultiDictProxy(CIMultiDict()), msgspec.json.encode(_answer(meta)))

    async def send(*_: Any, **__: Any) -> Answer:
        return answer

    credentials = _Credentials(Connection("https://127.0.0.1:1", None, None, ""))
    secrets, body = metadata_resource("secrets", NAMES), {"data": {"api-token": "x" * 900}}
    async with HttpKube(credentials, NAMES, connections=CONNECTIONS) as http:
        client = await http._requests.open()
        kube = AuthorizedKube(http, AuthorizerMemory(), SystemClock())

        async def patch(_: int) -> None:
            await kube.patch(secrets, meta.namespace, meta.name, body)

        with mock.patch.object(client.exchanges, "send", send):
            costs = [await _cost_us(patch) for _ in range(ROUNDS)]
    _show("a PATCH without its connection", min(costs))


class _Bytes(asyncio.Protocol):
    """The least that a client can do: write bytes, and wait for as many as an answer has."""

    async def exchange(self, request: bytes) -> None:
        self._missing = len(ANSWER)
        self._done = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        await self._done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            self._done.set_result(None)


async def _cost_us(send: Send) -> float:
    """Return the CPU a request, with open connections."""
    numbers = iter(range(REQUESTS))

    async def work() -> None:
        for number in numbers:
            await send(number)

    await asyncio.gather(*(send(number) for number in range(CONNECTIONS)))
    began_s = time.process_time()
    await asyncio.gather(*(work() for _ in range(CONNECTIONS)))
    return (time.process_time() - began_s) / REQUESTS * 1e6


async def _seldom_us(send: Send, size: int) -> float:
    """Return the CPU a request, `RENEWALS` a second for five seconds, `size` at one instant."""
    loop = asyncio.get_running_loop()
    began_at, began_s, count = loop.time(), time.process_time(), 5 * RENEWALS
    for number in range(0, count, size):
        await asyncio.sleep(began_at + number / RENEWALS - loop.time())
        await asyncio.gather(*(send(number + more) for more in range(size)))
    return (time.process_time() - began_s) / count * 1e6


@asynccontextmanager
async def _clients(url: str, tls: ssl.SSLContext) -> AsyncIterator[dict[str, Send]]:
    port = int(url.rpartition(":")[2])
    free: list[_Bytes] = []
    head = "".join(f"{name}: {value}\r\n" for name, value in HEADERS.items())
    connection = Connection(url, tls, None, "")
    source = _Fixed(connection)
    async with ClientPool(source, what="", connections=CONNECTIONS) as pool:
        client = await pool.open()

        async def by_session(number: int) -> None:
            target = URL(f"{url}/api/v1/secrets/{number}?fieldManager=x", encoded=True)
            async with client.session.request(
                "PATCH", target, headers=HEADERS, data=BODY, allow_redirects=False
            ) as response:
                await response.read()

        async def by_exchange(number: int) -> None:
            target = f"/api/v1/secrets/{number}?fieldManager=x"
            await client.exchanges.send("PATCH", target, HEADERS, BODY, max_bytes=2**20)

        async def by_bytes(number: int) -> None:
            if not free:
                made = await asyncio.get_running_loop().create_connection(
                    _Bytes, "127.0.0.1", port, ssl=tls
                )
                free.append(made[1])
            one = free.pop()
            line = f"PATCH /api/v1/secrets/{number}?fieldManager=x HTTP/1.1\r\n"
            length = f"Content-Length: {len(BODY)}\r\n\r\n"
            await one.exchange((line + head + length).encode() + BODY)
            free.append(one)

        yield {
            "aiohttp's session": by_session,
            PRODUCT: by_exchange,
            "bytes on a protocol": by_bytes,
        }


def _requests() -> None:
    with tempfile.TemporaryDirectory() as folder:
        certificate = make_certificate(Path(folder))
        command = [sys.executable, "-m", "tests.bench.hot_path", *map(str, certificate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            url = f"https://127.0.0.1:{server.stdout.readline().strip()}"
            try:
                uvloop.run(_compare(url, ssl.create_default_context(cafile=certificate[0])))
            finally:
                server.terminate()


async def _compare(url: str, tls: ssl.SSLContext) -> None:
    async with _clients(url, tls) as clients:
        found: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(ROUNDS):
            for name, send in clients.items():
                found[name].append(await _cost_us(send))
        for name, size in (("each at its own instant", 1), ("at one instant a second", RENEWALS)):
            cost_us = min([await _seldom_us(clients[PRODUCT], size) for _ in range(3)])
            _show(f"PATCH by the product, {RENEWALS} a second, {name}", cost_us)
    for name, costs in found.items():
        _show(f"PATCH by {name}", min(costs))


def _runs(latency_s: float, brisk_s: float) -> None:
    """Show runs, plans and calls a refresh in a startup resync of one namespace, on virtual time.

    Calls are those of the product's functions: a count that no load of the machine changes.
    """
    counts: Counter[str] = Counter()
    found: list[tuple[float, float, float]] = []

    def counted(method: Any, name: str) -> Any:
        def call(*args: Any, **more: Any) -> Any:
            counts[name] += 1
            return method(*args, **more)

        return call

    class Slow:
        def __init__(self, inner: Any) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> Any:
            return getattr(self._inner, name)

        async def patch(self, *args: Any, **more: Any) -> Any:
            await asyncio.sleep(latency_s)
            return await self._inner.patch(*args, **more)

    async def scenario(world: World) -> None:
        for number in range(SESSIONS):
            world.add(f"2Ab{number}")
        slow = replace(world.ports, kube=Slow(world.ports.kube))
        for term in ("first", "second"):
            world.fence.term = term
            controller = Controller(slow, world.endpoints, world.config)
            counts.clear()
            profile = cProfile.Profile(builtins=False)
            async with running(world, controller):
                profile.enable()
                await controller.startup.finished.wait()
                profile.disable()
                calls = _product_calls(profile)
                found.append(
                    (counts["runs"] / SESSIONS, counts["plans"] / SESSIONS, calls / SESSIONS)
                )
                await asyncio.sleep(30)

    with (
        mock.patch.object(bulkhead, "BRISK_BELOW_S", brisk_s),
        mock.patch.object(Reconciler, "reconcile", counted(Reconciler.reconcile, "runs")),
        mock.patch.object(SessionStateReader, "plan", counted(SessionStateReader.plan, "plans")),
    ):
        simulate(scenario)
    runs, plans, calls = found[-1]
    print(
        f"answers after {latency_s:g} s, brisk below {brisk_s:g} s:"
        f" {runs:.2f} runs, {plans:.2f} plans and {calls:.0f} calls a refresh",
        flush=True,
    )


def _product_calls(profile: cProfile.Profile) -> int:
    calls = 0
    for entry in profile.getstats():
        file = getattr(entry.code, "co_filename", "")
        if "/reconciler/" in file and "/lab/" not in file:
            calls += entry.callcount
    return calls


@dataclass(frozen=True, slots=True)
class _Frozen:
    a: int
    b: int
    c: int
    d: int
    e: int = 0
    f: int = 0
    g: int = 0
    h: int = 0


class _Struct(msgspec.Struct, frozen=True):
    a: int
    b: int
    c: int
    d: int
    e: int = 0
    f: int = 0
    g: int = 0
    h: int = 0


def _calls() -> None:
    text = "2026-01-31T12:00:00Z"
    meta = secret(age_s=100.0)
    answer = msgspec.json.encode(_answer(meta))
    decode = metadata_resource("secrets", NAMES).decode
    waiting, due = decision_context(term_started_s=EPOCH), decision_context(term="replica-1/2")
    state = session_state(pod(), meta)
    with mock.patch.object(sys, "stderr", open(os.devnull, "w")):
        configure_logs("info", "json")
    log = structlog.get_logger()
    fields = {"namespace": "team-a", "secret": meta.name, "session_id": "a", "reason": "scheduled"}
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("a plan to write", lambda: plan(state, due, NOW_S)),
        ("a plan to wait", lambda: plan(state, waiting, NOW_S)),
        ("the answer to a PATCH, decoded", lambda: decode(answer)),
        ("a log line, rendered", lambda: log.info("runner_token_refreshed", **fields)),
        ("a frozen dataclass of 8 fields", lambda: _Frozen(1, 2, 3, 4, 5, 6)),
        ("a msgspec struct of 8 fields", lambda: _Struct(1, 2, 3, 4, 5, 6)),
        ("parse_utc, not remembered", lambda: parse_utc.__wrapped__(text)),
        ("parse_utc", lambda: parse_utc(text)),
        ("format_utc", lambda: format_utc(NOW_S)),
    )
    for name, call in calls:
        number = 20_000
        best = min(timeit.repeat(call, number=number, repeat=ROUNDS, timer=time.process_time))
        _show(name, best / number * 1e6)


def _contexts() -> None:
    """Show what a TLS context with the system's CAs costs, and a context that only loads them."""
    calls: tuple[tuple[str, Callable[[], object]], ...] = (
        ("a TLS context that loads the system's CAs, once", ssl.create_default_context),
        ("a peer's TLS context (the product)", lambda: Trust().context(lenient=True)),
    )
    for name, call in calls:
        best = min(timeit.repeat(call, number=1, repeat=ROUNDS, timer=time.process_time))
        print(f"{name}: {best * 1e3:.0f} ms", flush=True)


def _answer(meta: ObjectMeta) -> dict[str, Any]:
    """Return a Secret's metadata as the API server sends it."""
    fields: dict[str, Any] = {
        "f:data": {f"f:{NAMES.secret_key}": {}},
        "f:metadata": {"f:annotations": {}},
    }
    manager = {"manager": NAMES.field_manager, "time": "2026-01-31T12:00:00Z", "fieldsV1": fields}
    return {
        "kind": "PartialObjectMetadata",
        "metadata": {
            "name": meta.name,
            "namespace": meta.namespace,
            "uid": meta.uid,
            "resourceVersion": meta.version,
            "creationTimestamp": "2026-01-31T11:00:00Z",
            "labels": {NAMES.session_id: meta.session_id, NAMES.project_id: meta.project_id},
            "annotations": {
                getattr(NAMES, field): text
                for field, text in msgspec.structs.asdict(meta.annotations).items()
                if text is not None
            },
            "managedFields": [manager],
        },
    }


IMPORTS = "import reconciler.cli.run, reconciler.settings, reconciler.app.main; "
FORMS = {
    "the start's imports, all of structlog's, with collections": IMPORTS,
    "without rich": "from reconciler import entry; entry._import_structlog_alone(); " + IMPORTS,
    "without rich and collections": (
        "import gc; gc.disable(); from reconciler import entry; entry._import_structlog_alone(); "
        + IMPORTS
    ),
    "without rich, collections and the system's CAs (the product)": (
        "import gc; gc.disable(); from reconciler import entry; entry._import_structlog_alone(); "
        "entry._import_aiohttp_without_cas(); " + IMPORTS
    ),
}


def _starts() -> None:
    measured = "import time; {}print(time.process_time())"
    # As in an image: without bytecode each start would compile the product's modules.
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": ""}
    found: dict[str, list[float]] = {name: [] for name in FORMS}
    for _ in range(ROUNDS):
        for name, form in FORMS.items():
            command = [sys.executable, "-c", measured.format(form)]
            found[name].append(float(subprocess.check_output(command, env=environment)))
    for name, costs in found.items():
        print(f"{name}: {min(costs) * 1e3:.0f} ms", flush=True)


def _show(name: str, cost_us: float) -> None:
    print(f"{name}: {cost_us:.2f} us", flush=True)


def main() -> None:
    _requests()
    uvloop.run(_patches())
    for brisk_s in (0.1, bulkhead.BRISK_BELOW_S):
        _runs(0.12, brisk_s)
    _calls()
    _contexts()
    _starts()


if __name__ == "__main__":
    if sys.argv[1:]:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(_serve(*sys.argv[1:]))
    else:
        main()
