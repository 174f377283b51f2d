"""The behaviour of the real API server on which the product's design depends."""

import asyncio
import base64
import contextlib
import http.client
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.cluster import admin as verbs
from tests.cluster.admin import MERGE, PARTIAL, PARTIAL_LIST, PODS, SECRETS, Admin, Json
from tests.cluster.controlplane import ControlPlane
from tests.cluster.process import ServerError

# The first test of a session also pays for the start of the servers.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(120)]

LIVE = "status.phase!=Succeeded,status.phase!=Failed"
KEY = "api-token"
OLD, NEW = "old-token", "new-token"
STEP_LIMIT_S = 15.0


def token(value: str, **metadata: Any) -> Json:
    """A merge patch that writes `value`, with preconditions or annotations in `metadata`."""
    data = {KEY: base64.b64encode(value.encode()).decode()}
    return {"metadata": metadata, "data": data}


def owners(meta: Json) -> list[str]:
    """Field managers that own the token's key, by the managedFields of a Secret."""
    entries = meta["metadata"]["managedFields"]
    return [e["manager"] for e in entries if f"f:{KEY}" in e["fieldsV1"].get("f:data", {})]


@contextlib.asynccontextmanager
async def watch(admin: Admin, path: str, **query: str) -> AsyncIterator[aiohttp.StreamReader]:
    """Open a metadata-only watch; yields its lines."""
    async with admin.session.get(
        admin.url + path, params={"watch": "true", **query}, headers={"Accept": PARTIAL}
    ) as response:
        assert response.status == 200
        assert response.connection
        assert response.connection.transport
        transport = response.connection.transport
        try:
            yield response.content
        finally:
            # Closed in the middle of a stream, TLS says goodbye and waits; the loop may end first.
            transport.abort()


async def event(stream: aiohttp.StreamReader) -> tuple[str, Json]:
    """Read one watch event."""
    line = json.loads(await asyncio.wait_for(stream.readline(), STEP_LIMIT_S))
    return line["type"], line["object"]


def version(url: str, trust: ssl.SSLContext, *, limit_s: float = STEP_LIMIT_S) -> str:
    """Ask the server's version, without asyncio, which closes a broken TLS connection late."""
    host = url.removeprefix("https://")
    server = http.client.HTTPSConnection(host, context=trust, timeout=limit_s)
    with contextlib.closing(server):
        server.request("GET", "/version")
        return str(json.loads(server.getresponse().read())["gitVersion"])


class TestPods:
    async def test_list_is_metadata_only_and_leaves_out_the_ended(
        self, admin: Admin, namespace: str
    ) -> None:
        for name in ("alive", "done", "broken"):
            await admin.create_pod(namespace, name, labels={"app": "runner"})
        await admin.set_phase(namespace, "done", "Succeeded")
        await admin.set_phase(namespace, "broken", "Failed")

        page = await admin.expect(
            "GET", verbs.collection(namespace, PODS), accept=PARTIAL_LIST, fieldSelector=LIVE
        )

        assert page["kind"] == "PartialObjectMetadataList"
        assert [pod["metadata"]["name"] for pod in page["items"]] == ["alive"]
        assert set(page["items"][0]) == {"kind", "apiVersion", "metadata"}

    async def test_watch_shows_an_ended_pod_as_deleted(self, admin: Admin, namespace: str) -> None:
        path = verbs.collection(namespace, PODS)
        version = (await admin.expect("GET", path, accept=PARTIAL_LIST))["metadata"]

        async with watch(
            admin, path, fieldSelector=LIVE, resourceVersion=version["resourceVersion"]
        ) as stream:
            created = await admin.create_pod(namespace, "runner")
            kind, added = await event(stream)
            await admin.set_phase(namespace, "runner", "Running")
            running, _ = await event(stream)
            await admin.set_phase(namespace, "runner", "Succeeded")
            ended, last = await event(stream)

        assert (kind, running, ended) == ("ADDED", "MODIFIED", "DELETED")
        assert added["kind"] == "PartialObjectMetadata"
        assert set(added) == {"kind", "apiVersion", "metadata"}
        assert last["metadata"]["uid"] == created["metadata"]["uid"]
        # It is still there: DELETED only says that it left the selection.
        assert await admin.expect("GET", f"{path}/runner")

    async def test_a_touch_by_annotation_is_one_event(self, admin: Admin, namespace: str) -> None:
        pod = await admin.create_pod(namespace, "runner", secret="session-a-creds")
        version = pod["metadata"]["resourceVersion"]
        path = verbs.collection(namespace, PODS)

        async with watch(admin, path, resourceVersion=version) as stream:
            body = {"metadata": {"uid": pod["metadata"]["uid"], "annotations": {"touched": "1"}}}
            await admin.patch(namespace, PODS, "runner", body)
            kind, seen = await event(stream)

        assert (kind, seen["metadata"]["annotations"]) == ("MODIFIED", {"touched": "1"})


class TestSecretPatch:
    @pytest.fixture
    async def secret(self, admin: Admin, namespace: str) -> Json:
        """Create a Secret with the old token; return the server's answer."""
        return await admin.create_secret(namespace, "creds", {KEY: OLD})

    @pytest.fixture
    def path(self, namespace: str) -> str:
        return verbs.item(namespace, SECRETS, "creds")

    async def test_answers_metadata_without_the_value(
        self, admin: Admin, namespace: str, path: str, secret: Json
    ) -> None:
        body = token(NEW, annotations={"expires": "soon"})
        answer = await admin.expect("PATCH", path, body, content_type=MERGE, accept=PARTIAL)

        assert set(answer) == {"kind", "apiVersion", "metadata"}
        assert answer["metadata"]["annotations"] == {"expires": "soon"}
        assert answer["metadata"]["resourceVersion"] != secret["metadata"]["resourceVersion"]
        assert body["data"][KEY] not in json.dumps(answer)
        assert await admin.secret_data(namespace, "creds") == {KEY: NEW.encode()}

    async def test_stale_resource_version_is_a_conflict(
        self, admin: Admin, namespace: str, path: str, secret: Json
    ) -> None:
        version = secret["metadata"]["resourceVersion"]
        await admin.patch(namespace, SECRETS, "creds", token(NEW))
        status, body = await admin.call(
            "PATCH", path, token("late", resourceVersion=version), content_type=MERGE
        )
        assert (status, body["reason"]) == (409, "Conflict")
        assert await admin.secret_data(namespace, "creds") == {KEY: NEW.encode()}

    async def test_wrong_uid_is_invalid_and_the_cause_names_the_uid(
        self, admin: Admin, namespace: str, path: str, secret: Json
    ) -> None:
        other = "00000000-0000-4000-8000-000000000000"
        assert secret["metadata"]["uid"] != other
        status, body = await admin.call("PATCH", path, token(NEW, uid=other), content_type=MERGE)

        assert (status, body["reason"]) == (422, "Invalid")
        assert "metadata.uid" in [cause["field"] for cause in body["details"]["causes"]]
        assert await admin.secret_data(namespace, "creds") == {KEY: OLD.encode()}

    async def test_wrong_uid_and_stale_version_together_are_a_conflict(
        self, admin: Admin, namespace: str, path: str, secret: Json
    ) -> None:
        """A writer with an old version of a replaced Secret must compare UIDs itself."""
        await admin.delete(namespace, SECRETS, "creds")
        await admin.create_secret(namespace, "creds", {KEY: NEW})
        old = {key: secret["metadata"][key] for key in ("uid", "resourceVersion")}
        status, body = await admin.call("PATCH", path, token("late", **old), content_type=MERGE)
        assert (status, body["reason"]) == (409, "Conflict")

    async def test_managed_fields_follow_the_last_writer_of_the_key(
        self, admin: Admin, namespace: str, path: str, secret: Json
    ) -> None:
        async def write(value: str, manager: str) -> None:
            await admin.expect(
                "PATCH", path, token(value), content_type=MERGE, fieldManager=manager
            )

        async def owners_now() -> list[str]:
            return owners(await admin.expect("GET", path, accept=PARTIAL))

        assert owners(secret) == ["test-admin"]
        await write(NEW, "token-reconciler")
        assert await owners_now() == ["token-reconciler"]
        # The same value again changes nothing, so the key stays with its owner.
        await write(NEW, "rival")
        assert await owners_now() == ["token-reconciler"]
        await write("stolen", "rival")
        assert await owners_now() == ["rival"]


class TestControlPlane:
    def test_tls_is_verified_by_the_ca_file_alone(self, control_plane: ControlPlane) -> None:
        strict = ssl.create_default_context(cafile=str(control_plane.ca_file))
        strict.verify_flags |= ssl.VERIFY_X509_STRICT
        assert version(control_plane.url, strict).startswith("v1.")
        with pytest.raises(ssl.SSLCertVerificationError):
            version(control_plane.url, ssl.create_default_context())

    async def test_a_user_may_do_what_was_granted_and_no_more(
        self, control_plane: ControlPlane, admin: Admin, namespace: str
    ) -> None:
        secrets, pods = (verbs.collection(namespace, plural) for plural in (SECRETS, PODS))
        async with Admin.connect(
            control_plane.url,
            ca_file=control_plane.ca_file,
            token=control_plane.token_for("tenant"),
        ) as tenant:
            assert (await tenant.call("GET", pods)).status == 403
            await admin.grant("tenant", [verbs.rule(PODS, "list")], namespace=namespace)
            async with asyncio.timeout(STEP_LIMIT_S):
                while (await tenant.call("GET", pods)).status == 403:
                    await asyncio.sleep(0.05)
            assert (await tenant.call("GET", pods)).status == 200
            assert (await tenant.call("GET", secrets)).status == 403

    async def test_data_and_port_survive_a_crash_of_the_api_server(
        self, control_plane: ControlPlane, admin: Admin, namespace: str
    ) -> None:
        await admin.create_secret(namespace, "creds", {KEY: OLD})
        url = control_plane.url
        await asyncio.to_thread(control_plane.kill_apiserver)
        try:
            with pytest.raises(aiohttp.ClientError):
                await admin.call("GET", "/readyz")
        finally:
            await asyncio.to_thread(control_plane.start_apiserver)
        assert control_plane.url == url
        assert await admin.secret_data(namespace, "creds") == {KEY: OLD.encode()}

    async def test_a_paused_api_server_is_silent_until_it_is_resumed(
        self, control_plane: ControlPlane, admin: Admin
    ) -> None:
        trust = ssl.create_default_context(cafile=str(control_plane.ca_file))
        control_plane.pause()
        try:
            with pytest.raises(TimeoutError):
                await asyncio.to_thread(version, control_plane.url, trust, limit_s=0.5)
            waiting = asyncio.create_task(admin.call("GET", "/version"))
            await asyncio.sleep(0)
            assert not waiting.done()
        finally:
            control_plane.resume()
        assert (await waiting).status == 200

    @pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl on PATH")
    async def test_kubectl_works_with_the_kubeconfig(
        self, control_plane: ControlPlane, namespace: str, tmp_path: Path
    ) -> None:
        config = control_plane.kubeconfig(tmp_path / "config")
        assert config.stat().st_mode & 0o777 == 0o600
        command = ["kubectl", f"--kubeconfig={config}", "get", "namespace", namespace, "-o=name"]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=30, check=True
        )
        assert done.stdout.strip() == f"namespace/{namespace}"

    def test_a_server_that_cannot_start_says_why(self, control_plane: ControlPlane) -> None:
        broken = ControlPlane(control_plane.binaries, flags=["--no-such-flag"])
        with pytest.raises(ServerError, match="unknown flag: --no-such-flag"):
            broken.start()
