"""A fleet to look at: surveys of any size, made as the controller makes them."""

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from reconciler.clock import EpochTime, SystemClock
from reconciler.controller.decide.token_state import TokenState
from reconciler.controller.decide.write_errors import PERMISSIONS
from reconciler.controller.events.correlator import PodEvent
from reconciler.controller.reconcile.run import ReconcileStats
from reconciler.controller.status.fleet import FleetSummary
from reconciler.controller.status.history import RunRecord
from reconciler.controller.status.snapshot import (
    IssuerStatus,
    LeaseStatus,
    SessionStatus,
    StartupStatus,
    StatusSnapshot,
)
from reconciler.controller.status.trend import SERIES, Trend, TrendReading
from reconciler.informer.messages import ListWatchStats
from reconciler.informer.reflector import ReflectorStats
from reconciler.naming import SessionKey
from reconciler.net.circuit_breaker import BreakerStats
from reconciler.statuspage.cache import PageCache
from reconciler.statuspage.identity import Links, PageIdentity
from reconciler.statuspage.server import add_page
from reconciler.statuspage.sse import SseStreams
from reconciler.telemetry.http_server import health_app
from reconciler.tokens.source import TokenStats
from reconciler.workqueue.items import Priority, QueueStats, ScheduleStats

NOW_S = EpochTime(1_767_225_600)
TTL_S = 900.0
ALLOWANCE_S = 90.0
LINKS = Links(
    "https://grafana.example/d/token-reconciler",
    "https://docs.example/runbooks.md",
    "https://jaeger.example/trace/{trace_id}",
)
IDENTITY = PageIdentity("replica-0", "ambient-code", "east", links=LINKS)


class Shown(StatusSnapshot, frozen=True):
    """A survey and the rows that the controller would make of its readings."""

    rows: tuple[SessionStatus, ...] = ()


def row(number: int = 0, remaining_s: float | None = 600.0, **changes: Any) -> SessionStatus:
    """Return a healthy session; its state follows from what is left unless it is given."""
    fields: dict[str, Any] = {
        "namespace": f"team-{number % 7}",
        "session_id": f"2Ab{number:05d}",
        "project": f"team-{number % 7}",
        "pod": f"session-2ab{number:05d}-runner",
        "secret": f"session-2ab{number:05d}-creds",
        "state": _state(remaining_s),
        "expires_s": None if remaining_s is None else NOW_S + remaining_s,
        "remaining_s": remaining_s,
        "due_s": NOW_S + 60 + number % 300,
        "reason": "scheduled",
        "stage": "waiting",
        "blocked_on": "",
        "block_reason": "",
        "failures": 0,
        "refreshed_by": "replica-0/3-0a1b2c3d",
    }
    return SessionStatus(**(fields | changes))


def survey(
    rows: Iterable[SessionStatus] = (),
    *,
    exposure_s: float = 0.0,
    now_s: EpochTime = NOW_S,
    standby_s: float | None = 880.0,
    down: str = "",
    **changes: Any,
) -> Shown:
    """Return a survey of these rows.

    Args:
        down: Name of the endpoint that is unreachable, or "".
    """
    shown, fleet = tuple(rows), FleetSummary()
    for each in shown:
        fleet.add(
            each.key,
            each.state,
            each.remaining_s,
            block_reason=each.block_reason,
            confirmed=each.block_reason != "not_confirmed",
            has_pod=bool(each.pod),
            standby_s=standby_s,
        )
    fleet.survive(1.0)
    fleet.exposure_s = exposure_s
    fleet.failing = sum(each.failures > 0 and not each.block_reason for each in shown)
    fields: dict[str, Any] = {
        "now_s": now_s,
        "taken_at": now_s,
        "propagation_s": ALLOWANCE_S,
        "readings": (),
        "excluded": frozenset(),
        "rows": shown,
        "fleet": fleet,
        "watches": tuple(watch(name) for name in ("pods", "secrets")),
        "breakers": tuple(
            BreakerStats(name, name == down, 12.0 if name == down else 0.0, 1, f"{name} is mute")
            for name in ("kube", "platform", "issuer")
        ),
        "issuer": IssuerStatus(True, 0.25, 0.5, TokenStats(9, "", standby_s, TTL_S, TTL_S)),
        "queue": queue(failing=sum(each.failures > 0 for each in shown)),
        "lease": LeaseStatus("replica-0/3-0a1b2c3d", True, "replica-0_uid_0a1b2c3d", 3, 0),
        "reconciler": ReconcileStats({}, {}, pod_touches_total=5),
        "listed_running": len(shown),
        "startup": StartupStatus(len(shown), True, 0.42, {"refreshed": len(shown)}),
    }
    return Shown(**(fields | changes))


def trend_of(**values: Mapping[int, float]) -> TrendReading:
    """Return 200 minutes of a replica.

    Args:
        values: For each series the minutes with another value than 0.
    """
    return {name: tuple(values.get(name, {}).get(n, 0.0) for n in range(200)) for name in SERIES}


def watch(
    resource: str, *, namespace: str | None = None, synced: bool = True, silent_s: float | None = 4
) -> ReflectorStats:
    counts = dict.fromkeys(ListWatchStats.__struct_fields__, 0)
    protocol: Any = counts | {"state": "watching", "version": "7", "last_error": ""}
    return ReflectorStats(
        resource, namespace, synced, silent_s, silent_s, 0, ListWatchStats(**protocol)
    )


def queue(
    *,
    state: str = "open",
    oldest_s: float = 0.0,
    failing: int = 0,
    without_right: int = 0,
    for_issuer: int = 0,
    overdue_s: float = 0.0,
) -> QueueStats:
    bands = dict.fromkeys(Priority, 0)
    waiting = bands | {Priority.ROUTINE: 60}
    gated = {PERMISSIONS: without_right, "issuer": for_issuer}
    schedule = ScheduleStats(bands, waiting, gated, 0, failing, oldest_s, overdue_s)
    return QueueStats(schedule, 32, state)


class Exhibit:
    """What the page reads in place of a controller: whatever survey is put in.

    Args:
        past: Attempts of a session, by its key.
    """

    def __init__(
        self, shown: Shown, past: Callable[[SessionKey], Sequence[RunRecord]] = lambda _: ()
    ) -> None:
        self.shown = shown
        self.taken = 0
        self._past = past
        self.history: TrendReading = Trend().read()
        self.recorded: Mapping[str, tuple[PodEvent, ...]] = {}

    async def snapshot(self, *, max_age_s: float) -> StatusSnapshot:
        self.taken += 1
        return self.shown

    async def rows(self, survey: StatusSnapshot) -> tuple[SessionStatus, ...]:
        assert isinstance(survey, Shown)
        return survey.rows

    def events(self, namespace: str, pod: str) -> tuple[PodEvent, ...]:
        return self.recorded.get(f"{namespace}/{pod}", ())

    def trend(self) -> TrendReading:
        return self.history

    def runs(self, key: SessionKey) -> tuple[RunRecord, ...]:
        return tuple(self._past(key))


@asynccontextmanager
async def served(
    exhibit: Exhibit, *, port: int = 0, **limits: float
) -> AsyncIterator[tuple[str, SseStreams]]:
    """Serve the page beside the probes; yields its URL without the last slash, and its streams."""
    views = PageCache(exhibit, not_ready=lambda: "", identity=IDENTITY)
    streams = SseStreams(views, SystemClock(), **limits)  # type: ignore[arg-type]  # floats, one int
    app = health_app(live=lambda: "", ready=lambda: "")
    add_page(app, views, streams)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", streams
    finally:
        await runner.cleanup()


def _state(remaining_s: float | None) -> TokenState:
    if remaining_s is None:
        return TokenState.UNMANAGED
    if remaining_s <= 0:
        return TokenState.EXPIRED
    return TokenState.EXPIRING if remaining_s < ALLOWANCE_S else TokenState.OK
