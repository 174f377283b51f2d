"""The product under the real RBAC authorizer: the manifests' permissions are needed and enough."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from reconciler.preflight.permissions import PERMISSIONS
from tests.cluster.accounts import (
    account_kubeconfig,
    account_token,
    create_account,
    refused,
    session_rules,
)
from tests.cluster.admin import MERGE, RBAC, SECRETS, Admin, Json, collection, item
from tests.cluster.audit import AuditLog, Use
from tests.cluster.conftest import NEEDED, require
from tests.cluster.controlplane import ControlPlane
from tests.cluster.manifests import MANIFESTS, kubectl, of_kind, overlay, settings_of
from tests.cluster.world import NAMES, Runner, World, open_world
from tests.controller import Controller, running

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

ADMISSION = "admissionregistration.k8s.io"
OWN, ACCOUNT = "ambient-code", "token-reconciler"
USER = f"system:serviceaccount:{OWN}:{ACCOUNT}"

STRATEGIC = "application/strategic-merge-patch+json"
SESSION = {"ambient-code.io/session-id": "2AbObviouslyFake00000000000"}
NOTED = {"metadata": {"annotations": {"ambient-code.io/token-touched-at": "now"}}}
SESSIONS = "of sessions alone"
TOUCH_ALONE, TOKEN_ALONE, OWN_NOTES = "token-touched-at alone", "token alone", "of its own alone"
HARDER, OWNERS, LABELS = "to change or to remove", "a pod's alone", "platform's labels alone"
PLACE, NAME = "in its own or a system namespace", "sessions' names alone"
INSTANT = "an instant into token-touched-at"
REFUSALS = (
    SESSIONS, "annotations alone", "labels as they are", "fill with a token", TOUCH_ALONE,
    TOKEN_ALONE, OWN_NOTES, HARDER, OWNERS, LABELS, PLACE, NAME, "short annotations", INSTANT,
)  # fmt: skip


WRITTEN = tuple(
    name
    for name in NAMES.annotations()
    if name not in (NAMES.touched_at, NAMES.requested_at, NAMES.paused)
)
"""All annotations that the product writes on a Secret."""

OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "obviously-fake-uid"}


def noted(**annotations: str | None) -> Json:
    return {"metadata": {"annotations": annotations}}


def new(name: str = "session-2ab-creds", labels: Json = SESSION, **metadata: Any) -> Json:
    """Return a session's Secret to create."""
    return {"metadata": {"name": name, "labels": labels, **metadata}}


def granted(name: str) -> set[Use]:
    """Return the permissions in an overlay's Roles, with any restriction."""
    return {
        Use(group, resource, verb)
        for role in of_kind(overlay(name), "Role", "ClusterRole")
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.fixture(scope="module")
def audit(tmp_path_factory: pytest.TempPathFactory) -> AuditLog:
    return AuditLog(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="module")
def audited(audit: AuditLog) -> Iterator[ControlPlane]:
    with ControlPlane(require(*NEEDED), flags=audit.flags) as control_plane:
        yield control_plane


@pytest.fixture
async def world(audited: ControlPlane, tmp_path: Path) -> AsyncIterator[World]:
    connected = Admin.connect(audited.url, ca_file=audited.ca_file, token=audited.admin_token)
    async with connected as admin, open_world(audited, admin, tmp_path, installs=False) as opened:
        yield opened


def installed(name: str, world: World) -> None:
    """Install an overlay as an operator does."""
    as_admin(world, "apply", "-k", str(MANIFESTS / "overlays" / name))


def removed(name: str, world: World) -> None:
    """Remove it as docs/install.md says."""
    as_admin(world, "delete", "--wait=false", "-k", str(MANIFESTS / "overlays" / name))
    as_admin(world, "delete", "lease", "-n", OWN, ACCOUNT, "--ignore-not-found")


def as_admin(world: World, *arguments: str) -> None:
    config = world.control_plane.kubeconfig(world.folder / "admin")
    done = kubectl(*arguments, kubeconfig=config)
    assert done.returncode == 0, done.stderr


async def nothing_is_left(world: World) -> None:
    """Check that the removal deleted all our objects, and no object of a session."""
    selector = f"app.kubernetes.io/name={ACCOUNT}"
    for path in (
        f"/apis/apps/v1/namespaces/{OWN}/deployments",
        f"/apis/{RBAC}/v1/roles",
        f"/apis/{RBAC}/v1/rolebindings",
        f"/apis/{RBAC}/v1/clusterroles",
        f"/apis/{RBAC}/v1/clusterrolebindings",
        f"/apis/{ADMISSION}/v1/validatingadmissionpolicies",
        f"/apis/{ADMISSION}/v1/validatingadmissionpolicybindings",
        "/api/v1/configmaps",
        "/api/v1/services",
        "/api/v1/serviceaccounts",
    ):
        found = (await world.admin.expect("GET", path, labelSelector=selector))["items"]
        assert [one for one in found if "deletionTimestamp" not in one["metadata"]] == []
    for runner in world.runners:
        secret = await world.secret(runner)
        world.issuer.verify(await world.token(runner))
        assert "finalizers" not in secret["metadata"]


async def verdict(account: Admin, verb: str, path: str, body: Json) -> str:
    """Return the end of a policy's message for a refused write, or "" for an accepted one."""
    kind = STRATEGIC if verb == "PATCH" else "application/json"
    answer = await account.call(verb, path, body, content_type=kind, dryRun="All")
    if answer.status < 300:
        return ""
    message = str(answer.body["message"])
    assert "ValidatingAdmissionPolicy" in message, message
    return next((end for end in REFUSALS if message.endswith(end)), message)


async def in_force(account: Admin, path: str) -> None:
    """Wait until a policy refuses changes outside of sessions: the server knows it late."""
    async with asyncio.timeout(60):
        while await verdict(account, "PATCH", path, NOTED) != SESSIONS:
            await asyncio.sleep(0.1)


async def main_job(world: World, controller: Controller) -> None:
    """Cause every request for which the product needs a permission."""
    runner = world.runners[0]
    await controller.wait_for_event("startup_resync_finished")
    await world.admin.delete(runner.namespace, SECRETS, runner.secret)
    await controller.wait_for_event("secret_recreated")
    other = world.runners[1]
    for times in (1, 2):  # an Event that is made, and one that is counted
        body = {"stringData": {"api-token": f"obviously-fake-intruder-{times}"}}
        await world.admin.patch(other.namespace, SECRETS, other.secret, body)
        async with asyncio.timeout(20):
            while await overwrites(world, other) < times:
                await asyncio.sleep(0.05)
    annotation = "ambient-code.io/token-touched-at"
    async with asyncio.timeout(20):
        while annotation not in (await world.pod(runner))["metadata"].get("annotations", {}):
            await asyncio.sleep(0.05)


async def overwrites(world: World, runner: Runner) -> int:
    """Return the number of overwritten tokens in the Events of a pod."""
    events = await world.admin.expect(
        "GET", collection(runner.namespace, "events"), fieldSelector="reason=TokenOverwritten"
    )
    found = [e for e in events["items"] if e["involvedObject"]["name"] == runner.pod]
    return sum(event["count"] for event in found)


class TestRights:
    @pytest.mark.parametrize("name", ["cluster-wide", "namespaces"])
    async def test_suffice_and_each_of_them_is_used(
        self, name: str, world: World, audit: AuditLog
    ) -> None:
        namespaces = ["team-a", "team-b"]
        for namespace in (OWN, *namespaces):
            await world.admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        await asyncio.to_thread(installed, name, world)
        for namespace in namespaces:
            world.platform.add_project(namespace)
            await world.add(namespace)
            await world.add(namespace)
        settings = settings_of(overlay(name))
        environment = world.environment(
            KUBECONFIG=str(await account_kubeconfig(world, OWN, ACCOUNT)),
            NAMESPACE=OWN,
            RECONCILER_NAMESPACES=settings.get("RECONCILER_NAMESPACES", ""),
        )
        audit.forget()
        async with running(environment) as controller:
            await main_job(world, controller)
            assert await controller.terminate() == 0
        seen = audit.of(USER)
        assert [found for found in seen if found.status == 403] == []
        assert granted(name) - {found.use for found in seen} == set()
        await asyncio.to_thread(removed, name, world)
        await nothing_is_left(world)

    async def test_withhold_every_secrets_value_and_every_deletion(
        self, world: World, audit: AuditLog
    ) -> None:
        await world.admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": OWN}})
        await asyncio.to_thread(installed, "cluster-wide", world)
        runner = await world.add(await world.add_project())
        token = await account_token(world.admin, OWN, ACCOUNT)
        path = item(runner.namespace, SECRETS, runner.secret)
        plane = world.control_plane
        audit.forget()
        async with Admin.connect(plane.url, ca_file=plane.ca_file, token=token) as account:
            answers = [
                (await account.call("GET", path)).status,
                (await account.call("DELETE", path)).status,
            ]
        assert answers == [403, 403]
        assert [(found.use.verb, found.status) for found in audit.of(USER)] == [
            ("get", 403),
            ("delete", 403),
        ]
        await asyncio.to_thread(removed, "cluster-wide", world)

    async def test_are_confined_to_what_the_product_does_with_them(self, world: World) -> None:
        await world.admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": OWN}})
        await asyncio.to_thread(installed, "cluster-wide", world)
        runner = await world.add(await world.add_project())
        place = runner.namespace
        await world.admin.create_pod(place, "other", labels={}, secret=runner.secret)
        await world.admin.create_secret(place, "other", {"password": "obviously-fake"})
        theirs = noted(**{"example.com/theirs": "x"})
        await world.admin.patch(place, "pods", runner.pod, theirs)
        body = theirs | {"stringData": {"theirs": "obviously-fake"}}
        await world.admin.patch(place, SECRETS, runner.secret, body)
        token = await account_token(world.admin, OWN, ACCOUNT)
        plane = world.control_plane
        async with Admin.connect(plane.url, ca_file=plane.ca_file, token=token) as account:
            for kind in ("pods", SECRETS):
                await in_force(account, item(place, kind, "other"))
            pod, secret = item(place, "pods", runner.pod), item(place, SECRETS, runner.secret)
            image = {"spec": {"containers": [{"name": "runner", "image": "obviously.fake/image"}]}}
            changes: list[tuple[str, Json, str]] = [
                (item(place, "pods", "other"), NOTED, SESSIONS),
                (pod, NOTED, ""),
                (pod, image, "annotations alone"),
                (pod, {"metadata": {"labels": {"app": "x"}}}, "annotations alone"),
                (pod, {"metadata": {"finalizers": ["example.com/x"]}}, "annotations alone"),
                (pod, {"metadata": {"ownerReferences": [OWNER]}}, "annotations alone"),
                (pod, noted(**{"example.com/x": "x"}), TOUCH_ALONE),
                (pod, noted(**{"ambient-code.io/refresh-paused": "true"}), TOUCH_ALONE),
                (pod, noted(**{"example.com/theirs": "changed"}), TOUCH_ALONE),
                (pod, noted(**{"example.com/theirs": None}), TOUCH_ALONE),
                (pod, noted(**{NAMES.touched_at: "x" * 65}), INSTANT),
                (item(place, SECRETS, "other"), {"stringData": {"password": "x"}}, SESSIONS),
                (item(place, SECRETS, "other"), {"metadata": {"labels": SESSION}}, SESSIONS),
                (secret, {"stringData": {"api-token": "obviously-fake"}}, ""),
                (secret, {"metadata": {"labels": {"app": "x"}}}, "labels as they are"),
                (secret, {"metadata": {"labels": {NAMES.session_id: None}}}, "labels as they are"),
                (secret, noted(**dict.fromkeys(WRITTEN, "x")), ""),
                (secret, noted(**{NAMES.confirmation: "x" * 5000}), "short annotations"),
                (secret, noted(**{"example.com/x": "x"}), OWN_NOTES),
                (secret, noted(**{NAMES.paused: "true"}), OWN_NOTES),
                (secret, noted(**{NAMES.requested_at: "now"}), OWN_NOTES),
                (secret, noted(**{"example.com/theirs": "changed"}), OWN_NOTES),
                (secret, noted(**{"example.com/theirs": None}), OWN_NOTES),
                (secret, {"stringData": {"other": "x"}}, TOKEN_ALONE),
                (secret, {"data": {"theirs": None}}, TOKEN_ALONE),
                (secret, {"stringData": {"theirs": "changed"}}, TOKEN_ALONE),
                (secret, {"metadata": {"finalizers": ["example.com/x"]}}, HARDER),
                (secret, {"immutable": True}, HARDER),
                (secret, {"metadata": {"ownerReferences": [OWNER]}}, OWNERS),
            ]
            for path, body, said in changes:
                assert await verdict(account, "PATCH", path, body) == said, body
            of_account = {"kubernetes.io/service-account.name": "default"}
            filled = {
                "metadata": {
                    "name": "session-2ab-creds",
                    "labels": SESSION,
                    "annotations": of_account,
                },
                "type": "kubernetes.io/service-account-token",
            }
            creations: list[tuple[Json, str]] = [
                ({"metadata": {"name": "new"}}, SESSIONS),
                (new(), ""),
                (new(ownerReferences=[OWNER]), ""),
                (new(annotations=dict.fromkeys(WRITTEN, "x")), ""),
                (new() | {"stringData": {"api-token": "obviously-fake"}}, ""),
                (filled, "fill with a token"),
                (new(annotations={"example.com/x": "x"}), OWN_NOTES),
                (new(annotations={NAMES.paused: "true"}), OWN_NOTES),
                (new(finalizers=["example.com/x"]), HARDER),
                (new() | {"immutable": True}, HARDER),
                (new(ownerReferences=[OWNER | {"controller": True}]), OWNERS),
                (new(ownerReferences=[OWNER | {"blockOwnerDeletion": True}]), OWNERS),
                (new(ownerReferences=[OWNER | {"kind": "ConfigMap"}]), OWNERS),
                (new(labels=SESSION | {"app": "x"}), LABELS),
                (new(name="other"), NAME),
                (new() | {"stringData": {"other": "x"}}, TOKEN_ALONE),
            ]
            for body, said in creations:
                made = await verdict(account, "POST", collection(place, SECRETS), body)
                assert made == said, body
            for namespace in ("kube-system", OWN):
                path = collection(namespace, SECRETS)
                assert await verdict(account, "POST", path, new()) == PLACE
        assert await verdict(world.admin, "PATCH", item(place, "pods", "other"), NOTED) == ""
        await asyncio.to_thread(removed, "cluster-wide", world)

    async def test_refuse_nothing_while_a_former_versions_binding_names_no_account(
        self, world: World
    ) -> None:
        """An error in the match condition would refuse every new pod of the cluster."""
        await world.admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": OWN}})
        await asyncio.to_thread(installed, "cluster-wide", world)
        runner = await world.add(await world.add_project())
        path = item(runner.namespace, "pods", "other")
        await world.admin.create_pod(runner.namespace, "other", labels={}, secret=runner.secret)
        token = await account_token(world.admin, OWN, ACCOUNT)
        plane = world.control_plane
        async with Admin.connect(plane.url, ca_file=plane.ca_file, token=token) as account:
            await in_force(account, path)
            former = {"spec": {"paramRef": None}}
            bindings = f"/apis/{ADMISSION}/v1/validatingadmissionpolicybindings"
            await world.admin.expect(
                "PATCH", f"{bindings}/{ACCOUNT}-pods", former, content_type=MERGE
            )
            async with asyncio.timeout(60):
                while await verdict(account, "PATCH", path, NOTED):
                    await asyncio.sleep(0.1)
        await asyncio.to_thread(removed, "cluster-wide", world)

    @pytest.mark.parametrize("name", ["cluster-wide", "namespaces"])
    def test_are_those_that_the_pre_flight_asks_for(self, name: str) -> None:
        rules = {
            (group, resource, verb, object_name)
            for role in of_kind(overlay(name), "Role", "ClusterRole")
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
            for object_name in rule.get("resourceNames", [""])
        }
        assert rules == {
            (right.group, right.resource, verb, right.name)
            for right in PERMISSIONS
            for verb in right.verbs
        }


class TestTwoAccounts:
    async def test_of_mpp_share_the_work_and_outlive_a_rotated_token(
        self, world: World, audit: AuditLog
    ) -> None:
        own, config = "ambient-code--runtime-int", "ambient-code--config"
        projects = ["team-a", "team-b"]
        namespaces = [f"ambient-code--{project}" for project in projects]
        for namespace in (own, config, *namespaces):
            await world.admin.create_namespace(namespace)
        await asyncio.to_thread(installed, "mpp", world)
        await create_account(world.admin, config, "tenantaccess")
        tenant = f"system:serviceaccount:{config}:tenantaccess"
        for project, namespace in zip(projects, namespaces, strict=True):
            await world.admin.grant(tenant, session_rules(), namespace=namespace)
            world.platform.add_project(project)
            await world.add(project, namespace=namespace)
        anchor = await world.admin.create_secret(config, "tenantaccess-anchor", {})
        token_file = world.folder / "project-token"
        first = await account_token(world.admin, config, "tenantaccess", bound_to=anchor)
        token_file.write_text(first)
        settings = settings_of(overlay("mpp"))
        environment = world.environment(
            KUBECONFIG=str(await account_kubeconfig(world, own, ACCOUNT)),
            NAMESPACE=own,
            PROJECT_KUBE_TOKEN_FILE=str(token_file),
            PLATFORM_MODE=settings["PLATFORM_MODE"],
            RECONCILER_NAMESPACES=settings["RECONCILER_NAMESPACES"],
        )
        audit.forget()
        async with running(environment) as controller:
            await controller.wait_for_event("startup_resync_finished")
            token_file.write_text(await account_token(world.admin, config, "tenantaccess"))
            # The first token ends with the Secret that it is bound to.
            await world.admin.delete(config, SECRETS, "tenantaccess-anchor")
            await refused(world.control_plane, first)
            await main_job(world, controller)
            assert await controller.terminate() == 0
        own_user = f"system:serviceaccount:{own}:{ACCOUNT}"
        assert {found.use.resource for found in audit.of(own_user)} <= {"leases"}
        seen = audit.of(tenant)
        assert {found.namespace for found in seen} == set(namespaces)
        assert [found for found in seen if found.status == 403] == []
