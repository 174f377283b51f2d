"""Runners, server and kubelet over real sockets, against the lab's API server.

The tests set the validator's wall clock, so that every figure is compared with an exact number;
only the kubelet's delays pass in real time.
"""

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import grpc
import pytest
import structlog

from reconciler.clock import SystemClock
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.deletion import DeleteOptions
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.status_errors import StatusError
from reconciler.lab.kubelet.node import KubeletTiming
from reconciler.lab.runners.exposure_ledger import FleetReport, SessionReport
from reconciler.lab.runners.fleet import FleetOptions, RunnerFleet
from reconciler.lab.runners.runner import Channel, Rates
from reconciler.lab.runners.server import SESSION_HEADER, CallTasks, SessionServer
from reconciler.naming import Names, SessionKey
from tests.support import ManualClock
from tests.unit.lab_fleet.signing import Issuer

LIMIT_S = 10.0
NAMES = Names()
NEVER_S = (600.0, 900.0)
BUSY = Rates(push_s=(0.02, 0.05), reconnect_s=(0.2, 0.4), pause_s=(0.05, 0.1))
QUIET = Rates(push_s=NEVER_S, reconnect_s=NEVER_S, pause_s=NEVER_S)


@dataclass
class Peers:
    """An API server, an issuer and the validator's clock; each test creates a fleet."""

    server: ApiServer
    issuer: Issuer
    clock: ManualClock
    root: Path

    def fleet(
        self, *, delay: tuple[float, float] = NEVER_S, rates: Rates = BUSY, grace_s: float = 0.1
    ) -> RunnerFleet:
        return RunnerFleet(
            self.server.url,
            self.server.admin_token,
            self.issuer.verify,
            self.clock,
            Random(4),
            self.root,
            FleetOptions(KubeletTiming(projection_s=delay, grace_cap_s=grace_s), rates),
        )

    def fresh(self, ttl_s: float) -> str:
        return self.issuer.token(self.clock.wall() + ttl_s)

    def write_secret(self, session: str, token: str) -> None:
        name = NAMES.secret_name(session)
        metadata = {"name": name, "labels": _labels(session)}
        body = {
            "metadata": metadata,
            "data": {NAMES.secret_key: base64.b64encode(token.encode()).decode()},
        }
        if self.server.core.peek(kinds.SECRETS, f"ns/{name}") is None:
            self.server.core.create(kinds.SECRETS, "ns", body)
        else:
            self.server.core.patch(kinds.SECRETS, "ns", name, {"data": body["data"]})

    def start_pod(self, session: str) -> str:
        """Create a session's pod; returns its UID."""
        source = {
            "secretName": NAMES.secret_name(session),
            "items": [{"key": NAMES.secret_key, "path": "bot-token"}],
        }
        spec = {
            "nodeName": "node",
            "terminationGracePeriodSeconds": 60,
            "containers": [{"name": "runner", "image": "runner"}],
            "volumes": [{"name": "runner-token", "secret": source}],
        }
        metadata = {"name": _pod_name(session), "labels": _labels(session)}
        pod = self.server.core.create(kinds.PODS, "ns", {"metadata": metadata, "spec": spec})
        return str(pod["metadata"]["uid"])

    def start(self, session: str, token: str) -> str:
        self.write_secret(session, token)
        return self.start_pod(session)

    def touch(self, session: str) -> None:
        annotations = {NAMES.touched_at: str(self.server.core.version)}
        patch = {"metadata": {"annotations": annotations}}
        self.server.core.patch(kinds.PODS, "ns", _pod_name(session), patch)

    def delete_pod(self, session: str, *, grace_s: int | None = None) -> None:
        options = DeleteOptions(grace_s=grace_s)
        self.server.core.delete(kinds.PODS, "ns", _pod_name(session), options)

    def phase(self, session: str) -> str:
        try:
            pod = self.server.core.get(kinds.PODS, "ns", _pod_name(session))
        except StatusError:
            return "gone"
        return str(pod["status"]["phase"])

    def file(self, uid: str) -> str:
        return (self.root / uid / "bot-token").read_text()


def _labels(session: str) -> dict[str, str]:
    return {NAMES.session_id: session, NAMES.managed: "true"}


def _pod_name(session: str) -> str:
    return f"session-{session}-runner"


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def peers(issuer: Issuer, tmp_path: Path) -> AsyncIterator[Peers]:
    core = Core(SystemClock())
    core.create(kinds.NAMESPACES, "", {"metadata": {"name": "ns"}})
    async with ApiServer(core) as server:
        yield Peers(server, issuer, ManualClock(), tmp_path)


async def wait_until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def only(report: FleetReport) -> SessionReport:
    (session,) = report.sessions
    return session


async def wait_running(fleet: RunnerFleet, count: int = 1) -> None:
    def running() -> bool:
        states = [session.state for session in fleet.report().sessions]
        return states.count("running") == count and fleet.report().grpc_calls >= count

    await wait_until(running)


async def test_fresh_tokens_cost_nothing(peers: Peers) -> None:
    for session in ("a", "b", "c"):
        peers.start(session, peers.fresh(900))
    async with peers.fleet() as fleet:
        await wait_running(fleet, 3)
        await wait_until(lambda: all(s.grpc_calls > 20 for s in fleet.report().sessions))
        peers.clock.advance(899)
    report = fleet.report()

    assert report.expired_token_seconds == 0
    assert (report.unauthenticated, report.reauthentications, report.rejections) == (0, 0, 0)
    assert report.worst is None
    assert {session.containers for session in report.sessions} == {1}


async def test_pods_are_brought_to_running_through_their_status(peers: Peers) -> None:
    peers.start("a", peers.fresh(900))
    async with peers.fleet():
        await wait_until(lambda: peers.phase("a") == "Running")

    assert peers.server.requests["patch", "pods/status"] == 1


async def test_token_left_to_expire_costs_exactly_its_gap(peers: Peers) -> None:
    uid = peers.start("a", peers.fresh(10))
    async with peers.fleet() as fleet:
        await wait_running(fleet)
        peers.clock.advance(15)
        assert only(fleet.report()).expired_token_seconds == 5
        await wait_until(lambda: fleet.report().unauthenticated > 0)

        token = peers.fresh(100)
        peers.write_secret("a", token)
        peers.clock.advance(7)
        peers.touch("a")
        await wait_until(lambda: peers.file(uid) == token)
        peers.clock.advance(90)
        assert only(fleet.report()).expired_token_seconds == 12
        assert only(fleet.report()).expires_at_s == peers.clock.wall() + 3

        peers.clock.advance(4)
    report = fleet.report()

    assert report.expired_token_seconds == 13
    assert report.worst == only(report)


async def test_memory_of_a_runner_is_refused_once_for_a_token_that_died_in_it(peers: Peers) -> None:
    uid = peers.start("a", peers.fresh(10))
    rates = Rates(push_s=(0.02, 0.05), reconnect_s=NEVER_S)
    async with peers.fleet(rates=rates) as fleet:
        await wait_running(fleet)
        token = peers.fresh(100)
        peers.write_secret("a", token)
        peers.touch("a")
        await wait_until(lambda: peers.file(uid) == token)
        calls = fleet.report().grpc_calls
        peers.clock.advance(20)
        await wait_until(lambda: fleet.report().grpc_calls > calls + 10)
        report = fleet.report()

    assert (report.reauthentications, report.rejections) == (1, 1)
    assert (report.unauthenticated, report.expired_token_seconds) == (0, 0)


async def test_touch_projects_at_once(peers: Peers) -> None:
    uid = peers.start("a", peers.fresh(100))
    async with peers.fleet() as fleet:
        await wait_running(fleet)
        token = peers.fresh(200)
        peers.write_secret("a", token)
        began = time.monotonic()
        peers.touch("a")
        await wait_until(lambda: peers.file(uid) == token)

        assert time.monotonic() - began >= 0.15


async def test_change_without_a_touch_waits_for_the_drawn_sync(peers: Peers) -> None:
    uid = peers.start("a", peers.fresh(100))
    async with peers.fleet(delay=(0.6, 0.7)) as fleet:
        await wait_running(fleet)
        token = peers.fresh(200)
        began = time.monotonic()
        peers.write_secret("a", token)
        await wait_until(lambda: peers.file(uid) == token)

        assert time.monotonic() - began >= 0.6


async def test_stale_touch_projects_the_old_value_until_the_next_drawn_sync(peers: Peers) -> None:
    uid = peers.start("a", peers.fresh(100))
    async with peers.fleet(delay=(1.0, 1.5)) as fleet:
        await wait_running(fleet)
        fleet.set_stale_touches(1.0)
        old, new = peers.fresh(200), peers.fresh(300)
        peers.write_secret("a", old)
        peers.write_secret("a", new)
        peers.touch("a")

        await wait_until(lambda: peers.file(uid) == old)
        assert only(fleet.report()).expires_at_s == peers.clock.wall() + 200
        await wait_until(lambda: peers.file(uid) == new)


async def test_missing_secret_blocks_the_pod_until_a_retry_finds_it(peers: Peers) -> None:
    peers.start_pod("a")
    async with peers.fleet() as fleet:
        await wait_until(lambda: peers.server.requests["get", "secrets"] >= 2)
        assert peers.phase("a") == "Pending"
        assert only(fleet.report()).state == "pending"
        assert only(fleet.report()).containers == 0

        peers.write_secret("a", peers.fresh(100))
        await wait_running(fleet)
        assert only(fleet.report()).expired_token_seconds == 0


async def test_restarted_session_gets_a_container_account_of_its_own(peers: Peers) -> None:
    old = peers.start("a", peers.fresh(10))
    async with peers.fleet() as fleet:
        await wait_running(fleet)
        peers.clock.advance(12)
        peers.delete_pod("a")
        await wait_until(lambda: peers.phase("a") == "gone")
        peers.clock.advance(1000)
        await wait_until(lambda: only(fleet.report()).state == "ended")
        assert only(fleet.report()).expired_token_seconds == 2
        assert not (peers.root / old).exists()

        peers.start("a", peers.issuer.issued[-1])
        await wait_running(fleet)
        peers.clock.advance(3)
        report = only(fleet.report())

    assert (report.containers, report.expired_token_seconds) == (2, 5)


async def test_deleted_pod_keeps_its_runner_through_its_grace(peers: Peers) -> None:
    uid = peers.start("a", peers.fresh(100))
    async with peers.fleet(grace_s=1.0) as fleet:
        await wait_running(fleet)
        peers.delete_pod("a")
        await wait_until(lambda: only(fleet.report()).state == "stopping")
        calls = fleet.report().grpc_calls
        await wait_until(lambda: fleet.report().grpc_calls > calls + 3)
        assert peers.file(uid)
        await wait_until(lambda: peers.phase("a") == "gone")


@pytest.mark.parametrize("compacted", [False, True], ids=["resumed", "version-gone"])
async def test_outage_of_the_api_server_is_caught_up_with(peers: Peers, compacted: bool) -> None:
    uid, _ = peers.start("a", peers.fresh(100)), peers.start("b", peers.fresh(100))
    async with peers.fleet() as fleet:
        await wait_running(fleet, 2)
        await peers.server.stop_listening()
        token = peers.fresh(200)
        peers.write_secret("a", token)
        peers.touch("a")
        peers.delete_pod("b", grace_s=0)
        if compacted:
            peers.server.core.compact()
        await peers.server.listen()

        await wait_until(lambda: peers.file(uid) == token)
        await wait_until(lambda: [s.state for s in fleet.report().sessions].count("ended") == 1)


async def test_open_stream_outlives_its_token_but_no_new_call_passes(peers: Peers) -> None:
    seen: list[bool] = []

    def note(_session: SessionKey, accepted: bool) -> None:
        seen.append(accepted)

    async with SessionServer(peers.issuer.verify, peers.clock, note) as server:
        channel = Channel(server.target)
        metadata = (("authorization", f"Bearer {peers.fresh(10)}"), (SESSION_HEADER, "ns/a"))
        stream = channel.watch(b"", metadata=metadata)
        await stream.read()
        peers.clock.advance(10)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.push(b"", metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert not stream.done()
        stream.cancel()
        await channel.close()

    assert seen == [True, False]


async def test_a_call_that_was_refused_is_waited_for_after_the_server_has_stopped() -> None:
    """gRPC's `stop` returns when the client has its answer; the call's task still runs."""
    calls, cleaned_up = CallTasks(), asyncio.Event()

    async def refuse(_request: bytes, context: Any) -> None:
        try:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED)
        finally:
            await cleaned_up.wait()

    server = grpc.aio.server(interceptors=[calls])
    handlers = {"Push": grpc.unary_unary_rpc_method_handler(refuse)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("S", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/S/Push")(b"")
    await server.stop(LIMIT_S)
    ended = asyncio.create_task(calls.wait(LIMIT_S))
    await asyncio.sleep(0)
    assert not ended.done()
    cleaned_up.set()
    await ended


async def test_forged_signature_is_refused(peers: Peers) -> None:
    async with SessionServer(peers.issuer.verify, peers.clock, lambda *_: None) as server:
        channel = Channel(server.target)
        forged = Issuer().token(peers.clock.wall() + 100)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.push(b"", metadata=(("authorization", f"Bearer {forged}"),))
        await channel.close()

    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_nothing_that_is_said_shows_a_token(
    peers: Peers, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peers.start("a", peers.fresh(5))
    peers.start("b", "not-a-token-but-secret")
    with structlog.testing.capture_logs() as logs:
        async with peers.fleet() as fleet:
            await wait_running(fleet, 2)
            peers.clock.advance(10)
            await wait_until(lambda: fleet.report().unauthenticated > 3)
            await peers.server.stop_listening()
            await wait_until(lambda: any(e["event"] == "lab_watch_failed" for e in logs))
            said = repr(vars(fleet))
            await peers.server.listen()

    said += f"{logs} {caplog.text} {fleet.report()}"
    hidden = [*peers.issuer.issued, "not-a-token-but-secret", peers.server.admin_token]
    assert not [value for value in hidden if value in said]


async def test_volumes_are_gone_when_the_fleet_is(peers: Peers) -> None:
    peers.start("a", peers.fresh(100))
    async with peers.fleet(rates=QUIET) as fleet:
        await wait_running(fleet)
        assert list(peers.root.iterdir())

    assert not list(peers.root.iterdir())
    assert only(fleet.report()).state == "ended"


async def test_error_of_the_caller_leaves_the_fleet_unwrapped(peers: Peers) -> None:
    with pytest.raises(LookupError):
        async with peers.fleet():
            raise LookupError
