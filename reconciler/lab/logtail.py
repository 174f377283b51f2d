"""The last lines of all logs, made readable: what JSON says to machines, in one short line."""

import json
from collections import deque
from datetime import datetime

from rich.text import Text

KEPT = 200
_HIDDEN = frozenset({"timestamp", "level", "event", "secret"})
"""Shown otherwise, or, as the Secret's name is, said by the session's ID beside it."""
_STYLES = {"debug": "dim", "info": "", "warning": "yellow", "error": "bold red"}


class LogTail:
    """A text file to write logs to, or a sink for whole lines; remembers the last of them."""

    def __init__(self) -> None:
        self.lines: deque[Text] = deque(maxlen=KEPT)

    def write(self, text: str) -> int:
        for line in text.splitlines():
            self.add(line)
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        return False

    def add(self, line: str) -> None:
        if line.strip():
            self.lines.append(readable(line))


def readable(line: str) -> Text:
    """Return time, event and facts of a JSON line; any other line as it is."""
    try:
        found = json.loads(line)
        when = datetime.fromisoformat(found["timestamp"]).astimezone()
        level, event = str(found["level"]), str(found["event"])
    except (ValueError, KeyError, TypeError):
        return Text(f" {line}")
    facts = " ".join(f"{name}={value}" for name, value in found.items() if name not in _HIDDEN)
    style = _STYLES.get(level, "")
    return Text.assemble((f" {when:%H:%M:%S} ", "dim"), (event, f"bold {style}"), f" {facts}")
