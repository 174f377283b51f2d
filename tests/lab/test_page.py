"""The status page over HTTP: its answers, their headers, and the limits for its readers."""

import asyncio
import importlib.resources
import math
import re
import socket
from collections.abc import AsyncIterator
from html.parser import HTMLParser

import aiohttp
import msgspec
import pytest
from aiohttp import web
from yarl import URL

from reconciler.clock import SystemClock
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import LeaseStatus
from reconciler.statuspage.cache import MAX_VIEWS, MAX_WAITING, PageCache
from reconciler.statuspage.identity import PageIdentity
from reconciler.statuspage.query import PAGE_ROWS, SessionQuery
from reconciler.statuspage.server import add_page
from reconciler.statuspage.sse import LONGEST_S, SseStreams
from reconciler.telemetry.http_server import health_app
from tests.exhibit import NOW_S, Exhibit, row, served, survey, trend_of

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202e\x1b[2J{{7*7}}'


class Elements(HTMLParser):
    """Every element of a document with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        yield session


async def text(http: aiohttp.ClientSession, url: str) -> str:
    async with http.get(url) as answer:
        assert answer.status == 200
        return await answer.text()


async def event(answer: aiohttp.ClientResponse) -> tuple[str, str]:
    """Return the next event's name and data."""
    name, data = "", ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if not line and name:
            return name, data
        field, _, value = line.partition(": ")
        if field == "event":
            name = value
        if field == "data":
            data = value
    raise AssertionError("the stream ended")


async def all_of(answer: aiohttp.ClientResponse) -> None:
    while True:
        await event(answer)


@pytest.mark.parametrize(
    ("path", "status", "kind"),
    [
        ("/", 200, "text/html"),
        ("/?q=x&page=9&sort=life", 200, "text/html"),
        ("/page.css", 200, "text/css"),
        ("/page.js", 200, "text/javascript"),
        ("/icon.svg", 200, "image/svg+xml"),
        ("/livez", 200, "text/plain"),
        ("/nothing", 404, "text/plain"),
        ("/../../etc/passwd", 404, "text/plain"),
    ],
)
async def test_every_answer_is_guarded(
    http: aiohttp.ClientSession, path: str, status: int, kind: str
) -> None:
    async with served(Exhibit(survey([row(1)]))) as (url, _):
        async with http.get(url + path) as got:
            assert (got.status, got.content_type) == (status, kind)
            body = await got.read()
        async with http.head(url + path) as headed:
            assert headed.status == status
            assert headed.content_length == len(body)
            assert await headed.read() == b""
    policy = got.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert got.headers["X-Content-Type-Options"] == "nosniff"
    assert got.headers["Referrer-Policy"] == "no-referrer"
    assert got.headers["Cache-Control"] in ("no-store", "no-cache")
    assert "Python" not in got.headers["Server"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/", "/events", "/page.js"])
async def test_it_only_reads(http: aiohttp.ClientSession, method: str, path: str) -> None:
    async with (
        served(Exhibit(survey())) as (url, _),
        http.request(method, url + path) as answer,
    ):
        assert answer.status == 405
        assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "query",
    ["q=%ff", "q=%ed%a0%80", "q=%00&open=%00", "&&==", "page=" + "9" * 5000, "open=" + "/" * 5000,
     "sort=next&sort=life", "q=" + "%25" * 2000],
)  # fmt: skip
async def test_any_query_is_answered(http: aiohttp.ClientSession, query: str) -> None:
    async with (
        served(Exhibit(survey([row(1)]))) as (url, _),
        http.get(URL(f"{url}/?{query}", encoded=True)) as answer,
    ):
        assert answer.status == 200
        assert "</html>" in await answer.text()


async def test_a_file_that_has_not_changed_is_not_sent_again(http: aiohttp.ClientSession) -> None:
    async with served(Exhibit(survey())) as (url, _):
        async with http.get(f"{url}/page.js") as first:
            tag = first.headers["ETag"]
        async with http.get(f"{url}/page.js", headers={"If-None-Match": tag}) as again:
            assert again.status == 304
        async with http.get(f"{url}/page.js", headers={"If-None-Match": '"other"'}) as other:
            assert other.status == 200


async def test_nothing_comes_from_elsewhere_and_nothing_is_inline(
    http: aiohttp.ClientSession,
) -> None:
    async with served(Exhibit(survey([row(1)]))) as (url, _):
        html = await text(http, url)
    for tag, attributes in Elements(html).found:
        assert tag != "style"
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        # A link that a reader follows loads nothing by itself.
        for name in ("src", "action", *(["href"] if tag != "a" else [])):
            assert "//" not in (attributes.get(name) or "")
        assert tag != "script" or attributes.get("src") == "page.js"


async def test_hostile_names_and_annotations_stay_text(http: aiohttp.ClientSession) -> None:
    hostile = row(
        1, namespace=HOSTILE, session_id=HOSTILE, project=HOSTILE, pod=HOSTILE, secret=HOSTILE,
        refreshed_by=HOSTILE, reason=HOSTILE, blocked_on=HOSTILE,
    )  # fmt: skip
    past = (RunRecord(NOW_S, "failed", HOSTILE, ""),)
    plain = Exhibit(survey([row(1)]), lambda _: past)
    async with served(plain) as (url, _):
        usual = Elements(await text(http, url)).found
    async with (
        served(Exhibit(survey([hostile], down="issuer"), lambda _: past)) as (url, _),
        http.get(url, params={"q": HOSTILE[:9], "open": f"{HOSTILE}/{HOSTILE}"}) as answer,
    ):
        html = await answer.text()
        found = Elements(html).found
    assert "alert(2)" in html
    assert {tag for tag, _ in found} <= {tag for tag, _ in usual} | {"dl", "dt", "dd", "h3", "li"}
    assert sum(tag == "script" for tag, _ in found) == 1
    assert {"onerror"}.isdisjoint(name for _, attributes in found for name in attributes)
    shown = re.sub(r'(?:href|data-key)="[^"]*"', "", html)
    assert {"\u202e", "\x1b"}.isdisjoint(shown)
    assert "{{7*7}}" in html


async def test_each_row_has_a_cell_under_each_header_and_an_open_session_is_as_wide(
    http: aiohttp.ClientSession,
) -> None:
    opened = row(1)
    async with served(Exhibit(survey([opened, row(2), row(3)]))) as (url, _):
        html = await text(http, f"{url}/?open={opened.key}")
    width, widths = 0, []
    for tag, attributes in Elements(html).found:
        if tag == "tr":
            widths.append(0)
        elif tag in ("td", "th"):
            widths[-1] += int(attributes.get("colspan") or 1)
            width += attributes.get("role") == "columnheader"
    assert widths == [width] * 5


async def test_a_search_a_page_and_an_open_session_work_without_a_script(
    http: aiohttp.ClientSession,
) -> None:
    past = (RunRecord(NOW_S - 5, "failed", "scheduled", "IssuerUnavailable"),)
    exhibit = Exhibit(survey(row(n, 600.0 + n) for n in range(60)), lambda _: past)
    async with served(exhibit) as (url, _):
        first = await text(http, url)
        second = await text(http, f"{url}/?page=2")
        found = await text(http, f"{url}/?q=2ab00042&open=team-0%2F2Ab00042")
    assert first.count('class="name"') == PAGE_ROWS
    assert "2Ab00024" in first
    assert "2Ab00025" not in first
    assert "2Ab00025" in second
    assert found.count('class="name"') == 1
    assert "session-2ab00042-creds" in found
    assert "failed: the issuer is unreachable" in found


async def test_each_view_has_the_same_as_json(http: aiohttp.ClientSession) -> None:
    rows = [row(1, failures=2), row(2, float("inf"), state=TokenState.NO_EXPIRY), row(3, -5.0)]
    runs = (RunRecord(NOW_S - 5, "failed", "scheduled", "IssuerUnavailable", 7, True),)
    exhibit = Exhibit(survey(rows, down="issuer", exposure_s=2.5), lambda _: runs)
    failed = PodEvent("Warning", "RefreshFailed", "no answer", 2, NOW_S)
    exhibit.recorded = {"team-1/session-2ab00001-runner": (failed,)}
    exhibit.history = trend_of(issuer={198: 1.0, 199: math.nan})
    async with served(exhibit) as (url, _):
        page = await text(http, f"{url}/?q=team-1&open=team-1%2F2Ab00001")
        [link] = re.findall(r'class="json" href="([^"]+)"', page)
        async with http.get(f"{url}/{link.replace('&amp;', '&')}") as answer:
            assert answer.content_type == "application/json"
            one = msgspec.json.decode(await answer.read())
        everything = msgspec.json.decode(await text(http, f"{url}/view.json"))
        exhibit.shown = survey(rows, lease=LeaseStatus("a/1", False, "replica-1_uid", 1, 0))
        standby = msgspec.json.decode(await text(http, f"{url}/view.json"))

    assert [each["session_id"] for each in one["sessions"]] == ["2Ab00001"]
    assert (one["found"], one["role"], one["cluster"]) == (1, "leader", "east")
    assert one["sessions"][0]["expires_at"] == "2026-01-01T00:10:00Z"
    assert one["sessions"][0]["runs"] == [
        {
            "ended_at": "2025-12-31T23:59:55Z", "outcome": "failed", "reason": "scheduled",
            "error": "IssuerUnavailable", "trace_id": f"{7:032x}",
            "trace_url": f"https://jaeger.example/trace/{7:032x}",
        }
    ]  # fmt: skip
    assert (everything["severity"], everything["estimated_exposure_s"]) == ("bad", 2.5)
    assert everything["headline"] == "1 session holds an expired token."
    assert everything["sessions_by_filter"]["expired"] == 1
    unending = next(each for each in everything["sessions"] if each["state"] == "no_expiry")
    assert (unending["expires_at"], unending["remaining_s"]) == (None, None)
    assert one["sessions"][0]["events"] == [
        {
            "type": "Warning", "reason": "RefreshFailed", "message": "no answer", "count": 2,
            "last_at": "2026-01-01T00:00:00Z",
        }
    ]  # fmt: skip
    assert "events" not in everything["sessions"][0]
    assert one["dashboard_url"] == "https://grafana.example/d/token-reconciler"
    assert everything["runbook_url"].endswith("runbooks.md#tokenreconcilerexposuregrowing")
    assert everything["history"]["step_s"] == 60
    assert everything["history"]["series"]["issuer"][-2:] == [1.0, None]
    assert (standby["role"], standby["leader"]) == ("standby", "replica-1")
    assert not {"due_at", "runs", "failures", "stage"} & standby["sessions"][0].keys()


async def test_a_watcher_gets_its_view_at_once_and_again_when_it_changes(
    http: aiohttp.ClientSession,
) -> None:
    exhibit = Exhibit(survey([row(1), row(2)]))
    async with (
        served(exhibit, period_s=0.02, pause_factor=0.0) as (url, _),
        http.get(f"{url}/events?q=00002") as answer,
    ):
        assert answer.content_type == "text/event-stream"
        name, data = await event(answer)
        assert name == "view"
        assert "2Ab00002" in msgspec.json.decode(data)
        assert "2Ab00001" not in msgspec.json.decode(data).split("<table")[1]
        name, due_s = await event(answer)
        assert name == "beat"
        assert 0.02 <= float(due_s) <= LONGEST_S
        exhibit.shown = survey([row(2, -3.0)], exposure_s=3.0)
        while (found := await event(answer))[0] == "beat":
            pass
        assert "1 session holds an expired token." in msgspec.json.decode(found[1])


async def test_a_beat_allows_for_the_time_that_the_next_view_takes(
    http: aiohttp.ClientSession,
) -> None:
    taken_s = 0.3

    class Slow(Exhibit):
        async def snapshot(self, *, max_age_s: float):  # type: ignore[no-untyped-def]
            await asyncio.sleep(taken_s)
            return await super().snapshot(max_age_s=max_age_s)

    async with (
        served(Slow(survey([row(1)])), period_s=0.02, pause_factor=0.0) as (url, _),
        http.get(f"{url}/events") as answer,
    ):
        assert (await event(answer))[0] == "view"
        name, due_s = await event(answer)
    assert name == "beat"
    assert float(due_s) >= taken_s


async def test_watchers_are_counted_and_a_place_is_free_again(http: aiohttp.ClientSession) -> None:
    async with served(Exhibit(survey()), most=2, period_s=0.02, pause_factor=0.0) as (url, streams):
        first, second = [await http.get(f"{url}/events") for _ in range(2)]
        await event(first)
        await event(second)
        async with http.get(f"{url}/events") as third:
            assert third.status == 503
            assert int(third.headers["Retry-After"]) > 0
        assert "There are no sessions" in await text(http, url)
        first.close()
        async with asyncio.timeout(10):
            while len(streams) > 1:
                await asyncio.sleep(0.01)
        async with http.get(f"{url}/events") as again:
            assert (await event(again))[0] == "view"
        second.close()


async def test_a_reader_that_does_not_read_is_dropped() -> None:
    exhibit = Exhibit(survey(row(n) for n in range(PAGE_ROWS)))
    async with served(exhibit, period_s=0.001, drop_s=0.2, pause_factor=0.0) as (url, streams):
        lazy = socket.socket()
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        lazy.connect(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        with lazy:
            lazy.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(30):
                while not len(streams):
                    await asyncio.sleep(0.01)
                number = 0
                while len(streams):
                    number += 1
                    exhibit.shown = survey(row(n, 600.0 - number) for n in range(PAGE_ROWS))
                    await asyncio.sleep(0.001)


async def test_watchers_do_not_hold_up_the_end(http: aiohttp.ClientSession) -> None:
    async with served(Exhibit(survey())) as (url, streams):
        answer = await http.get(f"{url}/events")
        await event(answer)
        assert len(streams) == 1
    with pytest.raises((aiohttp.ClientError, AssertionError)):
        await all_of(answer)
    assert len(streams) == 0


async def test_too_many_who_wait_are_refused(
    http: aiohttp.ClientSession,
) -> None:
    class Slow(Exhibit):
        let_go = asyncio.Event()

        async def snapshot(self, *, max_age_s: float):  # type: ignore[no-untyped-def]
            await self.let_go.wait()
            return await super().snapshot(max_age_s=max_age_s)

    exhibit = Slow(survey([row(1)]))
    views = PageCache(exhibit, not_ready=lambda: "", identity=PageIdentity("r"))
    streams = SseStreams(views, SystemClock())
    app = health_app(live=lambda: "", ready=lambda: "")
    add_page(app, views, streams)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"

        async def status() -> int:
            async with http.get(url) as answer:
                return answer.status

        asking = [asyncio.create_task(status()) for _ in range(MAX_WAITING + 6)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert {task.result() for task in done} == {503}
        exhibit.let_go.set()
        found = await asyncio.gather(*asking)
    finally:
        await runner.cleanup()
    assert found.count(200) >= MAX_WAITING
    assert found.count(200) + found.count(503) == len(asking)


async def test_a_view_is_made_once_for_all_who_look_and_few_are_kept() -> None:
    exhibit = Exhibit(survey([row(1)]))
    views = PageCache(exhibit, not_ready=lambda: "", identity=PageIdentity("r"))

    first, second = await asyncio.gather(views.part(SessionQuery()), views.part(SessionQuery()))
    assert first is second
    for number in range(2 * MAX_VIEWS):
        await views.part(SessionQuery(text=str(number)))
    assert len(views) == MAX_VIEWS

    exhibit.shown = survey([row(2)])
    assert "2Ab00002" in await views.part(SessionQuery())
    assert len(views) == 1


def test_what_it_serves_is_in_the_package() -> None:
    package = importlib.resources.files("reconciler.statuspage")
    found = {
        each.name for folder in ("static", "templates") for each in (package / folder).iterdir()
    }
    assert {"page.css", "page.js", "icon.svg", "page.html", "main.html"} <= found
