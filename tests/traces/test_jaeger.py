"""Traces as a stranger finds them in a real Jaeger: the controller as a process, over real sockets.

Each test has a separate service name, so that one Jaeger serves all tests.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from reconciler.controller.status.run_traces import CHANGES
from reconciler.lab.apiserver import kinds
from reconciler.lab.cluster.cluster import LabCluster
from tests.controller import Controller, running
from tests.lab.leaks import find_leaks
from tests.traces.jaeger import Jaeger

pytestmark = pytest.mark.cluster

LIMIT_S = 20.0
SECRETS = "/api/v1/namespaces/{namespace}/secrets"
PATCH = f"PATCH {SECRETS}/{{name}}"
FAILED = '{"token_reconciler.outcome":"failed"}'

Json = dict[str, Any]


@pytest.fixture
async def lab() -> AsyncIterator[LabCluster]:
    async with LabCluster(ttl_s=60.0, seed=1) as opened:
        yield opened


def environment(lab: LabCluster, jaeger: Jaeger, service: str, **more: str) -> dict[str, str]:
    standard = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_url,
        "OTEL_SERVICE_NAME": service,
        "OTEL_TRACES_SAMPLER": "always_on",
    }
    return lab.environment() | standard | more


async def found(what: str, ask: Callable[[], list[Json]]) -> list[Json]:
    """Return what a query finds, once it finds something."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (traces := await asyncio.to_thread(ask)):
                await asyncio.sleep(0.2)
            return traces
    except TimeoutError:
        raise AssertionError(f"Jaeger has no {what}") from None


def by_name(trace: Json) -> dict[str, Json]:
    return {span["operationName"]: span for span in trace["spans"]}


def tags(span: Json) -> Json:
    return {tag["key"]: tag["value"] for tag in span["tags"]}


def parents(span: Json) -> set[str]:
    return {one["spanID"] for one in span["references"] if one["refType"] == "CHILD_OF"}


async def started(controller: Controller, lab: LabCluster) -> None:
    await controller.wait_for_event("startup_resync_finished")
    await controller.wait_for_event("runner_token_refreshed", count=len(lab.sessions))


async def test_a_stranger_reads_a_reconcile_and_the_resync_that_queued_it(
    lab: LabCluster, jaeger: Jaeger
) -> None:
    lab.populate(6)
    async with running(environment(lab, jaeger, "readable")) as controller:
        await started(controller, lab)
        [resync] = await found(
            "startup resync", lambda: jaeger.traces("readable", operation="startup_resync")
        )
        line = controller.events("runner_token_refreshed")[0]
        trace = (await found("trace of the log", lambda: jaeger.trace(line["trace_id"])))[0]
        assert await controller.terminate() == 0
    assert not controller.events("telemetry_export_failed")

    resync_spans = by_name(resync)
    head = resync_spans["startup_resync"]
    assert trace["traceID"] == head["traceID"]
    [root] = [
        span
        for span in trace["spans"]
        if span["operationName"] == "reconcile"
        and tags(span)["token_reconciler.session.id"] == line["session_id"]
        and tags(span)["token_reconciler.outcome"] == "refreshed"
    ]
    assert parents(root) == {head["spanID"]}
    spans = {
        span["operationName"]: span for span in trace["spans"] if parents(span) == {root["spanID"]}
    }
    assert {"queue", "token_request", PATCH} <= spans.keys()
    assert tags(root)["token_reconciler.session.id"] == line["session_id"]
    assert tags(root)["k8s.namespace.name"] == line["namespace"]
    assert tags(root)["token_reconciler.reason"] == line["reason"]
    patch = tags(spans[PATCH])
    assert patch["http.request.method"] == "PATCH"
    assert patch["http.response.status_code"] == 200
    assert patch["span.kind"] == "client"
    assert patch["url.full"].startswith(f"http://{patch['server.address']}:{patch['server.port']}/")
    assert f"/secrets/{patch['token_reconciler.secret.name']}?" in patch["url.full"]
    assert sum(span["duration"] for span in spans.values()) > 0

    assert tags(head)["sessions"] == 6
    assert tags(head)["sessions.refreshed"] == 6
    pages = [span for span in resync["spans"] if span["operationName"] == "GET"]
    assert pages
    assert all("/api/ambient/v1/" in tags(page)["url.full"] for page in pages)
    assert all(tags(page)["http.response.status_code"] == 200 for page in pages)

    service = trace["processes"][root["processID"]]
    assert service["serviceName"] == "readable"
    assert "service.version" in {tag["key"] for tag in service["tags"]}


async def test_failures_are_kept_with_their_cause_when_nothing_else_is(
    lab: LabCluster, jaeger: Jaeger
) -> None:
    lab.populate(4)
    broken = next(iter(lab.sessions.values()))
    lab.core.patch(kinds.SECRETS, broken.namespace, broken.secret, {"immutable": True})
    settings = environment(
        lab, jaeger, "failing", OTEL_TRACES_SAMPLER="traceidratio", OTEL_TRACES_SAMPLER_ARG="0"
    )
    async with running(settings) as controller:
        await controller.wait_for_event("write_refused")
        await controller.wait_for_event("startup_resync_finished")
        failed = await found(
            "failure",
            lambda: jaeger.traces("failing", operation="reconcile", tags=FAILED),
        )
        assert await controller.terminate() == 0
    everything = jaeger.traces("failing", operation="reconcile")
    assert {trace["traceID"] for trace in everything} == {trace["traceID"] for trace in failed}
    spans = [span for trace in failed for span in trace["spans"] if tags(span).get("error.type")]
    runs = [tags(span) for span in spans if span["operationName"] == "reconcile"]
    assert {run["token_reconciler.session.id"] for run in runs} == {broken.session_id}
    assert {run["error.type"] for run in runs} == {"Invalid"}
    writes = [span for span in spans if span["operationName"] == PATCH]
    assert len(writes) == len(runs)
    for write in writes:
        patch = tags(write)
        assert patch["http.response.status_code"] == 422
        assert patch["error"] is True
        assert "422 Invalid" in patch["otel.status_description"]
        [exception] = write["logs"]
        fields = {field["key"]: field["value"] for field in exception["fields"]}
        assert (fields["event"], fields["exception.type"]) == ("exception", "Invalid")
        assert fields["exception.message"] == patch["otel.status_description"]


async def test_a_deleted_secret_shows_the_event_that_queued_its_repair(
    lab: LabCluster, jaeger: Jaeger
) -> None:
    lab.populate(2)
    async with running(environment(lab, jaeger, "repairing")) as controller:
        await started(controller, lab)
        lab.delete_secret(next(iter(lab.sessions.values())))
        await controller.wait_for_event("secret_recreated")
        line = controller.events("secret_recreated")[0]
        repair = (await found("repair", lambda: jaeger.trace(line["trace_id"])))[0]
        assert await controller.terminate() == 0
    spans = by_name(repair)
    assert {"queue", f"GET {SECRETS}", "token_request", f"POST {SECRETS}"} <= spans.keys()
    assert tags(spans[f"POST {SECRETS}"])["http.response.status_code"] == 201
    causes = [one for one in spans["reconcile"]["references"] if one["refType"] == "FOLLOWS_FROM"]
    linked = [set(by_name(trace)) for one in causes for trace in jaeger.trace(one["traceID"])]
    reasons = tags(spans["reconcile"])["token_reconciler.queued_for"].split(",")
    # A touch that was due anyway may have come first and found the Secret gone; what queued it is
    # a cause as well, be it the startup resync.
    events = {CHANGES[reason] for reason in reasons if reason in CHANGES}
    assert events & {"secret_changed", "secret_seen"}
    assert events <= {name for found in linked for name in found}
    assert all(found <= events or "startup_resync" in found for found in linked)


async def test_no_token_and_no_credential_reaches_jaeger(lab: LabCluster, jaeger: Jaeger) -> None:
    lab.populate(3)
    async with running(environment(lab, jaeger, "clean")) as controller:
        await started(controller, lab)
        await found("traces", lambda: jaeger.traces("clean", operation="standby_token_request"))
        assert await controller.terminate() == 0
    texts = {trace["traceID"]: repr(trace) for trace in jaeger.traces("clean")}
    assert len(texts) > 3
    assert find_leaks(texts, lab.secret_values()) == []
