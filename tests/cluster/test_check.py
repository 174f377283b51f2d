"""`reconciler check` on a real API server: each missing permission has a name and a remedy."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from reconciler.naming import Names
from reconciler.preflight.permissions import PERMISSIONS, TOUCH
from tests.cluster.admin import Admin, Json, rule
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import World, open_world
from tests.controller import CLEARED, COMMAND

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(60)]

OWN = "ambient-code"


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path) as opened:
        await admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": OWN}})
        yield opened


async def run_check(environment: Mapping[str, str], *options: str) -> tuple[int, str, str]:
    """Return exit code, standard output and standard error."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(CLEARED)}
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "check",
        *options,
        env=inherited | {"HOME": "/dev/null"} | dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(30):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), errors.decode()


async def examined(environment: Mapping[str, str]) -> tuple[int, list[dict[str, Any]]]:
    """Return the exit code and the findings of `-o json`."""
    code, out, errors = await run_check(environment, "-o", "json")
    assert errors == ""
    found = json.loads(out)
    assert found["ok"] == (code == 0)
    return code, found["findings"]


def missing(found: list[dict[str, Any]]) -> dict[str, str]:
    """Return area -> message and remedy, of the errors."""
    return {
        verdict["area"]: f"{verdict['message']} -> {verdict['remedy']}"
        for verdict in found
        if verdict["level"] == "FAIL"
    }


def rules(where: str, *, without: tuple[str, str] = ("", "")) -> list[Json]:
    """Return the rules of the table, less one verb on one kind."""
    return [
        rule(right.resource, verb, group=right.group)
        for right in PERMISSIONS
        if right.where == where
        for verb in right.verbs
        if (right.resource, verb) != without
    ]


async def account(world: World, namespaces: list[str], **less: Any) -> dict[str, str]:
    """Grant the table's permissions except one; return an environment with these permissions."""
    for namespace in namespaces:
        await world.admin.grant("reconciler", rules("sessions", **less), namespace=namespace)
    await world.admin.grant("reconciler", rules("own", **less), namespace=OWN)
    kubeconfig = world.control_plane.kubeconfig(world.folder / "limited", user="reconciler")
    names = ",".join(namespaces)
    return world.environment(KUBECONFIG=str(kubeconfig), NAMESPACE=OWN, RECONCILER_NAMESPACES=names)


async def settled(environment: Mapping[str, str], code: int) -> list[dict[str, Any]]:
    """Run `check` until it has this exit code: new permissions take effect after a moment."""
    async with asyncio.timeout(20):
        while True:
            found = await examined(environment)
            if found[0] == code:
                return found[1]


class TestRights:
    async def test_with_all_of_them_it_is_content(self, world: World) -> None:
        project = await world.add_project()
        found = await settled(await account(world, [project]), 0)
        assert {verdict["level"] for verdict in found} == {"OK"}
        areas = [verdict["area"] for verdict in found]
        assert areas == [
            "settings", "cluster", "rights", "cluster", "issuer", "clock", "platform",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("resource", "verb", "words"),
        [
            ("secrets", "patch", "cannot write a token in namespace {}: patch secrets"),
            ("secrets", "create", "cannot create a Secret again that was deleted in namespace {}"),
            ("pods", "watch", "cannot see which sessions are live in namespace {}: watch pods"),
            ("leases", "create", f"cannot elect a leader in namespace {OWN}: create leases"),
        ],
        ids=["write", "recreate", "see", "elect"],
    )
    async def test_a_missing_one_is_named_with_the_rule_that_grants_it(
        self, world: World, resource: str, verb: str, words: str
    ) -> None:
        project = await world.add_project()
        environment = await account(world, [project], without=(resource, verb))
        # Granted last, so that all the others are effective once this one is.
        async with asyncio.timeout(20):
            while len(lines := missing((await examined(environment))[1])) != 1 or (
                words.format(project) not in lines.get("rights", "")
            ):
                await asyncio.sleep(0.05)
        group = "coordination.k8s.io" if resource == "leases" else '""'
        grant = f"grant {{apiGroups: [{group}], resources: [{resource}], verbs: [{verb}]}}"
        assert f"{grant} in a Role in namespace" in lines["rights"]

    async def test_a_right_to_touch_is_asked_for_only_where_it_is_used(self, world: World) -> None:
        project = await world.add_project()
        environment = await account(world, [project], without=(TOUCH.resource, TOUCH.verbs[0]))
        await settled(environment | {"RECONCILER_TOUCH": "false"}, 0)
        assert set(missing(await settled(environment, 3))) == {"rights"}

    async def test_without_a_cluster_role_it_offers_the_list_of_namespaces(
        self, world: World
    ) -> None:
        environment = await account(world, [await world.add_project()])
        found = await settled(environment | {"RECONCILER_NAMESPACES": ""}, 3)
        remedies = [verdict["remedy"] for verdict in found if verdict["level"] == "FAIL"]
        assert remedies
        assert all("in a ClusterRole, or list the namespaces" in remedy for remedy in remedies)

    async def test_each_of_two_accounts_is_asked_for_its_own_part(self, world: World) -> None:
        project = await world.add_project()
        await world.admin.grant("platform", rules("sessions"), namespace=project)
        await world.admin.grant("rival", rules("own"), namespace=OWN)
        token_file = world.folder / "project-token"
        token_file.write_text(world.control_plane.token_for("platform"))
        kubeconfig = world.control_plane.kubeconfig(world.folder / "own", user="rival")
        environment = world.environment(
            KUBECONFIG=str(kubeconfig),
            NAMESPACE=OWN,
            PROJECT_KUBE_TOKEN_FILE=str(token_file),
            RECONCILER_NAMESPACES=project,
        )
        await settled(environment, 0)
        without = {name: environment[name] for name in environment if "TOKEN_FILE" not in name}
        assert "cannot see which sessions are live" in str(await settled(without, 3))

    async def test_an_unneeded_right_is_a_warning(self, world: World) -> None:
        project = await world.add_project()
        admins = str(world.control_plane.kubeconfig(world.folder / "admin"))
        environment = world.environment(KUBECONFIG=admins, RECONCILER_NAMESPACES=project)
        code, found = await examined(environment)
        assert code == 0
        noted = [verdict["message"] for verdict in found if verdict["level"] == "WARN"]
        assert any("may also get, delete secrets" in says for says in noted)


class TestSurroundings:
    async def test_words_and_exit_code_for_a_person(self, world: World) -> None:
        world.issuer.client_secret = "another"
        environment = world.environment() | {"OIDC_CLIENT_SECRET": "obviously-fake-wrong"}
        code, out, errors = await run_check(environment)
        assert (code, errors) == (3, "")
        assert "FAIL issuer" in out
        assert "answered 401 invalid_client" in out
        assert "-> look at OIDC_CLIENT_ID and OIDC_CLIENT_SECRET" in out
        assert "obviously-fake-wrong" not in out

    async def test_a_missing_credential_secret_is_a_file_that_is_not_there(
        self, world: World
    ) -> None:
        path = str(world.folder / "clientSecret")
        environment = world.environment(OIDC_CLIENT_SECRET="", OIDC_CLIENT_SECRET_FILE=path)
        code, found = await examined(environment)
        assert code == 3
        expected = f"OIDC_CLIENT_SECRET_FILE names a file that does not exist: {path}"
        assert expected in missing(found)["settings"]

    @pytest.mark.parametrize(
        ("changed", "area", "words"),
        [
            ({"OIDC_TOKEN_URL": "{issuer}/nowhere"}, "issuer", "answered 404"),
            (
                {"OIDC_TOKEN_URL": "{issuer}/nowhere?code=fake-word"},
                "issuer",
                "{issuer}/nowhere: answered 404",
            ),
            ({"OIDC_TOKEN_URL": "http://nowhere.invalid/t"}, "issuer", "did not resolve"),
            ({"OIDC_TOKEN_URL": "{server}/t"}, "issuer", "TLS failed (self-signed certificate)"),
            (
                {
                    "OIDC_TOKEN_URL": "{server}/t",
                    "SSL_CERT_FILE": "/dev/null",
                    "SSL_CERT_DIR": "/nowhere",
                },
                "issuer",
                "no CA certificates are installed",
            ),
            ({"AMBIENT_API_SERVER_URL": "{closed}"}, "platform", "cannot connect to 127.0.0.1"),
            ({"AMBIENT_API_SERVER_URL": "{issuer}"}, "platform", "not in the platform's words"),
            (
                {
                    "HTTP_PROXY": "http://fake-user:fake-word@{closed_address}",
                    "OIDC_TOKEN_URL": "http://issuer.example/token",
                },
                "issuer",
                "requests use the proxy {closed_address}; if they should not, add issuer.example",
            ),
            ({"KUBECONFIG": "/nowhere/config"}, "cluster", "/nowhere/config"),
        ],
        ids=["path", "query", "name", "ca", "no-ca", "closed", "other", "proxy", "kubeconfig"],
    )
    async def test_a_wrong_turn_is_named(
        self, world: World, changed: dict[str, str], area: str, words: str
    ) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))  # bound, never listening
            address = f"127.0.0.1:{reserved.getsockname()[1]}"
            known = {
                "issuer": world.issuer.url,
                "server": world.control_plane.url,
                "closed": f"http://{address}",
                "closed_address": address,
            }
            settings = {name: value.format(**known) for name, value in changed.items()}
            bare = {"NO_PROXY": "", "no_proxy": ""}
            code, found = await examined(world.environment() | bare | settings)
        assert code == 3
        assert words.format(**known) in missing(found)[area]
        assert "fake-word" not in json.dumps(found)

    async def test_a_token_that_the_platform_refuses_is_its_word_and_not_the_issuers(
        self, world: World
    ) -> None:
        world.platform.faults.status = 401
        code, found = await examined(world.environment())
        assert code == 3
        assert set(missing(found)) == {"platform"}
        assert "check that the platform trusts this issuer" in missing(found)["platform"]

    @pytest.mark.parametrize(
        ("offset_s", "level", "words"),
        [(30.0, "WARN", "s behind the issuer's"), (-3600.0, "FAIL", "s ahead of the issuer's")],
        ids=["little", "much"],
    )
    async def test_a_clock_that_is_off_is_reported_with_its_direction(
        self, world: World, offset_s: float, level: str, words: str
    ) -> None:
        world.issuer.faults.clock_offset_s = offset_s
        _, found = await examined(world.environment())
        [clock] = [verdict for verdict in found if verdict["area"] == "clock"]
        assert clock["level"] == level
        assert words in clock["message"]

    async def test_what_is_granted_is_tried_by_a_list(self, world: World) -> None:
        project = await world.add_project()
        for _ in range(2):
            await world.add(project)
        code, found = await examined(world.environment())
        assert code == 0
        said = [verdict["message"] for verdict in found if verdict["area"] == "cluster"]
        assert "lists the metadata of 2 pods and 2 Secrets of sessions" in said

    async def test_a_pod_that_mounts_its_secret_by_subpath_is_named(self, world: World) -> None:
        project = await world.add_project()
        await world.add(project)
        frozen = await world.add(project, subpath=Names().secret_key)
        code, found = await examined(world.environment(RECONCILER_NAMESPACES=project))
        assert code == 0
        [warning] = [each for each in found if "by subPath" in each["message"]]
        assert (warning["level"], warning["area"]) == ("WARN", "cluster")
        assert "of 1 of 2 session pods" in warning["message"]
        assert f"{project}/{frozen.pod} (container runner)" in warning["message"]

    async def test_another_kubeconfig_and_context_are_asked_for_by_options(
        self, world: World, tmp_path: Path
    ) -> None:
        environment = world.environment()
        config = world.control_plane.kubeconfig(tmp_path / "another")
        code, out, _ = await run_check(
            environment | {"KUBECONFIG": "/nowhere/config"}, "--kubeconfig", str(config)
        )
        assert (code, "lists the metadata of" in out) == (0, True)
        code, out, _ = await run_check(environment, "--context", "no-such-context")
        assert code == 3
        assert "no-such-context" in out

    async def test_telemetry_that_cannot_be_served_is_named_and_nothing_is_missing(
        self, world: World
    ) -> None:
        telemetry = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
            "OTEL_TRACES_SAMPLER": "jaeger_remote",
        }
        code, found = await examined(world.environment() | telemetry)
        assert (code, missing(found)) == (0, {})
        noted = [verdict["message"] for verdict in found if verdict["message"].startswith("OTEL_")]
        assert [says.partition(" ")[0] for says in noted] == [
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "OTEL_TRACES_SAMPLER",
        ]
        assert {verdict["level"] for verdict in found if verdict["message"] in noted} == {"WARN"}

    async def test_a_gateways_date_is_blamed_and_stops_nothing(self, world: World) -> None:
        world.issuer.faults.date = "gateway"
        world.issuer.faults.date_offset_s = 901.0
        code, found = await examined(world.environment())
        assert code == 0
        [clock] = [verdict for verdict in found if verdict["area"] == "clock"]
        assert clock["level"] == "WARN"
        assert "the Date header of the issuer's responses is 90" in clock["message"]

    async def test_an_issuer_without_a_date_is_compared_by_its_tokens(self, world: World) -> None:
        world.issuer.faults.date = "absent"
        world.issuer.faults.clock_offset_s = 120.0
        _, found = await examined(world.environment())
        [clock] = [verdict for verdict in found if verdict["area"] == "clock"]
        assert "this machine's clock and the API server's are" in clock["message"]
        assert "s behind the issuer's" in clock["message"]

    async def test_a_static_token_is_taken_as_it_is(self, world: World) -> None:
        environment = world.environment(
            OIDC_CLIENT_ID="", OIDC_CLIENT_SECRET="", AMBIENT_API_TOKEN=world.issuer.issue()
        )
        code, found = await examined(environment)
        assert code == 0
        assert "clock" not in {verdict["area"] for verdict in found}

    async def test_no_token_and_no_secret_is_ever_printed(self, world: World) -> None:
        _, out, errors = await run_check(world.environment(LOG_LEVEL="debug"))
        assert world.issuer.issued
        assert not [token for token in world.issuer.issued if token in out + errors]
        assert world.issuer.client_secret not in out + errors
