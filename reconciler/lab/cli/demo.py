"""`reconciler demo`: the whole system on this machine, as a live view or in lines."""

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import redirect_stderr
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from reconciler.errors import SettingsError
from reconciler.lab.chaos.schedule import parse_chaos
from reconciler.lab.demo.demo import Demo, DemoPlan
from reconciler.lab.demo.frame import progress_line
from reconciler.lab.demo.report import Report
from reconciler.lab.demo.view import draw, draw_report
from reconciler.telemetry.log_setup import configure_logs

EXIT_EXPIRED = 1
FRAME_S = 0.25
LINE_S = 3.0

Show = Callable[[Demo], Coroutine[Any, Any, None]]


def run_demo(
    *,
    sessions: int,
    replicas: int,
    ttl_s: float,
    projection_delay: tuple[float, float],
    duration_s: float | None,
    chaos: list[str],
    report: str,
    seed: int | None,
) -> int:
    """Run until the end or Ctrl-C, print the report, and return the exit code."""
    if report not in ("", "json"):
        raise SettingsError(f"--report {report}: the only format is json")
    plan = DemoPlan(
        sessions=sessions,
        replicas=replicas,
        ttl_s=ttl_s,
        projection_delay=projection_delay,
        duration_s=duration_s,
        chaos=tuple(parse_chaos(each, ttl_s=ttl_s, duration_s=duration_s) for each in chaos),
        seed=seed,
        log_level=os.environ.get("LOG_LEVEL", "info"),
    )
    as_json = report == "json"
    console = Console(stderr=as_json)
    is_live = console.is_terminal and not console.is_dumb_terminal
    result = _run_live(plan, console) if is_live else _run_in_lines(plan, console)
    if as_json:
        sys.stdout.write(json.dumps(result.as_dict()) + "\n")
    else:
        console.print(draw_report(result))
    return 0 if result.is_good else EXIT_EXPIRED


def _run_in_lines(plan: DemoPlan, console: Console) -> Report:
    """Run with one line every few seconds; logs go to stderr unchanged."""
    configure_logs("info", "json")

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def sink(line: str) -> None:
        sys.stderr.write(f"{line}\n")

    async def show(demo: Demo) -> None:
        while True:
            await asyncio.sleep(LINE_S)
            say(progress_line(demo.frame()))

    return _run(lambda: Demo(plan, say=say, sink=sink), show)


def _run_live(plan: DemoPlan, console: Console) -> Report:
    """Run with the live view, drawn four times a second."""
    tail = LogTail()

    async def show(demo: Demo) -> None:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                width, height = console.size
                view = draw(demo.frame(), list(tail.lines), width=width, height=height)
                live.update(view, refresh=True)
                await asyncio.sleep(FRAME_S)

    sink: Any = tail  # a text file, as far as logs are concerned
    with redirect_stderr(sink):
        configure_logs("info", "json")
        return _run(lambda: Demo(plan, say=console.print, sink=tail.add), show)


def _run(make: Callable[[], Demo], show: Show) -> Report:
    """Run to the end or to a signal; raises `SettingsError` if a controller refuses a setting."""

    async def main() -> Report:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await make().run(stop, show)

    try:
        return asyncio.run(main())
    except ExceptionGroup as group:
        refused: BaseException | None = group.subgroup(SettingsError)
        if refused is None:
            raise
        while isinstance(refused, BaseExceptionGroup):
            refused = refused.exceptions[0]
        raise refused from None


KEPT = 200
_HIDDEN = frozenset({"timestamp", "level", "event", "secret"})
"""Keys that have their own columns; the Secret's name repeats the session's ID."""
_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}


class LogTail:
    """A text file for logs, or a sink for whole lines; keeps the last `KEPT` lines."""

    def __init__(self) -> None:
        self.lines: deque[Text] = deque(maxlen=KEPT)

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self.add(line)
        return len(text)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def isatty(self) -> bool:
        return False

    def add(self, line: str) -> None:
        if line.strip():
            self.lines.append(readable(line))


def readable(line: str) -> Text:
    """Return time, event and values of a JSON log line; any other line unchanged."""
    try:
        found = json.loads(line)
        when = datetime.fromisoformat(found["timestamp"]).astimezone()
        level, event = str(found["level"]), str(found["event"])
    except (ValueError, KeyError, TypeError):
        return Text(f" {line}")
    values = " ".join(f"{name}={value}" for name, value in found.items() if name not in _HIDDEN)
    style = _STYLES.get(level, "")
    return Text.assemble((f" {when:%H:%M:%S} ", "dim"), (event, f"bold {style}"), f" {values}")
