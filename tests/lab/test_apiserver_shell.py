"""The HTTP server's faults and counters, and kubectl against it."""

import asyncio
import base64
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from reconciler.clock import Instant, SystemClock
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.handlers import PREFIX
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.rbac import EVERYTHING, Authorizer, Rule, User
from reconciler.lab.apiserver.write_log import WriteLog
from reconciler.lab.cluster.cluster import LabCluster
from tests.cluster.conftest import require
from tests.commands import command

SECRETS = "/api/v1/namespaces/default/secrets"
PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}
LIMIT_S = 10.0


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    reader = Rule(("get", "list"), ("secrets",), ("default",))
    rights = Authorizer(
        {"admin": User("admin", (EVERYTHING,)), "reader": User("reader", (reader,))}
    )
    async with ApiServer(Core(SystemClock()), authorizer=rights, bookmark_s=0.05) as server:
        yield server


@pytest.fixture
async def http(server: ApiServer) -> AsyncIterator[aiohttp.ClientSession]:
    headers = {"Authorization": "Bearer admin", "User-Agent": "test/1"}
    async with aiohttp.ClientSession(server.url, headers=headers) as session:
        yield session


async def status_of(http: aiohttp.ClientSession, path: str, **options: Any) -> int:
    async with http.get(path, **options) as answer:
        await answer.read()
        return answer.status


def make_secret(server: ApiServer, name: str = "s") -> None:
    server.core.create(kinds.SECRETS, "default", {"metadata": {"name": name}})


class SteppedClock(SystemClock):
    """A clock that a test advances."""

    def __init__(self) -> None:
        super().__init__()
        self.now_at = 0.0
        self.monotonic = lambda: Instant(self.now_at)


async def next_line(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT_S):
        event: dict[str, Any] = json.loads(await answer.content.readline())
    return event


async def lines_within(answer: aiohttp.ClientResponse, seconds: float) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while True:
                found.append(json.loads(await answer.content.readline()))
    return found


WATCH = {"watch": "1", "allowWatchBookmarks": "true"}


async def test_a_rule_covers_its_verbs_and_its_namespace(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    reader = {"headers": {"Authorization": "Bearer reader"}}
    assert await status_of(http, SECRETS, **reader) == 200
    assert await status_of(http, "/api/v1/secrets", **reader) == 403
    assert await status_of(http, "/api/v1/namespaces/kube-system/secrets", **reader) == 403
    assert await status_of(http, PODS, **reader) == 403
    assert await status_of(http, SECRETS, params={"watch": "1"}, **reader) == 403


async def test_rights_change_while_it_runs(server: ApiServer, http: aiohttp.ClientSession) -> None:
    server.authorizer.users["admin"] = User("admin")
    assert await status_of(http, SECRETS) == 403
    del server.authorizer.users["admin"]
    assert await status_of(http, SECRETS) == 401


async def test_a_server_that_does_not_listen_refuses_and_resets(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    url = server.url
    async with http.get(SECRETS, params=WATCH) as watch:
        await next_line(watch)
        await server.stop_listening()
        with pytest.raises(aiohttp.ClientError):
            await watch.content.read()
    with pytest.raises(aiohttp.ClientConnectorError):
        await status_of(http, SECRETS)
    await server.listen()
    assert server.url == url
    assert await status_of(http, SECRETS) == 200


async def test_a_server_that_has_just_been_restarted_authorizes_administrators_alone() -> None:
    async with asyncio.timeout(LIMIT_S):
        clock = SteppedClock()
        reader = Rule(("list", "watch"), ("secrets",))
        rights = Authorizer({"admin": User("admin", (EVERYTHING,)), "reader": User("r", (reader,))})
        core = Core(clock)
        async with (
            ApiServer(core, clock=clock, authorizer=rights, unauthorized_s=5.0) as server,
            aiohttp.ClientSession(server.url, headers={"Authorization": "Bearer admin"}) as admin,
            aiohttp.ClientSession(server.url, headers={"Authorization": "Bearer reader"}) as http,
        ):
            assert await status_of(http, SECRETS) == 200
            await server.stop_listening()
            await server.listen()
            for path in (SECRETS, "/readyz"):
                assert await status_of(http, path) == 403
                assert await status_of(admin, path) == 200
            async with http.get(SECRETS) as answer:
                said = await answer.json()
            assert said["reason"] == "Forbidden"
            assert said["message"].startswith('secrets is forbidden: User "r" cannot list resource')
            clock.now_at += 5.0
            for path in (SECRETS, "/readyz"):
                assert await status_of(http, path) == 200


async def test_throttling_is_plain_text_with_a_wait(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    server.faults.throttle(retry_after_s=3)
    async with http.get(SECRETS) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (429, "3")
        assert await answer.text() == "Too many requests, please try again later.\n"
    server.faults.clear()
    assert await status_of(http, SECRETS) == 200


@pytest.mark.parametrize("status", [500, 503, 504])
async def test_a_share_of_requests_fails(
    server: ApiServer, http: aiohttp.ClientSession, status: int
) -> None:
    server.faults.fail(status, share=0.25)
    statuses = [await status_of(http, SECRETS) for _ in range(8)]
    assert sorted(statuses) == [200] * 6 + [status] * 2
    assert server.answers[status] == 2


async def test_slowness_delays_every_answer(server: ApiServer, http: aiohttp.ClientSession) -> None:
    server.faults.slow_s = 30.0
    with pytest.raises(TimeoutError):
        await status_of(http, SECRETS, timeout=aiohttp.ClientTimeout(total=0.1))


async def test_bookmarks_come_between_events(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    version = str(server.core.version)
    async with http.get(SECRETS, params=WATCH | {"resourceVersion": version}) as watch:
        assert (await next_line(watch))["type"] == "BOOKMARK"
        make_secret(server)
        event = await next_line(watch)
        while event["type"] == "BOOKMARK":
            event = await next_line(watch)
        assert event["type"] == "ADDED"
        mark = await next_line(watch)
    assert mark["object"]["metadata"] == {"resourceVersion": str(server.core.version)}


async def test_a_watch_that_did_not_ask_gets_no_bookmark(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    params = {"watch": "1", "timeoutSeconds": "1", "resourceVersion": str(server.core.version)}
    async with http.get(SECRETS, params=params) as watch:
        assert await watch.content.read() == b""


async def test_all_watches_end_on_order(server: ApiServer, http: aiohttp.ClientSession) -> None:
    async with http.get(SECRETS, params=WATCH) as watch:
        await next_line(watch)
        assert server.close_watches() == 1
        await asyncio.wait_for(watch.content.read(), LIMIT_S)
    assert server.watches == 0


async def test_silence_holds_everything_back(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(SECRETS, params=WATCH) as watch:
        await next_line(watch)
        server.silence_watches(silent=True)
        make_secret(server)
        # Several bookmarks' worth; events that were sent before still arrive.
        heard = await lines_within(watch, 0.3)
        assert len(heard) <= 1
        assert all(event["type"] == "BOOKMARK" for event in heard)
        server.silence_watches(silent=False)
        event = await next_line(watch)
        assert event["type"] == "ADDED"


async def test_a_client_that_leaves_frees_its_watch(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    async with http.get(SECRETS, params={"watch": "1"}) as watch:
        assert server.watches == 1
        watch.close()
    async with asyncio.timeout(LIMIT_S):
        while server.watches:
            await asyncio.sleep(0.01)


async def test_what_a_pod_owned_goes_by_itself(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    pod = server.core.create(kinds.PODS, "default", {"metadata": {"name": "p"}})
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": pod["metadata"]["uid"]}
    body = {"metadata": {"name": "s", "ownerReferences": [owner]}}
    server.core.create(kinds.SECRETS, "default", body)
    async with http.delete(f"{PODS}/p") as answer:
        assert answer.status == 200
    assert await status_of(http, f"{SECRETS}/s") == 404


async def test_a_namespace_goes_by_itself(server: ApiServer, http: aiohttp.ClientSession) -> None:
    server.core.create(kinds.NAMESPACES, "", {"metadata": {"name": "n"}})
    server.core.create(kinds.SECRETS, "n", {"metadata": {"name": "s"}})
    async with http.delete("/api/v1/namespaces/n") as answer:
        assert answer.status == 200
    assert await status_of(http, "/api/v1/namespaces/n") == 404


async def test_a_collection_is_deleted_by_selector(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    for name, labels in (("s", {"a": "1"}), ("t", {})):
        body = {"metadata": {"name": name, "labels": labels}}
        server.core.create(kinds.SECRETS, "default", body)
    async with http.delete(SECRETS, params={"labelSelector": "a"}) as answer:
        assert answer.status == 200
    assert [item["metadata"]["name"] for item in server.core.list(kinds.SECRETS).items] == ["t"]


async def test_requests_and_secret_patches_are_counted(
    server: ApiServer, http: aiohttp.ClientSession
) -> None:
    ledger = WriteLog()
    server.core.on_commit.append(ledger.record)
    make_secret(server)
    for value in ("1", "2", "2"):
        change = json.dumps({"metadata": {"annotations": {"a": value}}})
        async with http.patch(f"{SECRETS}/s", data=change, headers=MERGE) as answer:
            assert answer.status == 200
    assert server.requests["patch", "secrets"] == 3
    assert server.answers[200] == 3
    # The third changed nothing, so nothing was written.
    assert ledger.secret_patches == {"test/1": 2}


async def test_a_body_has_a_limit(server: ApiServer, http: aiohttp.ClientSession) -> None:
    make_secret(server)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536

    async with http.patch(f"{SECRETS}/s", data=endless(), headers=MERGE) as answer:
        assert answer.status == 413


# kubectl


async def test_the_kubeconfig_of_lab_serves_kubectl(tmp_path: Path) -> None:
    async with LabCluster() as cluster:
        cluster.populate(2)
        session = next(iter(cluster.sessions.values()))
        where = ("-n", session.namespace)
        config = Path(cluster.environment()["KUBECONFIG"])

        pods = await kubectl(config, "get", "pods", *where, "-o", "name")
        assert f"pod/{session.pod}" in pods.splitlines()
        annotation = cluster.names.requested_at
        await kubectl(config, "annotate", "pod", session.pod, *where, f"{annotation}=now")
        pod = cluster.server.core.get(kinds.PODS, session.namespace, session.pod)
        assert pod["metadata"]["annotations"][annotation] == "now"

        await kubectl(cluster.kubectl_config(), "delete", "secret", session.secret, *where)
        left = await kubectl(config, "get", "secrets", *where, "-o", "name")
        assert f"secret/{session.secret}" not in left.splitlines()


async def test_check_does_not_print_the_token_in_the_url_of_lab() -> None:
    async with LabCluster() as cluster:
        environment = cluster.environment()
        ended = await command("check", **environment)
    assert f"the API server at {cluster.server.url} is reachable" in ended.stdout
    assert PREFIX not in ended.stdout + ended.stderr


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path) -> Path:
    return write(tmp_path / "kubeconfig", server.kubeconfig(kubectl=True))


@pytest.fixture
def fleet(server: ApiServer) -> None:
    """A pod on a node, a Secret, a Lease and an Event about the pod."""
    pod = {
        "metadata": {"name": "p", "labels": {"app": "runner"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]},
    }
    server.core.create(kinds.PODS, "default", pod)
    secret = {"metadata": {"name": "s"}, "stringData": {"api-token": "x"}}
    server.core.create(kinds.SECRETS, "default", secret)
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "replica-1"}}
    server.core.create(kinds.LEASES, "default", lease)
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {
            "kind": "Pod",
            "namespace": "default",
            "name": "p",
            "uid": server.core.get(kinds.PODS, "default", "p")["metadata"]["uid"],
        },
        "reason": "TokenRefreshed",
        "message": "good until noon",
        "type": "Normal",
    }
    server.core.create(kinds.EVENTS, "default", event)


async def kubectl(kubeconfig: Path, *arguments: str) -> str:
    """Run kubectl and return its standard output; it must succeed."""
    done = await asyncio.to_thread(
        subprocess.run,
        [str(require("kubectl")["kubectl"]), *arguments],
        env={"KUBECONFIG": str(kubeconfig), "HOME": str(kubeconfig.parent), "PATH": "/usr/bin"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.usefixtures("fleet")
@pytest.mark.parametrize(
    ("arguments", "row"),
    [
        ("get pods", ["p", "0/1", "Pending", "0"]),
        ("get pods -A", ["default", "p", "0/1", "Pending"]),
        ("get pods -l app=runner", ["p", "0/1"]),
        ("get secret s", ["s", "Opaque", "1"]),
        ("get leases", ["l", "replica-1"]),
        ("get ns default", ["default", "Active"]),
    ],
)
async def test_kubectl_gets(kubeconfig: Path, arguments: str, row: list[str]) -> None:
    lines = (await kubectl(kubeconfig, *arguments.split())).splitlines()
    assert lines[0].split()[0] in ("NAME", "NAMESPACE")
    assert lines[1].split()[: len(row)] == row


@pytest.mark.usefixtures("fleet")
async def test_kubectl_describes_with_events(kubeconfig: Path) -> None:
    pod = await kubectl(kubeconfig, "describe", "pod", "p")
    assert "app=runner" in pod
    assert "TokenRefreshed" in pod
    secret = await kubectl(kubeconfig, "describe", "secret", "s")
    assert "api-token:  1 bytes" in secret


@pytest.mark.usefixtures("fleet")
async def test_kubectl_annotates_and_labels(server: ApiServer, kubeconfig: Path) -> None:
    await kubectl(kubeconfig, "annotate", "pod", "p", "a.io/b=1")
    await kubectl(kubeconfig, "annotate", "pod", "p", "a.io/b=2", "--overwrite")
    await kubectl(kubeconfig, "label", "secret", "s", "l=1")
    pod = server.core.get(kinds.PODS, "default", "p")
    assert pod["metadata"]["annotations"] == {"a.io/b": "2"}
    managers = {entry["manager"] for entry in pod["metadata"]["managedFields"]}
    assert "kubectl-annotate" in managers
    assert server.core.get(kinds.SECRETS, "default", "s")["metadata"]["labels"] == {"l": "1"}


@pytest.mark.usefixtures("fleet")
async def test_kubectl_deletes(server: ApiServer, kubeconfig: Path) -> None:
    printed = await kubectl(kubeconfig, "delete", "secret", "s")
    assert printed.startswith('secret "s" deleted')  # newer ones name the namespace
    await kubectl(kubeconfig, "delete", "pod", "p", "--grace-period=0", "--force")
    assert (server.core.count(kinds.SECRETS), server.core.count(kinds.PODS)) == (0, 0)


async def test_kubectl_asks_for_rights(server: ApiServer, kubeconfig: Path) -> None:
    assert await kubectl(kubeconfig, "auth", "can-i", "delete", "pods", "-A") == "yes\n"
    reader = write(kubeconfig.with_name("reader"), server.kubeconfig(token="reader", kubectl=True))
    assert await kubectl(reader, "auth", "can-i", "list", "secrets") == "yes\n"
    with pytest.raises(AssertionError):
        await kubectl(reader, "auth", "can-i", "list", "pods")


async def test_kubectl_creates(server: ApiServer, kubeconfig: Path) -> None:
    await kubectl(kubeconfig, "create", "namespace", "team")
    await kubectl(kubeconfig, "create", "serviceaccount", "account", "-n", "team")
    literal = "--from-literal=api-token=obviously-fake"
    await kubectl(kubeconfig, "create", "secret", "generic", "creds", "-n", "team", literal)
    assert server.core.get(kinds.NAMESPACES, "", "team")
    assert server.core.get(kinds.SERVICE_ACCOUNTS, "team", "account")
    secret = server.core.get(kinds.SECRETS, "team", "creds")
    assert base64.b64decode(secret["data"]["api-token"]) == b"obviously-fake"
    assert secret["type"] == "Opaque"


@pytest.mark.usefixtures("fleet")
async def test_kubectl_watches(server: ApiServer, kubeconfig: Path) -> None:
    async def end_pod() -> None:
        while not server.watches:
            await asyncio.sleep(0.01)
        status = {"status": {"phase": "Running"}}
        server.core.patch(kinds.PODS, "default", "p", status, subresource="status")
        server.close_watches()

    async with asyncio.TaskGroup() as group:
        printed = group.create_task(kubectl(kubeconfig, "get", "pods", "-w"))
        group.create_task(asyncio.wait_for(end_pod(), LIMIT_S))
    phases = [line.split()[2] for line in printed.result().splitlines()[1:]]
    assert phases == ["Pending", "Running"]


async def test_kubectl_says_what_is_not_there(kubeconfig: Path) -> None:
    with pytest.raises(AssertionError, match='secrets "none" not found'):
        await kubectl(kubeconfig, "get", "secret", "none")
