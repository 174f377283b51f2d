"""One demo run: the lab cluster, its controllers, the injected faults, and the report."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Any

from reconciler.clock import Instant
from reconciler.humanize import count
from reconciler.lab.chaos.actions import ChaosActions
from reconciler.lab.chaos.schedule import ScheduledFault
from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.replicas import Replica, Replicas
from reconciler.lab.demo.frame import Bar, Frame
from reconciler.lab.demo.report import Report, describe_fault, make_report


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """The options of a run.

    Args:
        duration_s: Seconds from the controllers' start; None: until the run is stopped.
        log_level: LOG_LEVEL of the controllers.
    """

    sessions: int = 20
    replicas: int = 2
    ttl_s: float = 30.0
    projection_delay: tuple[float, float] = (1.0, 3.0)
    duration_s: float | None = None
    chaos: tuple[ScheduledFault, ...] = ()
    seed: int | None = None
    log_level: str = "info"


Show = Callable[["Demo"], Coroutine[Any, Any, None]]


class Demo:
    """Runs once; create it inside a running event loop.

    Args:
        say: Called with one line for each step until the controllers run.
        sink: Called with every line of the controllers' logs.
    """

    def __init__(
        self, plan: DemoPlan, *, say: Callable[[str], None], sink: Callable[[str], None]
    ) -> None:
        self.plan = plan
        self.cluster = LabCluster(
            ttl_s=plan.ttl_s, projection_delay=plan.projection_delay, seed=plan.seed
        )
        self._say = say
        self._sink = sink
        self._replicas: Replicas | None = None
        self._actions: ChaosActions | None = None
        self._began_at: Instant | None = None
        self._kubeconfig_hint = ""

    def __repr__(self) -> str:
        return f"<Demo of {self.cluster!r}>"

    async def run(self, stop: asyncio.Event, show: "Show") -> Report:
        """Run until `stop`, or the planned end, and return the report of that instant.

        Args:
            show: Runs at the same time, and is cancelled at the end.
        """
        plan, cluster = self.plan, self.cluster
        self._say("starting the API server, the issuer, the platform, the kubelet")
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(cluster)
            self._say(f"creating {count(plan.sessions, 'session')}")
            cluster.populate(plan.sessions)
            self._say(f"starting {plan.replicas} x reconciler run")
            environment = cluster.environment() | {"LOG_LEVEL": plan.log_level}
            replicas = self._replicas = Replicas(plan.replicas, environment, self._sink)
            actions = self._actions = ChaosActions(cluster, replicas)
            self._kubeconfig_hint = f"export KUBECONFIG={cluster.kubectl_config()}"
            allowance = f"RECONCILER_PROPAGATION_ALLOWANCE_S={cluster.allowance_s:g}"
            self._say(f"in another terminal: {self._kubeconfig_hint} {allowance}")
            for each in replicas.all:
                self._say(f"status page of {each.name}: {page_of(each)}")
            self._say("Ctrl-C ends the demo and prints its report")
            self._began_at = Instant(monotonic())
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(replicas.run()),
                    group.create_task(replicas.count_failures()),
                    *(group.create_task(actions.inject(fault)) for fault in plan.chaos),
                    group.create_task(show(self)),
                ]
                try:
                    async with asyncio.timeout(plan.duration_s):
                        await stop.wait()
                except TimeoutError:
                    pass
                await replicas.read_metrics()
                report = self._report(replicas, actions)
                for task in tasks:
                    task.cancel()
        return report

    def frame(self) -> Frame:
        """Return the figures of this moment."""
        now_s = self.cluster.clock.wall()
        fleet = self.cluster.fleet.report()
        known = self.cluster.sessions
        bars = [
            Bar(each.session_id[:7], each.state, each.expires_at_s - now_s)
            if each.expires_at_s is not None
            else Bar(each.session_id[:7], each.state, None)
            for each in fleet.sessions
            if each.session_id in known and known[each.session_id].known
        ]
        replicas, actions = self._replicas, self._actions
        leader = actions.leader() if actions else None
        shown = leader or (replicas.all[0] if replicas and replicas.all else None)
        elapsed_s = self._elapsed_s()
        waiting = [c for c in self.plan.chaos if c.start_s > elapsed_s]
        return Frame(
            elapsed_s=elapsed_s,
            duration_s=self.plan.duration_s,
            ttl_s=self.plan.ttl_s,
            expired_s=fleet.expired_token_seconds,
            unauthenticated=fleet.unauthenticated,
            reauthentications=fleet.reauthentications,
            calls=fleet.grpc_calls,
            refreshes=replicas.tally.refreshes if replicas else 0,
            failures=replicas.tally.failures if replicas else 0,
            bars=tuple(bars),
            controllers=tuple(_describe(each, leader=each is leader) for each in replicas.all)
            if replicas
            else (),
            page_url=page_of(shown) if shown is not None else "",
            chaos=tuple(str(each) for each in actions.active) if actions else (),
            waiting=tuple(str(each) for each in sorted(waiting, key=lambda c: c.start_s)),
            kubeconfig_hint=self._kubeconfig_hint,
        )

    def _elapsed_s(self) -> float:
        return 0.0 if self._began_at is None else Instant(monotonic()) - self._began_at

    def _report(self, replicas: Replicas, actions: ChaosActions) -> Report:
        elapsed_s = self._elapsed_s()
        tokens = actions.tokens_in_forged()
        return make_report(
            self.cluster.fleet.report(),
            replicas.tally,
            self.cluster.write_log,
            sessions=sum(each.known for each in self.cluster.sessions.values()),
            replicas=self.plan.replicas,
            ttl_s=self.plan.ttl_s,
            lease_s=self.cluster.lease_s,
            losses_at=actions.losses_at,
            duration_s=elapsed_s,
            chaos=[
                describe_fault(each, elapsed_s=elapsed_s, forged=actions.forged, tokens=tokens)
                for each in self.plan.chaos
            ],
        )


def page_of(replica: Replica) -> str:
    """Return the address of a replica's status page."""
    return f"http://127.0.0.1:{replica.port}/"


def _describe(replica: Replica, *, leader: bool) -> str:
    again = f", start {replica.starts}" if replica.starts > 1 else ""
    mark = "LEADER " if leader else ""
    about = f"(pid {replica.pid}, up {replica.age_s:.0f} s{again})"
    return f"{replica.name} {mark}{about}: {replica.state}"
