"""The fleet as a table for a terminal of any width (rich)."""

from rich.table import Table
from rich.text import Text

from reconciler.controller.decide.token_state import TokenState
from reconciler.inspection.fleet import PodFleet
from reconciler.inspection.printers import GAP, Cells, cells

COLUMNS = ("NAMESPACE", "SESSION", "POD", "EXPIRES", "STATE", "REFRESHED", "BY")

_OPTIONAL = ("BY", "SESSION", "REFRESHED")
"""Columns that a narrow terminal leaves out, in this order: a pod's name contains its session."""

_NARROW_GAP = 2

_STYLES = {
    TokenState.OK: "green",
    TokenState.NO_EXPIRY: "green",
    TokenState.DUE: "cyan",
    TokenState.PAUSED: "magenta",
    TokenState.EXPIRED: "bold red",
    TokenState.EXPIRING: "bold yellow",
    TokenState.OVERDUE: "bold yellow",
}
_OTHER = "yellow"


def columns_for(*, everywhere: bool) -> tuple[str, ...]:
    """Return the columns; as in kubectl, there is no NAMESPACE if all rows have the same."""
    return COLUMNS if everywhere else COLUMNS[1:]


def draw(
    fleet: PodFleet,
    *,
    columns: tuple[str, ...],
    width: int,
    rows: int | None = None,
    by_expiry: bool = True,
) -> list[Text | Table]:
    """Return the headline and the table.

    Args:
        width: Characters of the terminal; columns are left out until the rest fits.
        by_expiry: The rows are in the order of expiry.
        rows: Lines for pods; the other pods are counted in one line. None = all.
    """
    shown = fleet.rows if rows is None or len(fleet.rows) <= rows else fleet.rows[: rows - 1]
    lines = [cells(row, fleet.now_s) for row in shown]
    kept, gap = _fitting(lines, columns, width)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold")
    for name in kept:
        table.add_column(name, overflow="fold", no_wrap=name != "POD")
    for row, line in zip(shown, lines, strict=True):
        style = _STYLES.get(row.state, _OTHER)
        table.add_row(
            *(Text(line[name], style=_style(name, style)) for name in kept),
        )
    style = "bold red" if fleet.expired else "bold"
    parts: list[Text | Table] = [Text(phrase, style=style) for phrase in fleet.headline()]
    if shown:
        parts += [Text(), table]
    if hidden := len(fleet.rows) - len(shown):
        later = ", which expire later" if by_expiry else ""
        parts.append(Text(f"and {hidden:,} more{later}", style="dim"))
    return parts


def _style(column: str, state: str) -> str:
    if column in ("EXPIRES", "STATE"):
        return state
    return "" if column == "POD" else "dim"


def _fitting(lines: list[Cells], columns: tuple[str, ...], width: int) -> tuple[list[str], int]:
    """Return the columns that fit, and the number of spaces between them."""
    widths = {name: max(len(line[name]) for line in [*lines, _HEAD]) for name in columns}
    kept = list(columns)
    for column in (*_OPTIONAL, ""):
        needed = sum(widths[name] for name in kept)
        if needed + len(GAP) * (len(kept) - 1) <= width:
            return kept, len(GAP)
        if column:
            kept.remove(column)
    return kept, _NARROW_GAP


_HEAD = dict(zip(COLUMNS, COLUMNS, strict=True))
