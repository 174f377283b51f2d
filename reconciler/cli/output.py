"""Output of the commands: results on standard output, everything else on standard error."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_INTERRUPTED, EXIT_SETTINGS, CommandError
from reconciler.humanize import duration


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


def wants_json(output: str) -> bool:
    """Return whether JSON is requested; raises `CommandError` for an unknown format."""
    if output not in ("table", "json"):
        raise CommandError(f"-o {output}: the formats are table and json", EXIT_SETTINGS)
    return output == "json"


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a command and return its exit code; Ctrl-C ends it without a traceback."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
