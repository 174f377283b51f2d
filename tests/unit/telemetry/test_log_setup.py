"""The log in a terminal: complete, and without the local variables of a defect."""

import json
import re
import subprocess
import sys

import pytest

from reconciler.telemetry.log_setup import MAX_CHARS, MAX_ITEMS

PROGRAM = """
import sys, structlog
from reconciler.telemetry.log_setup import configure_logs

def write(body):
    raise ZeroDivisionError("a defect of ours")

configure_logs("info", sys.argv[1])
try:
    write({"data": {"api-token": "obviously-fake" + "-value"}})
except ZeroDivisionError:
    structlog.get_logger().exception("reconcile_crashed")
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_traceback_shows_no_values(form: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM, form], capture_output=True, text=True, check=True
    ).stderr
    assert "reconcile_crashed" in said
    assert "ZeroDivisionError: a defect of ours" in said
    assert "obviously-fake-value" not in said


LONG = """
import structlog
from reconciler.telemetry.log_setup import configure_logs

configure_logs("info", "FORM")
log = structlog.get_logger()
text = "x" * 5_000
more = {"texts": [text] * 1_000, "keyed": {text: text}, "error": Exception(text)}
log.warning("webhook_spoke", text=text, **more)
log.warning("last", short="y" * 512)
"""


@pytest.mark.parametrize("form", ["console", "json"])
def test_what_others_wrote_fills_no_line(form: str) -> None:
    said = subprocess.run(
        [sys.executable, "-c", LONG.replace("FORM", form)],
        capture_output=True,
        text=True,
        check=True,
    ).stderr
    first, last = said.splitlines()
    assert max(map(len, re.findall("x+", first))) == MAX_CHARS
    assert len(first) < (MAX_ITEMS + 4) * (MAX_CHARS + 50)
    assert "(4488 characters more)" in first
    assert "y" * 512 in last


PLAIN = """
import structlog
from reconciler.telemetry.log_setup import configure_logs

configure_logs("info", "console")
structlog.get_logger().warning("endpoint_down", endpoint="issuer", error="unreachable")
"""


def test_columns_in_a_file_have_no_escape_codes() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PLAIN], capture_output=True, check=True, env={"FORCE_COLOR": "1"}
    ).stderr
    assert b"endpoint_down" in said
    assert b"\x1b" not in said


LOOP = """
import asyncio, logging
from reconciler.telemetry.log_setup import configure_logs

configure_logs("info", "json")

async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)

asyncio.run(main())
logging.getLogger("obviously.fake").warning("two\\nlines of %s", "text")
"""


def test_the_lines_of_a_library_and_of_the_loop_have_the_form_of_our_own() -> None:
    said = subprocess.run(
        [sys.executable, "-c", LOOP], capture_output=True, text=True, check=True
    ).stderr
    loop, library = map(json.loads, said.splitlines())
    assert (loop["event"], loop["level"], loop["logger"]) == ("library_logged", "error", "asyncio")
    assert loop["message"].startswith("Exception in callback")
    assert "ZeroDivisionError: division by zero" in loop["exception"]
    assert (library["level"], library["message"]) == ("warning", "two\nlines of text")
