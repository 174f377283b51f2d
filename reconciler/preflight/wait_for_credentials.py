"""Credentials that somebody has yet to put where the settings say: waited for, not crashed on.

A pod that ends is started again ever later, up to five minutes apart: longer than tokens have left
when the Secret comes back.
"""

import asyncio

import structlog

from reconciler.clock import SystemClock
from reconciler.errors import SettingsError
from reconciler.factories import SecretSetting, static_source
from reconciler.settings import Settings
from reconciler.telemetry.http_server import serve_health

log = structlog.get_logger()

LOOK_S = 1.0
SAY_S = 60.0


async def wait_for_files(settings: Settings, stop: asyncio.Event) -> bool:
    """Return True once each named file holds something of use, False if `stop` was set before.

    Meanwhile /livez is content, /readyz and a line a minute say what is missing.

    Raises:
        SettingsError: The probes' address cannot be bound.
    """
    if not missing(settings):
        return True
    loop = asyncio.get_running_loop()
    async with serve_health(
        settings.listen, live=lambda: "", ready=lambda: missing(settings) or "starting"
    ):
        said_at = -SAY_S
        while why := missing(settings):
            if loop.time() - said_at >= SAY_S:
                said_at = loop.time()
                log.warning("not_ready", why=why)
            try:
                await asyncio.wait_for(stop.wait(), LOOK_S)
            except TimeoutError:
                continue
            return False
    return True


def missing(settings: Settings) -> str:
    """Return what is waited for, in one line, or "": files that are not there, empty or garbage."""
    found = settings.credential_files()
    if absent := [one for one in found.items() if not one[1].is_file()]:
        return "; ".join(f"{name} names a file that is not there: {file}" for name, file in absent)
    try:
        for file in found.values():
            SecretSetting(None, file).read()
        if "AMBIENT_API_TOKEN_FILE" in found:
            static_source(settings, SystemClock())
    except SettingsError as error:
        return str(error)
    return ""
