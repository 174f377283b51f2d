"""The form of the log: JSON lines for machines, columns for a terminal; never a token."""

import asyncio
import atexit
import logging
import sys
import threading
from collections.abc import Mapping
from typing import Any, Literal, TextIO

import msgspec
import structlog

from reconciler.telemetry.trace import current

log = structlog.get_logger()

MAX_CHARS = 512
"""Longest text of one field: our own longest sentences fit, and a message of a webhook or a proxy
does not fill the log."""

MAX_ITEMS = 50
"""Most items of one list in a field."""


def bounded(value: Any, *, max_chars: int = MAX_CHARS) -> Any:
    """Return a value with its texts cut to `max_chars` characters; the cut is shown.

    Lists and mappings are cut to `MAX_ITEMS`; values of other types are returned unchanged.
    """
    if isinstance(value, str):
        left_out = len(value) - max_chars
        return value if left_out <= 0 else f"{value[:max_chars]}... ({left_out} characters more)"
    if isinstance(value, Mapping):
        return {
            bounded(key, max_chars=max_chars): bounded(value[key], max_chars=max_chars)
            for key in list(value)[:MAX_ITEMS]
        }
    if isinstance(value, list | tuple):
        return [bounded(item, max_chars=max_chars) for item in value[:MAX_ITEMS]]
    if isinstance(value, BaseException):
        return bounded(str(value), max_chars=max_chars)
    return value


def bound_line(_: object, __: str, event: Any) -> Any:
    """Bound every field of a log line."""
    for name, value in event.items():
        # Nearly all: a call costs 0.2 us a field.
        if type(value) is not str or len(value) > MAX_CHARS:
            event[name] = bounded(value)
    return event


class LineSink:
    """A text file to which one turn of the event loop writes once, with all lines that it logs.

    A system call for each line would cost a tenth of a refresh. Without a running loop, and at
    exit, lines are written at once, so that only a kill in the middle of a turn can lose lines.
    Each thread has separate lines: a loop that is blocked does not delay those of other threads.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._turns = threading.local()
        atexit.register(self.flush)

    def write(self, text: str) -> int:
        lines = self._lines()
        if not lines:
            try:
                asyncio.get_running_loop().call_soon(self._flush_turn)
            except RuntimeError:
                return self._file.write(text)
        lines.append(text)
        return len(text)

    def flush(self) -> None:
        """Do nothing within a turn of the loop: the end of the turn flushes."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            self._flush_turn()

    def _flush_turn(self) -> None:
        lines = self._lines()
        text = "".join(lines)
        lines.clear()
        self._file.write(text)
        self._file.flush()

    def _lines(self) -> list[str]:
        """Return the lines of this thread's turn."""
        if not hasattr(self._turns, "lines"):
            self._turns.lines = []
        lines: list[str] = self._turns.lines
        return lines


def configure_logs(level: str, form: Literal["auto", "json", "console"]) -> None:
    """Set up structlog and the standard library's loggers, once per process, to stderr.

    The libraries' loggers stay at WARNING: kubernetes-asyncio writes whole response bodies at
    DEBUG.
    """
    console = form == "console" or (form == "auto" and sys.stderr.isatty())
    threshold = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Any] = [
        add_trace_id,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        bound_line,
    ]
    last: list[Any] = (
        # structlog's own tracebacks show local variables, which may hold a token.
        [
            structlog.dev.ConsoleRenderer(
                pad_event_to=28,
                # A file, or a pipe to one, shows escape codes as they are.
                colors=sys.stderr.isatty(),
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if console
        else [structlog.processors.format_exc_info, _render_json]
    )
    structlog.configure(
        processors=shared + last,
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(LineSink(sys.stderr)),  # type: ignore[arg-type]  # write and flush are all it uses
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()], force=True)


class _Libraries(logging.Handler):
    """Writes what a library logs, the loop's tracebacks included, in the form of our own lines."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(
            record.levelno,
            "library_logged",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )


def add_trace_id(_: object, level: str, event: Any) -> Any:
    """Add the trace ID of the reconcile, resync or token request in progress, sampled or not.

    A trace that a warning names is exported. A line that belongs to other work has its own
    `trace_id` already.
    """
    if "trace_id" not in event and (span := current()) is not None:
        event["trace_id"] = span.trace.hex_id
        span.trace.named |= level not in ("debug", "info")
    return event


def _render_json(_: object, __: str, event: Any) -> str:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event")}
    return msgspec.json.encode(first | event, enc_hook=repr).decode()
