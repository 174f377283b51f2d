"""A collector that is unreachable, hangs, refuses or sends garbage does not affect the runners."""

import asyncio
import re

import aiohttp
import pytest

from reconciler.lab.cluster.cluster import LabCluster
from tests.controller import running
from tests.lab.scripted_server import Turn, answer, raw, scripted, silence, stream

MANY = 10_000
"""Number of answers in a script: more than any run of these tests requests."""

UNREACHABLE = "http://127.0.0.1:1"
"""No process listens there: every connection is refused."""


@pytest.mark.parametrize(
    ("turn", "delivers"),
    [
        (None, False),
        (answer(400, b"<html>obviously not OTLP</html>"), False),
        (answer(503, headers="Retry-After: 3600\r\n"), False),
        (answer(200, b"\x00\xff garbage" * 1000), True),
        (raw(b"\x00\xff no HTTP at all\r\n\r\n"), False),
        (stream(b"200 and then nothing"), False),
        (silence(), False),
    ],
    ids=["unreachable", "refuses", "throttles", "babbles", "no http", "never ends", "hangs"],
)
async def test_a_bad_collector_costs_its_own_telemetry_alone(
    turn: Turn | None, delivers: bool
) -> None:
    turns = [turn] * MANY if turn is not None else []
    async with (
        LabCluster(seed=1) as lab,
        scripted(*turns) as collector,
        aiohttp.ClientSession() as http,
    ):
        lab.populate(20)
        settings = lab.environment() | {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url if turns else UNREACHABLE,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_TRACES_SAMPLER": "always_on",
        }
        async with running(settings) as controller:
            await controller.wait_for_event("startup_resync_finished")
            [finished] = controller.events("startup_resync_finished")
            assert finished["refreshed"] == 20
            wanted = "sent" if delivers else "failed"
            await scraped(http, lab, f'{{result="{wanted}",signal="traces"}}')
            # A flush without a time limit would wait for such a collector without end.
            assert await controller.terminate() == 0
            await controller.wait_for_event("stopped")
        said = controller.events("telemetry_export_failed")
        assert {line["signal"] for line in said} <= {"traces"}
        assert len(said) <= 1
        assert bool(said) != delivers
        text = "".join(controller.text)
        assert "Traceback" not in text
        assert "obviously not OTLP" not in text


async def scraped(http: aiohttp.ClientSession, lab: LabCluster, labels: str) -> None:
    """Return once the count of items with these labels is above zero."""
    pattern = re.compile(
        rf"^token_reconciler_telemetry_items_total{re.escape(labels)} ([\d.]+)$", re.MULTILINE
    )
    async with asyncio.timeout(20):
        while True:
            async with http.get(f"http://127.0.0.1:{lab.port}/metrics") as answer:
                found = pattern.search(await answer.text())
            if found is not None and float(found[1]) > 0:
                return
            await asyncio.sleep(0.2)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "abc"),
    ],
)
async def test_a_variable_that_cannot_be_served_warns_once_and_stops_no_refresh(
    variable: str, value: str
) -> None:
    async with LabCluster(seed=1) as lab:
        lab.populate(5)
        settings = lab.environment() | {"OTEL_EXPORTER_OTLP_ENDPOINT": UNREACHABLE, variable: value}
        async with running(settings) as controller:
            await controller.wait_for_event("startup_resync_finished")
            [finished] = controller.events("startup_resync_finished")
            assert finished["refreshed"] == 5
            assert await controller.terminate() == 0
            await controller.wait_for_event("stopped")
        [said] = controller.events("telemetry_variable_ignored")
        assert (said["variable"], said["level"]) == (variable, "warning")
