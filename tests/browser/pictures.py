"""Takes the pictures of the status page in docs/, of the demo: `python -m tests.browser.pictures`.

It needs three minutes and Debian's chromium. A person looks at the pictures before a commit.
"""

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from urllib.parse import quote

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser.chromium import Browser, chromium

FOLDER = Path(__file__).parents[2] / "docs"

DEMO = ("demo", "--sessions=40", "--token-ttl=120", "--chaos=issuer-outage@90+50", "--seed=7")

LIMIT_S = 240.0

OVERDUE = 8
"""Sessions that have missed their deadline when the outage is shown."""

RECOVERED = """
return [...document.querySelectorAll("tr[data-key]")].find(row => {
  const runs = [...row.querySelectorAll(".marks i")].map(run => run.className);
  return runs.includes("bad") && runs.slice(-2).every(severity => severity === "good");
})?.dataset.key ?? ""
"""
"""Returns a session with two refreshes after failures, or ""."""


@contextmanager
def demo() -> Iterator[list[str]]:
    """Run the demo until the block ends; yields the URLs of its replicas' pages."""
    program = Path(sys.executable).with_name("reconciler")
    with subprocess.Popen(
        [str(program), *DEMO], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        urls: list[str] = []
        for line in process.stdout:
            if line.startswith("Ctrl-C"):
                break
            if line.startswith("status page of"):
                urls.append(line.split()[-1])
        Thread(target=deque, args=(process.stdout, 0), daemon=True).start()
        try:
            yield urls
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def open_leader(browser: Browser, urls: list[str]) -> str:
    """Open the page of the replica that leads; return its URL, or "" if none leads yet."""
    for url in urls:
        browser.open(url)
        browser.wait_live()
        if browser.text(".who").split("\n")[0].endswith("leader"):
            return url
    return ""


def overdue(browser: Browser) -> int:
    first, _, rest = browser.text(".details").partition(" sessions have missed the deadline")
    return int(first) if rest else 0


def take(browser: Browser, name: str) -> None:
    browser.wait_live()
    browser.wait("an age", lambda: browser.text("#age").startswith("data "))
    path = FOLDER / f"{name}.png"
    browser.driver.save_screenshot(str(path))
    print(f"{path}: {path.stat().st_size:,} bytes, {browser.text('#age')}")


def main() -> None:
    with chromium() as browser, demo() as urls:
        wait = WebDriverWait(browser.driver, LIMIT_S)
        browser.look(scheme="dark")
        # The replicas do not listen yet.
        starting = WebDriverWait(browser.driver, LIMIT_S, ignored_exceptions=[WebDriverException])
        url = starting.until(lambda _: open_leader(browser, urls))
        wait.until(lambda _: overdue(browser) >= OVERDUE)
        take(browser, "status-page-outage")
        browser.look(width=390)
        take(browser, "status-page-narrow")
        browser.look()
        # An opened row of the second page is the first one of the first page.
        browser.open(f"{url}?page=2")
        is_well = "hold a valid token"
        key = wait.until(lambda _: is_well in browser.text(".sentence") and browser.run(RECOVERED))
        browser.open(f"{url}?open={quote(key, safe='')}")
        take(browser, "status-page")


if __name__ == "__main__":
    main()
