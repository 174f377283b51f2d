"""Wrong settings and unusual clusters: one clear line each, and no effect on other sessions."""

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.cluster.admin import Admin, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import Runner, World, open_world
from tests.controller import Controller, running

CLIENT = {"OIDC_CLIENT_ID": "fake-id", "OIDC_CLIENT_SECRET": "obviously-fake-secret"}
CREDENTIALS = CLIENT | {"OIDC_TOKEN_URL": "https://issuer.example/token"}


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        yield opened


async def is_refreshed(controller: Controller, *runners: Runner) -> None:
    """Wait until each of these sessions was refreshed."""
    wanted = {runner.session_id for runner in runners}
    await controller.wait_for(
        f"refreshes of {wanted}",
        lambda: (
            wanted <= {line["session_id"] for line in controller.events("runner_token_refreshed")}
        ),
    )


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "set OIDC_CLIENT_ID and OIDC_CLIENT_SECRET, or AMBIENT_API_TOKEN"),
        ({"OIDC_CLIENT_ID": "fake-id"}, "OIDC_CLIENT_SECRET"),
        (CLIENT, "OIDC_TOKEN_URL is required"),
        (CREDENTIALS | {"RECONCILER_WORKERS": "many"}, "RECONCILER_WORKERS"),
        (CREDENTIALS | {"OIDC_TOKEN_URL": "not a url"}, "OIDC_TOKEN_URL"),
        (CREDENTIALS | {"PLATFORM_MODE": "other"}, "PLATFORM_MODE"),
        (CREDENTIALS | {"RECONCILER_NAMESPACES": "a,@all"}, "RECONCILER_NAMESPACES must hold"),
        (CREDENTIALS | {"KUBECONFIG": "/nowhere/config"}, "KUBECONFIG /nowhere/config"),
        ({"AMBIENT_API_TOKEN": "short"}, "AMBIENT_API_TOKEN"),
        (CREDENTIALS | {"PROJECT_KUBE_TOKEN_FILE": "/nowhere/token"}, "in a folder that is not"),
    ],
    ids=[
        "nothing",
        "half",
        "issuer",
        "number",
        "url",
        "mode",
        "namespaces",
        "kubeconfig",
        "token",
        "folder",
    ],
)
async def test_a_wrong_setting_stops_the_start_with_one_line_that_names_it(
    settings: dict[str, str], words: str
) -> None:
    async with running({"HOME": "/dev/null"} | settings) as controller:
        async with asyncio.timeout(30):
            assert await controller.process.wait() == 2
    [line] = controller.text
    assert line.startswith("reconciler: ")
    assert words in line
    assert "obviously-fake-secret" not in line


async def test_credentials_that_come_after_their_pod_are_waited_for(
    world: World, tmp_path: Path
) -> None:
    runner = await world.add(await world.add_project())
    client_id, secret = tmp_path / "clientId", tmp_path / "clientSecret"
    files = {"OIDC_CLIENT_ID_FILE": str(client_id), "OIDC_CLIENT_SECRET_FILE": str(secret)}
    environment = world.environment(OIDC_CLIENT_ID="", OIDC_CLIENT_SECRET="") | files
    async with running(environment) as stopped:
        await stopped.wait_for_event("not_ready")
        assert await stopped.terminate() == 0
    async with running(environment) as controller:
        await controller.wait_for_event("not_ready")
        for file in (secret, client_id):
            file.touch()  # as a write in place leaves it for a moment
        secret.write_text(world.issuer.client_secret)
        client_id.write_text(world.issuer.client_id)
        await is_refreshed(controller, runner)
        assert await controller.terminate() == 0
    [said] = controller.events("not_ready")
    assert said["reason"] == "; ".join(
        f"{name} names a file that does not exist: {file}" for name, file in files.items()
    )


async def test_a_cluster_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, never listening: every connection is refused
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        kubeconfig = tmp_path / "config"
        kubeconfig.write_text(
            "{apiVersion: v1, kind: Config, current-context: c,"
            " contexts: [{name: c, context: {cluster: c, user: u}}],"
            f" clusters: [{{name: c, cluster: {{server: '{url}'}}}}],"
            " users: [{name: u, user: {}}]}"
        )
        settings = {
            "KUBECONFIG": str(kubeconfig),
            "RECONCILER_LISTEN": "127.0.0.1:0",
            "OIDC_TOKEN_URL": url,
        }
        async with running(CREDENTIALS | settings) as controller:
            await controller.wait_for_event("list_failed", count=2)
            assert await controller.terminate() == 0
    assert "Traceback" not in "".join(controller.text)


async def test_a_namespace_without_rights_costs_only_itself(world: World) -> None:
    names = [await world.add_project() for _ in range(2)]
    allowed, denied = [await world.add(name) for name in names]
    rules = [
        rule("pods", "list", "watch", "patch"),
        rule("secrets", "list", "watch", "patch", "create"),
    ]
    await world.admin.grant("reconciler", rules, namespace=allowed.namespace)
    lease = rule("leases", "list", "watch", "create", "patch", group="coordination.k8s.io")
    await world.admin.grant("reconciler", [lease], namespace=world.home)
    kubeconfig = world.control_plane.kubeconfig(world.folder / "limited", user="reconciler")
    async with running(world.environment(KUBECONFIG=str(kubeconfig))) as controller:
        await is_refreshed(controller, allowed)
        await controller.wait_for_event("startup_resync_finished")
        assert await controller.terminate() == 0
    forbidden = controller.events("list_forbidden")
    assert {line["namespace"] for line in forbidden} == {denied.namespace}
    assert len(forbidden) == 2  # pods and Secrets, once each
    assert "Traceback" not in "".join(controller.text)


async def test_odd_secrets_and_pods_stop_nothing(world: World) -> None:
    project = await world.add_project()
    honest = await world.add(project)
    immutable = await world.add(project, with_secret=False)
    await world.add_secret(immutable, "obviously-fake-old-token", immutable=True)
    forged = await world.add(project)
    annotations = {
        "ambient-code.io/token-expires-at": "2199-01-01T00:00:00Z",
        "ambient-code.io/token-issued-at": "garbage",
        "ambient-code.io/token-confirmed": "v1.forged",
        "ambient-code.io/refresh-honoured": "," * 1000,
    }
    body = {"metadata": {"annotations": annotations}}
    await world.admin.patch(project, "secrets", forged.secret, body)
    await world.admin.create_pod(project, "unlabelled", labels={"app": "other"})
    async with running(world.environment()) as controller:
        await is_refreshed(controller, honest, forged)
        await controller.wait_for_event("write_refused")
        await controller.wait_for_event("startup_resync_finished")
        assert await controller.terminate() == 0
    [refused] = controller.events("write_refused")
    assert refused["session_id"] == immutable.session_id
    assert refused["error"].endswith("422 Invalid, data (the object is immutable)")
    world.issuer.verify(await world.token(forged))


async def test_a_full_quota_is_named_and_waited_for(world: World) -> None:
    project = await world.add_project()
    await world.add_quota(project, secrets=0)
    runner = await world.add(project, with_secret=False)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("quota_exceeded")
        assert controller.events("write_forbidden") == []
        await world.add_quota(project, secrets=1)
        await controller.wait_for_event("secret_recreated")
        assert await controller.terminate() == 0
    said = controller.events("quota_exceeded")[0]
    assert said["namespace"] == project
    assert said["error"].endswith("403 Forbidden, by quota objects")
    world.issuer.verify(await world.token(runner))


async def test_an_admission_policy_that_refuses_is_distinguished_from_a_missing_right(
    world: World,
) -> None:
    project = await world.add_project()
    runner = await world.add(project)
    name = f"no-writes.{project}"
    await world.refuse_writes(runner, policy=name)
    async with running(world.environment()) as controller:
        await controller.wait_for_event("write_refused")
        assert controller.events("write_forbidden") == []
    said = controller.events("write_refused")[0]
    assert said["session_id"] == runner.session_id
    assert said["error"].endswith(f"403 Forbidden, by policy {name}")


async def test_two_sessions_that_share_one_secret_name_are_distinguished(world: World) -> None:
    project = await world.add_project()
    first = await world.add(project, session_id="2AbSharedName00000000000000")
    second_id = first.session_id.swapcase()
    world.platform.add_session(second_id, project)
    labels = world.labels(first) | {"ambient-code.io/session-id": second_id}
    await world.admin.create_pod(project, "second", labels=labels, secret=first.secret)
    async with running(world.environment()) as controller:
        await is_refreshed(controller, first)
        await controller.wait_for(
            "the line about the second session",
            lambda: any(
                line["reason"] == "secret_name_taken" and line["session_id"] == second_id
                for line in controller.events("session_blocked")
            ),
        )
    assert (await world.secret(first))["metadata"]["labels"] == world.labels(first)


async def test_sessions_that_the_platform_names_oddly_are_said_once(world: World) -> None:
    project = await world.add_project()
    honest = await world.add(project)
    world.platform.add_session("2AbNoProject0000000000000", "", kube_namespace=project)
    settings = world.environment(RECONCILER_NAMESPACES=f"{project},no-such-namespace")
    async with running(settings) as controller:
        await is_refreshed(controller, honest)
        await controller.wait_for_event("startup_resync_finished")
        assert await controller.terminate() == 0
    assert "Traceback" not in "".join(controller.text)


async def test_the_first_lines_name_what_the_surroundings_do_wrong(world: World) -> None:
    project = await world.add_project()
    await world.add(project)
    world.issuer.faults.clock_offset_s = 3600.0
    environment = world.environment() | {
        "HTTP_PROXY": f"http://fake-user:fake-word@{world.issuer.url.removeprefix('http://')}",
        "NO_PROXY": "127.0.0.1",
        "AMBIENT_API_SERVER_URL": "http://platform.invalid:8000",
    }
    async with running(environment) as controller:
        await controller.wait_for_event("clock_skew")
        assert await controller.terminate() == 0
    [started] = controller.events("started")
    assert started["issuer"] == world.issuer.token_url
    assert "issuer_proxy" not in started
    assert started["platform_proxy"] == world.issuer.url.removeprefix("http://")
    [off] = controller.events("clock_skew")
    assert 3595 < off["skew_s"] < 3605
    assert off["clock"] == "issuer"
    assert "fake-word" not in "".join(controller.text)


async def test_an_image_without_ca_certificates_is_named(world: World) -> None:
    environment = world.environment(OIDC_TOKEN_URL=f"{world.control_plane.url}/token")
    bare = {"SSL_CERT_FILE": "/dev/null", "SSL_CERT_DIR": "/nowhere"}
    async with running(environment | bare) as controller:
        await controller.wait_for_event("no_ca_certificates")
        await controller.wait_for_event("endpoint_down")
        await controller.wait_for_event("startup_resync_finished", limit_s=60)
    # The platform is not blamed: without a token it was never asked.
    assert {line["endpoint"] for line in controller.events("endpoint_down")} == {"issuer"}
    [line] = controller.events("endpoint_down")[:1]
    assert "no CA certificates are installed" in line["error"]
    assert not controller.events("platform_not_listed")
