"""The status page in a real browser: what a reader sees, does with keys alone, and is spared."""

import asyncio
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from selenium.webdriver.common.keys import Keys

from reconciler import __version__
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import LeaseStatus, SessionStatus, StatusSnapshot
from reconciler.naming import SessionKey
from tests.browser.chromium import Browser, on_show
from tests.exhibit import NOW_S, Exhibit, Shown, row, survey, trend_of

CONTRAST = (Path(__file__).parent / "contrast.js").read_text()

WIDE = """
return [...document.querySelectorAll("body *")]
  .filter((each) => !each.closest(".words, .skip"))
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5)
  .map((each) => each.outerHTML)
"""

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'

PAST = (
    RunRecord(NOW_S - 5, "failed", "scheduled", "IssuerUnavailable", 0xAF7651 << 100, True),
    RunRecord(NOW_S - 300, "blocked", "paused", "", 0x4BF92F << 100),
    RunRecord(NOW_S - 600, "no_better_token", "scheduled", ""),
    RunRecord(NOW_S - 900, "refreshed", "startup_resync", ""),
)

HISTORY = trend_of(
    exposure_s={120: 12.0, 121: 48.0}, failures={121: 140.0},
    lateness_s={n: 0.3 + n % 7 * 0.2 for n in range(200)} | {121: 40.0},
    refreshes=dict.fromkeys(range(200), 160.0) | {120: 20.0, 121: 0.0, 122: 900.0},
    leader_changes={60: 1.0}, issuer=dict.fromkeys(range(110, 122), 1.0), kube={30: 1.0},
)  # fmt: skip

RECORDED = {
    "team-1/session-2ab00001-runner": (
        PodEvent("Normal", "RefreshPaused", "Refreshing the token is paused", 1, NOW_S - 300),
        PodEvent("Warning", "RefreshFailed", f"no token: {'x' * 300}", 7, NOW_S - 900),
    )
}

FLEET = [row(n, 30.0 + n * 0.08) for n in range(10_000)]


def mixed() -> list[SessionStatus]:
    """Return a session in each state that has a look of its own."""
    return [
        row(1), row(2, -30.0, failures=4), row(3, 20.0), row(4, None),
        row(5, block_reason="paused"),
        row(6, None, state=TokenState.NO_SECRET, secret=""),
        row(7, failures=2, blocked_on="issuer"), row(8, float("inf"), state=TokenState.NO_EXPIRY),
        row(9, session_id="9" * 63, namespace="n" * 63),
    ]  # fmt: skip


def attempts(key: SessionKey) -> Sequence[RunRecord]:
    return PAST if key.session_id.endswith(("1", "2")) else ()


@pytest.fixture(scope="module")
def large() -> Iterator[str]:
    with on_show(Exhibit(survey(FLEET), attempts)) as url:
        yield url


def lively(fleet: Shown) -> Exhibit:
    """Return a fleet with runs, Events and a history."""
    exhibit = Exhibit(fleet, attempts)
    exhibit.history, exhibit.recorded = HISTORY, RECORDED
    return exhibit


def shown(browser: Browser) -> list[str]:
    return browser.texts("tbody .name")


def test_ten_thousand_sessions_are_one_page_and_the_console_stays_clean(
    browser: Browser, large: str
) -> None:
    browser.open(large)
    browser.wait_live()

    assert len(shown(browser)) == 25
    assert "10,000 sessions" in browser.text(".place")
    assert browser.text(".sentence").startswith("750 sessions hold a token that may expire")
    assert browser.run("return document.querySelectorAll('*').length") < 1500
    origins = browser.run(
        "return performance.getEntriesByType('resource').map(e => new URL(e.name).origin)"
    )
    assert set(origins) == {large.rstrip("/")}
    assert browser.console() == []


def test_search_sort_and_pages_by_keyboard_alone(browser: Browser, large: str) -> None:
    browser.open(large)
    browser.wait_live()
    browser.run("window.sameDocument = true")

    browser.keys(Keys.TAB, Keys.ENTER)
    assert browser.run("return document.activeElement.id") == "sessions"
    browser.keys(Keys.TAB)
    assert browser.run("return document.activeElement.name") == "q"

    browser.keys("team-1 2ab0999")
    browser.wait("the search is carried out", lambda: shown(browser) == ["2Ab09990", "2Ab09997"])
    assert query(browser) == {"q": ["team-1 2ab0999"]}
    assert browser.run("return document.activeElement.value") == "team-1 2ab0999"
    browser.keys(Keys.CONTROL + "a", Keys.DELETE)
    browser.wait("all are back", lambda: "10,000" in browser.text(".place"))

    tab_to(browser, "thead [aria-sort] a")
    browser.keys(Keys.ENTER)
    browser.wait("longest first", lambda: shown(browser)[:1] == ["2Ab09999"])
    assert browser.run("return document.querySelector('[aria-sort]').ariaSort") == "descending"
    assert browser.run("return document.activeElement.matches('thead [aria-sort] a')")

    tab_to(browser, "tbody tr:nth-child(3) th a")
    browser.keys(Keys.ENTER)
    browser.wait("opened", lambda: "session-2ab09997-creds" in browser.text(".opened"))
    assert browser.run("return document.activeElement.ariaExpanded") == "true"

    tab_to(browser, ".pages a[href*='page=2']")
    browser.keys(Keys.ENTER)
    browser.wait("second page", lambda: shown(browser)[:1] == ["2Ab09974"])
    assert query(browser)["page"] == ["2"]

    browser.driver.back()
    browser.wait("first page again", lambda: shown(browser)[:1] == ["2Ab09999"])
    assert browser.run("return window.sameDocument")
    assert browser.console() == []


def test_news_arrives_and_leaves_the_readers_place_alone(browser: Browser) -> None:
    exhibit = Exhibit(survey([row(n, 600.0 + n) for n in range(9)]))
    with on_show(exhibit) as url:
        browser.open(url)
        browser.wait_live()
        browser.run("window.sameDocument = true")
        browser.run("document.querySelector('[data-key=\"team-5/2Ab00005\"] a').focus()")

        exhibit.shown = survey(
            [row(5, -7.0), *(row(n, 600.0) for n in range(3))], exposure_s=7.0, now_s=NOW_S + 2
        )
        browser.wait("the update", lambda: browser.text("#exposure").split() == ["7.0", "s"])

        assert browser.text(".sentence") == "1 session holds an expired token."
        assert shown(browser)[0] == "2Ab00005"
        assert browser.run("return document.activeElement.innerText").startswith("2Ab00005")
        assert browser.run("return window.sameDocument")
        assert browser.console() == []
        browser.open("about:blank")


def test_a_session_that_ends_leaves_the_focus_at_the_list(browser: Browser) -> None:
    exhibit = Exhibit(survey([row(1), row(2)]))
    with on_show(exhibit) as url:
        browser.open(url)
        browser.wait_live()
        browser.run("document.querySelector('[data-key=\"team-2/2Ab00002\"] a').focus()")

        exhibit.shown = survey([row(1)])
        browser.wait("the update", lambda: len(shown(browser)) == 1)

        assert browser.run("return document.activeElement.id") == "sessions"
        browser.open("about:blank")


def test_what_is_being_typed_is_left_alone(browser: Browser) -> None:
    exhibit = Exhibit(survey([row(1)]))
    with on_show(exhibit) as url:
        browser.open(url)
        browser.wait_live()
        browser.run("const q = document.querySelector('#q'); q.focus(); q.value = 'half a wo'")

        exhibit.shown = survey([row(1), row(2)])
        browser.wait("the update", lambda: len(shown(browser)) == 2)

        assert browser.run("return document.querySelector('#q').value") == "half a wo"
        browser.open("about:blank")


def test_a_server_that_becomes_unreachable_is_shown_and_found_again(browser: Browser) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = int(reserved.getsockname()[1])
    with on_show(Exhibit(survey([row(1)])), port=port) as url:
        browser.open(url)
        browser.wait_live()
    browser.wait("lost", lambda: "lost" in browser.text("#link"))
    browser.run("document.querySelector('#q').focus()")
    browser.keys("00002")
    browser.wait("the search is kept", lambda: query(browser) == {"q": ["00002"]})
    assert shown(browser) == ["2Ab00001"]
    with on_show(Exhibit(survey([row(2), row(3)])), port=port):
        browser.wait("found again", lambda: shown(browser) == ["2Ab00002"])
        assert browser.text("#link") == "live"
        browser.open("about:blank")


class Freezing(Exhibit):
    """A replica that keeps its connections and sends nothing while it is frozen."""

    frozen = False

    async def snapshot(self, *, max_age_s: float) -> StatusSnapshot:
        while self.frozen:
            await asyncio.sleep(0.02)
        return await super().snapshot(max_age_s=max_age_s)


def test_a_frozen_replica_is_not_live_and_the_age_of_its_data_is_shown(browser: Browser) -> None:
    def age_s() -> int:
        return int(browser.text("#age").removeprefix("data ").removesuffix(" s old"))

    exhibit = Freezing(survey([row(1)]))
    with on_show(exhibit) as url:
        browser.open(url)
        browser.wait_live()
        assert age_s() <= 5
        exhibit.frozen = True
        browser.wait("not live", lambda: browser.text("#link") == "not live: no update")
        assert age_s() >= 3
        older_s = age_s() + 2
        browser.wait("its age grows", lambda: age_s() >= older_s)
        assert shown(browser) == ["2Ab00001"]
        exhibit.frozen = False
        browser.wait_live()
        assert age_s() < older_s
        browser.open("about:blank")


@pytest.mark.parametrize("width", [390, 320, 768, 1280])
@pytest.mark.parametrize("path", ["", "?open=team-1%2F2Ab00001", "?q=nothing+like+it"])
def test_no_width_makes_it_scroll_sideways(browser: Browser, width: int, path: str) -> None:
    with on_show(lively(survey(mixed(), down="issuer"))) as url:
        browser.look(width=width, height=800)
        browser.open(url + path)
        browser.wait_live()

        assert browser.run(WIDE) == []
        assert browser.run("return document.documentElement.scrollWidth <= innerWidth")
        browser.open("about:blank")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tone", ["good", "warn", "bad"])
def test_everything_can_be_read(browser: Browser, scheme: str, tone: str) -> None:
    rows = {"good": [row(1)], "warn": [row(1), row(2, 20.0)], "bad": mixed()}[tone]
    exhibit = lively(
        survey(
            rows, exposure_s=4.0 if tone == "bad" else 0.0, down="issuer" if tone != "good" else ""
        )
    )
    with on_show(exhibit) as url:
        browser.look(scheme=scheme)
        browser.open(f"{url}?open={rows[0].namespace}%2F{rows[0].session_id}")
        browser.wait_live()

        found = browser.run(CONTRAST)

        assert browser.run("return getComputedStyle(document.body).backgroundColor") == {
            "light": "rgb(244, 245, 247)", "dark": "rgb(15, 18, 21)",
        }[scheme]  # fmt: skip
        assert found["poor"] == []
        assert found["seen"] > 60
        browser.open("about:blank")


def test_it_works_without_its_script(browser: Browser, large: str) -> None:
    browser.scripts(allowed=False)
    browser.open(large)
    find = browser.driver.find_element

    find("css selector", "#q").send_keys("2ab0000", Keys.ENTER)
    browser.wait("found", lambda: "q=2ab0000" in browser.driver.current_url)
    assert find("css selector", ".place").text.endswith("10 sessions")
    find("css selector", "thead [aria-sort] a").click()
    browser.wait("turned", lambda: "down=1" in browser.driver.current_url)
    find("css selector", "tbody th a").click()
    browser.wait("opened", lambda: "open=" in browser.driver.current_url)
    assert "session-2ab00009-creds" in find("css selector", ".opened").text
    assert find("css selector", "#link").text == "not live: as of loading"


def test_hostile_names_do_nothing(browser: Browser) -> None:
    hostile = row(1, namespace=HOSTILE, session_id=HOSTILE, pod=HOSTILE, refreshed_by=HOSTILE)
    with on_show(Exhibit(survey([hostile]))) as url:
        browser.open(url)
        browser.wait_live()
        browser.run("document.querySelector('tbody th a').click()")
        browser.wait("opened", lambda: HOSTILE in browser.text(".opened"))

        assert browser.run("return document.querySelectorAll('main img, main script').length") == 0
        assert browser.console() == []
        browser.open("about:blank")


@pytest.mark.parametrize("down", ["", "issuer"])
def test_the_first_rows_are_visible_on_a_laptop(browser: Browser, down: str) -> None:
    exhibit = lively(survey([row(n) for n in range(9)], down=down))
    with on_show(exhibit) as url:
        browser.look(width=1280, height=800)
        browser.open(url)
        browser.wait_live()

        edge = browser.run(
            "return document.querySelector('tbody tr:nth-child(2)').getBoundingClientRect().bottom"
        )
        assert edge <= 800
        browser.open("about:blank")


def test_a_standby_names_the_leader_and_hides_what_it_does_not_know(browser: Browser) -> None:
    lease = LeaseStatus("replica-0/3-0a1b", False, "replica-1_uid_0a1b2c3d", 3, 0)
    with on_show(Exhibit(survey([row(1, failures=3)], lease=lease), attempts)) as url:
        browser.open(f"{url}?open=team-1%2F2Ab00001")
        browser.wait_live()

        assert "The leader, replica-1, knows" in browser.text(".role")
        command = "kubectl -n ambient-code port-forward replica-1 8080"
        assert browser.text(".role code") == command
        assert len(browser.texts("thead th")) == 2
        assert "Next run" not in browser.text("main").replace("next runs", "")
        assert browser.run("return document.title") == (
            f"east / ambient-code · Runner tokens {__version__} · replica-0 (standby)"
        )
        assert browser.run(CONTRAST)["poor"] == []
        browser.open("about:blank")


def test_the_tab_says_who_leads_after_a_failover_too(browser: Browser) -> None:
    standby = survey([row(1)], lease=LeaseStatus("a/1", False, "replica-1_uid_0a1b2c3d", 3, 0))
    exhibit = Exhibit(standby)
    with on_show(exhibit) as url:
        browser.open(url)
        browser.wait_live()
        exhibit.shown = survey([row(1)])
        browser.wait("it leads", lambda: not browser.text(".role"))
        assert browser.run("return document.title").endswith("replica-0")
        exhibit.shown = standby
        browser.wait("it follows", lambda: bool(browser.text(".role")))
        assert browser.run("return document.title").endswith("replica-0 (standby)")
        browser.open("about:blank")


def test_the_links_lead_to_the_dashboard_and_to_the_runbook_of_the_alert(browser: Browser) -> None:
    with on_show(Exhibit(survey([row(1, -5.0)]))) as url:
        browser.open(url)
        browser.wait_live()
        # In the bubbling phase the page's own listener on the document has already run.
        browser.run(
            "window.left = []; window.addEventListener('click', event => {"
            " if (!event.defaultPrevented) window.left.push(event.target.href);"
            " event.preventDefault(); })"
        )
        for css in (".top a", ".said a"):
            browser.driver.find_element("css selector", css).click()

        assert browser.run("return window.left") == [
            "https://grafana.example/d/token-reconciler",
            "https://docs.example/runbooks.md#tokenreconcilerexposuregrowing",
        ]
        browser.open("about:blank")


def test_the_last_hours_are_drawn_without_the_script(browser: Browser) -> None:
    exhibit = Exhibit(survey([row(1)]))
    exhibit.history = HISTORY
    with on_show(exhibit) as url:
        browser.scripts(allowed=False)
        browser.open(url)
        drawn = browser.driver.find_elements("css selector", ".plots path")

        # A bar on the right side shows the last of 200 minutes; the failed runs have one bar.
        assert [each.size["width"] > 0 for each in drawn] == [True] * 6
        names = [each.text for each in browser.driver.find_elements("css selector", ".plots dt")]
        assert names == ["Exposure", "Lateness", "Refreshes", "Leader changes", "Outages"]


def test_an_opened_session_has_its_traces_its_events_and_commands(browser: Browser) -> None:
    with on_show(lively(survey([row(1)]))) as url:
        browser.open(f"{url}?open=team-1%2F2Ab00001")
        browser.wait_live()

        [link] = browser.driver.find_elements("css selector", ".trace a")
        assert link.get_attribute("href") == f"https://jaeger.example/trace/{0xAF7651 << 100:032x}"
        assert len(browser.texts(".trace")) == 2
        assert "RefreshFailed" in browser.text(".opened")
        assert browser.texts(".commands code")[0] == (
            "reconciler explain team-1/session-2ab00001-runner"
        )
        browser.open("about:blank")


def query(browser: Browser) -> dict[str, list[str]]:
    return parse_qs(urlsplit(browser.driver.current_url).query)


def tab_to(browser: Browser, css: str) -> None:
    """Press Tab until an element has the focus."""
    for _ in range(120):
        if browser.run("return document.activeElement.matches(arguments[0])", css):
            return
        browser.keys(Keys.TAB)
    raise AssertionError(f"no key leads to {css}")
