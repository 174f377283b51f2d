"""Standard output whose failure ends the command with a code of its own.

click and rich end with 1 where the reader of a pipe has ended, which here says that a pod holds an
expired token.
"""

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from reconciler.cli.exit_codes import EXIT_OUTPUT, EXIT_PIPE

if TYPE_CHECKING:
    from typing_extensions import Buffer


class StandardOutput(io.RawIOBase):
    """The descriptor of standard output. After a failure what is still buffered is dropped."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._has_failed = False

    def write(self, data: "Buffer", /) -> int:
        """Write; raises `SystemExit` with the code of the failure."""
        if self._has_failed:
            return memoryview(data).nbytes
        try:
            return os.write(self._fd, data)
        except OSError as error:
            self._fail(error)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def _fail(self, error: OSError) -> NoReturn:
        self._has_failed = True
        if error.errno == errno.EPIPE:
            sys.exit(EXIT_PIPE)
        sys.stderr.write(f"reconciler: the output could not be written: {error.strerror}\n")
        sys.exit(EXIT_OUTPUT)


def guard_stdout() -> None:
    """Put a `StandardOutput` in the place of `sys.stdout`."""
    raw = StandardOutput(sys.stdout.fileno())
    sys.stdout = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stdout.encoding,
        errors=sys.stdout.errors,
        line_buffering=raw.isatty(),
    )
