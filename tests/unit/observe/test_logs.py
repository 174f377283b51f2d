"""The log as a person at a terminal sees it: whole, and without what was at hand in a defect."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys, structlog
from reconciler.observe.logs import configure_logs

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
