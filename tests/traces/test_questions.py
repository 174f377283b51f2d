"""The questions of docs/operating.md, asked of a real Jaeger: the product on a real API server."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.cluster.admin import LIMIT_S, MERGE, SECRETS, Admin, item
from tests.cluster.controlplane import ControlPlane
from tests.cluster.world import Runner, World, open_world
from tests.controller import running
from tests.lab.tls import make_certificate, serving
from tests.traces.jaeger import Jaeger
from tests.traces.test_jaeger import PATCH, by_name, found, parents, tags
from tests.traces.waterfall import draw, ordered

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

SESSIONS = 12
TTL_S = 20.0
OUTAGE_S = 20.0
SLOW_S = 0.8

Json = dict[str, Any]


@pytest.fixture
async def world(control_plane: ControlPlane, admin: Admin, tmp_path: Path) -> AsyncIterator[World]:
    async with open_world(control_plane, admin, tmp_path, ttl_s=TTL_S) as opened:
        await opened.add_sessions(each=SESSIONS)
        yield opened


def environment(world: World, jaeger: Jaeger, service: str) -> dict[str, str]:
    """Return the environment of a controller that exports what it always exports, and no more."""
    return world.environment(
        OTEL_EXPORTER_OTLP_ENDPOINT=jaeger.otlp_url,
        OTEL_SERVICE_NAME=service,
        OTEL_TRACES_SAMPLER="traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0",
        OTEL_RESOURCE_ATTRIBUTES="k8s.cluster.name=east",
    )


@asynccontextmanager
async def slow_admission(world: World, runner: Runner, folder: Path) -> AsyncIterator[None]:
    """Let an admission webhook take `SLOW_S` for each write of one session's Secret."""

    is_called = asyncio.Event()

    async def review(request: web.Request) -> web.Response:
        asked = await request.json()
        is_called.set()
        await asyncio.sleep(SLOW_S)
        answer = {"uid": asked["request"]["uid"], "allowed": True}
        return web.json_response(
            {"apiVersion": asked["apiVersion"], "kind": asked["kind"], "response": answer}
        )

    app = web.Application()
    app.router.add_post("/", review)
    certificate = make_certificate(folder)
    server = web.AppRunner(app)
    await server.setup()
    site = web.TCPSite(server, "127.0.0.1", 0, ssl_context=serving(certificate))
    await site.start()
    name = f"slow-{runner.namespace}.example.com"
    path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
    webhook = {
        "name": name,
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        "clientConfig": {
            "url": f"https://127.0.0.1:{server.addresses[0][1]}/",
            "caBundle": base64.b64encode(certificate[0].read_bytes()).decode(),
        },
        "objectSelector": {"matchLabels": world.labels(runner)},
        "rules": [{
            "apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
            "resources": ["secrets"],
        }],
    }  # fmt: skip
    try:
        await world.admin.expect("POST", path, {"metadata": {"name": name}, "webhooks": [webhook]})
        probe = {"metadata": {"annotations": {"example.com/probe": "x"}}}
        secret = item(runner.namespace, SECRETS, runner.secret)
        async with asyncio.timeout(LIMIT_S):
            while not is_called.is_set():
                await world.admin.call("PATCH", secret, probe, content_type=MERGE, dryRun="All")
        yield
    finally:
        await world.admin.call("DELETE", f"{path}/{name}")
        await server.cleanup()


def shown(name: str, trace: Json) -> str:
    """Return the picture of a trace; its data stays in `build/traces` for a closer look."""
    folder = Path("build/traces")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(trace))
    return draw(trace)


async def test_which_write_of_the_startup_resync_was_slow_and_which_failed(
    world: World, jaeger: Jaeger, tmp_path: Path
) -> None:
    slow, refused = world.runners[3], world.runners[5]
    await world.refuse_writes(refused, policy=f"refuse-{refused.namespace}")
    async with (
        slow_admission(world, slow, tmp_path),
        running(environment(world, jaeger, "resync")) as controller,
    ):
        await controller.wait_for_event("startup_resync_finished")
        [line] = controller.events("startup_resync_finished")
        [refusal] = controller.events("write_refused")
        [trace] = await found(
            "startup resync", lambda: jaeger.traces("resync", operation="startup_resync")
        )
        assert await controller.terminate() == 0
    assert trace["traceID"] == line["trace_id"] == refusal["trace_id"]
    spans = {span["spanID"]: span for span in trace["spans"]}
    writes = [span for span in trace["spans"] if span["operationName"] == PATCH]
    longest = max(writes, key=lambda span: span["duration"])
    assert tags(longest)["token_reconciler.secret.name"] == slow.secret
    assert longest["duration"] >= SLOW_S * 1e6
    failures = [span for span in writes if tags(span).get("error")]
    assert {tags(one)["token_reconciler.secret.name"] for one in failures} == {refused.secret}
    failed = failures[0]
    assert tags(failed)["http.response.status_code"] == 403
    assert tags(failed)["otel.status_description"] == refusal["error"]
    root = by_name(trace)["startup_resync"]
    for write in (longest, failed):
        [run] = parents(write)
        assert parents(spans[run]) == {root["spanID"]}
    assert {"403", slow.session_id, refused.session_id} <= set(shown("resync", trace).split(" "))


async def test_why_did_this_session_fail(world: World, jaeger: Jaeger) -> None:
    runner = world.runners[0]
    async with running(environment(world, jaeger, "session")) as controller:
        await controller.wait_for_event("startup_resync_finished")
        await world.refuse_writes(runner, policy=f"refuse-{runner.namespace}")
        await controller.wait_for_event("write_refused")
        [line] = controller.events("write_refused")
        asked = {
            "token_reconciler.session.id": runner.session_id,
            "token_reconciler.outcome": "failed",
        }
        traces = await found(
            "failure of the session",
            lambda: jaeger.traces("session", operation="reconcile", tags=json.dumps(asked)),
        )
        assert await controller.terminate() == 0
    [trace] = [one for one in traces if one["traceID"] == line["trace_id"]]
    spans = by_name(trace)
    run, write = spans["reconcile"], spans[PATCH]
    assert tags(run)["otel.status_description"] == tags(write)["otel.status_description"]
    assert tags(write)["otel.status_description"] == line["error"]
    fields = {field["key"]: field["value"] for log in write["logs"] for field in log["fields"]}
    assert (fields["event"], fields["exception.message"]) == ("exception", line["error"])
    assert tags(write)["url.full"].startswith(f"{world.control_plane.url}/api/v1/namespaces/")
    process = {tag["key"]: tag["value"] for tag in trace["processes"][run["processID"]]["tags"]}
    assert {
        "service.namespace": world.home,
        "k8s.namespace.name": world.home,
        "k8s.pod.name": "reconciler-0",
        "k8s.cluster.name": "east",
    }.items() <= process.items()
    assert "403" in shown("session", trace)


async def test_what_did_the_outage_do(world: World, jaeger: Jaeger) -> None:
    async with running(environment(world, jaeger, "outage")) as controller:
        await controller.wait_for_event("startup_resync_finished")
        world.issuer.faults.unreachable = True
        began_s = world.issuer.now_s()
        await controller.wait_for_event("refresh_failed")
        while world.issuer.now_s() < began_s + OUTAGE_S:
            await asyncio.sleep(0.2)
        world.issuer.faults.unreachable = False
        await controller.wait_for_event("endpoint_recovered")
        [line] = controller.events("refresh_failed")
        assert await controller.terminate() == 0
    [trace] = await found("outage", lambda: jaeger.traces("outage", operation="endpoint_failures"))
    root = by_name(trace)["endpoint_failures"]
    assert tags(root)["token_reconciler.endpoint"] == "issuer"
    assert tags(root)["token_reconciler.failed_runs"] > SESSIONS
    assert tags(root)["token_reconciler.failed_sessions"] == SESSIONS
    assert "the connection was closed before an answer" in tags(root)["otel.status_description"]
    names = [span["operationName"] for _, span in ordered(trace)]
    assert names.count("reconcile") <= SESSIONS
    requests = [span for span in trace["spans"] if span["operationName"] == "POST"]
    assert len(requests) >= 3
    assert all(tags(span)["error"] is True for span in requests)
    failed = {
        one["traceID"]
        for one in jaeger.traces("outage")
        if any(tags(span).get("error") for span in one["spans"])
    }
    # The only other trace is the one that the log names: it and the outage link to each other.
    assert failed == {trace["traceID"], line["trace_id"]}
    [named] = jaeger.trace(line["trace_id"])
    linked = {one["traceID"] for span in named["spans"] for one in span["references"]}
    assert trace["traceID"] in linked
    assert line["trace_id"] in {one["traceID"] for one in root["references"]}
    assert "endpoint_failures" in shown("outage", trace)
