"""What a client of Kubernetes may rely on, tested on the lab's and on the real API server.

A difference between the two is a defect of the lab's. The real server runs if its programs are
found; if not, its half is skipped, or fails with RECONCILER_REQUIRE_CLUSTER=1.
"""

import asyncio
import io
import json
import os
import secrets
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest

from reconciler.clock import SystemClock
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.rbac import EVERYTHING, Authorizer, User

MERGE = "application/merge-patch+json"
PARTIAL = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"
COMPACTION_S = 5
"""How often the real server compacts here; a token outlives two of these."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: Any

    @property
    def message(self) -> str:
        return str(self.body["message"])

    @property
    def causes(self) -> list[Json]:
        return list(self.body["details"]["causes"])

    @property
    def metadata(self) -> Json:
        return dict(self.body["metadata"])

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in self.body["items"]]


@dataclass
class Server:
    """An API server under test, and a namespace of this test's own."""

    url: str
    session: aiohttp.ClientSession
    tokens: dict[str, str]
    tls: ssl.SSLContext | bool
    box: Core | None
    restart: Callable[[], None]
    namespace: str = ""

    @property
    def secrets(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/secrets"

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def events(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/events"

    @property
    def leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"

    def _headers(self, token: str | None, accept: str, kind: str, agent: str) -> dict[str, str]:
        token = self.tokens["admin"] if token is None else token
        sent = {"Accept": accept, "Content-Type": kind, "User-Agent": agent}
        return sent | ({"Authorization": f"Bearer {token}"} if token else {})

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        accept: str = "application/json",
        kind: str = "",
        agent: str = "contract/1.0",
        **query: str,
    ) -> Answer:
        kind = kind or (MERGE if method == "PATCH" else "application/json")
        # A file: aiohttp warns about large bytes.
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.session.request(
            method,
            self.url + path,
            data=None if body is None else data,
            headers=self._headers(token, accept, kind, agent),
            params=query,
            ssl=self.tls,
        ) as answer:
            text = await answer.text()
            is_json = answer.content_type == "application/json"
            return Answer(answer.status, json.loads(text) if is_json else text, answer.headers)

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.call("GET", path, **options)

    async def create(self, path: str, name: str, **fields: Any) -> Answer:
        """Create; `labels` and `annotations` go into the metadata."""
        metadata = {"name": name}
        for part in ("labels", "annotations"):
            if part in fields:
                metadata[part] = fields.pop(part)
        answer = await self.call("POST", path, {"metadata": metadata, **fields})
        assert answer.status == 201, answer.body
        return answer

    async def create_pod(self, name: str, *, node: str = "", **fields: Any) -> Answer:
        spec: Json = {"containers": [{"name": "c", "image": "i"}]}
        if node:
            spec["nodeName"] = node
        return await self.create(self.pods, name, spec=spec, **fields)

    async def patch(self, path: str, body: Any, **options: Any) -> Answer:
        return await self.call("PATCH", path, body, **options)

    @asynccontextmanager
    async def watch(
        self, path: str, *, accept: str = "application/json", **query: str
    ) -> AsyncIterator["Lines"]:
        query = {"watch": "true", "timeoutSeconds": "20"} | query
        async with self.session.get(
            self.url + path,
            headers=self._headers(None, accept, "application/json", "contract/1.0"),
            params=query,
            ssl=self.tls,
        ) as answer:
            assert answer.status == 200, await answer.text()
            try:
                yield Lines(answer.content)
            finally:
                # A TLS goodbye in the middle of a stream would outlast the test's loop.
                if answer.connection is not None and answer.connection.transport is not None:
                    answer.connection.transport.abort()


@dataclass
class Lines:
    """The events of an open watch."""

    content: aiohttp.StreamReader

    async def next(self) -> tuple[str, Json]:
        async with asyncio.timeout(15):
            line = await self.content.readline()
        assert line, "the watch ended"
        event = json.loads(line)
        return event["type"], event["object"]

    async def ended(self) -> bool:
        async with asyncio.timeout(15):
            return not await self.content.readline()


@pytest.fixture(scope="module")
def real() -> Iterator[Any]:
    """A real control plane, or a skip that says what is missing."""
    from tests.assets import find
    from tests.cluster.controlplane import ControlPlane

    binaries = find()
    missing = [name for name in ("etcd", "kube-apiserver") if name not in binaries]
    if missing:
        reason = f"no {' and no '.join(missing)}: run `make assets` to build what is missing"
        if os.environ.get("RECONCILER_REQUIRE_CLUSTER") == "1":
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    with ControlPlane(binaries, flags=[f"--etcd-compaction-interval={COMPACTION_S}s"]) as plane:
        yield plane


@asynccontextmanager
async def box_server() -> AsyncIterator[Server]:
    clock = SystemClock()
    core = Core(clock)
    tokens = {"admin": "token-of-admin", "nobody": "token-of-nobody"}
    rights = Authorizer(
        {tokens["admin"]: User("admin", (EVERYTHING,)), tokens["nobody"]: User("nobody")}
    )
    async with (
        ApiServer(core, clock=clock, authorizer=rights, collects=False) as shell,
        aiohttp.ClientSession() as session,
    ):
        yield Server(shell.url, session, tokens, True, core, core.compact)


@asynccontextmanager
async def real_server(plane: Any) -> AsyncIterator[Server]:
    tokens = {"admin": plane.admin_token, "nobody": plane.token_for("nobody")}
    tls = ssl.create_default_context(cafile=str(plane.ca_file))
    async with aiohttp.ClientSession() as session:
        yield Server(plane.url, session, tokens, tls, None, plane.restart_apiserver)


@pytest.fixture(params=["lab", pytest.param("real", marks=pytest.mark.cluster)])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    if request.param == "lab":
        opened = box_server()
    else:
        opened = real_server(request.getfixturevalue("real"))
    async with opened as found:
        found.namespace = f"contract-{secrets.token_hex(4)}"
        await found.create("/api/v1/namespaces", found.namespace)
        yield found


# Refusals, in words


async def test_an_absent_object_is_not_found(server: Server) -> None:
    answer = await server.get(f"{server.secrets}/none")
    assert answer.status == 404
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": 'secrets "none" not found',
        "reason": "NotFound",
        "details": {"name": "none", "kind": "secrets"},
        "code": 404,
    }


async def test_a_kind_outside_core_is_named_with_its_group(server: Server) -> None:
    answer = await server.get(f"{server.leases}/none")
    assert answer.message == 'leases.coordination.k8s.io "none" not found'
    assert answer.body["details"] == {
        "name": "none",
        "group": "coordination.k8s.io",
        "kind": "leases",
    }


async def test_a_create_in_an_absent_namespace_names_the_namespace(server: Server) -> None:
    answer = await server.call(
        "POST", "/api/v1/namespaces/absent-one/secrets", {"metadata": {"name": "s"}}
    )
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.message == 'namespaces "absent-one" not found'
    assert answer.body["details"] == {"name": "absent-one", "kind": "namespaces"}


async def test_a_list_in_an_absent_namespace_is_empty(server: Server) -> None:
    answer = await server.get("/api/v1/namespaces/absent-one/secrets")
    assert (answer.status, answer.body["items"]) == (200, [])


async def test_a_name_that_is_taken_already_exists(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.call("POST", server.secrets, {"metadata": {"name": "s"}})
    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.message == 'secrets "s" already exists'


async def test_a_patch_meant_for_another_version_conflicts(server: Server) -> None:
    old = await server.create(server.secrets, "s")
    await server.patch(f"{server.secrets}/s", {"metadata": {"annotations": {"a": "1"}}})
    version = old.metadata["resourceVersion"]
    answer = await server.patch(
        f"{server.secrets}/s",
        {"metadata": {"resourceVersion": version, "annotations": {"a": "2"}}},
    )
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.message == (
        'Operation cannot be fulfilled on secrets "s": the object has been modified; please apply '
        "your changes to the latest version and try again"
    )
    assert answer.body["details"] == {"name": "s", "kind": "secrets"}


async def test_a_patch_for_another_uid_is_invalid(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(f"{server.secrets}/s", {"metadata": {"uid": "another"}})
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.message == (
        'Secret "s" is invalid: metadata.uid: Invalid value: "another": field is immutable'
    )
    assert answer.body["details"] == {
        "name": "s",
        "kind": "Secret",
        "causes": [
            {
                "reason": "FieldValueInvalid",
                "message": 'Invalid value: "another": field is immutable',
                "field": "metadata.uid",
            }
        ],
    }


async def test_a_stale_version_is_noticed_before_a_wrong_uid(server: Server) -> None:
    await server.create(server.secrets, "s")
    wrong = {"metadata": {"uid": "another", "resourceVersion": "1"}}
    assert (await server.patch(f"{server.secrets}/s", wrong)).status == 409


async def test_a_patch_with_the_right_version_and_uid_is_applied(server: Server) -> None:
    old = await server.create(server.secrets, "s")
    answer = await server.patch(
        f"{server.secrets}/s",
        {
            "metadata": {
                "uid": old.metadata["uid"],
                "resourceVersion": old.metadata["resourceVersion"],
                "annotations": {"a": "1"},
            }
        },
    )
    assert answer.status == 200
    assert answer.metadata["annotations"] == {"a": "1"}


async def test_an_immutable_secret_keeps_its_data(server: Server) -> None:
    await server.create(server.secrets, "s", stringData={"k": "v"}, immutable=True)
    answer = await server.patch(f"{server.secrets}/s", {"stringData": {"k": "w"}})
    assert answer.status == 422
    assert answer.message == (
        'Secret "s" is invalid: data: Forbidden: field is immutable when `immutable` is set'
    )
    assert answer.causes == [
        {
            "reason": "FieldValueForbidden",
            "message": "Forbidden: field is immutable when `immutable` is set",
            "field": "data",
        }
    ]


async def test_an_immutable_secret_takes_annotations(server: Server) -> None:
    await server.create(server.secrets, "s", stringData={"k": "v"}, immutable=True)
    answer = await server.patch(f"{server.secrets}/s", {"metadata": {"annotations": {"a": "1"}}})
    assert answer.status == 200


async def test_a_secrets_type_is_immutable(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(f"{server.secrets}/s", {"type": "other"})
    assert answer.message == (
        'Secret "s" is invalid: type: Invalid value: "other": field is immutable'
    )


@pytest.mark.parametrize(
    ("value", "byte"), [("not base64!", 3), ("YQ", 0), ("YWJjZA", 4), ("YQ==YQ==", 4)]
)
async def test_data_that_is_not_base64_is_refused(server: Server, value: str, byte: int) -> None:
    body = {"metadata": {"name": "s"}, "data": {"k": value}}
    answer = await server.call("POST", server.secrets, body)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.message == (
        'Secret in version "v1" cannot be handled as a Secret: illegal base64 data at input byte '
        f"{byte}"
    )


async def test_a_patch_that_is_not_base64_is_invalid(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(f"{server.secrets}/s", {"data": {"k": "not base64!"}})
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.causes[0]["field"] == "patch"
    assert answer.message.endswith("illegal base64 data at input byte 3")


async def test_annotations_have_a_limit(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(
        f"{server.secrets}/s", {"metadata": {"annotations": {"a": "x" * 262_144}}}
    )
    assert answer.status == 422
    assert answer.causes == [
        {
            "reason": "FieldValueTooLong",
            "message": "Too long: may not be more than 262144 bytes",
            "field": "metadata.annotations",
        }
    ]


async def test_a_secret_has_a_limit(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(f"{server.secrets}/s", {"stringData": {"k": "x" * 1_048_577}})
    assert (answer.status, answer.causes[0]["field"]) == (422, "data")
    assert answer.causes[0]["reason"] == "FieldValueTooLong"


async def test_a_name_must_be_a_subdomain(server: Server) -> None:
    answer = await server.call("POST", server.secrets, {"metadata": {"name": "Not_Valid"}})
    assert answer.status == 422
    assert answer.causes[0]["field"] == "metadata.name"
    assert answer.message.startswith(
        'Secret "Not_Valid" is invalid: metadata.name: Invalid value: "Not_Valid": '
        "a lowercase RFC 1123 subdomain must consist of"
    )


async def test_a_label_value_must_be_a_label(server: Server) -> None:
    body = {"metadata": {"name": "s", "labels": {"a": "not valid"}}}
    answer = await server.call("POST", server.secrets, body)
    assert (answer.status, answer.causes[0]["field"]) == (422, "metadata.labels")


async def test_a_patch_cannot_rename(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(f"{server.secrets}/s", {"metadata": {"name": "t"}})
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.message == "the name of the object (t) does not match the name on the URL (s)"


async def test_a_put_of_another_uid_conflicts(server: Server) -> None:
    old = await server.create(server.secrets, "s")
    body = {"metadata": {"name": "s", "uid": "another"}}
    answer = await server.call("PUT", f"{server.secrets}/s", body)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.message == (
        'Operation cannot be fulfilled on secrets "s": StorageError: invalid object, Code: 4, '
        f"Key: /registry/secrets/{server.namespace}/s, ResourceVersion: 0, AdditionalErrorMsg: "
        "Precondition failed: UID in precondition: another, UID in object meta: "
        f"{old.metadata['uid']}"
    )


async def test_a_put_of_an_old_version_conflicts(server: Server) -> None:
    await server.create(server.secrets, "s")
    body = {"metadata": {"name": "s", "resourceVersion": "1"}}
    answer = await server.call("PUT", f"{server.secrets}/s", body)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")


async def test_a_put_of_a_secret_needs_no_version(server: Server) -> None:
    await server.create(server.secrets, "s", stringData={"a": "1", "b": "2"})
    body = {"metadata": {"name": "s"}, "stringData": {"a": "3"}}
    answer = await server.call("PUT", f"{server.secrets}/s", body)
    assert answer.status == 200
    assert answer.body["data"] == {"a": "Mw=="}


async def test_a_put_of_a_lease_needs_a_version(server: Server) -> None:
    await server.create(server.leases, "l", spec={"holderIdentity": "a"})
    body = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "b"}}
    answer = await server.call("PUT", f"{server.leases}/l", body)
    assert answer.status == 422
    assert answer.causes[0]["field"] == "metadata.resourceVersion"
    assert answer.message.endswith("must be specified for an update")


async def test_an_unknown_token_is_unauthorized(server: Server) -> None:
    answer = await server.get(server.secrets, token="nobody-holds-this")
    assert answer.status == 401
    assert (answer.body["reason"], answer.message) == ("Unauthorized", "Unauthorized")


async def test_no_token_is_the_anonymous_user(server: Server) -> None:
    answer = await server.get(server.secrets, token="")
    assert answer.status == 403
    assert answer.message == (
        'secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API '
        f'group "" in the namespace "{server.namespace}"'
    )


async def test_a_missing_right_is_named_with_verb_and_scope(server: Server) -> None:
    nobody = server.tokens["nobody"]
    everywhere = await server.get("/api/v1/secrets", token=nobody)
    assert everywhere.body["reason"] == "Forbidden"
    assert everywhere.body["details"] == {"kind": "secrets"}
    assert everywhere.message == (
        'secrets is forbidden: User "nobody" cannot list resource "secrets" in API group "" at the '
        "cluster scope"
    )
    one = await server.patch(f"{server.leases}/l", {}, token=nobody)
    assert one.message == (
        'leases.coordination.k8s.io "l" is forbidden: User "nobody" cannot patch resource "leases" '
        f'in API group "coordination.k8s.io" in the namespace "{server.namespace}"'
    )
    status = await server.patch(f"{server.pods}/p/status", {}, token=nobody)
    assert 'cannot patch resource "pods/status"' in status.message
    watch = await server.get(server.pods, token=nobody, watch="true")
    assert 'cannot watch resource "pods"' in watch.message


async def test_a_foreign_patch_type_is_unsupported(server: Server) -> None:
    await server.create(server.secrets, "s")
    answer = await server.patch(f"{server.secrets}/s", {}, kind="text/plain")
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")
    assert answer.message == "415: Unsupported Media Type"


async def test_a_body_of_a_foreign_type_is_unsupported(server: Server) -> None:
    body = {"metadata": {"name": "s"}}
    answer = await server.call("POST", server.secrets, body, kind="text/plain")
    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")
    assert answer.message.startswith(
        "the body of the request was in an unknown format - accepted media types include: "
    )


@pytest.mark.parametrize(
    "path", ["/api/v1/unheardof", "/apis/coordination.k8s.io/v1/x", "/api/v1/secrets/s"]
)
async def test_a_resource_that_its_group_has_not_is_not_found(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.message == "the server could not find the requested resource"
    assert answer.body["details"] == {}


@pytest.mark.parametrize("path", ["/apis/un.heard.of/v1/things", "/unheardof"])
async def test_an_unknown_path_is_a_plain_404(server: Server, path: str) -> None:
    answer = await server.get(path)
    assert (answer.status, answer.body) == (404, "404 page not found\n")


async def test_a_verb_that_does_not_fit_its_path_is_not_allowed(server: Server) -> None:
    for method, path in (("PUT", server.secrets), ("POST", f"{server.secrets}/s")):
        answer = await server.call(method, path, {})
        assert (answer.status, answer.body["reason"]) == (405, "MethodNotAllowed")
        assert answer.message == "the server does not allow this method on the requested resource"


@pytest.mark.parametrize(
    ("field", "value"), [("kind", "Pod"), ("apiVersion", "v2")], ids=["kind", "version"]
)
async def test_an_object_of_another_kind_is_refused(server: Server, field: str, value: str) -> None:
    body = {"kind": "Secret", "apiVersion": "v1", "metadata": {"name": "s"}} | {field: value}
    answer = await server.call("POST", server.secrets, body)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.message.startswith(
        f'{body["kind"]} in version "{body["apiVersion"]}" cannot be handled as a Secret: '
    )


async def test_an_object_of_another_namespace_is_refused(server: Server) -> None:
    body = {"metadata": {"name": "s", "namespace": "other"}}
    answer = await server.call("POST", server.secrets, body)
    assert answer.status == 400
    assert answer.message == (
        "the namespace of the provided object does not match the namespace sent on the request"
    )


async def test_a_new_object_needs_a_name(server: Server) -> None:
    answer = await server.call("POST", server.secrets, {"metadata": {}})
    assert answer.status == 422
    assert answer.message == (
        'Secret "" is invalid: metadata.name: Required value: name or generateName is required'
    )


async def test_a_body_that_is_not_json_is_a_bad_request(server: Server) -> None:
    answer = await server.call("POST", server.secrets, b"{")
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")


# Objects


async def test_a_new_secret_has_what_the_server_gives_it(server: Server) -> None:
    made = await server.create(server.secrets, "s", stringData={"k": "v"}, data={"l": "dw=="})
    assert (made.body["kind"], made.body["apiVersion"]) == ("Secret", "v1")
    assert made.body["type"] == "Opaque"
    assert made.body["data"] == {"k": "dg==", "l": "dw=="}
    assert "stringData" not in made.body
    assert made.metadata["namespace"] == server.namespace
    assert made.metadata["creationTimestamp"].endswith("Z")
    assert {"uid", "resourceVersion"} <= made.metadata.keys()
    assert "generation" not in made.metadata
    assert (await server.get(f"{server.secrets}/s")).body == made.body


async def test_a_generated_name_extends_its_prefix(server: Server) -> None:
    answer = await server.call("POST", server.secrets, {"metadata": {"generateName": "s-"}})
    assert answer.status == 201
    assert answer.metadata["name"].startswith("s-")
    assert len(answer.metadata["name"]) == 7


async def test_a_patch_that_changes_nothing_keeps_the_version(server: Server) -> None:
    made = await server.create(server.secrets, "s", annotations={"a": "1"}, stringData={"k": "v"})
    same = {"metadata": {"annotations": {"a": "1", "absent": None}}, "stringData": {"k": "v"}}
    answer = await server.patch(f"{server.secrets}/s", same, agent="other/1")
    assert answer.status == 200
    assert answer.body == made.body


async def test_null_in_a_patch_removes(server: Server) -> None:
    await server.create(server.secrets, "s", annotations={"a": "1"}, stringData={"k": "v"})
    gone = {"metadata": {"annotations": {"a": None}}, "data": {"k": None}}
    answer = await server.patch(f"{server.secrets}/s", gone)
    assert "annotations" not in answer.metadata
    assert "data" not in answer.body


async def test_a_dry_run_changes_nothing(server: Server) -> None:
    made = await server.create(server.secrets, "s")
    answer = await server.patch(
        f"{server.secrets}/s", {"metadata": {"annotations": {"a": "1"}}}, dryRun="All"
    )
    assert answer.metadata["annotations"] == {"a": "1"}
    assert (await server.get(f"{server.secrets}/s")).body == made.body


async def test_a_pods_status_is_written_by_itself(server: Server) -> None:
    await server.create_pod("p")
    plain = await server.patch(f"{server.pods}/p", {"status": {"phase": "Running"}})
    assert plain.body["status"]["phase"] == "Pending"
    status = await server.patch(
        f"{server.pods}/p/status", {"status": {"phase": "Running"}, "spec": {"nodeName": "n"}}
    )
    assert status.body["status"]["phase"] == "Running"
    assert "nodeName" not in status.body["spec"]


async def test_a_pods_spec_is_immutable(server: Server) -> None:
    await server.create_pod("p")
    answer = await server.patch(f"{server.pods}/p", {"spec": {"nodeName": "n"}})
    assert answer.status == 422
    assert answer.causes[0]["field"] == "spec"
    assert answer.message.startswith(
        'Pod "p" is invalid: spec: Forbidden: pod updates may not change fields other than '
    )


# Who wrote what


def owners(metadata: Json, *path: str) -> list[str]:
    """Return the managers whose fields contain `path`."""
    found: list[str] = []
    for entry in metadata["managedFields"]:
        node = entry["fieldsV1"]
        for step in path:
            node = node.get(step) if node is not None else None
        if node is not None:
            found.append(entry["manager"])
    return found


TOKEN = ("f:data", "f:token")


async def test_the_user_agent_names_the_manager(server: Server) -> None:
    made = await server.create(server.secrets, "s", stringData={"token": "a"}, labels={"l": "1"})
    (entry,) = made.metadata["managedFields"]
    assert entry.pop("time").endswith("Z")
    assert entry == {
        "manager": "contract",
        "operation": "Update",
        "apiVersion": "v1",
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:data": {".": {}, "f:token": {}},
            "f:metadata": {"f:labels": {".": {}, "f:l": {}}},
            "f:type": {},
        },
    }


async def test_a_changed_value_changes_its_owner(server: Server) -> None:
    await server.create(server.secrets, "s", stringData={"token": "a", "other": "x"})
    answer = await server.patch(
        f"{server.secrets}/s", {"stringData": {"token": "b"}}, fieldManager="reconciler"
    )
    assert owners(answer.metadata, *TOKEN) == ["reconciler"]
    assert owners(answer.metadata, "f:data", "f:other") == ["contract"]


async def test_an_equal_value_leaves_its_owner(server: Server) -> None:
    await server.create(server.secrets, "s", stringData={"token": "a"})
    change = {"metadata": {"annotations": {"n": "1"}}, "stringData": {"token": "a"}}
    answer = await server.patch(f"{server.secrets}/s", change, agent="rival/2.0 (x)")
    assert owners(answer.metadata, *TOKEN) == ["contract"]
    assert owners(answer.metadata, "f:metadata", "f:annotations", "f:n") == ["rival"]


async def test_an_equal_value_leaves_its_owners_time_and_dates_what_was_changed(
    server: Server,
) -> None:
    made = await server.create(server.secrets, "s", stringData={"token": "a"})
    (before,) = made.metadata["managedFields"]
    noted: Json = {}
    change = {"metadata": {"annotations": noted}, "stringData": {"token": "a"}}
    async with asyncio.timeout(10):
        while True:  # until the server's clock shows another second
            noted["n"] = noted.get("n", "") + "1"
            answer = await server.patch(f"{server.secrets}/s", change, fieldManager="rival")
            entries = {entry["manager"]: entry for entry in answer.metadata["managedFields"]}
            if entries["rival"]["time"] > before["time"]:
                break
            await asyncio.sleep(0.1)
    assert entries["contract"] == before
    again = await server.patch(f"{server.secrets}/s", {"stringData": {"token": "a"}})
    assert again.metadata["resourceVersion"] == answer.metadata["resourceVersion"]


async def test_what_is_taken_out_dates_no_entry_of_who_took_it(server: Server) -> None:
    await server.create(server.secrets, "s", annotations={"n": "1", "m": "1"})
    change = {"metadata": {"annotations": {"n": None}}}
    answer = await server.patch(f"{server.secrets}/s", change, fieldManager="rival")
    assert {entry["manager"] for entry in answer.metadata["managedFields"]} == {"contract"}


@pytest.mark.parametrize("sent", [[], [{}]], ids=["empty", "one empty entry"])
async def test_managers_that_were_forgotten_are_kept_no_more(server: Server, sent: Any) -> None:
    await server.create(server.secrets, "s", stringData={"token": "a"})
    path = f"{server.secrets}/s"
    gone = await server.patch(path, {"metadata": {"managedFields": sent}})
    assert "managedFields" not in gone.metadata
    after = await server.patch(path, {"stringData": {"token": "b"}}, fieldManager="rival")
    assert "managedFields" not in after.metadata
    assert after.metadata["resourceVersion"] != gone.metadata["resourceVersion"]


async def test_a_manager_that_owns_nothing_any_more_is_not_listed(server: Server) -> None:
    await server.create(server.secrets, "s")
    path = f"{server.secrets}/s"
    await server.patch(path, {"stringData": {"token": "1"}}, fieldManager="one")
    answer = await server.patch(path, {"stringData": {"token": "2"}}, fieldManager="two")
    assert owners(answer.metadata, *TOKEN) == ["two"]
    listed = {entry["manager"] for entry in answer.metadata["managedFields"]}
    # `one` still owns the map that it made.
    assert listed == {"contract", "one", "two"}
    gone = await server.patch(path, {"data": None}, fieldManager="three")
    assert {entry["manager"] for entry in gone.metadata["managedFields"]} == {"contract"}


async def test_a_put_owns_only_what_it_changed(server: Server) -> None:
    made = await server.create(server.secrets, "s", stringData={"token": "a", "other": "x"})
    body = made.body | {"data": made.body["data"] | {"token": "Yg=="}}
    answer = await server.call("PUT", f"{server.secrets}/s", body, agent="legacy/0")
    assert owners(answer.metadata, *TOKEN) == ["legacy"]
    assert owners(answer.metadata, "f:data", "f:other") == ["contract"]


async def test_a_status_write_is_an_entry_of_its_own(server: Server) -> None:
    await server.create_pod("p")
    answer = await server.patch(f"{server.pods}/p/status", {"status": {"phase": "Running"}})
    entries = answer.metadata["managedFields"]
    assert [entry.get("subresource", "") for entry in entries] == ["", "status"]


# Deletes


async def test_a_deleted_secret_is_answered_with_a_status(server: Server) -> None:
    made = await server.create(server.secrets, "s")
    answer = await server.call("DELETE", f"{server.secrets}/s")
    assert answer.status == 200
    assert answer.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {"name": "s", "kind": "secrets", "uid": made.metadata["uid"]},
    }
    assert (await server.get(f"{server.secrets}/s")).status == 404


async def test_a_delete_meant_for_another_object_conflicts(server: Server) -> None:
    made = await server.create(server.secrets, "s")
    uid, version = made.metadata["uid"], made.metadata["resourceVersion"]
    answer = await server.call(
        "DELETE", f"{server.secrets}/s", {"preconditions": {"uid": "another"}}
    )
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.message == (
        'Operation cannot be fulfilled on Secret "s": the UID in the precondition (another) does '
        f"not match the UID in record ({uid}). The object might have been deleted and then "
        "recreated"
    )
    answer = await server.call(
        "DELETE", f"{server.secrets}/s", {"preconditions": {"resourceVersion": "1"}}
    )
    assert answer.message == (
        'Operation cannot be fulfilled on Secret "s": the ResourceVersion in the precondition (1) '
        f"does not match the ResourceVersion in record ({version}). The object might have been "
        "modified"
    )


async def test_a_pod_on_a_node_is_only_marked(server: Server) -> None:
    await server.create_pod("p", node="n")
    marked = await server.call("DELETE", f"{server.pods}/p")
    assert marked.status == 200
    assert marked.metadata["deletionGracePeriodSeconds"] == 30
    assert "deletionTimestamp" in marked.metadata
    again = await server.call("DELETE", f"{server.pods}/p", {"gracePeriodSeconds": 40})
    assert again.metadata["deletionGracePeriodSeconds"] == 30
    shorter = await server.call("DELETE", f"{server.pods}/p", {"gracePeriodSeconds": 5})
    assert shorter.metadata["deletionGracePeriodSeconds"] == 5
    touched = await server.patch(f"{server.pods}/p", {"metadata": {"annotations": {"a": "1"}}})
    assert touched.metadata["deletionGracePeriodSeconds"] == 5
    last = await server.call("DELETE", f"{server.pods}/p", {"gracePeriodSeconds": 0})
    assert (last.status, last.body["kind"]) == (200, "Pod")
    assert (await server.get(f"{server.pods}/p")).status == 404


@pytest.mark.parametrize("ended", [False, True], ids=["unscheduled", "succeeded"])
async def test_a_pod_that_no_kubelet_runs_is_removed_at_once(server: Server, ended: bool) -> None:
    await server.create_pod("p", node="n" if ended else "")
    if ended:
        await server.patch(f"{server.pods}/p/status", {"status": {"phase": "Succeeded"}})
    assert (await server.call("DELETE", f"{server.pods}/p")).body["kind"] == "Pod"
    assert (await server.get(f"{server.pods}/p")).status == 404


async def test_a_finalizer_holds_a_deleted_object(server: Server) -> None:
    made = await server.call(
        "POST", server.secrets, {"metadata": {"name": "s", "finalizers": ["a.io/b"]}}
    )
    assert made.status == 201
    held = await server.call("DELETE", f"{server.secrets}/s")
    assert "deletionTimestamp" in held.metadata
    await server.patch(f"{server.secrets}/s", {"metadata": {"finalizers": None}})
    assert (await server.get(f"{server.secrets}/s")).status == 404


async def test_a_terminating_namespace_takes_nothing_new(server: Server) -> None:
    await server.create(server.secrets, "s")
    namespace = f"/api/v1/namespaces/{server.namespace}"
    ending = await server.call("DELETE", namespace)
    assert (ending.status, ending.body["status"]["phase"]) == (200, "Terminating")

    async def refused() -> Answer:
        return await server.call("POST", server.secrets, {"metadata": {"name": "t"}})

    answer = await refused()
    while answer.status == 201:  # the real server's admission sees the deletion a moment later
        await server.call("DELETE", f"{server.secrets}/t")
        answer = await refused()
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert answer.message == (
        'secrets "t" is forbidden: unable to create new content in namespace '
        f"{server.namespace} because it is being terminated"
    )
    assert answer.causes == [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {server.namespace} is being terminated",
            "field": "metadata.namespace",
        }
    ]
    changed = await server.patch(f"{server.secrets}/s", {"metadata": {"labels": {"a": "1"}}})
    assert changed.status == 200


async def test_a_default_namespace_is_immortal(server: Server) -> None:
    answer = await server.call("DELETE", "/api/v1/namespaces/default")
    assert answer.status == 403
    assert answer.message == (
        'namespaces "default" is forbidden: this namespace may not be deleted'
    )


# Lists


LABELLED = {"a": {"k": "1", "x": ""}, "b": {"k": "2", "x": ""}, "c": {"k": "3"}, "d": {}}


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("k=1", "a"), ("k==2", "b"), ("k!=1", "bcd"), ("k in (1, 3)", "ac"),
        ("k notin (1,3)", "bd"), ("k", "abc"), ("!k", "d"), ("x,k!=1", "b"), ("x=", "ab"),
        ("k in (1,2),x", "ab"), ("absent", ""),
    ],
)  # fmt: skip
async def test_labels_select(server: Server, selector: str, names: str) -> None:
    for name, labels in LABELLED.items():
        await server.create(server.secrets, name, labels=labels)
    answer = await server.get(server.secrets, labelSelector=selector)
    assert answer.names == list(names)


@pytest.mark.parametrize(
    ("selector", "words"),
    [
        ("k in 1", "unable to parse requirement: "),
        ("k ~ 1", "unable to parse requirement: "),
        ("k=(a)", "unable to parse requirement: "),
        ("=", "found '=', expected: !, identifier, or 'end of string'"),
    ],
)
async def test_a_label_selector_that_cannot_be_read_is_refused(
    server: Server, selector: str, words: str
) -> None:
    answer = await server.get(server.secrets, labelSelector=selector)
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.message.startswith(words)


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("metadata.name=p", ["p"]),
        ("metadata.name!=p", ["q", "r"]),
        ("spec.nodeName=n", ["p", "r"]),
        ("spec.nodeName=", ["q"]),
        ("status.phase!=Succeeded,status.phase!=Failed", ["p", "q"]),
        ("spec.nodeName=n,status.phase=Pending", ["p"]),
    ],
)
async def test_fields_select(server: Server, selector: str, names: list[str]) -> None:
    for name, node in (("p", "n"), ("q", ""), ("r", "n")):
        await server.create_pod(name, node=node)
    await server.patch(f"{server.pods}/r/status", {"status": {"phase": "Failed"}})
    assert (await server.get(server.pods, fieldSelector=selector)).names == names


async def test_an_unknown_field_is_refused(server: Server) -> None:
    answer = await server.get(server.pods, fieldSelector="spec.unknown=1")
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.message == "field label not supported: spec.unknown"


async def test_pages_show_one_moment(server: Server) -> None:
    for name in "abcde":
        await server.create(server.secrets, name)
    first = await server.get(server.secrets, limit="2")
    assert first.names == ["a", "b"]
    assert first.metadata["remainingItemCount"] == 3
    await server.call("DELETE", f"{server.secrets}/c")
    await server.create(server.secrets, "cc")
    await server.patch(f"{server.secrets}/d", {"metadata": {"labels": {"l": "1"}}})
    token = first.metadata["continue"]
    second = await server.get(server.secrets, limit="2", **{"continue": token})
    assert second.names == ["c", "d"]
    assert "labels" not in second.body["items"][1]["metadata"]
    assert second.metadata["resourceVersion"] == first.metadata["resourceVersion"]
    token = second.metadata["continue"]
    third = await server.get(server.secrets, limit="2", **{"continue": token})
    assert third.names == ["e"]
    assert "continue" not in third.metadata


async def test_pages_of_a_selection_say_nothing_of_the_rest(server: Server) -> None:
    for name in "abcd":
        await server.create(server.secrets, name, labels={"l": "1"} if name in "ac" else {})
    first = await server.get(server.secrets, limit="1", labelSelector="l")
    assert first.names == ["a"]
    assert "remainingItemCount" not in first.metadata
    token = first.metadata["continue"]
    second = await server.get(server.secrets, limit="1", labelSelector="l", **{"continue": token})
    assert second.names == ["c"]


async def test_a_token_that_is_none_is_refused(server: Server) -> None:
    answer = await server.get(server.secrets, limit="1", **{"continue": "garbage"})
    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.message.startswith("invalid continue token: continue key is not valid")


async def test_a_token_and_a_version_exclude_each_other(server: Server) -> None:
    for name in "ab":
        await server.create(server.secrets, name)
    first = await server.get(server.secrets, limit="1")
    answer = await server.get(
        server.secrets,
        limit="1",
        resourceVersion=first.metadata["resourceVersion"],
        **{"continue": first.metadata["continue"]},
    )
    assert answer.status == 400
    assert answer.message == "specifying resource version is not allowed when using continue"


async def test_an_old_token_expires_and_offers_an_inconsistent_rest(server: Server) -> None:
    for name in "abc":
        await server.create(server.secrets, name)
    first = await server.get(server.secrets, limit="1")
    await server.call("DELETE", f"{server.secrets}/b")
    token = {"continue": first.metadata["continue"]}
    if server.box is not None:
        server.box.compact()
    answer = await server.get(server.secrets, limit="1", **token)
    async with asyncio.timeout(40):
        while answer.status == 200:
            await asyncio.sleep(0.5)
            answer = await server.get(server.secrets, limit="1", **token)
    assert (answer.status, answer.body["reason"]) == (410, "Expired")
    assert answer.message == (
        "The provided continue parameter is too old to display a consistent list result. You can "
        "start a new list without the continue parameter, or use the continue token in this "
        "response to retrieve the remainder of the results. Continuing with the provided token "
        "results in an inconsistent list - objects that were created, modified, or deleted between "
        "the time the first chunk was returned and now may show up in the list."
    )
    rest = await server.get(server.secrets, limit="5", **{"continue": answer.metadata["continue"]})
    assert (rest.status, rest.names) == (200, ["c"])


async def test_a_version_of_the_future_is_too_large(server: Server) -> None:
    answer = await server.get(
        server.secrets, resourceVersion="9000000000", resourceVersionMatch="NotOlderThan"
    )
    assert (answer.status, answer.body["reason"]) == (504, "Timeout")
    assert answer.message.startswith("Timeout: Too large resource version: 9000000000, current: ")
    assert answer.causes == [
        {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    ]
    assert answer.body["details"]["retryAfterSeconds"] == 1
    assert answer.headers["Retry-After"] == "1"


async def test_version_zero_ignores_the_limit(server: Server) -> None:
    for name in "abc":
        await server.create(server.secrets, name)
    await settled(server, server.secrets, 3)
    answer = await server.get(server.secrets, resourceVersion="0", limit="1")
    assert answer.names == ["a", "b", "c"]


async def test_a_version_that_was_seen_is_never_undercut(server: Server) -> None:
    made = await server.create(server.secrets, "a")
    version = made.metadata["resourceVersion"]
    answer = await server.get(server.secrets, resourceVersion=version)
    assert answer.names == ["a"]
    assert int(answer.metadata["resourceVersion"]) >= int(version)


@pytest.mark.parametrize("query", [{"resourceVersionMatch": "Exact"}, {"limit": "5"}])
async def test_an_exact_version_shows_the_past(server: Server, query: dict[str, str]) -> None:
    made = await server.create(server.secrets, "a")
    await server.create(server.secrets, "b")
    version = made.metadata["resourceVersion"]
    answer = await server.get(server.secrets, resourceVersion=version, **query)
    assert answer.names == ["a"]
    assert answer.metadata["resourceVersion"] == version


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"resourceVersionMatch": "NotOlderThan"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "Odd", "resourceVersion": "1"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, "resourceVersionMatch"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents"),
        ({"sendInitialEvents": "true", "watch": "true"}, "resourceVersionMatch"),
        ({"resourceVersionMatch": "NotOlderThan", "watch": "true"}, "resourceVersionMatch"),
    ],
)
async def test_options_that_exclude_each_other_are_invalid(
    server: Server, query: dict[str, str], field: str
) -> None:
    answer = await server.get(server.secrets, **query)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.causes[0]["field"] == field
    assert answer.message.startswith('ListOptions.meta.k8s.io "" is invalid: ')


async def test_items_of_a_list_have_no_kind(server: Server) -> None:
    await server.create(server.secrets, "a")
    answer = await server.get(server.secrets)
    assert (answer.body["kind"], answer.body["apiVersion"]) == ("SecretList", "v1")
    assert "kind" not in answer.body["items"][0]


# Views


async def test_metadata_only_holds_no_value(server: Server) -> None:
    await server.create(server.secrets, "s", stringData={"k": "v"}, labels={"l": "1"})
    one = await server.get(f"{server.secrets}/s", accept=PARTIAL)
    assert one.body.keys() == {"kind", "apiVersion", "metadata"}
    assert (one.body["kind"], one.body["apiVersion"]) == (
        "PartialObjectMetadata",
        "meta.k8s.io/v1",
    )
    many = await server.get(server.secrets, accept=PARTIAL_LIST)
    assert many.body["kind"] == "PartialObjectMetadataList"
    assert many.body["items"] == [one.body]
    change = {"metadata": {"annotations": {"a": "1"}}, "stringData": {"k": "w"}}
    patched = await server.patch(f"{server.secrets}/s", change, accept=PARTIAL)
    assert patched.body.keys() == {"kind", "apiVersion", "metadata"}
    assert patched.metadata["annotations"] == {"a": "1"}


@pytest.mark.parametrize(
    ("accept", "named"), [(PARTIAL, "is a list"), (PARTIAL_LIST, "is not a list")]
)
async def test_a_view_of_the_wrong_shape_is_not_acceptable(
    server: Server, accept: str, named: str
) -> None:
    await server.create(server.secrets, "s")
    path = server.secrets if accept == PARTIAL else f"{server.secrets}/s"
    answer = await server.get(path, accept=accept)
    assert (answer.status, answer.body["reason"]) == (406, "NotAcceptable")
    assert answer.message.startswith("you requested PartialObjectMetadata")
    assert named in answer.message


async def test_an_unknown_representation_is_not_acceptable(server: Server) -> None:
    answer = await server.get(server.secrets, accept="text/html")
    assert answer.status == 406
    assert answer.message == (
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, "
        "application/vnd.kubernetes.protobuf, application/json;stream=watch, "
        "application/vnd.kubernetes.protobuf;stream=watch"
    )


async def test_the_first_form_that_is_known_is_taken(server: Server) -> None:
    answer = await server.get(server.secrets, accept=f"text/html,{PARTIAL_LIST},application/json")
    assert answer.body["kind"] == "PartialObjectMetadataList"


async def test_a_table_has_a_row_an_object(server: Server) -> None:
    await server.create_pod("p")
    answer = await server.get(server.pods, accept=TABLE)
    assert (answer.body["kind"], answer.body["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    columns = [column["name"] for column in answer.body["columnDefinitions"]]
    assert columns[:5] == ["Name", "Ready", "Status", "Restarts", "Age"]
    (row,) = answer.body["rows"]
    assert row["cells"][:3] == ["p", "0/1", "Pending"]
    assert row["object"]["kind"] == "PartialObjectMetadata"


# Watches


async def test_a_watch_continues_after_a_version(server: Server) -> None:
    made = await server.create(server.secrets, "a")
    version = made.metadata["resourceVersion"]
    async with server.watch(server.secrets, resourceVersion=version) as lines:
        await server.create(server.secrets, "b")
        changed = await server.patch(f"{server.secrets}/b", {"metadata": {"labels": {"l": "1"}}})
        await server.call("DELETE", f"{server.secrets}/b")
        events = [await lines.next() for _ in range(3)]
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert {item["metadata"]["name"] for _, item in events} == {"b"}
    assert events[1][1] == changed.body
    versions = [int(item["metadata"]["resourceVersion"]) for _, item in events]
    assert versions == sorted(set(versions))


@pytest.mark.parametrize("version", ["", "0"])
async def test_a_watch_without_a_version_begins_with_what_is_there(
    server: Server, version: str
) -> None:
    for name in "ab":
        await server.create(server.secrets, name)
    await settled(server, server.secrets, 2)
    async with server.watch(server.secrets, resourceVersion=version) as lines:
        events = [await lines.next() for _ in range(2)]
    assert [(kind, item["metadata"]["name"]) for kind, item in events] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
    ]


async def test_a_selection_is_entered_and_left(server: Server) -> None:
    start = await server.get(server.secrets)
    async with server.watch(
        server.secrets, labelSelector="in", resourceVersion=start.metadata["resourceVersion"]
    ) as lines:
        await server.create(server.secrets, "s")
        await server.create(server.secrets, "other")
        await server.patch(f"{server.secrets}/s", {"metadata": {"labels": {"in": "1"}}})
        left = await server.patch(f"{server.secrets}/s", {"metadata": {"labels": {"in": None}}})
        events = [await lines.next() for _ in range(2)]
    assert [kind for kind, _ in events] == ["ADDED", "DELETED"]
    gone = events[1][1]["metadata"]
    assert gone["labels"] == {"in": "1"}
    assert gone["resourceVersion"] == left.metadata["resourceVersion"]


async def test_a_pod_that_ends_leaves_the_live_ones(server: Server) -> None:
    start = await server.get(server.pods)
    await server.create_pod("p")
    async with server.watch(
        server.pods,
        accept=PARTIAL,
        fieldSelector="status.phase!=Succeeded,status.phase!=Failed",
        resourceVersion=start.metadata["resourceVersion"],
    ) as lines:
        await server.patch(f"{server.pods}/p/status", {"status": {"phase": "Running"}})
        await server.patch(f"{server.pods}/p/status", {"status": {"phase": "Succeeded"}})
        events = [await lines.next() for _ in range(3)]
    assert [kind for kind, _ in events] == ["ADDED", "MODIFIED", "DELETED"]
    assert all(item.keys() == {"kind", "apiVersion", "metadata"} for _, item in events)


async def test_an_old_version_expires_inside_the_stream(server: Server) -> None:
    await server.create(server.secrets, "s")
    # A real server that starts has seen nothing of the past.
    await asyncio.to_thread(server.restart)
    async with server.watch(server.secrets, resourceVersion="1") as lines:
        kind, status = await lines.next()
        assert await lines.ended()
    assert (kind, status["kind"]) == ("ERROR", "Status")
    assert (status["code"], status["reason"]) == (410, "Expired")
    assert status["message"].startswith("too old resource version: 1 (")


async def test_a_watch_ends_in_time(server: Server) -> None:
    start = await server.get(server.secrets)
    async with server.watch(
        server.secrets, timeoutSeconds="1", resourceVersion=start.metadata["resourceVersion"]
    ) as lines:
        assert await lines.ended()


@pytest.mark.parametrize("version", ["", "0"])
async def test_what_a_watch_begins_with_ends_with_a_bookmark(server: Server, version: str) -> None:
    made = await server.create(server.secrets, "s")
    await settled(server, server.secrets, 1)
    async with server.watch(
        server.secrets, accept=PARTIAL, allowWatchBookmarks="true", resourceVersion=version
    ) as lines:
        events = [await lines.next() for _ in range(2)]
    assert [kind for kind, _ in events] == ["ADDED", "BOOKMARK"]
    mark = events[1][1]
    assert (mark["kind"], mark["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(mark["metadata"]["resourceVersion"]) >= int(made.metadata["resourceVersion"])


@pytest.mark.parametrize(("watch", "status"), [("false", 400), ("true", 500)])
async def test_a_version_that_is_no_number_is_refused(
    server: Server, watch: str, status: int
) -> None:
    answer = await server.get(server.secrets, resourceVersion="abc", watch=watch)
    assert answer.status == status
    assert answer.message.endswith(
        'resourceVersion: Invalid value: "abc": strconv.ParseUint: parsing "abc": invalid syntax'
    )


async def test_initial_events_end_with_a_bookmark(server: Server) -> None:
    made = await server.create(server.secrets, "s")
    async with server.watch(
        server.secrets,
        sendInitialEvents="true",
        resourceVersionMatch="NotOlderThan",
        allowWatchBookmarks="true",
    ) as lines:
        events = [await lines.next() for _ in range(2)]
        await server.create(server.secrets, "t")
        after, _ = await lines.next()
    assert [kind for kind, _ in events] == ["ADDED", "BOOKMARK"]
    mark = events[1][1]["metadata"]
    assert mark["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(mark["resourceVersion"]) >= int(made.metadata["resourceVersion"])
    assert after == "ADDED"


# Reviews, health, discovery


async def test_an_access_review_knows_the_rights(server: Server) -> None:
    asked = {"verb": "patch", "resource": "secrets", "namespace": server.namespace}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    for user, allowed in (("admin", True), ("nobody", False)):
        answer = await server.call(
            "POST", path, {"spec": {"resourceAttributes": asked}}, token=server.tokens[user]
        )
        assert answer.status == 201
        assert answer.body["status"]["allowed"] is allowed


@pytest.mark.shows_secrets("a review asks about a token; the product makes none")
async def test_a_token_review_names_the_user(server: Server) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    good = await server.call("POST", path, {"spec": {"token": server.tokens["nobody"]}})
    assert (good.status, good.body["status"]["authenticated"]) == (201, True)
    assert good.body["status"]["user"]["username"] == "nobody"
    assert good.body["status"]["user"]["groups"] == ["system:authenticated"]
    bad = await server.call("POST", path, {"spec": {"token": "nobody-holds-this"}})
    assert not bad.body["status"].get("authenticated")
    assert bad.body["status"]["error"]


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
async def test_health_needs_no_token(server: Server, path: str) -> None:
    answer = await server.get(path, token="")
    assert (answer.status, answer.body) == (200, "ok")


async def test_discovery_names_the_kinds(server: Server) -> None:
    version = await server.get("/version", token="")
    assert version.body["major"] == "1"
    assert "v1" in (await server.get("/api")).body["versions"]
    groups = {group["name"] for group in (await server.get("/apis")).body["groups"]}
    assert "coordination.k8s.io" in groups
    core = (await server.get("/api/v1")).body["resources"]
    assert {"pods", "pods/status", "secrets", "events"} <= {one["name"] for one in core}
    refused = await server.get("/api", token="")
    assert refused.status == 403
    assert refused.message == 'forbidden: User "system:anonymous" cannot get path "/api"'


async def settled(server: Server, path: str, count: int) -> None:
    """Wait until the real server's watch cache shows what was written ("any" may be old)."""
    async with asyncio.timeout(10):
        while len((await server.get(path, resourceVersion="0")).body["items"]) != count:
            await asyncio.sleep(0.02)


# Events, as a recorder sends them


def event(namespace: str, **changes: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "runner.17a0", "namespace": namespace},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": namespace,
            "name": "runner",
            "uid": "0b8c2c9e-0000-4000-8000-000000000001",
            "resourceVersion": "7",
        },
        "type": "Warning",
        "reason": "RefreshFailed",
        "message": "The token could not be refreshed",
        "count": 1,
        "firstTimestamp": "2026-01-31T12:00:00Z",
        "lastTimestamp": "2026-01-31T12:00:00Z",
        "source": {"component": "token-reconciler"},
        "reportingComponent": "token-reconciler",
        "reportingInstance": "replica/1",
    } | changes


async def test_an_event_about_a_pod_is_kept_as_it_was_sent(server: Server) -> None:
    sent = event(server.namespace)
    answer = await server.call("POST", server.events, sent)
    assert answer.status == 201
    kept = (await server.get(f"{server.events}/runner.17a0")).body
    assert {key: kept[key] for key in sent if key != "metadata"} == {
        key: value for key, value in sent.items() if key != "metadata"
    }
    found = await server.get(server.events, fieldSelector="involvedObject.name=runner")
    assert found.names == ["runner.17a0"]
    other = await server.get(server.events, fieldSelector="involvedObject.name=other")
    assert other.names == []


async def test_an_event_is_counted_by_a_merge_patch_answered_with_metadata(server: Server) -> None:
    await server.call("POST", server.events, event(server.namespace))
    answer = await server.patch(
        f"{server.events}/runner.17a0",
        {"count": 2, "lastTimestamp": "2026-01-31T12:01:00Z"},
        accept=PARTIAL,
    )
    assert answer.status == 200
    assert answer.body["kind"] == "PartialObjectMetadata"
    kept = (await server.get(f"{server.events}/runner.17a0")).body
    assert (kept["count"], kept["lastTimestamp"]) == (2, "2026-01-31T12:01:00Z")
    assert kept["firstTimestamp"] == "2026-01-31T12:00:00Z"


async def test_a_patch_of_an_event_that_is_gone_is_not_found(server: Server) -> None:
    answer = await server.patch(f"{server.events}/runner.17a0", {"count": 2})
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")


async def test_an_event_lives_in_the_namespace_of_what_it_is_about(server: Server) -> None:
    about = event(server.namespace)["involvedObject"] | {"namespace": "another"}
    sent = event(server.namespace, involvedObject=about)
    answer = await server.call("POST", server.events, sent)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert [cause["field"] for cause in answer.causes] == ["involvedObject.namespace"]
    assert answer.message == (
        'Event "runner.17a0" is invalid: involvedObject.namespace: Invalid value: "another": '
        "does not match event.namespace"
    )


async def test_a_create_of_events_without_the_right_is_refused(server: Server) -> None:
    answer = await server.call(
        "POST", server.events, event(server.namespace), token=server.tokens["nobody"]
    )
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert 'cannot create resource "events"' in answer.message
