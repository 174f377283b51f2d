"""`reconciler check`: is everything there that `reconciler run` will need?"""

import asyncio
from collections.abc import Iterable

import msgspec
import typer

from reconciler.clock import SystemClock
from reconciler.errors import SettingsError
from reconciler.preflight.checks import misspelled, run_checks
from reconciler.preflight.findings import Finding, is_missing
from reconciler.settings import load_settings
from reconciler.telemetry.log_setup import configure_logs

EXIT_MISSING = 3
"""Something is missing; the words say what."""


def run_check(*, output: str, kubeconfig: str = "", context: str = "") -> int:
    """Print what was found and return the exit code; `output` is `text` or `json`."""
    if output not in ("text", "json"):
        raise SettingsError(f"-o {output!r}: not text or json")
    configure_logs("error", "auto")
    try:
        settings = load_settings()
    except SettingsError as error:
        found = [Finding("settings", "missing", line) for line in str(error).splitlines()]
        found += misspelled()
    else:
        found = asyncio.run(
            run_checks(settings, SystemClock(), kubeconfig=kubeconfig, context=context)
        )
    missing = is_missing(found)
    typer.echo(as_json(found) if output == "json" else as_text(found))
    return EXIT_MISSING if missing else 0


def as_json(found: Iterable[Finding]) -> str:
    """Return one object: `ok`, and `verdicts` as a list of area, level, says, remedy."""
    listed = list(found)
    return msgspec.json.encode({"ok": not is_missing(listed), "verdicts": listed}).decode()


def as_text(found: Iterable[Finding]) -> str:
    """Return a line for each finding, and one below it where there is something to do."""
    lines: list[str] = []
    for verdict in found:
        lines.append(f"{verdict.level:<8} {verdict.area:<9} {verdict.message}")
        if verdict.remedy:
            lines.append(f"{'':<18} -> {verdict.remedy}")
    return "\n".join(lines)
