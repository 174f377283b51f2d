"""Starts of the command line without its imports: a process that has them forks for each command.

The interpreter and the imports are nine tenths of a command's CPU. What forks is a process with the
arguments, the environment and the standard files of a program that a test starts in place of
`reconciler`. What a start alone can show needs a real one: tests/lab/test_operator_terminal.py.
"""

import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from reconciler import entry
from tests.lab import warm_client

COMMANDS = ("main", "status", "explain", "refresh", "pause")
"""The modules of `reconciler.cli` that are imported in advance."""

LONGEST_REQUEST = 2**20
READY = b"ready\n"


@contextmanager
def warm_start() -> Iterator[list[str]]:
    """Yield the words that start a command line, in place of `reconciler`."""
    # Short, as paths of unix sockets end at 107 bytes.
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:
        path = f"{folder}/socket"
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(path)
            listening.listen()
            server = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listening.fileno())],
                cwd=Path(__file__).parents[2],
                pass_fds=[listening.fileno()],
                stdout=subprocess.PIPE,
            )
        with server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == READY  # a command's time limit begins later
                yield [sys.executable, "-I", "-S", warm_client.__file__, path]
            finally:
                server.kill()


def serve(listening: socket.socket) -> None:
    """Fork for each request; returns in a process that is to run the command."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    while True:
        connection, _ = listening.accept()
        if os.fork() == 0:
            listening.close()
            return attend(connection)
        connection.close()


def attend(connection: socket.socket) -> None:
    """Fork the command and send its exit code; end it if the client has ended.

    Returns in the command's process, which has all that the request says.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    with connection.makefile("rb") as reader:
        request = json.loads(reader.readline(LONGEST_REQUEST))
    command = os.fork()
    if command == 0:
        connection.close()
        become(request, files)
        return
    for file in files:
        os.close(file)
    watcher = os.fork()
    if watcher == 0:
        with suppress(OSError):
            connection.recv(1)  # nothing comes but the end
            os.kill(command, signal.SIGKILL)
        os._exit(0)
    _, status = os.waitpid(command, 0)
    os.kill(watcher, signal.SIGKILL)
    with suppress(OSError):
        connection.sendall(str(os.waitstatus_to_exitcode(status)).encode())
    os._exit(0)


def become(request: Any, files: list[int]) -> None:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["reconciler", *request["words"]]


if __name__ == "__main__":
    entry._import_structlog_alone()
    for name in COMMANDS:
        importlib.import_module(f"reconciler.cli.{name}")
    os.write(1, READY)
    gc.freeze()  # a collection in a command would copy all pages of the imports
    serve(socket.socket(fileno=int(sys.argv[1])))
    entry.main()
