"""One server process of a test: started, paused, killed by its ID; it ends with the tests."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from reconciler.lab.cluster import exec_child

TAIL_LINES = 20
REAP_LIMIT_S = 10.0

_LAUNCHER = Path(exec_child.__file__)

# The kernel's "parent" is the thread that forked. Started from a short-lived thread (a call through
# asyncio.to_thread), a server would be killed as soon as that thread ends; this one stays.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="spawner")


class ServerError(Exception):
    """A server did not start or answer; the message ends with the last lines of its log."""


class Server:
    """A program with a log file. Not thread-safe: one caller at a time.

    Args:
        name: For messages.
        command: Program (absolute path) and arguments.
        log: File to append standard output and error to.
    """

    def __init__(self, name: str, command: Sequence[str], *, log: Path) -> None:
        self.name = name
        self.command = list(command)
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"<Server {self.name} {'running' if self.alive else 'down'}>"

    @property
    def alive(self) -> bool:
        """Whether the process runs (or is paused)."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Process id; raises `ServerError` if it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise self.failed("is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the process without waiting until it is ready."""
        if self.alive:
            raise self.failed("is running already")
        self._process = _SPAWNER.submit(self._spawn).result()

    def kill(self) -> None:
        """End the process at once (SIGKILL), paused or not, and wait for it; idempotent."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(REAP_LIMIT_S)

    def pause(self) -> None:
        """Freeze the process (SIGSTOP): its sockets stay open, and no request gets an answer."""
        os.kill(self.pid, signal.SIGSTOP)
        # A thread on another core runs on for a moment, and may still answer.
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Undo `pause`; harmless if it is not paused."""
        os.kill(self.pid, signal.SIGCONT)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """Return the log's last lines."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def failed(self, what: str) -> ServerError:
        """Return the error to raise, with the log's last lines."""
        code = None if self._process is None else self._process.poll()
        ended = "" if code is None else f" (exit {code})"
        return ServerError(f"{self.name} {what}{ended}; its log ends:\n{self.tail()}")

    def _spawn(self) -> subprocess.Popen[bytes]:
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid())]
        with self.log.open("ab") as sink:
            return subprocess.Popen(
                [*launcher, *self.command],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                # A new session, so that Ctrl-C in the terminal reaches only the tests.
                start_new_session=True,
            )
