"""What a collector may cost: one time limit for an export, 64 KiB of an answer; only 2xx is sent.

Without these limits each of these collectors holds the exporter's thread, or memory, without end.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import ClassVar

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)
from structlog.testing import capture_logs

from reconciler.app import telemetry
from reconciler.app.telemetry import CLOSE_S, Telemetry
from reconciler.clock import ClockOffset, SystemClock
from reconciler.net.client_session import Peer
from reconciler.telemetry.batch_exporter import Send
from reconciler.telemetry.otlp import TraceSender, span_sender
from reconciler.telemetry.otlp_adapter import MAX_BODY_BYTES, BoundedAdapter, NotDeliveredError
from reconciler.telemetry.otlp_settings import OtlpSettings
from reconciler.telemetry.otlp_spans import SampledTrace
from reconciler.telemetry.trace import Tracer
from tests.lab.scripted_server import Peer as Client
from tests.lab.scripted_server import Scripted, Turn, answer, scripted

LIMIT_S = 20.0

OK = b"HTTP/1.1 200 OK\r\n"

PROTOBUF, LOGIN = (
    "Content-Type: application/x-protobuf\r\n",
    "Content-Type: text/html; charset=a\r\n",
)

REJECTED, WARNED = (
    ExportTraceServiceResponse(
        partial_success=ExportTracePartialSuccess(rejected_spans=number, error_message="no room")
    ).SerializeToString()
    for number in (1, 0)
)
"""Of one span one is rejected; and nothing is, which is a warning."""


def endless(head: bytes, piece: bytes, *, pause_s: float = 0.0, sent: list[int]) -> Turn:
    """Begin an answer and send one piece after another as long as the client reads."""

    async def turn(peer: Client) -> None:
        await peer.send(head)
        while True:
            await peer.send(piece)
            sent[0] += len(piece)
            await asyncio.sleep(pause_s)

    return turn


@asynccontextmanager
async def exporting(
    collector: Scripted, limit: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[TraceSender, Callable[[], Awaitable[bool]]]]:
    """Yield what sends traces to the collector, and a call that sends one trace."""
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_TIMEOUT": limit}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    clock = SystemClock()
    sender = span_sender("replica", environ, clock)
    trace = Tracer(clock, Random(1)).begin("startup_resync")
    trace.ended_at = trace.began_at

    async def send() -> bool:
        return await asyncio.to_thread(sender, [SampledTrace(trace, ClockOffset(0))])

    try:
        yield sender, send
    finally:
        await asyncio.to_thread(sender.close)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK, b"X-Slow: 1\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (OK + b"Content-Length: 60000\r\n\r\n", b"."),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n.\r\n"),
    ],
    ids=["headers", "interim answers", "body", "chunks"],
)
async def test_a_collector_that_trickles_ends_with_the_exports_time(
    head: bytes, piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [0]
    turns = [endless(head, piece, pause_s=0.02, sent=sent)] * 100
    async with (
        scripted(*turns) as collector,
        exporting(collector, "0.5", monkeypatch) as (sender, send),
    ):
        assert await send() is False
        assert sender.problem == "no answer in time"
        # One time for the whole export: a second try would begin another one.
        assert len(collector.requests) == 1
    assert sent[0] > 0


async def test_an_answer_without_end_is_read_to_its_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = [0]
    piece = b"1000\r\n" + b"." * 4096 + b"\r\n"
    turn = endless(OK + b"Transfer-Encoding: chunked\r\n\r\n", piece, sent=sent)
    async with (
        scripted(turn) as collector,
        exporting(collector, "10", monkeypatch) as (sender, send),
    ):
        assert await send() is False
        assert sender.problem == "its answer is longer than 64 KiB"
        while not collector.gone:
            await asyncio.sleep(0.01)
    # In addition to the read bytes, the sockets' buffers have some.
    assert MAX_BODY_BYTES < sent[0] < 256 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    "piece",
    [b"X-Long: " + b"." * 60_000 + b"\r\n", b"X-Short: 1\r\n"],
    ids=["long headers", "many headers"],
)
async def test_headers_without_end_are_read_to_their_bound(
    piece: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = [0]
    async with (
        scripted(endless(OK, piece, sent=sent)) as collector,
        exporting(collector, "10", monkeypatch) as (sender, send),
    ):
        assert await send() is False
        assert sender.problem == "its answer has a header above 8 KiB, or more than 64"
        while not collector.gone:
            await asyncio.sleep(0.01)
    assert 0 < sent[0] < 256 * MAX_BODY_BYTES


@pytest.mark.parametrize(
    ("turns", "delivers", "problem"),
    [
        ([answer(200)], True, ""),
        ([answer(202, b"." * MAX_BODY_BYTES)], True, ""),
        ([answer(200, b"." * (MAX_BODY_BYTES + 1))], False, "its answer is longer than 64 KiB"),
        (
            [answer(302, headers="Location: /elsewhere\r\n"), answer(200)],
            False,
            "the collector answered 302",
        ),
        ([answer(304, b""), answer(200)], False, "the collector answered 304"),
        ([answer(401), answer(200)], False, "the collector answered 401"),
        ([answer(503, headers="Retry-After: 0\r\n"), answer(200)], True, ""),
        (
            [answer(429, headers="Retry-After: 3600\r\n"), answer(200)],
            False,
            "the collector answered 429",
        ),
        ([answer(200, b"", headers=PROTOBUF)], True, ""),
        ([answer(200, b"\xff no message", headers=PROTOBUF)], True, ""),
        ([answer(200, WARNED, headers=PROTOBUF)], True, ""),
        ([answer(200, REJECTED, headers=PROTOBUF)], False, "the collector rejected 1 span"),
        ([answer(200, headers=LOGIN)], False, "a web page answered, not a collector"),
    ],
    ids=[
        "200",
        "202 at the bound",
        "above the bound",
        "302",
        "304",
        "401",
        "503 once",
        "429",
        "empty message",
        "no message",
        "warning",
        "rejected",
        "login page",
    ],
)
async def test_only_a_whole_answer_of_2xx_is_sent(
    turns: list[Turn], delivers: bool, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        scripted(*turns) as collector,
        exporting(collector, "5", monkeypatch) as (sender, send),
    ):
        assert await send() is delivers
        assert {request.line for request in collector.requests} == {"POST /v1/traces HTTP/1.1"}
        if not delivers:
            assert sender.problem == problem
            assert len(collector.requests) == 1


@pytest.mark.parametrize(
    ("wait", "may_retry"),
    [("0", True), ("3", True), ("3600", False), ("Fri, 31 Dec 2100 23:59:59 GMT", False)],
)
async def test_a_retry_is_left_to_the_library_only_where_it_comes_in_time(
    wait: str, may_retry: bool
) -> None:
    # The library compares with the wall clock, which may be stepped back under it.
    async with scripted(answer(503, headers=f"Retry-After: {wait}\r\n")) as collector:
        adapter = BoundedAdapter(Peer(collector.url, SystemClock()), 5.0, monotonic=lambda: 0.0)
        request = requests.Request("POST", collector.url, data=b"x").prepare()

        def send() -> int:
            try:
                return adapter.send(request).status_code
            except NotDeliveredError:
                return 0
            finally:
                adapter.close()

        assert await asyncio.to_thread(send) == (503 if may_retry else 0)


async def test_an_export_whose_time_is_over_sends_nothing() -> None:
    now = [0.0]
    async with scripted(answer(), answer()) as collector:
        adapter = BoundedAdapter(Peer(collector.url, SystemClock()), 5.0, monotonic=lambda: now[0])
        request = requests.Request("POST", collector.url, data=b"x").prepare()

        def send() -> list[int]:
            adapter.begin()
            now[0] = 5.0
            with pytest.raises(NotDeliveredError):
                adapter.send(request)
            adapter.begin()
            sent = [adapter.send(request).status_code]
            adapter.close()
            return sent

        assert await asyncio.to_thread(send) == [200]
        assert len(collector.requests) == 1


class _Silent:
    """An exporter that records how long it may take to end."""

    limits: ClassVar[list[float]] = []

    def __init__(self, signal: str, send: Send[object], **_: object) -> None:
        self.signal = signal
        self._send = send

    def close(self, limit_s: float) -> None:
        self._send.close()
        self.limits.append(limit_s)


async def test_what_waits_has_one_second_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(telemetry, "BatchExporter", _Silent)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    found = Telemetry(SystemClock(), OtlpSettings(traces=True))
    await found.close()
    assert _Silent.limits == [CLOSE_S]
    assert CLOSE_S <= 1.0


async def test_a_library_that_cannot_be_started_leaves_the_rest_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("obviously-fake-secret")

    monkeypatch.setattr(telemetry, "span_sender", broken)
    with capture_logs() as lines:
        found = Telemetry(SystemClock(), OtlpSettings(traces=True))
    await found.close()
    assert [(line["event"], line["signal"], line["reason"]) for line in lines] == [
        ("telemetry_off", "traces", "RuntimeError"),
    ]
