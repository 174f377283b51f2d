"""Waits at the start for credential files that do not exist yet.

The process does not exit: the kubelet restarts a pod after a growing delay of up to five minutes,
which is longer than the tokens have left when the Secret is mounted at last.
"""

import asyncio

import structlog

from reconciler.clock import SystemClock
from reconciler.errors import SettingsError
from reconciler.factories import SecretSetting, static_source
from reconciler.settings import Settings
from reconciler.telemetry.http_server import serve_health

log = structlog.get_logger()

CHECK_S = 1.0
LOG_S = 60.0


async def wait_for_files(settings: Settings, stop: asyncio.Event) -> bool:
    """Return True when each file has valid credentials, False if `stop` is set before.

    Until then /livez is OK, and /readyz and a log line a minute name what is missing.

    Raises:
        SettingsError: The probes' address cannot be bound.
    """
    if not missing(settings):
        return True
    loop = asyncio.get_running_loop()
    async with serve_health(
        settings.listen, live=lambda: "", ready=lambda: missing(settings) or "starting"
    ):
        logged_at = -LOG_S
        while problem := missing(settings):
            if loop.time() - logged_at >= LOG_S:
                logged_at = loop.time()
                log.warning("not_ready", reason=problem)
            try:
                await asyncio.wait_for(stop.wait(), CHECK_S)
            except TimeoutError:
                continue
            return False
    return True


def missing(settings: Settings) -> str:
    """Return which files do not exist, are empty or invalid, in one line, or ""."""
    found = settings.credential_files()
    if absent := [one for one in found.items() if not one[1].is_file()]:
        return "; ".join(
            f"{name} names a file that does not exist: {file}" for name, file in absent
        )
    try:
        for file in found.values():
            SecretSetting(None, file).read()
        if "AMBIENT_API_TOKEN_FILE" in found:
            static_source(settings, SystemClock())
    except SettingsError as error:
        return str(error)
    return ""
