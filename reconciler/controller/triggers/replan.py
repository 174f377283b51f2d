"""Plans every session again when what all plans depend on has changed."""

import asyncio

import structlog

from reconciler.controller.state.mac_key import MacKeyFile
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.triggers.resync import Resync
from reconciler.tokens.issuer_time import ClockMove, IssuerTime
from reconciler.tokens.source import TokenSource
from reconciler.tokens.token import Token
from reconciler.workqueue.items import Trigger

log = structlog.get_logger()


class Replan:
    """Listens to the token source, the issuer's time and the key of the confirmations.

    Args:
        mac_key: The file of the key of the confirmations, if there is one.
    """

    def __init__(
        self,
        sessions: SessionStateReader,
        resync: Resync,
        *,
        source: TokenSource,
        issuer_time: IssuerTime,
        mac_key: MacKeyFile | None,
    ) -> None:
        self._sessions = sessions
        self._resync = resync
        self._time_moved = asyncio.Event()
        source.on_replaced(self._token_replaced)
        issuer_time.on_moved(self._on_time_moved)
        if mac_key is not None:
            mac_key.on_changed(self._mac_key_changed)

    async def run(self) -> None:
        """Plan each session again whenever the issuer's time has moved, until cancelled."""
        while True:
            await self._time_moved.wait()
            self._time_moved.clear()
            self._sessions.records.clear()  # the records were made with the old time
            await self._resync.plan_all("issuer_time_moved", news=Trigger.REQUESTED)

    def _on_time_moved(self, move: ClockMove) -> None:
        """Discard what was derived from the previous estimate."""
        self._sessions.record_step(0.0 if move.is_first else move.moved_s)
        if not move.is_first:
            log.warning("issuer_time_moved", moved_s=round(move.moved_s, 1))
        self._time_moved.set()

    async def _token_replaced(self, _token: Token) -> None:
        """Write the new static token, or one under the new signing key, to each session."""
        self._sessions.clear_context()
        await self._resync.plan_all("token_replaced", news=Trigger.REQUESTED)

    async def _mac_key_changed(self) -> None:
        """Sign each confirmation with the new key."""
        await self._resync.plan_all("confirmation_key_changed")
