"""One world: core, issuer, platform, node, and replicas that can be killed, frozen and cut off."""

import asyncio
import base64
import contextlib
import math
from random import Random

from reconciler.lab.apiserver import collector, kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.injection import Faults
from reconciler.lab.apiserver.ledger import Caller, Commit
from reconciler.lab.apiserver.refusals import Refusal
from reconciler.lab.kubelet.pods import Pod
from reconciler.lab.virtual_time import EPOCH_S, VirtualClock
from reconciler.names import Names, SessionKey
from reconciler.simulation.invariants import ExposureChecker, SecretChecker
from reconciler.simulation.journal import Journal
from reconciler.simulation.nodes import VirtualNode
from reconciler.simulation.peers import MARKS, Estate, VirtualIssuer
from reconciler.simulation.replica import HOME, Replica, Surroundings
from reconciler.simulation.scenario import TTL_S, Life, Scenario, Stay
from reconciler.simulation.writers import WriterChecker

OPERATOR = Caller("platform", "control-plane", "ambient-control-plane")
"""The platform's own control plane, which makes pods and Secrets."""

CLOCK_STEP_S = 3600.0
"""What a clock that steps steps by, either way."""


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
        self.replicas: dict[int, Replica] = {}
        """The living, by their places."""
        self.writers = WriterChecker(
            self.journal, lambda: [str(r.me) for r in self.replicas.values() if r.gate.is_open]
        )
        self.writes_total = 0
        self.starts_total = 0
        self._pods = dict.fromkeys(range(scenario.replicas), 0)
        self._around = Surroundings(
            core=self.core,
            names=self.names,
            clock=self.clock,
            faults=self.faults,
            issuer=self.issuer,
            estate=self.estate,
            journal=self.journal,
            random=self.random,
        )
        self.core.on_commit += [
            self._note, self.secrets.commit, self.node.commit, self.writers.commit
        ]  # fmt: skip
        for name in (HOME, *(project.lower() for project in scenario.projects)):
            self.core.create(kinds.NAMESPACES, "", {"metadata": {"name": name}}, by=OPERATOR)

    def random(self, purpose: str) -> Random:
        """Return the generator of one purpose, from its start."""
        return Random(f"{self.scenario.seed} {purpose}")

    def start_all(self) -> None:
        """Start a process in every place that has none."""
        for place in range(self.scenario.replicas):
            if place not in self.replicas:
                self.start(place)

    def start(self, place: int) -> None:
        """Start a process, the next one of its pod."""
        self.starts_total += 1
        self.journal.note(f"process {self.starts_total} starts in place {place}")
        self.replicas[place] = Replica(
            self._around,
            place=place,
            pod=self._pods[place],
            number=self.starts_total,
            skew_s=self.scenario.skew_s,
            rate=self.scenario.rates[place],
        )

    async def kill_all(self) -> None:
        """End every process as a kill does: nothing is drained, requests may have been applied."""
        for place in list(self.replicas):
            await self.kill(place)

    async def kill(self, place: int, *, with_pod: bool = False) -> None:
        """End one process; with its pod, its successor is a stranger to the Lease."""
        replica = self.replicas.pop(place, None)
        if replica is None:
            return
        self._pods[place] += with_pod
        await replica.kill()
        self.journal.note(f"process in place {place} killed")

    def leader(self) -> Replica | None:
        """Return the process that the Lease names, None if it does not live."""
        found = self.writers.process
        return next((r for r in self.replicas.values() if str(r.me) == found), None)

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
        return any(
            replica.platform.confirmed.get(key) == project for replica in self.replicas.values()
        )

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
