"""The live view: a frame as text for a terminal of any size (rich)."""

import math
from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from reconciler.lab.demo.frame import Bar, Frame
from reconciler.lab.demo.report import MEANINGS, Report

_DIGITS = {
    "0": ("┏━┓", "┃ ┃", "┗━┛"), "1": (" ╻ ", " ┃ ", " ╹ "), "2": ("╺━┓", "┏━┛", "┗━╸"),
    "3": ("╺━┓", " ━┫", "╺━┛"), "4": ("╻ ╻", "┗━┫", "  ╹"), "5": ("┏━╸", "┗━┓", "╺━┛"),
    "6": ("┏━╸", "┣━┓", "┗━┛"), "7": ("╺━┓", "  ┃", "  ╹"), "8": ("┏━┓", "┣━┫", "┗━┛"),
    "9": ("┏━┓", "┗━┫", "╺━┛"), ".": (" ", " ", "╹"),
}  # fmt: skip
_NAME = 7
_COLUMN = 39
"""Minimum width of a session's cell; two fit into 80 columns."""
_WIDEST = 80
_LOG_LINES = 4
_PARTS = "▏▎▍▌▋▊▉█"


def draw(frame: Frame, log: Sequence[Text], *, width: int, height: int) -> Text:
    """Return exactly `height` lines of at most `width` cells."""
    head = [*_headline(frame, width), *_state_lines(frame, width)]
    tail_lines = min(max(_LOG_LINES, height // 5), max(0, height - len(head) - 4))
    room = height - len(head) - tail_lines - 2
    lines = [
        *head,
        _rule("sessions by life left of the token in the runner's file", width),
        *_sessions(frame, width=width, rows=max(0, room)),
    ]
    lines += [Text()] * (height - tail_lines - 1 - len(lines))
    lines.append(_rule("log", width))
    lines += list(log[-tail_lines:]) if tail_lines else []
    lines += [Text()] * (height - len(lines))
    for line in lines:
        line.no_wrap = True
        line.truncate(width, overflow="ellipsis")
    return Text("\n", no_wrap=True, end="").join(lines[:height])


def _headline(frame: Frame, width: int) -> list[Text]:
    """Return three lines: the expired-token seconds in large digits, and the other figures."""
    good = frame.expired_s == 0
    style = "bold green" if good else "bold red"
    shown = f"{math.ceil(frame.expired_s * 10) / 10:.1f}"
    rows = [" ".join(_DIGITS[sign][row] for sign in shown) for row in range(3)]
    end = f" of {frame.duration_s:g}" if frame.duration_s is not None else ""
    refused = "bold red" if frame.unauthenticated else "bold green"
    labels = [
        Text("expired-token seconds", style=style),
        Text.assemble((str(frame.unauthenticated), refused), " unauthenticated calls"),
        Text.assemble(
            (f"{frame.elapsed_s:.0f}{end} s", "bold"), f", tokens live {frame.ttl_s:g} s"
        ),
    ]
    counts = [
        f"{frame.running}/{len(frame.bars)} sessions running",
        f"{frame.refreshes} refreshes, {frame.failures} failures",
        f"{frame.calls} gRPC calls, {frame.reauthentications} re-reads",
    ]
    lines = []
    for row, text, count in zip(rows, labels, counts, strict=True):
        line = Text.assemble(" ", (row, style), "   ", text)
        gap = width - line.cell_len - len(count) - 1
        if gap > 1:
            line.append(" " * gap + count, style="default")
        lines.append(line)
    return lines


def _state_lines(frame: Frame, width: int) -> list[Text]:
    lines = [Text.assemble((" controller ", "dim"), each) for each in frame.controllers]
    chaos = Text.assemble((" chaos      ", "dim"))
    chaos.append("  ".join(frame.chaos) or "none now", style="bold yellow" if frame.chaos else "")
    if frame.waiting:
        chaos.append("  next " + " ".join(frame.waiting), style="dim")
    end = "Ctrl-C ends the demo with its report "
    gap = width - chaos.cell_len - len(end)
    if gap > 1:
        chaos.append(" " * gap + end, style="dim")
    if frame.page_url:
        lines.append(Text.assemble((" page       ", "dim"), frame.page_url))
    if frame.kubeconfig_hint:
        lines.append(Text.assemble((" kubectl    ", "dim"), frame.kubeconfig_hint))
    return [*lines, chaos]


def _sessions(frame: Frame, *, width: int, rows: int) -> list[Text]:
    """Fill columns from the top; the last cell counts the sessions that do not fit."""
    bars = frame.by_life()
    needed = max(-(-len(bars) // max(1, rows)), width // _WIDEST)
    columns = max(1, min(width // _COLUMN, needed))
    cell = width // columns
    cells = [_bar(bar, frame.ttl_s, cell - 1) for bar in bars[: columns * rows]]
    if len(bars) > columns * rows and cells:
        more = len(bars) - len(cells) + 1
        cells[-1] = Text(f" +{more} more".ljust(cell - 1), style="dim")
    used = -(-len(cells) // columns)
    lines = []
    for row in range(used):
        line = Text()
        for found in cells[row::used]:
            line.append_text(found)
            line.append(" ")
        lines.append(line)
    return lines


def _bar(bar: Bar, ttl_s: float, width: int) -> Text:
    line = Text(f" {bar.name:<{_NAME}} ")
    room = max(4, width - _NAME - 2 - 8)
    if bar.left_s is None:
        line.append(f"{bar.state:<{room + 8}}", style="dim")
        return line
    share = min(1.0, max(0.0, bar.left_s / ttl_s))
    style = _colour(share)
    eighths = round(share * room * 8)
    filled = "█" * (eighths // 8) + (_PARTS[eighths % 8 - 1] if eighths % 8 else "")
    line.append(filled, style=style)
    line.append("·" * (room - len(filled)), style="dim")
    line.append(f"{bar.left_s:6.1f} s" if bar.left_s > 0 else " EXPIRED", style=style)
    return line


def _colour(share: float) -> str:
    if share <= 0:
        return "bold white on red"
    return "red" if share < 0.15 else "yellow" if share < 0.35 else "green"


def _rule(title: str, width: int) -> Text:
    return Text(f"── {title} ".ljust(width, "─"), style="dim")


def draw_report(report: Report) -> Table:
    """Return the report as a table; its result is below it, the last line in a low terminal."""
    table = Table(caption=_result(report), caption_justify="left")
    table.caption_style = "bold green" if report.is_good else "bold red"
    table.add_column("figure")
    table.add_column("value", justify="right")
    table.add_column("means", min_width=24)
    for name, value in _rows(report.as_dict()):
        bad = name in ("expired_token_seconds", "unauthenticated") and value != "0"
        table.add_row(name, value, MEANINGS[name], style="bold red" if bad else "")
    return table


def _result(report: Report) -> str:
    if report.is_good:
        return "passed: no runner held an expired token"
    if report.expired_token_seconds or report.unauthenticated:
        return "FAILED: a runner held an expired token"
    return "FAILED: a token was written without permission"


def _rows(figures: dict[str, object]) -> Iterable[tuple[str, str]]:
    for name, value in figures.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{part}", _shown(each)) for part, each in value.items())
        elif isinstance(value, list):
            for each in value:
                words = [f"{part} {_shown(found)}" for part, found in each.items()]
                yield name, "\n".join(words)
        else:
            yield name, _shown(value)


def _shown(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
