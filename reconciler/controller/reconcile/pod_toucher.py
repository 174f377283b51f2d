"""Sends the touches that are due; a touch never delays or fails the write of a token."""

from functools import partial

import structlog

from reconciler import errors
from reconciler.clock import Instant
from reconciler.controller.decide import write_errors
from reconciler.controller.decide.bulkhead import BulkheadRun
from reconciler.controller.decide.pod_touches import PodTouches
from reconciler.controller.reconcile.bulkhead_shell import BulkheadFull, BulkheadShell, touches_in
from reconciler.controller.reconcile.denied_retries import DeniedRetries
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.reconcile.secret_writer import SecretWriter
from reconciler.controller.runtime import Runtime
from reconciler.controller.state.session_state import SessionStateReader
from reconciler.kube.status_errors import is_terminating
from reconciler.naming import SessionKey
from reconciler.telemetry.trace import span

log = structlog.get_logger()


class PodToucher:
    """Touches the pods of a session after its Secret was written.

    A touch only makes the kubelet sync earlier. One that fails, is denied, lacks the right or finds
    no room is retried for a while; it does not fail its session's run and does not prevent a write.
    """

    def __init__(
        self,
        touches: PodTouches,
        *,
        sessions: SessionStateReader,
        writer: SecretWriter,
        denied_retries: DeniedRetries,
        bulkhead: BulkheadShell,
        stats: ReconcileStats,
        runtime: Runtime,
    ) -> None:
        self._touches = touches
        self._denied_retries = denied_retries
        self._sessions = sessions
        self._writer = writer
        self._bulkhead = bulkhead
        self._stats = stats
        self._clock = runtime.clock
        self._random = runtime.random
        self._log_dedup = runtime.log_dedup

    async def touch_if_due(self, key: SessionKey, slot: BulkheadRun) -> None:
        """Touch a session's pods, if that is due and its namespace's touches have room for it.

        Raises:
            NotLeaderError: The fence is closed.
        """
        now_at = self._clock.monotonic()
        if not self._touches.is_due(key, now_at):
            return
        try:
            accepted, error = await self._touch(key, slot)
        except BulkheadFull:
            if not self._touches.found_no_room(key, now_at, rand=self._random.random()):
                self._sessions.denials.forget_touch(key)
            return
        now_at = self._clock.monotonic()
        if isinstance(error, errors.Forbidden):
            is_retried = self._denied(key, error, now_at)
        elif error is not None:
            is_retried = self._touches.failed(key, now_at, rand=self._random.random())
        else:
            is_retried = False
            self._touches.done(key, now_at)
        if accepted and error is None:
            self._denied_retries.accepted(key, is_touch=True)
        elif not is_retried:
            self._sessions.denials.forget_touch(key)

    def _denied(self, key: SessionKey, error: errors.Forbidden, now_at: Instant) -> bool:
        denials = self._sessions.denials
        if _is_of_admission(error):
            sessions = denials.record_denied(key, error.denied_by, is_touch=True)
        else:
            sessions = denials.record_forbidden(key, is_touch=True)
        _, plan = self._sessions.plan(key)
        wait_s = partial(
            write_errors.denied_wait_s,
            sessions=sessions,
            slack_s=plan.slack_s,
            left_s=plan.readable_until_s - self._sessions.now_s(),
            rand=self._random.random(),
        )
        return self._touches.denied(key, now_at, wait_s)

    async def _touch(
        self, key: SessionKey, slot: BulkheadRun
    ) -> tuple[bool, errors.KubeError | errors.ProtocolError | None]:
        """Touch each of the pods that has not had its touches.

        Returns: Whether a touch was accepted; an error after which a later try may succeed.
        """
        accepted, denied = False, None
        for pod in self._sessions.pods_to_touch(key):
            if not self._touches.is_wanted(key, pod):
                continue
            try:
                with (
                    self._bulkhead.at(touches_in(key.namespace), slot),
                    span("touch", pod.name, "PATCH"),
                ):
                    await self._writer.touch(pod, now_s=self._sessions.now_s())
                self._stats.pod_touches_total += 1
                self._touches.accepted(key, pod)
                accepted = True
            except (errors.NotFound, errors.Invalid):
                continue  # the pod was replaced or deleted; its successor starts with the new token
            except errors.Forbidden as error:
                if is_terminating(error):
                    continue  # with its pods
                self._refused(key.namespace, error)
                denied = error
            except (errors.KubeError, errors.ProtocolError) as error:
                if self._log_dedup.should_log("pod_touch_failed", key.namespace):
                    log.warning("pod_touch_failed", namespace=key.namespace, error=str(error))
                return accepted, error
        return accepted, denied

    def _refused(self, namespace: str, error: errors.Forbidden) -> None:
        """Log once a namespace what the 403 means: no permission, or a denial of admission."""
        event = "touch_refused" if _is_of_admission(error) else "pod_touch_forbidden"
        if self._log_dedup.should_log(event, namespace):
            log.warning(event, namespace=namespace, error=str(error))


def _is_of_admission(error: errors.Forbidden) -> bool:
    return isinstance(error, errors.AdmissionDenied | errors.QuotaExceeded)
