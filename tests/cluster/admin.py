"""The test's client of the cluster: creates the objects for the code under test.

It is not the product's client, so that a fault of that one cannot hide here.
"""

import base64
import json
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiohttp

from tests.secrecy.outputs import OUTPUTS, object_of

Json = dict[str, Any]

LIMIT_S = 10.0

MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

SECRETS = "secrets"
PODS = "pods"
RBAC = "rbac.authorization.k8s.io"


class Answer(NamedTuple):
    """The server's answer to one request; for a failure `body` is a Status object."""

    status: int
    body: Json


class AdminError(Exception):
    """The server refused a request that the test needs."""


class Admin:
    """A client of one API server with one token. Each request ends within `LIMIT_S`."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, ca_file: Path, token: str) -> AsyncIterator[Self]:
        """Yield a client that verifies the server by `ca_file`; sends nothing yet."""
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=str(ca_file)))
        async with aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {token}", "User-Agent": "test-admin"},
            timeout=aiohttp.ClientTimeout(total=LIMIT_S),
        ) as session:
            yield cls(session, url)

    async def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        content_type: str = "application/json",
        accept: str = "application/json",
        **query: str,
    ) -> Answer:
        """Send one request and return the answer, with any status.

        Raises:
            aiohttp.ClientError, TimeoutError: The server could not be reached, or was silent.
        """
        async with self.session.request(
            method,
            self.url + path,
            data=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type, "Accept": accept},
            params=query,
        ) as response:
            answer = Answer(response.status, await response.json(content_type=None))
        if method == "GET":
            _note(path, answer.body)
        elif path.endswith("/token"):
            OUTPUTS.add_secret(answer.body.get("status", {}).get("token"), "an account's token")
        return answer

    async def expect(self, method: str, path: str, body: Json | None = None, **more: str) -> Json:
        """Like `call`, for a request that must succeed; raises `AdminError` with the message."""
        status, answer = await self.call(method, path, body, **more)
        if status >= 300:
            raise AdminError(f"{method} {path}: {status} {answer.get('message', answer)}")
        return answer

    @asynccontextmanager
    async def watch(self, path: str) -> AsyncIterator[aiohttp.StreamReader]:
        """Open a watch without a limit of time; yields its lines, and aborts it at the end.

        A TLS connection that is closed inside a stream waits for the peer; the loop may end first.
        """
        async with self.session.get(
            self.url + path, params={"watch": "1"}, timeout=None
        ) as response:
            connection = response.connection
            if response.status != 200 or connection is None or connection.transport is None:
                raise AdminError(f"watch {path}: {response.status}")
            transport = connection.transport
            try:
                yield response.content
            finally:
                transport.abort()

    async def create_namespace(self, name: str, *, labels: Mapping[str, str] | None = None) -> Json:
        metadata = {"name": name, "labels": dict(labels or {})}
        return await self.expect("POST", "/api/v1/namespaces", {"metadata": metadata})

    async def create_pod(
        self,
        namespace: str,
        name: str,
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        secret: str | None = None,
        subpath: str = "",
    ) -> Json:
        """Create a pod, which stays Pending: there is no scheduler.

        Args:
            secret: Name of a Secret to mount, as a runner does.
            subpath: Key of the Secret to mount alone, as a runner should not do; "" = all.
        """
        spec: Json = {"containers": [{"name": "runner", "image": "example.invalid/runner"}]}
        if secret is not None:
            spec["volumes"] = [{"name": "token", "secret": {"secretName": secret}}]
            mount = {"name": "token", "mountPath": "/token", "subPath": subpath}
            spec["containers"][0]["volumeMounts"] = [mount]
        metadata = _metadata(name, labels, annotations)
        return await self.expect(
            "POST", collection(namespace, PODS), {"metadata": metadata, "spec": spec}
        )

    async def set_phase(self, namespace: str, name: str, phase: str) -> Json:
        """Write `status.phase` as a kubelet would: Pending, Running, Succeeded or Failed."""
        path = f"{item(namespace, PODS, name)}/status"
        return await self.expect("PATCH", path, {"status": {"phase": phase}}, content_type=MERGE)

    async def create_secret(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, str],
        *,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> Json:
        """Create a Secret from plain text values."""
        body = {"metadata": _metadata(name, labels, annotations), "stringData": dict(data)}
        return await self.expect("POST", collection(namespace, SECRETS), body)

    async def secret_data(self, namespace: str, name: str) -> dict[str, bytes]:
        """Return a Secret's values, decoded."""
        secret = await self.expect("GET", item(namespace, SECRETS, name))
        return {key: base64.b64decode(value) for key, value in secret.get("data", {}).items()}

    async def patch(self, namespace: str, plural: str, name: str, body: Json) -> Json:
        """Send a JSON merge patch to a namespaced object of the core group."""
        return await self.expect("PATCH", item(namespace, plural, name), body, content_type=MERGE)

    async def delete(self, namespace: str, plural: str, name: str) -> None:
        """Delete at once: there is no kubelet that would end a grace period."""
        await self.expect("DELETE", item(namespace, plural, name), gracePeriodSeconds="0")

    async def grant(
        self, user: str, rules: Iterable[Json], *, namespace: str | None = None
    ) -> None:
        """Set `user`'s permissions in `namespace` (None: the whole cluster) to exactly `rules`.

        A second call replaces the first. Permissions take effect after a moment: the authorizer
        reads them from a watch.
        """
        scope = "Cluster" if namespace is None else ""
        await self._apply_rbac(namespace, f"{scope}Role", user, {"rules": list(rules)})
        reference = {"apiGroup": RBAC, "kind": f"{scope}Role", "name": user}
        subject = {"apiGroup": RBAC, "kind": "User", "name": user}
        binding = {"roleRef": reference, "subjects": [subject]}
        await self._apply_rbac(namespace, f"{scope}RoleBinding", user, binding)

    async def _apply_rbac(self, namespace: str | None, kind: str, name: str, body: Json) -> None:
        where = "" if namespace is None else f"/namespaces/{namespace}"
        path = f"/apis/{RBAC}/v1{where}/{kind.lower()}s/{name}"
        whole = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": {"name": name}} | body
        await self.expect(
            "PATCH", path, whole, content_type=APPLY, fieldManager="test-admin", force="true"
        )


def _note(path: str, body: Json) -> None:
    """Search what is in the cluster for secrets, the values of Secrets excepted."""
    plural = SECRETS if SECRETS in path.partition("?")[0].split("/") else ""
    # An empty list of metadata alone has null.
    for found in body["items"] or () if "items" in body else (body,):
        if plural:
            for value in found.get("data", {}).values():
                OUTPUTS.add_secret(base64.b64decode(value).decode(errors="replace"), "a Secret")
        OUTPUTS.left(f"an object at {path}", object_of(plural, found))


def rule(plural: str, *verbs: str, group: str = "") -> Json:
    """Return one RBAC rule; `plural` may name a subresource (`pods/status`)."""
    return {"apiGroups": [group], "resources": [plural], "verbs": list(verbs)}


def collection(namespace: str, plural: str) -> str:
    """Return the path of a namespaced collection of the core group."""
    return f"/api/v1/namespaces/{namespace}/{plural}"


def item(namespace: str, plural: str, name: str) -> str:
    """Return the path of one namespaced object of the core group."""
    return f"{collection(namespace, plural)}/{name}"


def _metadata(
    name: str, labels: Mapping[str, str] | None, annotations: Mapping[str, str] | None
) -> Json:
    return {"name": name, "labels": dict(labels or {}), "annotations": dict(annotations or {})}
