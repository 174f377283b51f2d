"""Follows the client secret in its file: the key of the seals is derived from it."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.errors import SettingsError

log = structlog.get_logger()

INTERVAL_S = 5.0
"""Between looks at the file; as for a static token."""


class MacKeyFile:
    """Renews the seal's key when the secret changes, and tells of it.

    Args:
        read: Returns the secret of this moment; raises `SettingsError` where there is none.
        value: The one that the seal's key comes from now.
        renewed: Told after each change.
    """

    def __init__(
        self,
        read: Callable[[], str],
        value: str,
        seal: ConfirmationMac,
        renewed: Callable[[], Awaitable[None]],
    ) -> None:
        self._read = read
        self._value = value
        self._mac = seal
        self._on_changed = renewed
        self._next = ""
        self._is_unusable = False

    async def run(self) -> None:
        """Run for ever; look every `LOOK_S`.

        Cancel: the key is a whole one; nobody may have been told of it.
        """
        while True:
            await asyncio.sleep(INTERVAL_S)
            if self.reload_once():
                await self._on_changed()

    def reload_once(self) -> bool:
        """Read once; return True if the key was renewed.

        A value counts when two looks in a row have found it: half of one is a value, too. A file
        that cannot be used changes nothing, and is said once.
        """
        try:
            found = self._read()
        except SettingsError as error:
            self._next = ""
            if not self._is_unusable:
                log.warning("rotated_file_kept", peer="seals", why=str(error))
            self._is_unusable = True
            return False
        self._is_unusable = False
        before, self._next = self._next, found
        if found in (self._value, "") or before != found:
            return False
        self._value = found
        self._mac.set_key(found)
        log.info("seal_key_renewed")
        return True
