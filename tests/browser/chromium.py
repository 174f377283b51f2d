"""A real headless Chromium, and the page served to it from a thread of its own."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.wait import WebDriverWait

from tests.exhibit import Exhibit, served

PROGRAMS = ("chromium", "chromedriver")

ARGUMENTS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--no-proxy-server",
)  # fmt: skip
"""It runs as root where tests do, and connects to no other server."""

LIMIT_S = 20.0


class Browser:
    """One window; every wait is for a condition."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def look(self, *, width: int = 1280, height: int = 1000, scheme: str = "light") -> None:
        """Set the size of the window and the colours that its user prefers."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def scripts(self, *, allowed: bool) -> None:
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": not allowed})

    def open(self, url: str) -> None:
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def text(self, css: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css))

    def texts(self, css: str) -> list[str]:
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e.innerText)"
        return list(self.run(script, css))

    def wait(self, what: str, condition: Callable[[], bool]) -> None:
        WebDriverWait(self.driver, LIMIT_S, poll_frequency=0.05).until(
            lambda _: condition(), f"not within {LIMIT_S} s: {what}"
        )

    def wait_live(self) -> None:
        self.wait("live", lambda: self.text("#link") == "live")

    def keys(self, *keys: str) -> None:
        """Press keys in the element that has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def console(self) -> list[str]:
        """Return the console's new entries, violations and failures included."""
        return [str(entry["message"]) for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]


@contextmanager
def chromium() -> Iterator[Browser]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(str(shutil.which("chromedriver")))
    driver = webdriver.Chrome(options=options, service=service)
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@contextmanager
def on_show(exhibit: Exhibit, *, port: int = 0, period_s: float = 0.1) -> Iterator[str]:
    """Serve the page from another thread; yields its URL."""
    up, end = threading.Event(), asyncio.Event()
    found: list[Any] = []

    async def serve() -> None:
        async with served(exhibit, port=port, period_s=period_s) as (url, _):
            found.extend([url, asyncio.get_running_loop()])
            up.set()
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    if not up.wait(LIMIT_S):
        raise TimeoutError("the page is not served")
    try:
        yield f"{found[0]}/"
    finally:
        found[1].call_soon_threadsafe(end.set)
        thread.join()
