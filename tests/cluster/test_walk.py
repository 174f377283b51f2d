"""From the symptom to the cause: each wrong setting, in each output alone.

A real API server, and the product as a separate process. Log, page, `check` and `explain` must each
name the cause with the words of this table, and none may look healthy. If the process cannot reach
the cluster, `explain` runs with the process' settings.
"""

import asyncio
import html
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import yaml

from tests.cluster.admin import MERGE, PODS, Admin, collection, item
from tests.cluster.controlplane import ControlPlane, free_port
from tests.cluster.test_check import account, run_check
from tests.cluster.world import Runner, World, open_world
from tests.commands import Ended, command
from tests.controller import Controller, running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

Settings = dict[str, str]

FIRST_LINES = 20
"""Number of log lines that are searched."""

OWN = "ambient-code"


@dataclass(frozen=True)
class Place:
    """Values for a setting: a port without a listener, and the sessions' namespaces."""

    world: World
    nowhere: str
    namespaces: tuple[str, ...]

    def kubeconfig(self, change: Callable[[dict[str, object]], object]) -> Settings:
        """Return the setting of a kubeconfig with changes to its only cluster."""
        config = yaml.safe_load(Path(self.world.environment()["KUBECONFIG"]).read_text())
        change(config["clusters"][0]["cluster"])
        path = self.world.folder / "wrong-kubeconfig"
        path.touch(mode=0o600)
        path.write_text(yaml.safe_dump(config))
        return {"KUBECONFIG": str(path)}


@dataclass(frozen=True)
class Situation:
    """One wrong setting.

    Args:
        wrong: Returns it, as environment variables.
        cause: Words that log, page and `explain` must have; `{...}` is a field of `Place`.
        check: Words of `check`, if it has more.
        explain: The same for `explain`.
        ready: Whether /readyz answers 200: the fault concerns sessions or readers only.
        apart: Whether `explain` runs with the settings of the process, the wrong one included.
    """

    wrong: Callable[[Place], Settings]
    cause: str
    check: str = ""
    explain: str = ""
    ready: bool = False
    apart: bool = False


def other_server(cluster: dict[str, object], place: Place) -> None:
    cluster["server"] = f"https://{place.nowhere}"


def no_ca(cluster: dict[str, object]) -> None:
    cluster.pop("certificate-authority", None)
    cluster.pop("certificate-authority-data", None)


SITUATIONS = {
    "secret": Situation(
        lambda place: {"OIDC_CLIENT_SECRET": "obviously-fake-wrong"},
        "answered 401 invalid_client",
        check="look at OIDC_CLIENT_ID and OIDC_CLIENT_SECRET",
    ),
    "url": Situation(
        lambda place: {"OIDC_TOKEN_URL": f"{place.world.issuer.url}/nowhere"},
        "/nowhere: answered 404",
        check="check that OIDC_TOKEN_URL",
    ),
    "platform-url": Situation(
        lambda place: {"AMBIENT_API_SERVER_URL": place.world.issuer.url},
        "answered 404, not in the platform's words",
        check="check AMBIENT_API_SERVER_URL",
        ready=True,
    ),
    "ca": Situation(
        lambda place: {"OIDC_TOKEN_URL": f"{place.world.control_plane.url}/token"},
        "TLS failed (self-signed certificate)",
        check="SSL_CERT_FILE",
    ),
    "cluster-ca": Situation(
        lambda place: place.kubeconfig(no_ca),
        "TLS failed (self-signed certificate)",
        check="check KUBECONFIG",
        apart=True,
    ),
    "proxy": Situation(
        lambda place: {
            "HTTP_PROXY": f"http://{place.nowhere}",
            "NO_PROXY": "",
            "OIDC_TOKEN_URL": "http://issuer.example/token",
        },
        "the proxy {nowhere} cannot be reached",
        check="add issuer.example to NO_PROXY",
    ),
    "kubeconfig": Situation(
        lambda place: place.kubeconfig(lambda cluster: other_server(cluster, place)),
        "cannot connect to {nowhere}",
        check="check KUBECONFIG",
        apart=True,
    ),
    "unreachable": Situation(
        lambda place: {"OIDC_TOKEN_URL": f"http://{place.nowhere}/token"},
        "cannot connect to {nowhere}",
        check="whether the server runs, and that no firewall",
    ),
    "variable": Situation(
        lambda place: {"RECONCILER_NAMESPACE": "team-a"},
        "RECONCILER_NAMESPACES",
        check="RECONCILER_NAMESPACE is no setting and has no effect",
        explain="RECONCILER_NAMESPACE is no setting and has no effect",
        ready=True,
    ),
}


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        await admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": OWN}})
        yield opened


@contextmanager
def no_listener() -> Iterator[str]:
    """Yield HOST:PORT of a port that refuses every connection."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, never listening
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


def text_of(page: str) -> str:
    """Return the text of the page."""
    shown = re.sub(r"<(script|style)[\s\S]*?</\1>", "", page)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", shown)).split())


async def fetched(url: str) -> tuple[int, str]:
    """Return status and body; 0 and "" before the first answer."""
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get(url) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""


async def explained(
    world: World, runner: Runner, namespace: str, own: Settings | None = None
) -> Ended:
    """Run `explain` as an administrator of the cluster, or with the process' settings."""
    settings = own or {
        "KUBECONFIG": str(world.control_plane.kubeconfig(world.folder / "sre")),
        "NAMESPACE": namespace,
    }
    return await command("explain", f"{runner.namespace}/{runner.pod}", **settings)


async def eventually(what: str, look: Callable[[], Awaitable[str]], *, limit_s: float = 30) -> str:
    """Poll until `what` appears; fail with the last output."""
    seen = ""
    try:
        async with asyncio.timeout(limit_s):
            while what not in (seen := await look()):
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(f"not within {limit_s} s: {what}; the last was:\n{seen}") from None
    return seen


def first_lines(controller: Controller) -> str:
    return "".join(list(controller.text)[:FIRST_LINES])


def looks_healthy(page: str) -> bool:
    """Return whether every part of a page is marked as good."""
    parts = re.findall(r'<div class="(\w+)"><dt>', page)
    assert parts
    return 'class="hero good"' in page and set(parts) <= {"good", "neutral"}


async def walk(world: World, runner: Runner, settings: Settings, situation: Situation) -> None:
    """Poll each output alone, until it names the cause."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = settings | {"RECONCILER_LISTEN": url.removeprefix("http://")}
    async with running(environment) as controller:
        await controller.wait_for(
            situation.cause, lambda: situation.cause in first_lines(controller), limit_s=30
        )

        async def page() -> str:
            return text_of((await fetched(f"{url}/"))[1])

        await eventually(situation.cause, page)
        assert not looks_healthy((await fetched(f"{url}/"))[1])
        status, why = await fetched(f"{url}/readyz")
        assert (status == 200) == situation.ready
        assert situation.ready or situation.cause in why

        code, out, errors = await run_check(environment)
        assert errors == ""
        assert situation.check in " ".join(out.split())
        assert code == (0 if situation.check.endswith("no effect") else 3)

        own = environment if situation.apart else None

        async def explain() -> str:
            ended = await explained(world, runner, settings["NAMESPACE"], own)
            said = f"{ended.stdout}{ended.stderr}"
            if situation.ready or situation.apart:
                return said
            # By its own report: it may never lead, and on pods only the leader reports.
            return "\n".join(each for each in said.splitlines() if " reports NotReady " in each)

        await eventually(situation.explain or situation.cause, explain)
        assert controller.process.returncode is None


@pytest.mark.parametrize("name", SITUATIONS)
async def test_each_surface_alone_names_the_cause_and_none_looks_healthy(
    world: World, name: str
) -> None:
    runner = await world.add(await world.add_project())
    found = SITUATIONS[name]
    with no_listener() as nowhere:
        place = Place(world, nowhere, (runner.namespace,))
        settings = world.environment() | found.wrong(place)
        cause = found.cause.format(nowhere=nowhere)
        situation = Situation(
            found.wrong, cause, found.check, found.explain, found.ready, found.apart
        )
        await walk(world, runner, settings, situation)


@pytest.mark.parametrize("verb", ["patch", "list"])
async def test_a_missing_right_is_named_by_each_surface(world: World, verb: str) -> None:
    runner = await world.add(await world.add_project())
    settings = await account(world, [runner.namespace], without=("secrets", verb))
    path = f"/api/v1/namespaces/{runner.namespace}/secrets"
    situation = Situation(
        lambda place: settings,
        f"{path}: the API server answered 403"
        if verb == "list"
        else f"{path}/{runner.secret}: the API server answered 403",
        check=f"resources: [secrets], verbs: [{verb}]",
        ready=True,
    )
    await walk(world, runner, settings, situation)


async def test_what_stopped_the_start_is_read_by_explain_from_the_pod_that_ended(
    world: World,
) -> None:
    runner = await world.add(await world.add_project())
    settings = world.environment()
    settings["OIDC_CLIENT_SECERT"] = settings.pop("OIDC_CLIENT_SECRET")
    cause = "OIDC_CLIENT_SECERT is no setting and has no effect; the nearest is OIDC_CLIENT_SECRET"
    async with running(settings) as controller:
        assert await controller.process.wait() == 2
    said = "".join(controller.text)
    assert cause in said
    code, out, _ = await run_check(settings)
    assert code == 3
    assert cause in out

    before = await explained(world, runner, settings["NAMESPACE"])
    assert "has no pod of the controller, and no replica has reported" in before.stdout
    await ended_pod(world, said)
    after = await explained(world, runner, settings["NAMESPACE"])
    assert "CrashLoopBackOff" in after.stdout
    assert cause in after.stdout
    assert "kubectl logs -n" in after.stdout


async def ended_pod(world: World, said: str) -> None:
    """Create the controller's pod with the status that a kubelet sets after such an end."""
    await world.admin.create_pod(
        world.home, "replica-0", labels={"app.kubernetes.io/name": "token-reconciler"}
    )
    state = {
        "name": "main",
        "image": "none",
        "imageID": "",
        "ready": False,
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"exitCode": 2, "message": said}},
    }
    await world.admin.expect(
        "PATCH",
        f"{collection(world.home, PODS)}/replica-0/status",
        {"status": {"containerStatuses": [state]}},
        content_type=MERGE,
    )


async def test_a_report_is_over_once_its_replica_repeats_it_no_more(world: World) -> None:
    runner = await world.add(await world.add_project())
    settings = world.environment(OIDC_CLIENT_SECRET="obviously-fake-wrong")
    async with running(settings) as controller:

        async def explain() -> str:
            return (await explained(world, runner, settings["NAMESPACE"])).stdout

        await eventually("reports NotReady", explain)
        world.issuer.client_secret = "obviously-fake-wrong"
        await controller.wait_for_event("startup_resync_finished")
    path = f"/api/v1/namespaces/{world.home}/events"
    [event] = (await world.admin.expect("GET", path))["items"]
    assert (event["reason"], event["involvedObject"]["kind"]) == ("NotReady", "Lease")
    past = {"lastTimestamp": "2026-01-01T00:00:00Z"}
    target = item(world.home, "events", event["metadata"]["name"])
    await world.admin.expect("PATCH", target, past, content_type=MERGE)
    ended = await explained(world, runner, settings["NAMESPACE"])
    assert "reports NotReady" not in ended.stdout
