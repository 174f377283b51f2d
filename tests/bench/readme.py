"""The numbers of one run that have a target, as README's section *Measured* (pure).

`python -m tests.bench --readme "RUN"` writes the section from the report of the last run.
"""

from tests.bench.figures import FIGURES, Value
from tests.bench.report import Report, number, targets, verdicts

HEADING = "## Measured"
NEXT_HEADING = "## Where to read on"
"""The section is above it."""


def section(report: Report, run: str) -> str:
    """Return the section: one row a figure with a target, missed ones among them.

    Args:
        run: Names the run: commit, date and machine.

    Raises:
        ValueError: The report has no number with a target.
    """
    rows: dict[str, dict[int, Value]] = {}
    for value in report.values.values():
        if value.figure.target(value.sessions):
            rows.setdefault(value.name, {})[value.sessions] = value
    if not rows:
        raise ValueError("the report has no number with a target; measure first: make bench")
    sizes = sorted({size for row in rows.values() for size in row})
    columns = [f"{size:,} sessions" if size else "" for size in sizes]
    lines = [["figure", *columns, "unit", "target", "met"], ["---"] * (len(sizes) + 4)]
    for figure in FIGURES:
        if (row := rows.get(figure.name)) is not None:
            cells = [number(row[size].value) if size in row else "" for size in sizes]
            end = [figure.unit, targets(figure, row), verdicts(row)]
            lines.append([f"`{figure.name}`", *cells, *end])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return (
        f"{HEADING}\n\n{run}.\n`make bench` prints them again, on your machine, with all others;\n"
        "[benchmarks.md](docs/reference/benchmarks.md) says what each number means.\n\n"
        f"{table}\n\n"
    )


def with_section(readme: str, written: str) -> str:
    """Return README with this section in place of the former one, or as a new one.

    >>> with_section("a\\n## Where to read on\\nb\\n", "## Measured\\n\\nx\\n\\n")
    'a\\n## Measured\\n\\nx\\n\\n## Where to read on\\nb\\n'
    """
    before, found, after = readme.partition(f"{NEXT_HEADING}\n")
    if not found:
        raise ValueError(f"README has no line {NEXT_HEADING!r}")
    return before.partition(f"{HEADING}\n")[0] + written + found + after
