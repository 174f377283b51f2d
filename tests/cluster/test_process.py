"""A child process ends with its parent, and not before."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.cluster.process import Server, ServerError

SLEEP = "/bin/sleep"
LIMIT_S = 10.0

PARENT = """
import sys
from pathlib import Path
from tests.cluster.process import Server
server = Server("sleeper", ["/bin/sleep", "600"], log=Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def sleeper(tmp_path: Path) -> Server:
    return Server("sleeper", [SLEEP, "600"], log=tmp_path / "log")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child to its parent's life")
def test_a_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        assert _runs(child)
        parent.kill()
    _wait_gone(child)


def test_a_server_outlives_the_thread_that_started_it(sleeper: Server) -> None:
    thread = threading.Thread(target=sleeper.start)
    thread.start()
    thread.join()
    _wait_command(sleeper.pid, SLEEP)
    assert sleeper.alive
    sleeper.kill()
    assert not sleeper.alive


def test_a_paused_server_can_be_killed(sleeper: Server) -> None:
    sleeper.start()
    sleeper.pause()
    sleeper.kill()
    sleeper.kill()
    assert repr(sleeper) == "<Server sleeper down>"


def test_an_error_ends_with_the_log(tmp_path: Path) -> None:
    server = Server(
        "talker", ["/bin/sh", "-c", "echo first; echo last; exit 3"], log=tmp_path / "l"
    )
    server.start()
    deadline_at = time.monotonic() + LIMIT_S
    while server.alive and time.monotonic() < deadline_at:
        time.sleep(0.01)
    with pytest.raises(ServerError, match=r"talker is not running \(exit 3\)(.|\n)*first\nlast$"):
        _ = server.pid


def _runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


def _wait_gone(pid: int) -> None:
    deadline_at = time.monotonic() + LIMIT_S
    while _runs(pid):
        assert time.monotonic() < deadline_at, f"process {pid} outlived its parent"
        time.sleep(0.01)


def _wait_command(pid: int, program: str) -> None:
    """Wait until the launcher has become `program`."""
    deadline_at = time.monotonic() + LIMIT_S
    while os.readlink(f"/proc/{pid}/exe") != os.path.realpath(program):
        assert time.monotonic() < deadline_at
        time.sleep(0.01)
