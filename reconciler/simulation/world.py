"""One world: core, issuer, platform, node, and a controller that can be killed and started."""

import asyncio
import base64
import contextlib
import math
from collections.abc import Callable
from random import Random

from reconciler import errors
from reconciler.breaker import Breaker
from reconciler.control.controller import Controller, Options, Ports
from reconciler.control.gate import OpenGate
from reconciler.control.leadership import Alone
from reconciler.control.seal import Seal
from reconciler.lab.apiserver import collector, kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.direct import DirectKube
from reconciler.lab.apiserver.injection import Fault, Faults
from reconciler.lab.apiserver.ledger import Caller, Commit
from reconciler.lab.apiserver.refusals import Refusal
from reconciler.lab.kubelet.pods import Pod
from reconciler.lab.virtual_time import EPOCH_S, VirtualClock
from reconciler.names import Names, SessionKey
from reconciler.simulation.invariants import CheckedKube, ExposureChecker, SecretChecker
from reconciler.simulation.journal import Journal
from reconciler.simulation.nodes import VirtualNode
from reconciler.simulation.peers import MARKS, Estate, VirtualIssuer, VirtualPlatform
from reconciler.simulation.scenario import PROPAGATION_S, TTL_S, Life, Scenario, Stay
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.source import OidcSource

LATENCY_S = 0.005
"""Of every request to the API server."""

OPERATOR = Caller("platform", "control-plane", "ambient-control-plane")
"""The platform's own control plane, which makes pods and Secrets."""

SEAL_SECRET = "simulation"  # noqa: S105 - nobody is kept out by it


class World:
    """Everything but the course of events, which `course.Course` plays.

    Every draw comes from a generator that the seed and a purpose name, so that one part that draws
    more often does not change the others.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.names = Names()
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.journal = Journal(self.clock, MARKS)
        self.core = Core(self.clock, seed=str(scenario.seed))
        self.faults = Faults()
        self.issuer = VirtualIssuer(self.clock, self.random("issuer"), ttl_s=TTL_S)
        self.estate = Estate(scenario.projects)
        self.exposure = ExposureChecker(self.journal, assert_zero=scenario.within_slack)
        self.secrets = SecretChecker(
            self.names, self.journal, self.issuer.expiry_s, self._was_confirmed
        )
        self.node = VirtualNode(
            self.core,
            self.clock,
            self.names,
            self.exposure,
            self.journal,
            draw=self.random("node").uniform,
            expiry=self.issuer.expiry_s,
            excused_until_s=self._excused_until_s,
        )
        self.replica: Replica | None = None
        self.writes_total = 0
        self.starts_total = 0
        self.core.on_commit += [self._note, self.secrets.commit, self.node.commit]
        for project in scenario.projects:
            body = {"metadata": {"name": project.lower()}}
            self.core.create(kinds.NAMESPACES, "", body, by=OPERATOR)

    def random(self, purpose: str) -> Random:
        """Return the generator of one purpose, from its start."""
        return Random(f"{self.scenario.seed} {purpose}")

    def start_controller(self) -> None:
        """Start a new incarnation of the controller."""
        self.starts_total += 1
        self.journal.note(f"controller {self.starts_total} starts")
        self.replica = Replica(self, self.starts_total)

    async def kill_controller(self) -> None:
        """End the controller as a kill does: nothing is drained, requests may have been applied."""
        replica, self.replica = self.replica, None
        if replica is not None:
            await replica.kill()
            self.journal.note(f"controller {self.starts_total} killed")

    def begin_stay(self, life: Life, stay: Stay) -> None:
        """Do as the platform does: the session is committed, then Secret and pod are made."""
        if not life.forged:
            self.estate.start(life.session_id, life.project)
        namespace, name = life.project.lower(), self.names.secret_name(life.session_id)
        labels = {
            self.names.session_id: life.session_id,
            self.names.project_id: life.project,
            self.names.managed: "true",
        }
        if not life.forged or stay.token_s is None:
            data = {} if stay.token_s is None else self._data(stay.token_s)
            body = {"metadata": {"name": name, "labels": labels}, "data": data}
            with contextlib.suppress(Refusal):  # the old one is there
                self.core.create(kinds.SECRETS, namespace, body, by=OPERATOR)
        pod = {"metadata": {"name": self.pod_name(life), "labels": labels}}
        try:
            self.core.create(kinds.PODS, namespace, pod, by=OPERATOR)
        except Refusal:
            return  # the one before is still on its way out
        self.core.bind(namespace, self.pod_name(life), "node-0", by=OPERATOR)

    def end_stay(self, life: Life, stay: Stay) -> None:
        """End a pod: its work is done, or somebody deletes it."""
        self.estate.stop(life.session_id)
        namespace, name = life.project.lower(), self.pod_name(life)
        with contextlib.suppress(Refusal):
            if stay.finishes:
                status = {"status": {"phase": "Succeeded"}}
                self.core.patch(
                    kinds.PODS, namespace, name, status, by=OPERATOR, subresource="status"
                )
            self.core.delete(kinds.PODS, namespace, name, by=OPERATOR)
        collector.collect(self.core)

    def delete_secret(self, key: SessionKey) -> None:
        with contextlib.suppress(Refusal):
            name = self.names.secret_name(key.session_id)
            self.core.delete(kinds.SECRETS, key.namespace, name, by=OPERATOR)

    def overwrite_secret(self, key: SessionKey, *, remaining_s: float) -> None:
        """Write a token that was cached for a while, as the platform's own code does."""
        name = self.names.secret_name(key.session_id)
        with contextlib.suppress(Refusal):
            body = {"data": self._data(remaining_s)}
            self.core.patch(kinds.SECRETS, key.namespace, name, body, by=OPERATOR)

    def request_refresh(self, key: SessionKey, value: str) -> None:
        """Ask for a refresh by hand."""
        name = self.names.secret_name(key.session_id)
        body = {"metadata": {"annotations": {self.names.requested_at: value}}}
        with contextlib.suppress(Refusal):
            self.core.patch(kinds.SECRETS, key.namespace, name, body, by=OPERATOR)

    def live_keys(self) -> list[SessionKey]:
        """Return the sessions that have a pod now, in the order of their names."""
        pods = self.core.list(kinds.PODS).items
        return [
            SessionKey(
                pod["metadata"]["namespace"], pod["metadata"]["labels"][self.names.session_id]
            )
            for pod in pods
            if "deletionTimestamp" not in pod["metadata"]
        ]

    def pod_name(self, life: Life) -> str:
        return f"session-{life.session_id.lower()}-runner"

    def _data(self, remaining_s: float) -> dict[str, str]:
        token = self.issuer.mint(remaining_s=remaining_s)
        return {self.names.secret_key: base64.b64encode(token.encode()).decode()}

    def _was_confirmed(self, key: SessionKey, project: str) -> bool:
        return self.replica is not None and self.replica.platform.confirmed.get(key) == project

    def _excused_until_s(self, pod: Pod) -> float:
        key = kinds.SECRETS.key(pod.secret.namespace, pod.secret.name)
        secret = self.core.peek(kinds.SECRETS, key) or {"metadata": {}}
        sealed = self.names.confirmed in secret["metadata"].get("annotations", {})
        now_at = self.clock.monotonic()
        if pod.session.session_id not in self.estate.known:
            return math.inf  # nobody asked for this runner
        return EPOCH_S + self.scenario.excused_until_s(now_at, sealed=sealed)

    def _note(self, commit: Commit) -> None:
        metadata = commit.object["metadata"]
        verb = "removed" if commit.removed else commit.verb
        name = f"{metadata.get('namespace', '')}/{metadata['name']}"
        self.journal.note(f"{commit.field_manager} {verb} {commit.kind.plural} {name}")
        if commit.field_manager == self.names.field_manager and commit.kind is kinds.SECRETS:
            self.writes_total += 1


class Replica:
    """One incarnation of the controller, with connections of its own to the world."""

    def __init__(self, world: World, number: int) -> None:
        clock = VirtualClock(asyncio.get_running_loop())
        clock.step_s = world.scenario.skew_s
        random = world.random(f"replica {number}")
        kube_breaker, platform_breaker, issuer_breaker = (
            Breaker(name, clock, random) for name in ("kube", "platform", "issuer")
        )
        issuer_time = IssuerTime(clock)
        self.platform = VirtualPlatform(
            world.estate, platform_breaker, world.random(f"platform {number}").uniform
        )
        self._source = OidcSource(
            world.issuer.ask,
            clock=clock,
            issuer_time=issuer_time,
            breaker=issuer_breaker,
            random=random,
        )
        caller = Caller("reconciler", "token-reconciler/simulated", world.names.field_manager)
        direct = DirectKube(
            world.core, world.clock, caller=caller, faults=world.faults, latency_s=LATENCY_S
        )
        self.controller = Controller(
            Ports(
                kube=CheckedKube(direct, world.names, world.journal),
                platform=self.platform,
                source=self._source,
                issuer_time=issuer_time,
                clock=clock,
                random=random,
                gate=OpenGate(f"replica/{number}"),
                leadership=Alone(),
                kube_breaker=kube_breaker,
                platform_breaker=platform_breaker,
                issuer_breaker=issuer_breaker,
                upkeep=(self._source.keep_spare,),
            ),
            Options(names=world.names, seal=Seal(SEAL_SECRET), propagation_s=PROPAGATION_S),
        )
        self._journal = world.journal
        self._task = asyncio.create_task(self.controller.run(asyncio.Event()), name="controller")
        self._task.add_done_callback(self._ended)

    async def kill(self) -> None:
        """Cancel everything at once."""
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._source.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            error = task.exception()
            self._journal.violate("no_crash", f"the controller ended: {type(error).__name__}")


def trouble(random: Random, share: float) -> Callable[[str, str], Fault | None]:
    """Return a judge that fails a share of requests in the ways in which API servers do."""

    def judge(verb: str, plural: str) -> Fault | None:
        if random.random() >= share:
            return None
        applied = random.random() < 0.5
        match random.randrange(5):
            case 0:
                if verb == "patch":
                    error = errors.Conflict("patch: conflict", status=409, reason="Conflict")
                    return Fault(error)
                return Fault(delay_s=random.uniform(0.1, 2.0))
            case 1:
                return Fault(errors.ServerError("internal error", status=500), applied=applied)
            case 2:
                error_503 = errors.ServerError("unavailable", status=503, retry_after_s=1.0)
                return Fault(error_503)
            case 3:
                lost = errors.TransportError("the connection was reset")
                return Fault(lost, delay_s=random.uniform(0.0, 1.0), applied=applied)
            case _:
                return Fault(delay_s=random.uniform(5.0, 20.0))  # beyond some limits: a timeout

    return judge
