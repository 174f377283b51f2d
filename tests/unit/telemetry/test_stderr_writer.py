"""Standard error that no process reads: no writer waits, what is too much is counted."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pytest
from structlog.testing import capture_logs

from reconciler.telemetry.stderr_writer import StderrWriter

LIMIT_S = 30.0


@dataclass
class Pipe:
    """A pipe with room for one page."""

    read_fd: int
    write_fd: int

    def fill(self) -> int:
        """Write until it is full and return the number of bytes."""
        os.set_blocking(self.write_fd, False)
        written = 0
        with suppress(BlockingIOError):
            while True:
                written += os.write(self.write_fd, b"\n" * 512)
        os.set_blocking(self.write_fd, True)
        return written

    def read_until(self, is_enough: Callable[[bytes], bool]) -> bytes:
        found = b""
        while not is_enough(found):
            found += os.read(self.read_fd, 65536)
        return found


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
    opened = Pipe(read_fd, write_fd)
    yield opened
    for fd in (read_fd, write_fd):
        with suppress(OSError):
            os.close(fd)


def test_lines_arrive_whole_and_in_order(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.write_fd)
    lines = [f"line {number} {'x' * 300}\n" for number in range(2000)]
    for line in lines:
        writer.write(line)
    expected = "".join(lines).encode()
    assert pipe.read_until(lambda found: len(found) >= len(expected)) == expected
    assert writer.settle(LIMIT_S)
    assert writer.dropped_total == 0


@pytest.mark.parametrize("blocking", [True, False])
def test_a_full_pipe_holds_no_writer_and_what_is_too_much_is_counted_and_reported(
    pipe: Pipe, *, blocking: bool
) -> None:
    reported: list[int] = []
    is_reported = threading.Event()

    def on_drained(lines: int) -> None:
        reported.append(lines)
        writer.write("dropped\n")
        is_reported.set()

    writer = StderrWriter(pipe.write_fd, capacity_bytes=1000, on_drained=on_drained)
    pipe.fill()
    os.set_blocking(pipe.write_fd, blocking)
    for number in range(50):
        writer.write(f"{number:09}\n" * 10)  # 100 bytes: ten of them wait
    assert writer.dropped_total == 400
    assert not writer.settle(0.0)
    assert not is_reported.is_set()
    found = pipe.read_until(lambda found: found.endswith(b"dropped\n"))
    assert is_reported.wait(LIMIT_S)
    assert reported == [400]
    kept = [f"{number:09}" for number in range(10) for _ in range(10)]
    assert found.decode().split() == [*kept, "dropped"]
    assert writer.settle(LIMIT_S)


def test_a_reader_that_is_gone_ends_nothing_and_is_not_reported_to_itself(pipe: Pipe) -> None:
    reported: list[int] = []
    writer = StderrWriter(pipe.write_fd, on_drained=reported.append)
    os.close(pipe.read_fd)
    for _ in range(3):
        writer.write("lost\n")
        assert writer.settle(LIMIT_S)
    assert (writer.dropped_total, reported) == (3, [])


def test_the_writer_logs_how_many_lines_were_dropped(pipe: Pipe) -> None:
    writer = StderrWriter(pipe.write_fd)
    with capture_logs() as lines:
        writer._on_drained(3)
    assert [(line["event"], line["lines"]) for line in lines] == [("log_lines_dropped", 3)]


def test_a_finalizer_that_logs_while_a_line_is_taken_in_does_not_wait_for_itself(
    pipe: Pipe,
) -> None:
    writer = StderrWriter(pipe.write_fd)

    class Text(str):
        def encode(self, *_: object, **__: object) -> bytes:
            return Data(b"outer\n")

    class Data(bytes):
        def __len__(self) -> int:  # called with the lock held, as a finalizer may be
            if threading.current_thread() is threading.main_thread() and not seen:
                seen.append(True)
                writer.write("inner\n")
            return super().__len__()

    seen: list[bool] = []
    writer.write(Text())
    assert pipe.read_until(lambda found: len(found) >= 12).split() == [b"inner", b"outer"]


PROGRAM = """
import asyncio, logging, signal, sys, warnings
from reconciler.telemetry.stderr_writer import redirect_output
writer = redirect_output(capacity_bytes=100_000)
import structlog
from reconciler.telemetry.log_setup import configure_logs

configure_logs("info", sys.argv[1])

async def main():
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    for number in range(2000):
        structlog.get_logger().info("turning", number=number, text="x" * 200)
        if number % 100 == 0:
            await asyncio.sleep(0)
    try:
        raise ZeroDivisionError("a defect of ours")
    except ZeroDivisionError:
        structlog.get_logger().exception("reconcile_crashed")
    logging.getLogger("asyncio").error("of a library")
    warnings.warn("of the interpreter")
    print("of a print")
    loop.call_soon(lambda: 1 / 0)  # the loop's own handler
    await asyncio.sleep(0)
    with open(int(sys.argv[3]), "w", closefd=False) as said:
        said.write(f"{writer.dropped_total}\\n")
    await stop.wait()

asyncio.run(main())
if sys.argv[2] == "crash":
    raise ZeroDivisionError("uncaught")
"""


@dataclass
class Program:
    """The program above, both outputs one full pipe; `said` is what it says of itself."""

    process: subprocess.Popen[bytes]
    said_fd: int

    def dropped(self) -> int:
        """Wait until the program has logged all that it will, and return its count."""
        return int(os.read(self.said_fd, 64))


@contextmanager
def started(pipe: Pipe, form: str, end: str) -> Iterator[Program]:
    said_fd, say_fd = os.pipe()
    pipe.fill()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, form, end, str(say_fd)],
        stdout=pipe.write_fd,
        stderr=pipe.write_fd,
        pass_fds=[say_fd],
    )
    os.close(say_fd)
    try:
        yield Program(process, said_fd)
    finally:
        process.kill()
        process.wait()
        os.close(said_fd)


@pytest.mark.parametrize("end", ["return", "crash"])
@pytest.mark.parametrize("form", ["console", "json"])
def test_a_process_whose_log_is_not_read_goes_on_and_ends(form: str, end: str, pipe: Pipe) -> None:
    with started(pipe, form, end) as program:
        assert program.dropped() > 1000
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait() == (1 if end == "crash" else 0)


def test_a_log_that_is_read_again_says_how_many_lines_were_dropped(pipe: Pipe) -> None:
    with started(pipe, "json", "return") as program:
        dropped = program.dropped()
        found = pipe.read_until(lambda found: b"log_lines_dropped" in found and found[-1:] == b"\n")
    lines = [line for line in found.decode().splitlines() if line.startswith("{")]
    [reported] = [one for one in map(json.loads, lines) if one["event"] == "log_lines_dropped"]
    assert reported["lines"] == dropped


def test_a_process_that_was_started_without_standard_error_logs_nowhere() -> None:
    code = (
        "from reconciler.telemetry.stderr_writer import redirect_output\n"
        "writer = redirect_output()\n"
        "writer.write('lost\\n')\n"
        "assert writer.settle(30)\n"
        "assert writer.dropped_total == 0\n"
    )
    command = ["/bin/sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    assert subprocess.run(command, check=False).returncode == 0
