"""All that is known of a session, read from the stores, and the plan for it."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Literal

from reconciler.clock import LONG_AGO, NEVER, EpochTime, Instant
from reconciler.controller.decide.annotations import ClockStep
from reconciler.controller.decide.denials import Denials
from reconciler.controller.decide.evidence import WriteRecords, is_unanswered
from reconciler.controller.decide.refresh_plan import DecisionContext, Plan, SessionState, plan
from reconciler.controller.runtime import Runtime, Stores
from reconciler.controller.state.confirmations import ConfirmationCache
from reconciler.kube.api import ObjectMeta
from reconciler.leadership.api import WriteFence
from reconciler.naming import SessionKey
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import TokenSource

CONTEXT_S = 0.1
"""Age at which the longest lifetime seen and the p95 are read again; neither changes faster."""


MAX_STEPS = 8
"""Most steps of the issuer's time that are kept: they count for the propagation allowance only."""

CLOCK_ERROR_S = 10.0
"""Two replicas' estimates of the issuer's time differ by less: by the second of a Date header. A
token that another replica wrote until this long after our term began counts as its predecessor's.
"""


class RunTimes:
    """p95 of the latest runs' seconds, computed every `EVERY` runs."""

    KEEP = 256
    EVERY = 32

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=self.KEEP)
        self._count = 0
        self.p95_s = 0.0

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self._count += 1
        if self._count % self.EVERY == 0:
            self.p95_s = sorted(self._seconds)[int(0.95 * len(self._seconds))]


class SessionStateReader:
    """Reads, never waits, never writes: the same answer for the same state.

    `startup` is that of the `DecisionContext`: the configured value while this replica leads, else
    "none". `term_began_at` is when it last began to lead, monotonic. `records` are the writes of
    this term; the reconciler keeps them. `denials` are those of the last writes and touches; the
    workers keep them. `confirmations` are the platform's.
    """

    def __init__(
        self,
        *,
        stores: Stores,
        confirmations: ConfirmationCache,
        source: TokenSource,
        issuer_time: IssuerTime,
        fence: WriteFence,
        runtime: Runtime,
    ) -> None:
        config, clock = runtime.config, runtime.clock
        self.names = config.names
        self.startup: Literal["all", "stale", "none"] = "none"
        self._startup_mode = config.startup
        self.run_times = RunTimes()
        self.records = WriteRecords()
        self._records_term = ""
        self.denials = Denials()
        self._pods = stores.pods
        self._secrets = stores.secrets
        self.confirmations = confirmations
        self._source = source
        self.now_s = issuer_time.now_s
        """The issuer's time, epoch seconds."""
        self._clock = clock
        self._fence = fence
        self._propagation_s = config.propagation_s
        self._context: DecisionContext | None = None
        self._context_at: Instant = LONG_AGO
        self.term_began_at = clock.monotonic()
        self._awaits_session_list = False
        self._steps: deque[ClockStep] = deque(maxlen=MAX_STEPS)
        self.time_moves_total = 0

    def context(self) -> DecisionContext:
        """Return what decisions depend on now; built every `CONTEXT_S`, not for each plan."""
        now_at = self._clock.monotonic()
        context = self._context
        if (
            context is not None
            and now_at - self._context_at < CONTEXT_S
            and (context.term, context.startup) == (self._fence.term, self.startup)
        ):
            return context
        self._context_at = now_at
        best = self._source.best()
        began_s = self.now_s() - (now_at - self.term_began_at)
        self._context = DecisionContext(
            names=self.names,
            propagation_s=self._propagation_s,
            longest_ttl_s=self._source.longest_ttl_s,
            static=best is not None and math.isinf(best.expires_s),
            term=self._fence.term,
            term_started_s=began_s + CLOCK_ERROR_S,
            startup=self.startup,
            p95_run_s=self.run_times.p95_s,
            replaced_s=self._source.replaced_s,
            generation=self._source.generation,
            rotated_s=self._source.rotated_s,
            list_started_s=began_s if self._awaits_session_list else LONG_AGO,
            steps=tuple(self._steps),
            pods=len(self._pods) if self._awaits_session_list else 0,
        )
        return self._context

    @property
    def leads(self) -> bool:
        """True between `begin_term` and `end_term`."""
        return self.startup != "none"

    def begin_term(self) -> None:
        """Plan as the leader: tokens that others wrote until now are due at the startup resync.

        A replica that loses its Lease and takes it again before any other has the same term. Its
        records go on: the resync finds what it wrote in this term, and writes none of it again.
        """
        self.startup = self._startup_mode
        if self._fence.term != self._records_term:
            self.records.clear()
        self._records_term = self._fence.term
        self.term_began_at = self._clock.monotonic()
        self._awaits_session_list = True
        self._context = None

    def record_listed(self) -> None:
        """Stop waiting for the list of running sessions: it has come, or has failed."""
        self._awaits_session_list = False
        self._context = None

    def end_term(self) -> None:
        """Plan as a standby: each session's deadline is the leader's."""
        self.startup = "none"
        self._awaits_session_list = False
        self._context = None

    def record_step(self, seconds: float) -> None:
        """Build the context again: the estimate of the issuer's time has moved by so much.

        A step back is not kept: a write from before it looks newer than it is, which costs a touch.
        """
        self.time_moves_total += 1
        if seconds > 0:
            self._steps.append(ClockStep(self.now_s() - seconds, seconds))
        self.clear_context()

    def clear_context(self) -> None:
        """Build the context again for the next plan: the available token has changed."""
        self._context = None

    def objects(self, key: SessionKey) -> tuple[ObjectMeta | None, ObjectMeta | None]:
        """Return the pod that counts and the Secret of the expected name, of any session."""
        secret = self._secrets.get(key.namespace, self.names.secret_name(key.session_id))
        return newest_live_pod(self._pods.by_session(key)), secret

    def is_unanswered_write(self, secret: ObjectMeta) -> bool:
        """Return whether a version of a Secret is our own write, and its response has not come."""
        return is_unanswered(self.records.get(secret.key), secret)

    def state(self, key: SessionKey) -> SessionState:
        pod, secret = self.objects(key)
        own = secret if secret is not None and secret.session_id == key.session_id else None
        return SessionState(
            key=key,
            pod=pod,
            secret=secret,
            confirmation=self.confirmations.confirmation(key, pod, own),
            is_running=self.confirmations.is_running(key),
            sign_due_s=NEVER if own is None else self._mac_due_s(key, own),
            record=self.records.get(key),
        )

    def _mac_due_s(self, key: SessionKey, secret: ObjectMeta) -> EpochTime:
        at = self.confirmations.mac_due_at(key, secret)
        return NEVER if at is None else self.now_s() + (at - self._clock.monotonic())

    def plan(self, key: SessionKey) -> tuple[SessionState, Plan]:
        state = self.state(key)
        return state, plan(state, self.context(), self.now_s())

    def at(self, instant_s: EpochTime) -> Instant:
        """Convert an instant of the issuer's time to our monotonic clock."""
        return self._clock.monotonic() + (instant_s - self.now_s())

    def live_keys(self) -> tuple[SessionKey, ...]:
        """Return the key of every session with a pod that has not ended, each once.

        Cost: O(sessions).
        """
        return self._pods.session_keys()

    def has_pod(self, key: SessionKey) -> bool:
        """Whether the session has a pod that has not ended."""
        return self._pods.has_session(key)

    def pods_to_touch(self, key: SessionKey) -> list[ObjectMeta]:
        return [pod for pod in self._pods.by_session(key) if not pod.is_deleting]


def newest_live_pod(pods: Sequence[ObjectMeta]) -> ObjectMeta | None:
    """Choose the pod that counts: the newest that is not being deleted, else the newest."""
    if len(pods) == 1:
        return pods[0]
    return max(pods, key=lambda pod: (not pod.is_deleting, pod.created_s, pod.name), default=None)
