"""`python -m tests.bench`: every figure beside its target, as a table, as JSON and as pictures.

Machines are shared and noisy, so that nothing here is compared with a number of another run: the
product, its peers, a bare client and the replaced loop meet the same API server in turn.
"""

import argparse
import signal
import sys
import time
from pathlib import Path

from rich.console import Console

from tests.assets import find
from tests.bench import parts
from tests.bench.plan import plan
from tests.bench.plots import draw
from tests.bench.readme import section, with_section
from tests.bench.report import Report, load, table
from tests.bench.runner import Runner
from tests.bench.say import say

README = Path("README.md")
WIDTH = 120


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small version of everything")
    parser.add_argument("--sessions", type=int, default=0, help="of the large fleet")
    parser.add_argument(
        "--parts", default="", help=f"of {','.join(parts.NAMES)}; the report keeps all others"
    )
    parser.add_argument("--report", type=Path, default=Path("build/bench.json"))
    parser.add_argument(
        "--readme", metavar="RUN", default="", help="measure nothing: write the report to README"
    )
    arguments = parser.parse_args()
    if arguments.readme:
        try:
            written = section(load(arguments.report), arguments.readme)
        except ValueError as error:
            parser.error(str(error))
        README.write_text(with_section(README.read_text(), written))
        return 0
    names = tuple(filter(None, arguments.parts.split(","))) or parts.NAMES
    if unknown := set(names) - set(parts.NAMES):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(parts.NAMES)}")
    binaries = find()
    if missing := [name for name in parts.PROGRAMS if name not in binaries]:
        say(f"no {', no '.join(missing)}; build with: make assets")
        return 1
    report = load(arguments.report) if arguments.parts else Report()
    # The report has the other fleets where a part is added to it.
    chosen = plan(quick=arguments.quick, sessions=arguments.sessions, alone=bool(arguments.parts))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started, as Ctrl-C
    began = time.monotonic()
    Runner(binaries, chosen, names, report=report, path=arguments.report).run()
    code = _shown(report, arguments.report)
    say(f"{time.monotonic() - began:.0f} s in all")
    return code


def _shown(report: Report, path: Path) -> int:
    """Print the table and draw the pictures; return the exit code."""
    pictures = draw(report, path.parent / path.stem)
    Console(width=None if sys.stdout.isatty() else WIDTH).print(table(report))
    missed = ", ".join(value.key for value in report.missed)
    say(f"{len(report.missed)} numbers miss their targets: {missed}")
    say(f"also in {path} and, as pictures, in {', '.join(str(picture) for picture in pictures)}")
    for run in report.failures:
        say(f"{run.part} FAILED: {run.failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
