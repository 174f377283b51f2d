"""`reconciler check`: checks everything that `reconciler run` needs."""

import asyncio
from collections.abc import Iterable

import msgspec
import typer

from reconciler.clock import SystemClock
from reconciler.errors import SettingsError
from reconciler.preflight.checks import misspelled, run_checks
from reconciler.preflight.findings import Finding, has_failed
from reconciler.settings import load_settings
from reconciler.telemetry.log_setup import configure_logs

EXIT_FAILED = 3
"""A finding is `FAIL`; its message says what is missing or wrong."""


def run_check(*, output: str, kubeconfig: str = "", context: str = "") -> int:
    """Print the findings and return the exit code; `output` is `text` or `json`."""
    if output not in ("text", "json"):
        raise SettingsError(f"-o {output!r}: not text or json")
    configure_logs("error", "auto")
    try:
        settings = load_settings()
    except SettingsError as error:
        found = [Finding("settings", "FAIL", line) for line in str(error).splitlines()]
        found += misspelled()
    else:
        found = asyncio.run(
            run_checks(settings, SystemClock(), kubeconfig=kubeconfig, context=context)
        )
    typer.echo(as_json(found) if output == "json" else as_text(found))
    return EXIT_FAILED if has_failed(found) else 0


def as_json(found: Iterable[Finding]) -> str:
    """Return one object: `ok`, and `findings` as a list of area, level, message and remedy."""
    findings = list(found)
    return msgspec.json.encode({"ok": not has_failed(findings), "findings": findings}).decode()


def as_text(found: Iterable[Finding]) -> str:
    """Return a line for each finding, and below it a line with its remedy, if it has one."""
    lines: list[str] = []
    for finding in found:
        lines.append(f"{finding.level:<4} {finding.area:<8} {finding.message}")
        if finding.remedy:
            lines.append(f"{'':<13} -> {finding.remedy}")
    return "\n".join(lines)
