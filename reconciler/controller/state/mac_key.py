"""Watches the file of the client secret: the key of the confirmations is derived from it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.errors import SettingsError

log = structlog.get_logger()

INTERVAL_S = 5.0
"""Between two reads of the file; as for a static token."""


class MacKeyFile:
    """Changes the key of the confirmations when the secret changes.

    Args:
        read: Returns the current secret; raises `SettingsError` if there is none.
        value: The secret that the key is derived from now.
    """

    def __init__(
        self,
        read: Callable[[], str],
        value: str,
        mac: ConfirmationMac,
    ) -> None:
        self._read = read
        self._value = value
        self._mac = mac
        self._listeners: list[Callable[[], Awaitable[None]]] = []
        self._next = ""
        self._is_unusable = False

    def on_changed(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Call `callback` after each change."""
        self._listeners.append(callback)

    async def run(self) -> None:
        """Read the file every `INTERVAL_S` until cancelled.

        Cancel: the key is complete; the listeners may not have been called.
        """
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self.reload_once():
                for callback in self._listeners:
                    await callback()

    def reload_once(self) -> bool:
        """Read once; return True if the key was changed.

        A value is used when two reads in a row have found it, since a read may find a half-written
        file. A file that cannot be used changes nothing, and is logged once.
        """
        try:
            found = self._read()
        except SettingsError as error:
            self._next = ""
            if not self._is_unusable:
                log.warning("rotated_file_kept", peer="confirmations", reason=str(error))
            self._is_unusable = True
            return False
        self._is_unusable = False
        before, self._next = self._next, found
        if found in (self._value, "") or before != found:
            return False
        self._value = found
        self._mac.set_key(found)
        log.info("confirmation_key_changed")
        return True
