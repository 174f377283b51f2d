"""Look-up of one session that is not confirmed, or that the platform's list lacks."""

import asyncio
from collections.abc import Callable, Iterable

import structlog

from reconciler.controller.decide.refresh_plan import SessionState, is_young
from reconciler.controller.runtime import LogDedup
from reconciler.controller.state.confirmations import ConfirmationCache, Denial
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.errors import PlatformError, PlatformRefused, PlatformUnavailable, RemoteError
from reconciler.naming import SessionKey
from reconciler.platform.api import Platform

log = structlog.get_logger()

INVALID_ID = "invalid_id"
"""The reason of an error for an ID that cannot be sent."""

KNOWN_SESSION_TIMEOUT_S = 3.0
"""Longest wait for an answer about a session that was confirmed before; its refresh waits."""


class SessionLookup:
    """Asks the platform about one session and records the answer in the confirmation cache.

    A labelled pod alone proves nothing: the platform must name the session, with the pod's project
    and in the pod's namespace.

    Args:
        on_namespaces: Called with the namespace of each session that the platform knows.
    """

    def __init__(
        self,
        platform: Platform,
        confirmations: ConfirmationCache,
        sessions: SessionStateReader,
        log_dedup: LogDedup,
        on_namespaces: Callable[[Iterable[str]], None],
    ) -> None:
        self._platform = platform
        self._confirmations = confirmations
        self._sessions = sessions
        self._log_dedup = log_dedup
        self._on_namespaces = on_namespaces

    @property
    def is_down(self) -> bool:
        """True while the platform is unreachable: no session can be looked up."""
        return self._platform.breaker.is_open

    async def confirm(self, key: SessionKey, state: SessionState) -> None:
        """Look one session up before a write to it.

        A session that was confirmed before continues on that if no answer comes in time.

        Raises:
            PlatformError: No definite answer about a session that was never confirmed.
        """
        was_confirmed = self._confirmations.was_confirmed(key, state.pod, state.own_secret)
        try:
            async with asyncio.timeout(KNOWN_SESSION_TIMEOUT_S if was_confirmed else None):
                await self.look_up(key, state, was_confirmed=was_confirmed)
        except (RemoteError, TimeoutError):
            if not was_confirmed:
                raise
            self._confirmations.record_unanswered(key)

    async def look_up(self, key: SessionKey, state: SessionState, *, was_confirmed: bool) -> None:
        """Look one session up and record the answer.

        Args:
            was_confirmed: The platform confirmed it before.

        Raises:
            PlatformError: No definite answer; what was known stays.
        """
        if self.is_down:
            last = self._platform.breaker.last_error
            raise PlatformUnavailable(f"the platform is unreachable, the last error was: {last}")
        if self._platform.breaker.refuses:
            # The probe finds the end of the refusal, not each session.
            raise PlatformRefused(self._platform.breaker.last_error)
        labelled = state.pod or state.secret
        claimed = labelled.project_id if labelled is not None else ""
        project: str | None = claimed
        if was_confirmed and not claimed:  # the labels were removed, the confirmation was not
            project = self._confirmations.project_of(key)
        try:
            session = await self._platform.session(key.session_id, project)
        except PlatformError as error:
            known = self._confirmations.project_of(key)
            if error.reason != INVALID_ID or (was_confirmed and project == known):
                raise
            # No session of the platform can have such an ID, or such a project. A tenant who edits
            # labels must not prevent the look-up of a session that was confirmed.
            session = await self._platform.session(key.session_id, known) if was_confirmed else None
        if session is not None:
            self._on_namespaces([self._confirmations.key_of(session).namespace])
        if session is None:
            why = "the platform does not know this session"
        elif self._confirmations.key_of(session) != key:
            why = (
                f"the platform has it in namespace {self._confirmations.key_of(session).namespace}"
            )
        elif session.project_id != claimed and not (was_confirmed and not claimed):
            why = "the platform has it in another project"
        else:
            self._confirmations.record_confirmed(session)
            return
        has_young_pod = session is None and is_young(state, self._sessions.now_s())
        named = {"namespace": key.namespace, "session_id": key.session_id, "reason": why}
        denial = self._confirmations.record_denied(key, is_young=has_young_pod)
        if denial is Denial.REVOKED:
            log.warning("session_revoked", **named)
        elif denial is Denial.NEW and self._log_dedup.should_log("session_not_confirmed", *key):
            log.warning("session_not_confirmed", **named)
