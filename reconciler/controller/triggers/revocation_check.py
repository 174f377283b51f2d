"""Looks up, slowly, the sessions that the platform had confirmed and that its list lacks.

Without this, the confirmation on the Secret of a deleted session would last until a pod uses it,
and a replica that starts while the platform is unreachable would accept it.
"""

import asyncio

from reconciler.clock import LONG_AGO, Instant
from reconciler.controller.reconcile.session_lookup import SessionLookup
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.controller.triggers.event_handler import EventHandler
from reconciler.errors import RemoteError
from reconciler.informer.store import Store
from reconciler.naming import SessionKey
from reconciler.time_slice import TimeSlice

INTERVAL_S = 15.0
"""Between two passes over the Secrets, in addition to the time of the look-ups."""

LOOKUP_INTERVAL_S = (0.2, 1.0)
"""Shortest and longest time between two look-ups: one at a time, five a second."""

SPREAD = 0.5
"""Part of a resync's period over which the look-ups of one pass are spread."""

AGAIN_S = 3600.0
"""A session that the platform has, though not as running, is looked up again after this long;
before a write it is looked up in any case."""

UNANSWERED_S = 300.0
"""A session without an answer, while the platform answers about others, is looked up again after
this long."""


class RevocationCheck:
    """Runs while this replica leads; a revocation takes one period of the resync at most."""

    def __init__(
        self,
        *,
        secrets: Store,
        confirmations: ConfirmationCache,
        sessions: SessionStateReader,
        session_lookup: SessionLookup,
        event_handler: EventHandler,
        runtime: Runtime,
    ) -> None:
        self._secrets = secrets
        self._confirmations = confirmations
        self._sessions = sessions
        self._session_lookup = session_lookup
        self._event_handler = event_handler
        self._names = runtime.config.names
        self._clock = runtime.clock
        self._period_s = runtime.config.resync_s
        self._asked_at: dict[SessionKey, Instant] = {}
        self._unanswered_at: dict[SessionKey, Instant] = {}

    async def run(self) -> None:
        """Look up each such session in turn, until cancelled.

        Cancel: the answers so far are recorded; the others follow in the next term.
        """
        while True:
            await asyncio.sleep(INTERVAL_S)
            keys = await self._due_keys()
            least_s, most_s = LOOKUP_INTERVAL_S
            pace_s = min(most_s, max(least_s, SPREAD * self._period_s / max(1, len(keys))))
            for key in keys:
                await asyncio.sleep(pace_s)
                if not await self._look_up(key):
                    break

    async def _look_up(self, key: SessionKey) -> bool:
        """Look one session up; False if the platform is unreachable for every session.

        A session without an answer waits for `UNANSWERED_S`, and delays no other.
        """
        state = self._sessions.state(key)
        if not self._confirmations.is_absent(key):
            return True
        try:
            was_confirmed = self._confirmations.was_confirmed(key, state.pod, state.own_secret)
            await self._session_lookup.look_up(key, state, was_confirmed=was_confirmed)
        except RemoteError:
            if self._session_lookup.is_down:
                return False
            self._unanswered_at[key] = self._clock.monotonic()
            return True
        self._asked_at[key] = self._clock.monotonic()
        self._event_handler.enqueue(key, "revoked")
        return True

    async def _due_keys(self) -> list[SessionKey]:
        """Return the sessions to look up, those that were never looked up first.

        Revoked sessions are queued here: no pod and no event may come that removes their
        confirmation.
        """
        found: dict[SessionKey, Instant] = {}
        asked_at: dict[SessionKey, Instant] = {}
        now_at = self._clock.monotonic()
        turn = TimeSlice(self._clock)
        for secret in self._secrets.snapshot():
            await turn.item_done()
            key, confirmations = secret.key, self._confirmations
            if secret.annotations.confirmation is None or confirmations.is_running(key):
                continue
            if secret.name != self._names.secret_name(key.session_id):
                continue
            if confirmations.is_revoked(key):
                self._event_handler.enqueue(key, "revoked")
                continue
            at = self._asked_at.get(key, LONG_AGO)
            if at != LONG_AGO:
                asked_at[key] = at
            is_due = now_at - at >= AGAIN_S or confirmations.is_doubted(key)
            if now_at - self._unanswered_at.get(key, LONG_AGO) < UNANSWERED_S:
                continue
            if (
                is_due
                and confirmations.is_absent(key)
                and confirmations.was_confirmed(key, None, secret)
            ):
                found[key] = at
        self._asked_at = asked_at
        self._unanswered_at = {
            key: at for key, at in self._unanswered_at.items() if now_at - at < UNANSWERED_S
        }
        return sorted(found, key=found.__getitem__)
