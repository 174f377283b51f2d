"""Ends a command line with the exit code of its failure, whatever can be written of its output."""

import errno
import io
import os
import sys
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from reconciler.cli.exit_codes import (
    EXIT_DEFECT,
    EXIT_OUTPUT,
    EXIT_PIPE,
    EXIT_SETTINGS,
    CommandError,
)
from reconciler.errors import SettingsError

if TYPE_CHECKING:
    from typing_extensions import Buffer


def guarded(command: Callable[[], object]) -> None:
    """Run a command line; print errors of the input or the cluster without a traceback.

    Any other error is a defect. Python would end with 1, which says that a token has expired.
    """
    _guard_output()
    try:
        try:
            command()
        finally:
            sys.stdout.flush()  # a failure at the interpreter's exit would print a traceback
    except (SettingsError, CommandError) as error:
        for line in str(error).splitlines():
            sys.stderr.write(f"reconciler: {line}\n")
        sys.exit(error.code if isinstance(error, CommandError) else EXIT_SETTINGS)
    except Exception:
        traceback.print_exc()
        sys.exit(EXIT_DEFECT)


def _guard_output() -> None:
    # A tenant's text may not fit the encoding: Python escapes it on standard error alone.
    sys.stdout = _text_of(_StandardFile(sys.stdout.fileno()), sys.stdout.encoding)
    notes = _StandardFile(sys.stderr.fileno(), is_result=False)
    sys.stderr = _text_of(notes, sys.stderr.encoding, line_buffering=True)


def _text_of(
    raw: "_StandardFile", encoding: str, *, line_buffering: bool = False
) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=line_buffering or raw.isatty(),
    )


class _StandardFile(io.RawIOBase):
    """Standard output or error; what is still buffered after a failed write is dropped.

    A failed write of a result ends the command with `EXIT_PIPE` or `EXIT_OUTPUT`. click and rich
    exit with 1 where the reader of a pipe has ended, which here says that a pod has an expired
    token; so does Python where a note cannot be written. Notes have no other place, and the result
    does not depend on them.
    """

    def __init__(self, fd: int, *, is_result: bool = True) -> None:
        self._fd = fd
        self._is_result = is_result
        self._has_failed = False

    def write(self, data: "Buffer", /) -> int:
        """Write; raises `SystemExit` with the code of the failure."""
        if self._has_failed:
            return memoryview(data).nbytes
        try:
            return os.write(self._fd, data)
        except OSError as error:
            self._has_failed = True
            if self._is_result:
                self._end(error)
            return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def _end(self, error: OSError) -> NoReturn:
        if error.errno == errno.EPIPE:
            sys.exit(EXIT_PIPE)
        sys.stderr.write(f"reconciler: cannot write the output: {error.strerror}\n")
        sys.exit(EXIT_OUTPUT)
