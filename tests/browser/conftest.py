"""One Chromium for all; without one the tests are skipped loudly, or fail where that is asked."""

import os
import shutil
from collections.abc import Iterator

import pytest

from tests.browser.chromium import PROGRAMS, Browser, chromium
from tests.cluster.conftest import REQUIRE


@pytest.fixture(scope="session")
def one_browser() -> Iterator[Browser]:
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        reason = f"no {' and no '.join(missing)}: apt-get install chromium chromium-driver"
        if os.environ.get(REQUIRE) == "1":
            pytest.fail(f"{reason} ({REQUIRE}=1)", pytrace=False)
        pytest.skip(reason)
    with chromium() as found:
        yield found


@pytest.fixture
def browser(one_browser: Browser) -> Iterator[Browser]:
    """The browser as it is when it was just started."""
    one_browser.look()
    one_browser.console()
    yield one_browser
    one_browser.scripts(allowed=True)
    one_browser.open("about:blank")
