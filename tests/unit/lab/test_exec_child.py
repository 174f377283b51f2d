"""What a child has of the process that started it: its priority, also in a session of its own."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reconciler.lab.cluster import exec_child

LOWER = 7

pytestmark = pytest.mark.skipif(
    not Path(exec_child.AUTOGROUP).exists(), reason="this kernel shares no cores out by session"
)


def priority_of_session(text: str) -> int:
    """Return the niceness in the text of `AUTOGROUP`."""
    found = re.search(r"nice (-?\d+)", text)
    assert found is not None, text
    return int(found[1])


def seen_by_a_child(*, start_new_session: bool) -> int:
    launcher = [sys.executable, "-I", "-S", exec_child.__file__, str(os.getpid())]
    done = subprocess.run(
        ["nice", "-n", str(LOWER), *launcher, "/bin/cat", exec_child.AUTOGROUP],
        start_new_session=start_new_session, capture_output=True, text=True, check=True,
        timeout=60,
    )  # fmt: skip
    return priority_of_session(done.stdout)


def test_a_session_of_its_own_has_the_lower_priority_of_its_process() -> None:
    assert seen_by_a_child(start_new_session=True) == min(os.nice(0) + LOWER, 19)


def test_our_session_keeps_its_priority() -> None:
    before = priority_of_session(Path(exec_child.AUTOGROUP).read_text())
    assert seen_by_a_child(start_new_session=False) == before
