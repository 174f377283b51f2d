"""axe-core finds nothing serious on the status page, in any role, state and colour scheme."""

from typing import Any

import pytest

from reconciler.controller.status.snapshot import LeaseStatus
from tests.assets import issuers
from tests.assets.axe_core import AXE_PACKAGE
from tests.browser.chromium import Browser, on_show
from tests.browser.test_page import attempts, lively, mixed
from tests.cluster.conftest import unavailable
from tests.exhibit import Exhibit, row, survey

STANDBY = LeaseStatus("replica-0/3-0a1b", False, "replica-1_uid_0a1b2c3d", 3, 0)

FLEETS = {
    "healthy": survey([row(1)]),
    "expired": survey(mixed(), down="issuer", exposure_s=3.0),
    "standby": survey(mixed(), lease=STANDBY),
}


@pytest.fixture(scope="module")
def axe() -> str:
    found = issuers.find(AXE_PACKAGE)
    if found is None:
        unavailable("no axe-core: install npm, then run `make assets`")
    return found.read_text()


def violations(browser: Browser, axe: str) -> list[dict[str, Any]]:
    browser.run(axe)
    found = browser.driver.execute_async_script("axe.run().then(arguments[0])")
    assert len(found["passes"]) > 20
    return list(found["violations"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("fleet", FLEETS)
def test_nothing_keeps_a_reader_out(browser: Browser, axe: str, fleet: str, scheme: str) -> None:
    with on_show(lively(FLEETS[fleet])) as url:
        browser.look(scheme=scheme)
        browser.open(f"{url}?open=team-1%2F2Ab00001")
        browser.wait_live()

        found = violations(browser, axe)

        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
        browser.open("about:blank")


def test_the_check_finds_what_is_wrong(browser: Browser, axe: str) -> None:
    with on_show(Exhibit(FLEETS["healthy"], attempts)) as url:
        browser.open(url)
        browser.wait_live()
        browser.run("document.querySelector('label').remove()")
        browser.run("document.querySelector('#q').removeAttribute('placeholder')")

        assert [each["id"] for each in violations(browser, axe)] == ["label"]
        browser.open("about:blank")
