"""Output of the commands: results on standard output, everything else on standard error."""

import asyncio
import json
import sys
from collections.abc import Coroutine, Sequence
from typing import Any

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_INTERRUPTED, EXIT_SETTINGS, CommandError
from reconciler.cli.jsonpath import parse, render
from reconciler.humanize import duration

JSONPATH = "jsonpath="
"""The format whose template follows it."""


def print_out(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def print_json(found: dict[str, Any], *, indent: int | None = 2) -> None:
    """Print one JSON object; only ASCII, so that text of others cannot control the terminal."""
    print_out(json.dumps(found, indent=indent))


def print_err(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"reconciler: {line}\n")


def print_clock_skew(cluster: Cluster) -> None:
    skew_s = cluster.skew_s()
    if skew_s:
        direction = "behind" if skew_s > 0 else "ahead of"
        print_err(
            f"this machine's clock is {duration(abs(skew_s))} {direction} the API server's; "
            "the server's time is used"
        )


def print_document(found: dict[str, Any], output: str, *, streamed: bool = False) -> None:
    """Print one document of `output`: json, yaml, or `jsonpath=` with a template.

    In a stream a line separates YAML documents; a template decides that itself. All text of others
    is escaped.
    """
    if output.startswith(JSONPATH):
        sys.stdout.write(render(parse(output.removeprefix(JSONPATH)), found))
        sys.stdout.flush()
        return
    if output == "json":
        print_json(found, indent=None if streamed else 2)
        return
    import yaml

    if streamed:
        print_out("---")
    print_out(yaml.safe_dump(found, sort_keys=False).rstrip())


def check_format(output: str, formats: Sequence[str]) -> None:
    """Raise `CommandError` for a format that the command does not have, or a wrong template."""
    if JSONPATH in formats and output.startswith(JSONPATH):
        parse(output.removeprefix(JSONPATH))
    elif output not in formats:
        listed = f"{', '.join(formats[:-1])} and {formats[-1]}"
        raise CommandError(f"-o {output}: the formats are {listed}", EXIT_SETTINGS)


def wants_json(output: str) -> bool:
    """Return whether JSON is requested; raises `CommandError` for an unknown format."""
    check_format(output, ("table", "json"))
    return output == "json"


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a command and return its exit code; Ctrl-C ends it without a traceback."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
