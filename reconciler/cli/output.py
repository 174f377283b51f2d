"""How commands speak: answers on standard output, everything else on standard error."""

import asyncio
import json
import sys
from collections.abc import Coroutine
from typing import Any

from reconciler.cli.cluster import Cluster
from reconciler.cli.exit_codes import EXIT_INTERRUPTED, EXIT_SETTINGS, CommandError
from reconciler.humanize import duration


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_json(found: dict[str, Any], *, indent: int | None = 2) -> None:
    """Print one JSON object; ASCII alone, so that foreign text cannot reach the terminal."""
    say(json.dumps(found, indent=indent))


def warn(line: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"reconciler: {line}\n")


def warn_of_skew(cluster: Cluster) -> None:
    skew_s = cluster.skew_s()
    if skew_s:
        direction = "behind" if skew_s > 0 else "ahead of"
        warn(
            f"this machine's clock is {duration(abs(skew_s))} {direction} the API server's; "
            "the server's time is used"
        )


def check_format(output: str) -> bool:
    """Return whether JSON is wanted; raises `CommandError` for a format that there is not."""
    if output not in ("table", "json"):
        raise CommandError(f"-o {output}: the formats are table and json", EXIT_SETTINGS)
    return output == "json"


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run a command to its exit code; Ctrl-C ends it without a traceback."""
    try:
        return asyncio.run(main)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
