"""The HTTP client against a server that breaks every rule: each failure is one of our errors."""

import asyncio
import base64
import gzip
import json
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from reconciler import errors
from reconciler.errors import KubeError, NotLeaderError, ProtocolError, TransportError
from reconciler.kube import client as client_module
from reconciler.kube.api import ApiResource, ListOptions, ObjectMeta, Permit
from reconciler.kube.client import HttpKube
from reconciler.kube.decoding import metadata_resource
from reconciler.kube.requests import MAX_LIST_BYTES, MAX_OBJECT_BYTES
from reconciler.naming import NO_ANNOTATIONS, Annotations, Names
from reconciler.net.client_pool import Connection
from tests.lab.scripted_server import Peer, Scripted, Turn, answer, raw, scripted, silence, stream
from tests.lab.tls import make_certificate, serving

NAMES = Names()
SECRETS = metadata_resource("secrets", NAMES)
PODS = metadata_resource("pods", NAMES)
ALL = ListOptions("team")
TOKEN = "tok-e-n.hidden"
MARKER = "m4rker-of-a-value"
LIMIT_S = 0.3


@dataclass
class FakeCredentials:
    """Credentials that a test changes."""

    url: str
    tls: ssl.SSLContext | None = None
    tokens: list[str] = field(default_factory=lambda: [TOKEN])
    identity: str = "one"
    renewed: int = 0
    hold: asyncio.Event | None = None
    on_renew: Callable[[], None] = lambda: None
    held_connection: asyncio.Event | None = None

    def version(self, *, fresh: bool = False) -> str:
        return self.identity

    async def connection(self) -> Connection:
        if self.held_connection is not None:
            await self.held_connection.wait()
        return Connection(self.url, self.tls, None, self.identity)

    async def headers(self, url: str = "") -> dict[str, str]:
        if self.hold is not None:
            await self.hold.wait()
        return {"Authorization": f"Bearer {self.tokens[0]}"}

    async def renew(self) -> None:
        self.renewed += 1
        if len(self.tokens) > 1:
            self.tokens.pop(0)
        self.on_renew()


@asynccontextmanager
async def connected(
    *turns: Turn, connections: int = 4
) -> AsyncIterator[tuple[HttpKube, Scripted, FakeCredentials]]:
    async with scripted(*turns) as server:
        credentials = FakeCredentials(server.url)
        async with HttpKube(credentials, NAMES, connections=connections) as kube:
            yield kube, server, credentials


def secret(name: str = "a", version: str = "7", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": "u", "resourceVersion": version} | metadata}


def event(kind: str, item: dict[str, Any]) -> bytes:
    return json.dumps({"type": kind, "object": item}, ensure_ascii=False).encode() + b"\n"


def status(code: int, reason: str = "", **more: Any) -> bytes:
    return json.dumps({"kind": "Status", "code": code, "reason": reason} | more).encode()


async def ask(kube: HttpKube, verb: str, permit: Permit | None = None) -> object:
    """Call one verb; a request body contains the marker."""
    body = {"x": MARKER}
    match verb:
        case "get":
            return await kube.get(SECRETS, "team", "a", limit_s=LIMIT_S)
        case "list":
            return await kube.list(SECRETS, ALL, limit_s=LIMIT_S)
        case "create":
            return await kube.create(SECRETS, "team", body, limit_s=LIMIT_S, permit=permit)
        case _:
            return await kube.patch(SECRETS, "team", "a", body, limit_s=LIMIT_S, permit=permit)


OBJECT = json.dumps(secret()).encode()
HTML = f"<html>{MARKER}</html>".encode()

FAULTS: dict[str, tuple[Turn, type[Exception]]] = {
    "silent peer": (silence(), TransportError),
    "close before answer": (raw(b""), TransportError),
    "reset mid body": (answer(200, OBJECT, cut_to=9), TransportError),
    "not HTTP": (raw(MARKER.encode() + b"\r\n\r\n"), TransportError),
    "bad gzip": (answer(200, HTML, headers="Content-Encoding: gzip\r\n"), TransportError),
    "200 with HTML": (answer(200, HTML), ProtocolError),
    "200 with another object": (answer(200, b'{"metadata":{"name":1}}'), ProtocolError),
    "200 not UTF-8": (answer(200, OBJECT.replace(b'"a"', b'"\xff"')), ProtocolError),
    "200 empty": (answer(200, b""), ProtocolError),
    "redirect": (answer(302, b"", headers="Location: /elsewhere\r\n"), KubeError),
    "400": (answer(400, status(400, "BadRequest")), KubeError),
    "403 of a proxy": (answer(403, HTML), errors.Forbidden),
    "404": (answer(404, status(404, "NotFound")), errors.NotFound),
    "409": (answer(409, status(409, "Conflict")), errors.Conflict),
    "409 exists": (answer(409, status(409, "AlreadyExists")), errors.AlreadyExists),
    "410": (answer(410, status(410, "Expired")), errors.Gone),
    "422": (answer(422, status(422, "Invalid")), errors.Invalid),
    "429": (answer(429, status(429)), errors.TooManyRequests),
    "500 with garbage": (answer(500, b'{"code": "x"'), errors.ServerError),
    "503 of a proxy": (answer(503, HTML), errors.ServerError),
    "504 too large": (
        answer(504, status(504, "Timeout", message="Too large resource version: 9, current: 1")),
        errors.ResourceVersionTooLarge,
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", ["get", "list", "create", "patch"])
async def test_every_failure_of_a_verb_is_one_of_our_errors(verb: str, fault: str) -> None:
    turn, expected = FAULTS[fault]
    async with connected(turn, turn) as (kube, server, _):
        with pytest.raises((KubeError, ProtocolError)) as caught:
            await ask(kube, verb)
    assert type(caught.value) is expected
    # aiohttp itself repeats a GET once when a connection turns out to be closed.
    repeats = verb in ("get", "list") and fault in ("close before answer", "reset mid body")
    assert len(server.requests) <= 1 + repeats
    assert not [asked.line for asked in server.requests if "/elsewhere" in asked.line]
    shown = f"{caught.value!r} {caught.value}"
    assert MARKER not in shown
    assert TOKEN not in shown


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("verb", "limit"),
    [("get", MAX_OBJECT_BYTES), ("patch", MAX_OBJECT_BYTES), ("list", MAX_LIST_BYTES)],
)
async def test_a_compressed_answer_is_read_no_further_than_its_limit(
    verb: str, limit: int, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "LIMIT_S", 30.0)
    bomb = gzip.compress(b" " * (limit + 1), compresslevel=1)
    async with connected(answer(status, bomb, headers="Content-Encoding: gzip\r\n")) as (kube, *_):
        with pytest.raises(TransportError, match="the answer is too long"):
            await ask(kube, verb)


WATCH_FAULTS: dict[str, tuple[Turn, type[Exception]]] = {
    "silent before the status": (silence(), TransportError),
    "silent in the stream": (stream(), TransportError),
    "half line, clean end": (stream(b'{"type":', then="end"), TransportError),
    "reset mid line": (stream(b'{"type":', then="reset"), TransportError),
    "HTML": (stream(HTML + b"\n"), ProtocolError),
    "plain text of 503": (answer(503, b"no healthy upstream"), errors.ServerError),
    "410 as a status": (answer(410, status(410, "Gone")), errors.Gone),
    "410 as an event": (stream(event("ERROR", json.loads(status(410, "Expired")))), errors.Gone),
    "500 as an event": (stream(event("ERROR", json.loads(status(500)))), errors.ServerError),
    "204": (answer(204, b""), KubeError),
    "no version": (stream(event("ADDED", {"metadata": {"name": "a", "uid": "u"}})), ProtocolError),
    "empty version": (stream(event("ADDED", secret(version=""))), ProtocolError),
    "bookmark with no version": (stream(event("BOOKMARK", {"metadata": {}})), ProtocolError),
    "not UTF-8": (stream(event("ADDED", secret()).replace(b'"7"', b'"\xff"')), ProtocolError),
}


@pytest.mark.parametrize("fault", WATCH_FAULTS)
async def test_every_failure_of_a_watch_is_one_of_our_errors(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "WATCH_START_S", LIMIT_S)
    turn, expected = WATCH_FAULTS[fault]
    async with connected(turn) as (kube, _, _):
        with pytest.raises((KubeError, ProtocolError)) as caught:
            async with kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch:
                await watch.receive(idle_s=0.2)
    assert isinstance(caught.value, expected)
    assert MARKER not in f"{caught.value!r} {caught.value}"


async def test_a_watch_yields_what_it_can_read_and_names_the_version_of_the_rest() -> None:
    lines = [
        event("ADDED", secret(version="1", annotations={NAMES.confirmation: "a\u0085b\u2028c"})),
        event("MODIFIED", secret(version="2", labels=None, annotations=None, managedFields=None)),
        event("BOOKMARK", {"metadata": {"resourceVersion": "3"}}),
        event("RENAMED", secret(version="4")),
        event("ADDED", {"metadata": {"resourceVersion": "5", "name": 5}}),
        b"\n",
        event("DELETED", secret(version="6", deletionTimestamp="2026-01-01T00:00:00Z")),
    ]
    whole = b"".join(lines)
    turn = stream(whole[:70], whole[70:71], whole[71:], then="end")
    events = []
    async with (
        connected(turn) as (kube, _, _),
        kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch,
    ):
        while (one := await watch.receive(idle_s=2)) is not None:
            events.append(one)
    assert [(e.type, e.version) for e in events] == [
        ("ADDED", "1"), ("MODIFIED", "2"), ("BOOKMARK", "3"), ("SKIPPED", "4"),
        ("SKIPPED", "5"), ("DELETED", "6"),
    ]  # fmt: skip
    assert events[0].object is not None
    assert events[0].object.annotations == Annotations(confirmation="a\u0085b\u2028c")


async def test_a_line_of_5_mib_passes() -> None:
    note = {"note": "x" * (5 * 2**20)}
    line = event("ADDED", secret(annotations=note))
    chunks = [line[at : at + 65536] for at in range(0, len(line), 65536)]
    async with (
        connected(stream(*chunks)) as (kube, _, _),
        kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch,
    ):
        one = await watch.receive(idle_s=5)
    assert one is not None
    assert one.object is not None
    assert one.object.annotations == NO_ANNOTATIONS


async def test_leaving_a_watch_drops_its_connection_at_once() -> None:
    async with connected(stream(event("ADDED", secret())), answer(200, OBJECT)) as (
        kube,
        server,
        _,
    ):
        async with kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch:
            await watch.receive(idle_s=2)
        async with asyncio.timeout(2):
            while not server.gone:
                await asyncio.sleep(0.01)
        await kube.get(SECRETS, "team", "a")


@pytest.mark.parametrize("verb", ["create", "patch"])
async def test_a_refused_write_sends_no_byte_and_is_a_deposed_error(verb: str) -> None:
    def permit() -> None:
        raise NotLeaderError("not leading")

    async with connected(answer(200, OBJECT), answer(200, OBJECT)) as (kube, server, _):
        # Also on a connection that is open already.
        await kube.get(SECRETS, "team", "a")
        heard = len(server.raw)
        for _ in range(2):
            with pytest.raises(NotLeaderError, match="not leading"):
                await ask(kube, verb, permit)
        await kube.get(SECRETS, "team", "a")
        assert [request.line.split()[0] for request in server.requests] == ["GET", "GET"]
        assert MARKER.encode() not in server.raw[heard:]


async def test_permission_is_asked_when_the_write_leaves_and_not_before() -> None:
    allowed = []
    async with connected(answer(200, OBJECT)) as (kube, server, credentials):
        credentials.hold = asyncio.Event()
        write = asyncio.create_task(
            kube.patch(
                SECRETS, "team", "a", {}, permit=lambda: allowed.append(len(server.requests))
            )
        )
        await asyncio.sleep(0)
        assert allowed == []
        credentials.hold.set()
        await write
    assert allowed == [0]


async def test_a_401_is_answered_by_new_credentials_once() -> None:
    async with connected(answer(401, HTML), answer(200, OBJECT)) as (kube, server, credentials):
        credentials.tokens = ["old", "new"]
        assert (await kube.get(SECRETS, "team", "a")).name == "a"
        sent = [request.headers["authorization"] for request in server.requests]
    assert sent == ["Bearer old", "Bearer new"]


async def test_a_second_401_is_unauthorized() -> None:
    async with connected(answer(401), answer(401)) as (kube, server, credentials):
        with pytest.raises(errors.Unauthorized):
            await kube.patch(SECRETS, "team", "a", {})
        assert len(server.requests) == 2
        assert credentials.renewed == 1


async def test_a_watch_refused_with_401_opens_with_new_credentials() -> None:
    turns = (answer(401), stream(event("ADDED", secret())))
    async with connected(*turns) as (kube, _, credentials):
        async with kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch:
            assert await watch.receive(idle_s=2) is not None
        assert credentials.renewed == 1


async def test_new_certificates_do_not_disturb_what_is_under_way() -> None:
    """An open watch and a slow request outlive the session that a 401 has replaced."""
    release = asyncio.Event()

    async def slow(peer: Peer) -> None:
        await release.wait()
        await answer(200, OBJECT)(peer)

    async def slow_stream(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n")
        await release.wait()
        await peer.send(event("ADDED", secret()))
        peer.close()

    turns = (slow_stream, slow, answer(401), answer(200, OBJECT))
    async with connected(*turns) as (kube, server, credentials):

        def turn_identity() -> None:
            credentials.identity = "two"

        credentials.on_renew = turn_identity
        async with kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch:
            under_way = asyncio.create_task(kube.get(SECRETS, "team", "a"))
            while len(server.requests) < 2:
                await asyncio.sleep(0.005)
            assert (await kube.get(SECRETS, "team", "a")).name == "a"
            release.set()
            assert (await under_way).name == "a"
            assert await watch.receive(idle_s=2) is not None
            assert await watch.receive(idle_s=2) is None


async def test_open_watches_leave_requests_their_connections() -> None:
    turns = [stream() for _ in range(5)]
    async with (
        connected(*turns, answer(200, OBJECT), connections=1) as (kube, _, _),
        AsyncExitStack() as watches,
    ):
        for _ in turns:
            opening = kube.watch(SECRETS, ListOptions("team"), version="5", timeout_s=60)
            await watches.enter_async_context(opening)
        assert (await kube.get(SECRETS, "team", "a", limit_s=2)).name == "a"


async def test_waiting_for_a_free_connection_ends_within_the_limit() -> None:
    async with connected(silence(), connections=1) as (kube, server, _):
        first = asyncio.create_task(kube.get(SECRETS, "team", "a", limit_s=2))
        while not server.requests:
            await asyncio.sleep(0.005)
        with pytest.raises(TransportError):
            await kube.get(SECRETS, "team", "b", limit_s=LIMIT_S)
        await kube.close()
        with pytest.raises(TransportError):
            await first


async def test_closing_fails_what_waits_and_cancels_no_caller() -> None:
    async with connected(silence(), connections=1) as (kube, server, _):
        calls = [asyncio.create_task(kube.get(SECRETS, "team", "a", limit_s=5)) for _ in range(3)]
        while not server.requests:
            await asyncio.sleep(0.005)
        await kube.close()
        ended = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(error) for error in ended] == [TransportError] * 3
        with pytest.raises(TransportError):
            await kube.ready()


async def test_credentials_that_hang_end_within_the_limit() -> None:
    async with connected() as (kube, _, credentials):
        credentials.hold = asyncio.Event()
        with pytest.raises(TransportError, match="no answer in time"):
            await kube.get(SECRETS, "team", "a", limit_s=LIMIT_S)


async def test_both_rounds_share_one_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def recorded(limit_s: float | None) -> asyncio.Timeout:
        limits.append(limit_s)
        return timeout(limit_s)

    async with connected(answer(401), silence()) as (kube, server, _):
        monkeypatch.setattr(asyncio, "timeout", recorded)
        with pytest.raises(TransportError, match="no answer in time"):
            await kube.get(SECRETS, "team", "a", limit_s=LIMIT_S)
        assert len(server.requests) == 2
    assert [limit_s for limit_s in limits if limit_s is not None] == [LIMIT_S]


async def test_a_cancelled_request_is_cancelled() -> None:
    async with connected(silence()) as (kube, server, _):
        call = asyncio.create_task(kube.get(SECRETS, "team", "a"))
        while not server.requests:
            await asyncio.sleep(0.005)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


@pytest.mark.parametrize(
    ("text", "expected"),
    [("7", 7.0), ("0.5", None), ("-3", None), ("inf", None), ("nan", None), ("100000", 300.0),
     ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("", None)],
)  # fmt: skip
async def test_retry_after_is_a_bounded_number_or_nothing(
    text: str, expected: float | None
) -> None:
    turn = answer(429, b"", headers=f"Retry-After: {text}\r\n")
    async with connected(turn) as (kube, _, _):
        with pytest.raises(errors.TooManyRequests) as caught:
            await kube.list(SECRETS, ALL)
    assert caught.value.retry_after_s == expected


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://nowhere.invalid", f"http://{'a' * 70}.x"]
)
async def test_no_server_is_a_transport_error(url: str) -> None:
    async with HttpKube(FakeCredentials(url), NAMES, connections=2) as kube:
        with pytest.raises(TransportError) as caught:
            await kube.ready(limit_s=5)
        with pytest.raises(TransportError):
            async with kube.watch(SECRETS, ALL, version="1", timeout_s=9):
                pass
    assert caught.value.transient


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the server's half of a refused handshake
async def test_a_server_that_is_not_trusted_is_a_transport_error(
    certificates: tuple[Path, Path],
) -> None:
    async with scripted(tls=serving(certificates)) as server:
        credentials = FakeCredentials(server.url, ssl.create_default_context())
        async with HttpKube(credentials, NAMES, connections=2) as kube:
            with pytest.raises(TransportError, match="TLS failed"):
                await kube.get(SECRETS, "team", "a")
    assert server.requests == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the server's half of a refused handshake
async def test_a_ca_that_was_replaced_is_read_again_without_a_restart(
    certificates: tuple[Path, Path],
) -> None:
    async with scripted(answer(200, OBJECT), tls=serving(certificates)) as server:
        credentials = FakeCredentials(server.url, ssl.create_default_context())

        def replace_ca() -> None:
            credentials.tls = ssl.create_default_context(cafile=str(certificates[0]))
            credentials.identity = "two"

        async with HttpKube(credentials, NAMES, connections=2) as kube:
            replace_ca()
            assert (await kube.patch(SECRETS, "team", "a", {})).name == "a"


async def test_leaving_a_tls_watch_mid_stream_leaves_no_connection(
    certificates: tuple[Path, Path],
) -> None:
    async with scripted(stream(event("ADDED", secret())), tls=serving(certificates)) as server:
        trust = ssl.create_default_context(cafile=str(certificates[0]))
        async with HttpKube(FakeCredentials(server.url, trust), NAMES, connections=2) as kube:
            async with kube.watch(SECRETS, ALL, version="1", timeout_s=9) as watch:
                await watch.receive(idle_s=2)
            async with asyncio.timeout(2):
                while not server.gone:
                    await asyncio.sleep(0.01)


async def test_no_logger_sees_a_body_or_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("kubernetes_asyncio").setLevel(logging.DEBUG)
    answered = json.dumps(secret(annotations={"last-applied": MARKER})).encode()
    async with connected(answer(200, answered), answer(500, HTML)) as (kube, _, _):
        await kube.patch(SECRETS, "team", "a", {"data": MARKER})
        with pytest.raises(errors.ServerError):
            await kube.list(SECRETS, ALL)
    assert MARKER not in caplog.text
    assert TOKEN not in caplog.text


async def test_requests_are_what_the_api_server_expects() -> None:
    page = json.dumps({"metadata": {"resourceVersion": "9", "continue": "c2"}, "items": None})
    turns = [answer(200, page.encode())] * 3 + [answer(200, OBJECT)] * 2
    async with connected(*turns) as (kube, server, _):
        listed = await kube.list(
            SECRETS, ListOptions("team", NAMES.selector()), limit=5, version="8"
        )
        assert (listed.version, listed.continue_token) == ("9", "c2")
        await kube.list(SECRETS, ListOptions(), continue_token="c2", version="8")
        await kube.list(SECRETS, ListOptions())
        await kube.create(SECRETS, "team", {"a": 1})
        await kube.patch(SECRETS, "team", "a", {"a": 1})
        lines = [request.line.split()[1] for request in server.requests]
        assert lines == [
            "/api/v1/namespaces/team/secrets?labelSelector=ambient-code.io%2Fsession-id%2C"
            "ambient-code.io%2Fmanaged%3Dtrue&limit=5&resourceVersion=8"
            "&resourceVersionMatch=NotOlderThan",
            "/api/v1/secrets?continue=c2",
            "/api/v1/secrets",
            "/api/v1/namespaces/team/secrets?fieldManager=token-reconciler",
            "/api/v1/namespaces/team/secrets/a?fieldManager=token-reconciler",
        ]
        create, patch = server.requests[3:]
        assert create.headers["content-type"] == "application/json"
        assert patch.headers["content-type"] == "application/merge-patch+json"
        assert patch.body == b'{"a":1}'
        assert "PartialObjectMetadata;" in patch.headers["accept"]
        assert "PartialObjectMetadataList;" in server.requests[0].headers["accept"]
        assert patch.headers["user-agent"].startswith("token-reconciler/")


ONE = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
SEVERAL = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
EMPTY = b'{"metadata":{"resourceVersion":"1"},"items":[]}'


@pytest.mark.parametrize("resource", [SECRETS, PODS], ids=lambda each: each.plural)
async def test_every_verb_asks_for_metadata_and_for_nothing_else(
    resource: ApiResource[ObjectMeta],
) -> None:
    turns = [answer(200, EMPTY), answer(200, EMPTY), *[answer(200, OBJECT)] * 3, stream(then="end")]
    async with connected(*turns) as (kube, server, _):
        await kube.list(resource, ALL)
        await kube.list(resource, ALL, continue_token="next")
        await kube.get(resource, "team", "a")
        await kube.create(resource, "team", {})
        await kube.patch(resource, "team", "a", {})
        async with kube.watch(resource, ALL, version="1", timeout_s=9) as watch:
            assert await watch.receive(idle_s=2) is None
        asked = [request.headers["accept"] for request in server.requests]
    assert asked == [SEVERAL, SEVERAL, ONE, ONE, ONE, ONE]


VALUE = base64.b64encode(MARKER.encode()).decode()
WHOLE = secret() | {"kind": "Secret", "data": {NAMES.secret_key: VALUE}}
BESIDE = json.dumps({"metadata": {"resourceVersion": "1"}, "items": [secret(), WHOLE]}).encode()
BROKEN = json.dumps(
    {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": 1}}, WHOLE]}
).encode()


BODIES = {"list": BESIDE, "list with garbage": BROKEN, "get": b"", "create": b"", "patch": b""}


@pytest.mark.parametrize("case", BODIES)
async def test_of_a_secret_that_comes_whole_no_value_is_kept_and_it_is_reported(case: str) -> None:
    calls: list[bool] = []
    whole = metadata_resource("secrets", NAMES, on_data=lambda: calls.append(True))
    async with connected(answer(200, BODIES[case] or json.dumps(WHOLE).encode())) as (kube, _, _):
        match case:
            case "get":
                one = await kube.get(whole, "team", "a")
            case "create":
                one = await kube.create(whole, "team", {})
            case "patch":
                one = await kube.patch(whole, "team", "a", {})
            case _:
                one = (await kube.list(whole, ALL)).items[-1]
    assert one.name == "a"
    assert calls == [True]
    assert not [value for value in (MARKER, VALUE) if value in repr(one)]


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED", "DELETED"])
async def test_of_an_event_with_a_whole_secret_no_value_is_kept_and_it_is_reported(
    kind: str,
) -> None:
    calls: list[bool] = []
    whole = metadata_resource("secrets", NAMES, on_data=lambda: calls.append(True))
    async with (
        connected(stream(event(kind, WHOLE))) as (kube, _, _),
        kube.watch(whole, ALL, version="1", timeout_s=9) as watch,
    ):
        found = await watch.receive(idle_s=2)
    assert calls == [True]
    assert not [value for value in (MARKER, VALUE) if value in repr(found)]


async def test_metadata_alone_is_never_reported() -> None:
    calls: list[bool] = []
    partial = metadata_resource("secrets", NAMES, on_data=lambda: calls.append(True))
    async with connected(answer(200, OBJECT)) as (kube, _, _):
        await kube.get(partial, "team", "a")
    assert calls == []


async def test_no_request_waits_for_credentials_that_are_read_again_and_hang() -> None:
    async with connected(*[answer(200, OBJECT)] * 4) as (kube, _, credentials):
        await kube.get(SECRETS, "team", "a", limit_s=LIMIT_S)
        credentials.held_connection, credentials.identity = asyncio.Event(), "two"
        for _ in range(3):
            await kube.get(SECRETS, "team", "a", limit_s=LIMIT_S)
    # The client closes although they hang still.


async def test_credentials_that_changed_are_used_without_a_refusal() -> None:
    async with scripted(answer(200, OBJECT)) as old, scripted(*[answer(200, OBJECT)] * 9) as new:
        credentials = FakeCredentials(old.url)
        async with HttpKube(credentials, NAMES, connections=2) as kube:
            await kube.get(SECRETS, "team", "a")
            credentials.url, credentials.identity = new.url, "two"
            with capture_logs() as lines:
                async with asyncio.timeout(10):
                    while not lines:
                        async with kube._requests.acquire():
                            await asyncio.sleep(0)
            await kube.get(SECRETS, "team", "a")
    assert [line["event"] for line in lines] == ["rotated_file_read"]
    assert (len(old.requests), len(new.requests)) == (1, 1)
