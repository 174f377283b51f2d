"""What holds for every test: nothing that it started outlives it."""

import asyncio
import inspect
import signal
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from hypothesis import settings

from tests.interleavings import play_the_same_everywhere
from tests.secrecy.plugin import Plugin, observe

play_the_same_everywhere()

# Hypothesis' own limit, 200 ms an example, is a statement on the machine.
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")

# A shell starts a background command with SIGINT ignored, and each program inherits that: a
# program under test that a test interrupts would go on.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Search what each test puts out for the run's secrets."""
    observe()
    config.pluginmanager.register(Plugin(), "secrecy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Watch every async test for leaked tasks; a sync one has no loop to leak them into."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "no_leaked_tasks")


@pytest.fixture
async def no_leaked_tasks() -> AsyncIterator[None]:
    """Fail a test that leaves a task behind; sockets and sessions fail as ResourceWarning."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, f"tasks outlived the test: {left}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly, in one block, what did not run here and how to get it."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.getreports("skipped")
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.section("NOT RUN HERE", red=True, bold=True)
    for reason, count in reasons.most_common():
        terminalreporter.line(f"{count} tests: {reason}", red=True)
