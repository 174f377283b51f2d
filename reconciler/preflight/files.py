"""Credentials that somebody has yet to put where the settings say: waited for, not crashed on.

A pod that ends is started again ever later, up to five minutes apart: longer than tokens have left
when the Secret comes back.
"""

import asyncio

import structlog

from reconciler.observe.health import serve_health
from reconciler.settings import Settings

log = structlog.get_logger()

LOOK_S = 1.0
SAY_S = 60.0


async def wait_for_files(settings: Settings, stop: asyncio.Event) -> bool:
    """Return True once each named file is there, False if `stop` was set before.

    Meanwhile /livez is content, /readyz and a line a minute say what is missing.

    Raises:
        SettingsError: The probes' address cannot be bound.
    """
    if not settings.awaited_files():
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
    """Return what is waited for, in one line, or ""."""
    found = settings.awaited_files().items()
    return "; ".join(f"{name} names a file that is not there: {file}" for name, file in found)
