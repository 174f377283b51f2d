"""What metrics, traces and logs say of the whole controller, minutes of virtual time at once."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import pytest
import structlog
from msgspec.structs import replace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import LogCapture

from reconciler.app.telemetry import MetricsEndpoint, Telemetry
from reconciler.clock import ClockOffset
from reconciler.controller.compose import connect
from reconciler.controller.controller import Controller
from reconciler.controller.ports import IssuerPort
from reconciler.controller.status.collector import StatusCollector
from reconciler.controller.status.run_traces import RunTraces
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.errors import Invalid, ServerError, TransportError
from reconciler.lab.apiserver import in_process_client
from reconciler.lab.apiserver.fault_injection import InjectedFault
from reconciler.lab.apiserver.representations import event_bytes
from reconciler.telemetry.log_setup import add_trace_id
from reconciler.telemetry.otlp_settings import OtlpSettings, Sampler
from reconciler.telemetry.otlp_spans import SampledTrace, spans_of
from reconciler.telemetry.trace import Trace
from tests.lab.leaks import find_leaks
from tests.unit.controller.succession import Succession
from tests.unit.controller.virtual import World, finished, running, simulate

OFF = OtlpSettings(traces=False)
SECRET = "/api/v1/namespaces/{namespace}/secrets/{name}"


@dataclass
class Watched:
    telemetry: Telemetry
    status_collector: StatusCollector
    traces: list[Trace]

    def named(self, name: str) -> list[Trace]:
        return [trace for trace in self.traces if trace.name == name]

    async def values(self) -> dict[str, float]:
        """Return every sample by its text without the prefix: `refreshes_total{...}`."""
        await self.status_collector.snapshot(max_age_s=0.0)
        return {
            _text(sample.name, sample.labels): sample.value
            for family in text_string_to_metric_families(
                self.telemetry.metrics_registry.render().decode()
            )
            for sample in family.samples
        }


def _text(name: str, labels: dict[str, str]) -> str:
    inner = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    return name.removeprefix("token_reconciler_") + (f"{{{inner}}}" if inner else "")


async def watch(world: World, *, ratio: float = 1.0, per_session: bool = False) -> Watched:
    """Put a controller into the world that is looked at; what is kept stays in a list."""
    await world.source.close()
    telemetry, traces = Telemetry(world.clock, OFF), list[Trace]()
    tracing = RunTraces(telemetry.tracer, Sampler(ratio).keeps, traces.append)
    world.ports = replace(
        world.ports,
        tokens=IssuerPort(telemetry.measure_token_request(world.issuer.ask)),
        tracer=telemetry.tracer,
        observers=(*telemetry.observers, tracing.observe),
    )
    world.endpoints = connect(world.ports)
    _endpoint(telemetry, world, per_session=per_session)
    return Watched(telemetry, world.controller.status_collector, traces)


def _endpoint(telemetry: Telemetry, world: World, *, per_session: bool = False) -> MetricsEndpoint:
    controller = world.controller
    return MetricsEndpoint(
        telemetry.metrics_registry,
        controller.status_collector,
        controller.events.stats,
        world.clock,
        per_session=per_session,
    )


async def settled(world: World) -> None:
    async with asyncio.timeout(60):
        await world.controller.startup.finished.wait()
        await asyncio.sleep(5)


def spans(*traces: Trace) -> list[ReadableSpan]:
    resource = Resource.get_empty()
    return [
        span
        for trace in traces
        for span in spans_of(SampledTrace(trace, ClockOffset(1e9)), resource)
    ]


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def test_a_reconcile_is_one_trace_from_the_queue_to_the_patch_and_names_its_cause() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        watched = await watch(world)
        async with running(world):
            await settled(world)
        first = watched.named("reconcile")[0]
        made = {span.name: span for span in spans(first)}
        assert list(made) == ["reconcile", "queue", "token_request", f"PATCH {SECRET}"]
        root = made["reconcile"]
        assert attributes(root) == {
            "k8s.namespace.name": "team-a",
            "k8s.pod.name": "session-2aa-runner",
            "k8s.pod.uid": attributes(root)["k8s.pod.uid"],
            "token_reconciler.session.id": "2Aa",
            "token_reconciler.outcome": "refreshed",
            "token_reconciler.reason": "first_write",
            "token_reconciler.queued_for": "startup_resync",
            "token_reconciler.priority": "expiring",
            "token_reconciler.attempt": 1,
            "token_reconciler.lateness_s": 0.0,
        }
        [resync] = watched.named("startup_resync")
        assert root.parent is not None
        assert (root.parent.trace_id, root.parent.span_id) == resync.id
        assert first.trace_id == resync.trace_id
        assert attributes(made[f"PATCH {SECRET}"]) == {
            "http.request.method": "PATCH",
            "url.template": SECRET,
            "token_reconciler.secret.name": "session-2aa-creds",
            "k8s.namespace.name": "team-a",
        }
        assert all(span.context.trace_id == first.trace_id for span in made.values())
        assert all(span.parent for span in made.values())
        touched = [t for t in watched.named("reconcile") if any(s.name == "touch" for s in t.spans)]
        [link] = touched[0].links
        [event, *_] = watched.named("secret_seen")
        assert link == ("touch", event.id)

    simulate(scenario)


def test_the_startup_resync_of_hundreds_is_one_trace_with_its_slowest_runs() -> None:
    async def scenario(world: World) -> None:
        for number in range(300):
            world.add(f"2Ab{number}")
        watched = await watch(world, ratio=0.0)
        async with running(world):
            await settled(world)
        [resync] = watched.named("startup_resync")
        assert [step.name for step in resync.spans] == ["queue_pods", "list_sessions", "refresh"]
        assert resync.attributes == {"sessions": 300, "sessions.refreshed": 300}
        assert resync.seconds == pytest.approx(world.controller.startup.seconds, abs=0.1)
        assert watched.traces[-1] is resync
        assert [trace.name for trace in watched.traces] == ["reconcile"] * 10 + ["startup_resync"]
        assert {trace.trace_id for trace in watched.traces} == {resync.trace_id}
        assert all(trace.spans for trace in watched.traces)

    simulate(scenario)


def test_the_startup_resync_has_its_slow_and_its_failed_writes() -> None:
    async def scenario(world: World) -> None:
        for number in range(40):
            world.add(f"2Ab{number}")
        slow, refused = "session-2ab7-creds", "session-2ab9-creds"
        patch = world.ports.kube.patch

        async def delayed(resource: Any, namespace: str, name: str, *args: Any, **more: Any) -> Any:
            await asyncio.sleep(0.3 if name == slow else 0.001)
            if name == refused:
                raise Invalid("obviously invalid", status=422)
            return await patch(resource, namespace, name, *args, **more)

        world.ports.kube.patch = delayed  # type: ignore[method-assign]
        watched = await watch(world, ratio=0.0)
        async with running(world):
            await settled(world)
        [resync] = watched.named("startup_resync")
        runs = [one for one in watched.traces if one.trace_id == resync.trace_id and one.spans]
        writes = {step.target: step for run in runs for step in run.spans if step.name == "patch"}
        assert max(writes.values(), key=lambda step: step.seconds).target == slow
        assert writes[refused].message == "obviously invalid"
        assert writes[refused].trace.failed
        assert len(runs) == 12  # the resync, the ten slowest, the failed one

    simulate(scenario)


def test_an_outage_is_one_trace_a_minute_with_each_session_once() -> None:
    async def scenario(world: World) -> None:
        for number in range(80):
            world.add(f"2Ab{number}")
        watched = await watch(world, ratio=0.0)
        async with running(world):
            await settled(world)
            del watched.traces[:]
            world.issuer.unreachable = True
            await asyncio.sleep(1000)
            world.issuer.unreachable = False
            await asyncio.sleep(120)
        roots = watched.named("endpoint_failures")
        assert 5 < len(roots) < 18
        ids = {root.trace_id for root in roots}
        failed = [trace for trace in watched.traces if trace.failed]
        others = [trace for trace in failed if trace.trace_id not in ids]
        # A run of the periodic resync stays in its trace, and links to the outage's.
        assert {trace.parent.name for trace in others if trace.parent} <= {"resync"}
        assert all(ids & {link.trace_id for _, link in trace.links} for trace in others)
        for root in roots:
            found = attributes(spans(root)[0])
            assert found["token_reconciler.endpoint"] == "issuer"
            assert not spans(root)[0].status.is_ok
            shown = [one for one in failed if one.parent is root and one.name == "reconcile"]
            subjects = [one.attributes["token_reconciler.session.id"] for one in shown]
            assert len(subjects) == len(set(subjects)) <= 50
            assert len(subjects) <= found["token_reconciler.failed_sessions"]
        counts = [root.attributes["token_reconciler.failed_runs"] for root in roots]
        assert sum(map(int, counts)) == sum(world.controller.stats.failures.values())

    simulate(scenario)


def test_an_outage_of_the_api_server_says_why() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        watched = await watch(world, ratio=0.0)
        async with running(world):
            await settled(world)
            world.faults.rule = lambda *_: InjectedFault(TransportError("no route to it"))
            world.faults.drop_watches()
            await asyncio.sleep(600)
        roots = watched.named("endpoint_failures")
        assert roots
        assert {root.message for root in roots} == {
            "the API server is unreachable, the last error was: no route to it"
        }

    simulate(scenario)


def test_a_request_that_many_runs_wait_for_is_in_the_trace_of_their_failure() -> None:
    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        world.issuer.unreachable = True
        watched = await watch(world, ratio=0.0)
        async with running(world):
            await asyncio.sleep(20)
            await asyncio.sleep(60)
        root = watched.named("endpoint_failures")[0]
        requests = [
            one for one in watched.traces
            if one.parent is root and one.name == "standby_token_request"
        ]  # fmt: skip
        assert requests
        assert all(request.failed and request.message for request in requests)

    simulate(scenario)


def test_every_failure_is_kept_whatever_the_ratio() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        watched = await watch(world, ratio=0.0)
        async with running(world):
            await settled(world)
            before = len(watched.traces)
            world.faults.rule = lambda verb, plural: (
                InjectedFault(Invalid("no", status=422)) if verb == "patch" else None
            )
            await asyncio.sleep(600)
            world.faults.rule = None
            await asyncio.sleep(100)
        failures = [t for t in watched.traces[before:] if t.name == "reconcile"]
        assert failures
        assert all(trace.failed for trace in failures)
        [root, *_, patch] = spans(failures[0])
        for failed in (root, patch):
            assert attributes(failed)["error.type"] == "Invalid"
            assert (failed.status.is_ok, failed.status.description) == (False, "no")
            [event] = failed.events
            assert event.name == "exception"
            assert event.attributes == {
                "exception.type": "Invalid", "exception.message": "no",
            }  # fmt: skip
        assert attributes(patch)["http.response.status_code"] == 422

    simulate(scenario)


def test_the_counters_agree_with_the_cluster() -> None:
    async def scenario(world: World) -> None:
        for number in range(4):
            world.add(f"2Ab{number}")
        watched = await watch(world)
        async with running(world):
            await settled(world)
            await asyncio.sleep(1800)
            values = await watched.values()
        written = sum(v for k, v in values.items() if k.startswith("refreshes_total"))
        assert written == len(world.secret_writes())
        assert values["pod_touches_total"] == len(world.pod_writes())
        patches = "write_duration_seconds_count{result=success,write=patch}"
        assert values[patches] == len(world.secret_writes())
        assert (
            values["token_request_duration_seconds_count{result=success}"] == world.issuer.requests
        )
        valid = ("sessions{state=ok}", "sessions{state=due}")
        assert sum(values.get(name, 0) for name in valid) == 4
        assert values["estimated_exposure_seconds_total"] == 0
        assert values["leader{shard=0}"] == 1
        assert values["shards"] == 1
        assert values["watch_bookmarks_total{namespace=,resource=pods}"] > 20
        assert values["endpoint_down{endpoint=kube}"] == 0

    simulate(scenario)


def test_a_refusal_shows_until_it_ends() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        watched = await watch(world)
        async with running(world):
            await settled(world)
            world.issuer.refused = True
            await asyncio.sleep(400)
            down = "endpoint_down{endpoint=issuer}"
            assert (await watched.values())[down] == 1
            world.issuer.refused = False
            await asyncio.sleep(40)
            assert (await watched.values())[down] == 0

    simulate(scenario)


def test_an_outage_shows_and_series_of_ended_pods_are_gone() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        world.add("2Bb")
        watched = await watch(world, per_session=True)
        async with running(world):
            await settled(world)
            values = await watched.values()
            series = "session_remaining_life_seconds{namespace=team-a,session_id=2Bb}"
            assert values[series] > 800
            world.delete_pod("2Bb")
            world.platform.sessions.pop("2Bb")
            world.issuer.unreachable = True
            await asyncio.sleep(1000)
            values = await watched.values()
            assert series not in values
            assert values["endpoint_down{endpoint=issuer}"] == 1
            assert values["endpoint_outages_total{endpoint=issuer}"] == 1
            assert values["fleet_survival_seconds"] == 0
            assert values["sessions{state=expired}"] == 1
            assert values["remaining_life_min_seconds{shard=0}"] < 0
            assert values["estimated_exposure_seconds_total"] > 50
            assert values["token_request_duration_seconds_count{result=IssuerUnavailable}"] > 0
            assert values["refresh_errors_total{error=IssuerUnavailable}"] > 0

    simulate(scenario)


def test_an_object_that_cannot_be_read_and_a_handler_that_crashes_are_counted() -> None:
    def crash(_: EventHandler, __: object) -> None:
        raise ZeroDivisionError("obviously a defect")

    def damaged(*args: Any, **options: Any) -> bytes:
        line = event_bytes(*args, **options)
        return line.replace(b'"uid":', b'"uid":5,"was":') if b"2odd" in line else line

    async def scenario(world: World) -> None:
        world.add("2Aa")
        watched = await watch(world)
        async with running(world):
            await settled(world)
            values = await watched.values()
            assert [values[name] for name in (skipped, of_secrets)] == [0, 1]
            world.add_pod("2Odd")
            world.add_secret("2Bb")
            await asyncio.sleep(5)
            values = await watched.values()
            assert [values[name] for name in (skipped, of_pods, of_secrets)] == [1, 0, 2]

    skipped = "watch_skipped_objects_total{namespace=,resource=pods}"
    of_pods = "watch_handler_panics_total{namespace=,resource=pods}"
    of_secrets = "watch_handler_panics_total{namespace=,resource=secrets}"
    with (
        mock.patch.object(EventHandler, "secret_seen", crash),
        mock.patch.object(in_process_client, "event_bytes", damaged),
    ):
        simulate(scenario)


def test_metrics_are_there_before_anything_else_is() -> None:
    async def scenario(world: World) -> None:
        telemetry = Telemetry(world.clock, OFF)
        assert b"token_reconciler_build_info" in telemetry.metrics_registry.render()
        _endpoint(telemetry, world)  # not running: no list, no session, no answer
        await world.controller.status_collector.snapshot()
        text = telemetry.metrics_registry.render()
        assert b'token_reconciler_watch_synced{namespace="",resource="pods"} 0.0' in text
        assert b"token_reconciler_issuer_clock_skew_seconds" not in text

    simulate(scenario)


def test_no_token_is_in_any_span_or_metric() -> None:
    async def scenario(world: World) -> None:
        world.add("2Aa")
        watched = await watch(world, per_session=True)
        async with running(world):
            await settled(world)
            await asyncio.sleep(1000)
            world.overwrite("2Aa", "obviously-fake-intruder-token")
            await asyncio.sleep(60)
        texts = {str(n): span.to_json() for n, span in enumerate(spans(*watched.traces))}
        texts["metrics"] = watched.telemetry.metrics_registry.render().decode()
        assert len(texts) > 10
        secrets = [*world.issuer.minted, "obviously-fake-intruder-token"]
        assert find_leaks(texts, secrets) == []

    simulate(scenario)


@contextmanager
def logged() -> Iterator[list[Any]]:
    capture = LogCapture()
    structlog.configure(processors=[add_trace_id, capture])
    yield capture.entries


def test_every_line_of_a_reconcile_names_its_trace_and_no_other_does() -> None:
    async def scenario(world: World) -> None:
        with logged() as lines:
            world.add("2Aa")
            watched = await watch(world)
            async with running(world):
                await settled(world)
                world.delete_secret("2Aa")
                await asyncio.sleep(60)
        ids = {trace.hex_id for trace in watched.traces}
        by_event = {line["event"]: line for line in lines}
        for event in ("runner_token_refreshed", "secret_recreated", "startup_resync_started"):
            assert by_event[event]["trace_id"] in ids
        assert "trace_id" not in by_event["stores_synced"]
        recreated = [line for line in lines if line["event"] == "secret_recreated"]
        refreshed = [line for line in lines if line["event"] == "runner_token_refreshed"]
        assert recreated[0]["trace_id"] == refreshed[-1]["trace_id"]
        assert refreshed[0]["trace_id"] != refreshed[-1]["trace_id"]
        assert json.dumps(lines)

    simulate(scenario)


def test_who_fails_to_look_on_takes_no_token_along() -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError("obviously a defect")

    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        await watch(world)
        ports = replace(world.ports, observers=(crash, *world.ports.observers))
        world.controller = Controller(ports, world.endpoints, world.config)
        world.controller.status_collector._collect = crash  # type: ignore[method-assign,assignment]  # a defect
        async with running(world):
            await settled(world)
            await world.controller.status_collector.update(
                max_age_s=0.0
            )  # as who sends metrics does
            await asyncio.sleep(1200)
            assert min(world.remaining_s(f"2Ab{n}") for n in range(3)) > 300
        assert world.controller.stats.reconcile_panics_total >= 9
        for name in ("observer_failed", "status_snapshot_failed"):
            assert 1 <= len(world.events(name)) <= 3  # said again after ten minutes

    simulate(scenario)


def test_lateness_counts_from_when_a_write_was_first_due_however_often_it_was_tried() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        watched = await watch(world)
        async with running(world):
            await settled(world)
            fails = InjectedFault(ServerError("oops", status=503))
            world.faults.rule = lambda verb, plural: fails if verb == "patch" else None
            while not world.controller.stats.failures:
                await asyncio.sleep(0.01)
            due_at = world.clock.monotonic()
            await asyncio.sleep(45)
            world.faults.rule = None
            while len(refreshed := world.events("runner_token_refreshed")) == 1:
                await asyncio.sleep(0.01)
            late_s = world.clock.monotonic() - due_at
            assert late_s > 45
            assert refreshed[-1]["lateness_seconds"] == pytest.approx(late_s, abs=0.1)
            assert world.controller.stats.failures["ServerError"] > 3
            written = watched.named("reconcile")[-1]
            root = attributes(spans(written)[0])
            assert root["token_reconciler.lateness_s"] == pytest.approx(late_s, abs=0.1)
            text = watched.telemetry.metrics_registry.render().decode()
            assert total(text, "lateness_seconds_sum") == pytest.approx(late_s, abs=1.0)

    simulate(scenario)


def test_what_was_due_before_this_replica_led_is_not_its_lateness() -> None:
    async def scenario(world: World) -> None:
        world.add("2Ab0")
        async with running(world):
            await finished(world, 1)
        ports = replace(world.ports, leadership=(succession := Succession()))
        async with running(world, Controller(ports, world.endpoints, world.config)):
            await asyncio.sleep(600)
            world.logs.clear()
            succession.begin()
            await finished(world, 1)
            [line] = world.events("runner_token_refreshed")
            assert line["lateness_seconds"] < 1

    simulate(scenario)


def total(text: str, name: str) -> float:
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.endswith(name)
    )
