"""One world: core, issuer, platform, node, and replicas that can be killed or frozen."""

import asyncio
import base64
import contextlib
import math
from collections import Counter, deque
from random import Random

from reconciler.clock import EPOCH, NEVER, EpochTime, Instant
from reconciler.controller.decide.pod_touches import REPEAT_S
from reconciler.controller.decide.refresh_plan import GRID
from reconciler.lab.apiserver import garbage_collector, kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.fault_injection import DOWN_S, FaultInjection
from reconciler.lab.apiserver.kinds import Object
from reconciler.lab.apiserver.status_errors import StatusError
from reconciler.lab.apiserver.write_log import Caller, Commit
from reconciler.lab.fault_catalogue import Fault
from reconciler.lab.kubelet.node import Node
from reconciler.lab.kubelet.pods import Pod
from reconciler.lab.simulation.commit_checks import (
    EndpointBudgetChecker,
    SingleWriterCheck,
    WriteBudgetChecker,
    process_of,
)
from reconciler.lab.simulation.event_log import CheckedWrites, EventLog
from reconciler.lab.simulation.fakes import MARKS, FakePlatformState, StaticTokens, VirtualIssuer
from reconciler.lab.simulation.forgeries import Forgery
from reconciler.lab.simulation.invariants import (
    PROGRESS,
    US,
    ExposureChecker,
    SecretChecker,
    value_of,
)
from reconciler.lab.simulation.memory_checks import MemoryChecker
from reconciler.lab.simulation.moves import Move
from reconciler.lab.simulation.nodes import VirtualNode, kubelet_timing
from reconciler.lab.simulation.obstacles import PAUSE_S, SERVED_S, other_node
from reconciler.lab.simulation.replica import HOME, LEASE, SharedWorld, SimulatedReplica
from reconciler.lab.simulation.revocation import RevocationChecker
from reconciler.lab.simulation.scenario import OF_ISSUER, PodLifetime, Scenario, SessionPlan
from reconciler.lab.simulation.settled_checks import Issuance, SettledChecker
from reconciler.lab.simulation.truth import REQUEST_DUE, ExposureAccount, TruthChecker
from reconciler.lab.simulation.versions import Version
from reconciler.lab.simulation.virtual_time import EPOCH_S, VirtualClock
from reconciler.naming import ALL_SESSIONS, Names, SessionKey, Shard
from reconciler.tokens.server_clock import PROOF

OPERATOR = Caller("platform", "control-plane", "ambient-control-plane")
"""The platform's control plane, which creates pods and Secrets."""

TENANT = Caller("tenant", "kubectl", "kubectl-edit")
"""A user who may write every object in one namespace."""

FORGER = Caller("tenant", "curl", "token-reconciler")
"""The same user, with our field manager's name."""

PRUNER = Caller("gitops", "gitops", "gitops")
"""A controller that removes annotations which it does not know."""

BACKUP = Caller("backup", "velero-server", "velero-server")
"""A backup tool, which writes the former state of an object as a new one."""

HUGE = 20_000
"""Length of an annotation of a forged Secret, in characters."""

VERSIONS = 2000
"""Number of commits with known times, for restores; a minute has a few hundred at most."""

STATIC_GRACE_S = 900.0
"""Seconds for which a static token is valid after another has replaced it."""

ASKED_S = REPEAT_S + 0.5
"""A restarted session that the platform's last list lacks is looked up before it gets a token: the
answer takes up to 0.05 s, that of the issuer 0.2 s, and its container may start with the old token
in less. The first touch may then come before the kubelet has seen the Secret."""

NOTICED_S = 30.0
"""Longest time from that answer until every session is served."""

GRACE_S = 30.0
"""Source: the default of `terminationGracePeriodSeconds`."""

READY_S = 2.0
"""Time until a new replica is ready, and the next one is replaced."""

CLOCK_STEP_S = 3600.0
"""Length of a clock step, forward or back."""


class World:
    """The state of a simulation; `ScenarioRunner` causes the events.

    Each purpose has its own random generator, from the seed and the purpose's name: a part that
    draws more numbers does not change the others.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.names = Names()
        self.clock = VirtualClock(asyncio.get_running_loop())
        self.event_log = EventLog(self.clock, MARKS)
        self.core = Core(self.clock, seed=str(scenario.seed))
        self.faults = FaultInjection()
        conditions = self.conditions = scenario.conditions
        self.issuer = VirtualIssuer(
            self.clock,
            self.random("issuer"),
            ttl_s=conditions.ttl_s,
            sends_date=conditions.sends_date,
            date_off_s=conditions.date_off_s,
            cached_s=conditions.cached_s,
        )
        self.static = self._static_tokens() if conditions.static else None
        self.platform = FakePlatformState(scenario.projects)
        self.obstacles = scenario.obstacles()
        self.exposure = ExposureChecker(self.event_log, self._late_until_s)
        self.secrets = SecretChecker(
            self.names, self.event_log, self._expiry_s, self._was_confirmed, self._disbelieves
        )
        self.node = VirtualNode(
            self.core,
            self.clock,
            self.names,
            self.exposure,
            self.event_log,
            Node(kubelet_timing(conditions.propagation_s), self.random("node").uniform),
            token_times=self._token_times,
            excused_until_s=self._excused_until_s,
        )
        writes = CheckedWrites(self.names, self.event_log, self.clock, US)
        self.write_budget = WriteBudgetChecker(writes, life_s=self._life_s)
        self.endpoint_budget = EndpointBudgetChecker(
            self.event_log, self.clock, life_s=lambda: conditions.ttl_s
        )
        self.exposure_account = ExposureAccount(
            self.clock,
            self.names,
            remaining_s=self.remaining_s,
            is_ours=self.secrets.is_ours,
            is_known=self.platform.has,
            is_deleted=self.platform.is_deleted,
            touches=conditions.touch,
        )
        self.truth = TruthChecker(
            self.core, self.names, self.event_log, self.exposure_account, self.issuer
        )
        self.revocation = RevocationChecker(writes, process_of=process_of)
        self.settled = SettledChecker(self.core, writes, issuance=self._issuance)
        self.memory = MemoryChecker(self.event_log, self.clock, workers=conditions.workers)
        self.platform.on_answer.append(self.revocation.answered)
        self.platform.on_failure.append(self.revocation.failed)
        self._versions: deque[tuple[Instant, int]] = deque(maxlen=VERSIONS)
        self.replicas: dict[int, SimulatedReplica] = {}
        """The running processes, by the number of their replica."""
        self.versions: dict[int, Version] = {}
        """The version that each replica's next process has, if it is another one."""
        self._leases: dict[str, str] = {}
        """The Lease that each process contends for, ended ones included."""
        self.single_writer = self._single_writer_check(LEASE)
        self._single_writers = {LEASE: self.single_writer}
        self.writes_total = 0
        self.starts_total = 0
        self._pods: Counter[int] = Counter()
        self._pod_since_s: dict[SessionKey, float] = {}
        """When each session's last pod was created, seconds since the start."""
        self._shared = SharedWorld(
            core=self.core,
            names=self.names,
            clock=self.clock,
            conditions=conditions,
            namespaces=tuple(project.lower() for project in scenario.projects),
            faults=self.faults,
            issuer=self.issuer,
            static=self.static,
            budget=self.endpoint_budget,
            platform=self.platform,
            event_log=self.event_log,
            random=self.random,
        )
        self.core.on_commit += [
            self._note, self.secrets.commit, self.node.commit, self.single_writer.commit,
            self.write_budget.commit, self.exposure_account.commit, self.revocation.commit,
            self.settled.commit, self._note_pause,
        ]  # fmt: skip
        for name in (HOME, *(project.lower() for project in scenario.projects)):
            self.core.create(kinds.NAMESPACES, "", {"metadata": {"name": name}}, by=OPERATOR)

    def random(self, purpose: str) -> Random:
        """Return a new generator of one purpose."""
        return Random(f"{self.scenario.seed} {purpose}")

    def start_all(self) -> None:
        """Start a process for every replica without one."""
        for index in range(self.scenario.replicas):
            if index not in self.replicas:
                self.start(index)

    def start(self, index: int, shard: Shard = ALL_SESSIONS) -> None:
        """Start the next process of a replica."""
        self.starts_total += 1
        self.event_log.note(f"process {self.starts_total} of replica {index} starts")
        replica = self.replicas[index] = SimulatedReplica(
            self._shared,
            index=index,
            pod=self._pods[index],
            number=self.starts_total,
            skew_s=self.scenario.skew_s,
            rate=self.scenario.rates[index % len(self.scenario.rates)],
            shard=shard,
            version=self.versions.get(index, "this"),
        )
        self.truth.started(replica)
        self._leases[str(replica.me)] = replica.lease
        if replica.lease not in self._single_writers:
            check = self._single_writers[replica.lease] = self._single_writer_check(replica.lease)
            self.core.on_commit.append(check.commit)

    def _single_writer_check(self, lease: str) -> SingleWriterCheck:
        return SingleWriterCheck(
            self.event_log,
            lease,
            lambda process: self._leases.get(process, lease) == lease,
            lambda: [
                str(replica.me)
                for replica in self.replicas.values()
                if replica.lease == lease and replica.fence.is_open
            ],
        )

    async def kill_all(self) -> None:
        """Kill every process: no work is drained, and requests may have been applied."""
        for index in list(self.replicas):
            await self.kill(index)

    async def kill(self, index: int, *, with_pod: bool = False) -> None:
        """Kill one process; if its pod ends, too, the Lease does not name its successor."""
        replica = self.replicas.pop(index, None)
        if replica is None:
            return
        self._pods[index] += with_pod
        await replica.kill()
        self.event_log.note(f"process of replica {index} killed")

    async def terminate(self, index: int) -> None:
        """End one process and its pod as a rollout does: it drains, and releases the Lease.

        A process that is frozen is killed at the end of its grace period.
        """
        replica = self.replicas[index]
        self._pods[index] += 1
        try:
            async with asyncio.timeout(GRACE_S):
                await replica.terminate()
        except TimeoutError:
            await replica.kill()
        if self.replicas.get(index) is replica:
            del self.replicas[index]
        self.event_log.note(f"process of replica {index} terminated")

    async def roll_out(self, version: Version) -> None:
        """Replace one replica after another by one of another version, as a Deployment does."""
        for index in range(self.scenario.replicas):
            self.versions[index] = version
            if index in self.replicas:
                await self.terminate(index)
            if index not in self.replicas:
                self.start(index)
            await asyncio.sleep(READY_S)

    def leader(self) -> SimulatedReplica | None:
        """Return the process that the Lease names, None if it has ended."""
        found = self.single_writer.process
        return next((r for r in self.replicas.values() if str(r.me) == found), None)

    def begin_pod(self, life: SessionPlan, stay: PodLifetime) -> None:
        """Do as the platform does: commit the session, then create Secret and pod."""
        if not life.forged:
            self.platform.start(life.session_id, life.project)
        namespace, name = life.project.lower(), self.names.secret_name(life.session_id)
        labels = {
            self.names.session_id: life.session_id,
            self.names.project_id: life.project,
            self.names.managed: "true",
        }
        if life.forged and self.conditions.forged:
            self._forge_secret(namespace, name, labels)
        elif not life.forged or stay.token_s is None:
            data = {} if stay.token_s is None else self._data(stay.token_s)
            body = {"metadata": {"name": name, "labels": labels}, "data": data}
            with contextlib.suppress(StatusError):  # the old Secret still exists
                self.core.create(kinds.SECRETS, namespace, body, by=OPERATOR)
        self._start_pod(life, by=OPERATOR)

    def revive(self, life: SessionPlan) -> None:
        """Start a tenant's pod with the labels of a deleted session."""
        self._start_pod(life, by=TENANT)

    def _start_pod(self, life: SessionPlan, *, by: Caller) -> None:
        namespace = life.project.lower()
        labels = {
            self.names.session_id: life.session_id,
            self.names.project_id: life.project,
            self.names.managed: "true",
        }
        pod = {"metadata": {"name": self.pod_name(life), "labels": labels}}
        try:
            self.core.create(kinds.PODS, namespace, pod, by=by)
        except StatusError:
            return  # the former pod is still terminating
        key = SessionKey(namespace, life.session_id)
        self._pod_since_s[key] = asyncio.get_running_loop().time()
        self.core.bind(namespace, self.pod_name(life), "node-0", by=OPERATOR)

    def _forge_secret(self, namespace: str, name: str, labels: dict[str, str]) -> None:
        """Create a tenant's Secret that imitates ours."""
        names = self.names
        annotations = {
            names.issued_at: "1970-01-01T00:00:00Z",
            names.expires_at: "1970-01-01T00:15:00Z",
            names.refreshed_at: "1970-01-01T00:00:00Z",
            names.refreshed_by: "replica-0/1",
            names.confirmation: "v1." + "x" * HUGE,
        }
        metadata = {"name": name, "labels": labels, "annotations": annotations}
        data = {names.secret_key: base64.b64encode(b"forged").decode()}
        with contextlib.suppress(StatusError):  # the old Secret still exists
            body = {"metadata": metadata, "data": data}
            self.core.create(kinds.SECRETS, namespace, body, by=FORGER)

    def end_pod(self, life: SessionPlan, stay: PodLifetime) -> None:
        """End a pod: it completes, or it is deleted."""
        if life.deleted:
            self.platform.forget(life.session_id)
            self.revocation.deleted(life.session_id, life.project)
            self.exposure_account.deleted(life.session_id)
        self.platform.stop(life.session_id)
        namespace, name = life.project.lower(), self.pod_name(life)
        with contextlib.suppress(StatusError):
            if stay.finishes:
                status = {"status": {"phase": "Succeeded"}}
                self.core.patch(
                    kinds.PODS, namespace, name, status, by=OPERATOR, subresource="status"
                )
            self.core.delete(kinds.PODS, namespace, name, by=OPERATOR)
        garbage_collector.collect(self.core)

    def delete_secret(self, key: SessionKey) -> None:
        self.excuse_change(key)
        with contextlib.suppress(StatusError):
            name = self.names.secret_name(key.session_id)
            self.core.delete(kinds.SECRETS, key.namespace, name, by=OPERATOR)

    def overwrite_secret(self, key: SessionKey, *, remaining_s: float) -> None:
        """Write a token that was cached for a while, as the platform does."""
        self.excuse_change(key)
        name = self.names.secret_name(key.session_id)
        with contextlib.suppress(StatusError):
            body = {"data": self._data(remaining_s)}
            self.core.patch(kinds.SECRETS, key.namespace, name, body, by=OPERATOR)

    def secret_of(self, key: SessionKey) -> Object | None:
        """Return a session's Secret, None without one."""
        name = self.names.secret_name(key.session_id)
        return self.core.peek(kinds.SECRETS, kinds.SECRETS.key(key.namespace, name))

    def restore_secret(self, secret: Object, *, again: bool) -> None:
        """Write a former state of a Secret back, as a backup tool does.

        The operator resumes a session that is paused by that.

        Args:
            again: Whether the tool deletes the present Secret and creates the former one.
        """
        metadata = secret["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        key = SessionKey(namespace, metadata["labels"][self.names.session_id])
        self.excuse_change(key)
        kept = ("name", "labels", "annotations", "ownerReferences")
        former = {**secret, "metadata": {key: metadata[key] for key in kept if key in metadata}}
        with contextlib.suppress(StatusError):
            if again:
                self.core.delete(kinds.SECRETS, namespace, name, by=BACKUP)
                self.core.create(kinds.SECRETS, namespace, former, by=BACKUP)
            else:
                self.core.update(kinds.SECRETS, namespace, name, former, by=BACKUP)
        if self.names.paused in metadata.get("annotations", {}):
            self.annotate(key, self.names.paused, None)

    def request_refresh(self, key: SessionKey, value: str) -> None:
        """Request a refresh, as an operator does."""
        self.annotate(key, self.names.requested_at, value)

    def annotate(
        self, key: SessionKey, annotation: str, value: str | None, *, by: Caller = OPERATOR
    ) -> None:
        """Set an annotation of a session's Secret; None removes it."""
        name = self.names.secret_name(key.session_id)
        body = {"metadata": {"annotations": {annotation: value}}}
        with contextlib.suppress(StatusError):
            self.core.patch(kinds.SECRETS, key.namespace, name, body, by=by)

    def forge_annotations(self, key: SessionKey, forgery: Forgery) -> None:
        """Let another client edit what our annotations say of a session's token."""
        self.excuse_change(key)
        now_s, names = self.issuer.now_s(), self.names
        for name, text in forgery(names, now_s, self.conditions.ttl_s).items():
            self.annotate(key, name, text, by=TENANT)

    def strip_annotations(self, key: SessionKey) -> None:
        """Remove all our annotations from a Secret, as a controller that owns them does."""
        self.excuse_change(key)
        name = self.names.secret_name(key.session_id)
        ours = dict.fromkeys(self.names.annotations())
        with contextlib.suppress(StatusError):
            body = {"metadata": {"annotations": ours}}
            self.core.patch(kinds.SECRETS, key.namespace, name, body, by=PRUNER)

    def change_pod(self, key: SessionKey, note: str) -> None:
        """Change an annotation of a session's pod that is not ours."""
        name = f"session-{key.session_id.lower()}-runner"
        with contextlib.suppress(StatusError):
            body = {"metadata": {"annotations": {"example.com/note": note}}}
            self.core.patch(kinds.PODS, key.namespace, name, body, by=TENANT)

    def step_issuer(self, by_s: float) -> None:
        """Step the clock of the issuer and the validators; excuse exposure until it is detected.

        Without a touch, the runners read the tokens that are written then as late as their kubelet
        projects them.
        """
        now_s, now_at = self.clock.wall(), self.clock.monotonic()
        since_start_s = asyncio.get_running_loop().time()
        due_s = since_start_s + REQUEST_DUE * self.conditions.ttl_s
        noticed_s = self.obstacles.issuer_answers_by_s(due_s) - since_start_s + NOTICED_S
        self.issuer.step_s += by_s
        self.exposure.shift(-by_s, now_s=now_s)
        self.secrets.forget_expiries(now_at + noticed_s)
        read_s = noticed_s + (0.0 if self.conditions.touch else self.conditions.propagation_s)
        self.exposure.excuse(now_s=now_s, until_s=now_s + read_s)
        # A cache returns tokens from before the step, which do not show it. A true Date header does
        # with a vote, but after a proof only tokens move the time.
        sends_true_date = self.issuer.sends_date and not self.issuer.date_off_s
        has_vote = not any(replica.may_have_proof for replica in self.replicas.values())
        hidden_s = 0.0 if sends_true_date and has_vote else self.issuer.cached_s
        self.truth.time_unknown_until_at = now_at + noticed_s
        self.truth.step_hidden_until_at = now_at + noticed_s + hidden_s
        answered = (replica.issuer_answered_at for replica in self.replicas.values())
        self.exposure_account.shift(
            -by_s,
            answered_at=min(answered, default=now_at),
            noticed_at=self.truth.step_hidden_until_at,
        )
        if by_s < 0.0 and (self.issuer.cached_s or self.issuer.behind_s):
            proven_s = self._step_back_proven_s(-by_s) - since_start_s
            self.truth.stepped_back(-by_s, until_at=now_at + proven_s)
        self.write_budget.changed_for_all()

    def set_nodes(self, move: Move) -> None:
        """Let the issuer have a second node with another clock, as long as a move lasts.

        Each replica's time may be that of either node until it has `PROOF` tokens in a row from
        after the move.
        """
        due_s = REQUEST_DUE * self.conditions.ttl_s + self.conditions.cached_s
        at_s = move.end_s
        for _ in range(PROOF):
            at_s = self.obstacles.issuer_answers_by_s(at_s + due_s)
        node = other_node(move, self.conditions.ttl_s)
        until_at = Instant(at_s + NOTICED_S)
        self.truth.nodes_differ(node.off_s, until_at=until_at)
        self.secrets.nodes_differ(node.off_s, until_at)

    def _step_back_proven_s(self, by_s: float) -> float:
        """Return by when each replica has the tokens that prove a step back that begins now.

        By the tokens from before it, a token from after it is of one node whose clock is behind:
        both have an earlier `iat`, and agree with what they say of themselves. Only further tokens
        distinguish the two (docs/design/issuer-time.md, 2 and 7), and a Date header does not: by
        itself it moves no time below what a token has shown. `PROOF` tokens of different seconds
        that agree are a proof. Without a cache they come within seconds. A cache gives each of them
        for `cached_s`, and replaces it when a replica requests one, at most a tenth of a life
        later. It keeps a token from before the step unless that is of the future now. While one of
        two nodes is behind, no `PROOF` tokens in a row agree.
        """
        cached_s, due_s = self.issuer.cached_s, REQUEST_DUE * self.conditions.ttl_s
        at_s = asyncio.get_running_loop().time()
        if by_s < cached_s:
            at_s += cached_s
        for move in self.scenario.faults:
            if move.kind is Fault.ISSUER_NODE_BEHIND and move.at_s <= at_s:
                at_s = max(at_s, move.end_s)
        at_s = self.obstacles.issuer_answers_by_s(at_s + due_s)
        for _ in range(PROOF - 1):
            at_s = self.obstacles.issuer_answers_by_s(at_s + cached_s + due_s)
        return at_s + NOTICED_S

    def excuse_change(self, key: SessionKey) -> None:
        """Excuse a session that another client changes until our repair of it is in the file."""
        at_s = asyncio.get_running_loop().time()
        until_s = self.obstacles.hides_until_s(at_s, key.namespace, confirmed=self.static is None)
        if until_s > at_s:
            delivered_s = EPOCH_S + until_s + self.conditions.propagation_s
            now_s = self.clock.wall()
            self.exposure.excuse(now_s=now_s, until_s=delivered_s, session=str(key))

    def _note_pause(self, commit: Commit) -> None:
        """Excuse a session while a person has paused it."""
        metadata = commit.object["metadata"]
        session = (metadata.get("labels") or {}).get(self.names.session_id)
        if commit.kind not in (kinds.SECRETS, kinds.PODS) or not session:
            return
        key, now_s = SessionKey(metadata["namespace"], session), self.clock.wall()
        if self.exposure_account.is_paused(key):
            self.exposure.pause(str(key), now_s=now_s)
            return
        read_s = 0.0 if self.conditions.touch else self.conditions.propagation_s
        self.exposure.resume(str(key), now_s=now_s, until_s=now_s + PAUSE_S + read_s)

    def rotate_static(self) -> None:
        """Write another static token into the files; the former one is valid for a while."""
        if self.static is not None:
            self.static.rotate()
            now_s = self.clock.wall()
            self.exposure.end_tokens(now_s + STATIC_GRACE_S, now_s=now_s)
            self.write_budget.changed_for_all()

    async def restore_store(self, back_s: float) -> None:
        """Restore the store's state of `back_s` ago.

        It is no state from before the leader's term, or before a compaction. The API server stops
        before the restore and starts after it, as etcd's documentation says.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self.faults.restart())
            await asyncio.sleep(DOWN_S / 2)
            since_at = self.clock.monotonic() - back_s
            reached = (version for at, version in reversed(self._versions) if at <= since_at)
            known = max(self.single_writer.since_version, self.core.compacted)
            version = max(known, next(reached, self.core.version))
            self.event_log.note(f"restored from {self.core.version} to {version}")
            self.core.restore(version)
            if since_at < self.truth.time_unknown_until_at:
                # Tokens that a step of the issuer's clock has ended come back.
                read_s = 0.0 if self.conditions.touch else self.conditions.propagation_s
                now_s = self.clock.wall()
                self.exposure.excuse(now_s=now_s, until_s=now_s + DOWN_S + PAUSE_S + read_s)
            self._versions.append((self.clock.monotonic(), version))

    def check_end(self) -> None:
        """Check what must hold when all moves have ended and all sessions are served."""
        self.check_settled()
        if self.static is None and self._is_served():
            self._check_progress(self._running_keys())

    def check_settled(self) -> None:
        """Compare the replicas with the world, if all sessions are served after the last move."""
        if not self._is_served():
            return
        for replica in self.replicas.values():
            self.settled.check_replica(
                replica,
                sessions=len(self.scenario.sessions),
                may_refuse_tokens=self.truth.may_refuse_tokens(),
            )
        if (leader := self.leader()) is None:
            self.event_log.add_violation(PROGRESS, "no replica leads after the last move")
        elif not self.issuer.step_s:
            self.settled.check_leader(leader, self._running_keys())

    def check_memory(self) -> None:
        """Compare what the replicas hold with the number of sessions that have an object."""
        found = [
            (item["metadata"]["namespace"], item["metadata"].get("labels", {}))
            for kind in (kinds.PODS, kinds.SECRETS)
            for item in self.core.list(kind).items
        ]
        sessions = {(namespace, labels.get(self.names.session_id)) for namespace, labels in found}
        self.memory.check(self.replicas.values(), sessions=len(sessions))

    def _is_served(self) -> bool:
        served_s = max(self.obstacles.last_end_s(), float(self.truth.time_unknown_until_at))
        return asyncio.get_running_loop().time() >= served_s

    def _running_keys(self) -> list[SessionKey]:
        return [key for key in self.live_keys() if key.session_id in self.platform.running]

    def _check_progress(self, keys: list[SessionKey]) -> None:
        """Check that every refresh is done that was due when all moves had ended."""
        now_s = asyncio.get_running_loop().time()
        for key in keys:
            name = self.names.secret_name(key.session_id)
            secret = self.core.peek(kinds.SECRETS, kinds.SECRETS.key(key.namespace, name))
            token = "" if secret is None else value_of(secret, self.names)
            late_s = GRID * self.issuer.life_s(token) - self.remaining_s(token) - SERVED_S
            if late_s > 0.0 and now_s > self._pod_since_s[key] + SERVED_S:
                what = f"{key}: a refresh is {late_s + SERVED_S:.0f} s late after the last move"
                self.event_log.add_violation(PROGRESS, what)

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

    def pod_name(self, life: SessionPlan) -> str:
        return f"session-{life.session_id.lower()}-runner"

    def _data(self, remaining_s: float) -> dict[str, str]:
        if self.static is not None:
            token = self.static.read()
        elif self.conditions.cached_s and remaining_s > self.conditions.ttl_s / 2:
            token = self.issuer.issue_cached()
        else:
            token = self.issuer.issue(remaining_s=remaining_s)
        return {self.names.secret_key: base64.b64encode(token.encode()).decode()}

    def _static_tokens(self) -> StaticTokens:
        return StaticTokens(self.clock, self.random("static"), grace_s=STATIC_GRACE_S)

    def remaining_s(self, token: str) -> float:
        """Return a token's remaining life by its validators' clock; -inf for an unknown one."""
        tokens = self.issuer if self.static is None else self.static
        return tokens.remaining_s(token)

    def _issuance(self, token: str) -> Issuance:
        if self.static is not None:
            return Issuance(math.inf, math.inf, could_be_younger=False)
        now_s, life_s = asyncio.get_running_loop().time(), self.issuer.life_s(token)
        is_troubled = any(
            move.kind in OF_ISSUER and move.at_s <= now_s <= move.end_s + 0.5 * life_s
            for move in self.scenario.faults
        )
        is_fresh = not (is_troubled or self.conditions.cached_s)
        return Issuance(self.remaining_s(token), life_s, could_be_younger=is_fresh)

    def _expiry_s(self, token: str) -> EpochTime | None:
        if self.static is None:
            return self.issuer.expiry_s(token)
        return None if self.static.remaining_s(token) == -math.inf else NEVER

    def _life_s(self, key: SessionKey) -> float:
        """Return the life of the token in a session's Secret."""
        if self.static is not None:
            return math.inf
        name = self.names.secret_name(key.session_id)
        secret = self.core.peek(kinds.SECRETS, kinds.SECRETS.key(key.namespace, name))
        value = "" if secret is None else value_of(secret, self.names)
        return min(self.issuer.life_s(value), self.issuer.ttl_s)

    def _was_confirmed(self, key: SessionKey, project: str) -> bool:
        return any(replica.confirmed.get(key) == project for replica in self.replicas.values())

    def _disbelieves(self, agent: str, token: str) -> bool:
        life_s, process = self.issuer.life_s(token), process_of(agent)
        return any(
            str(replica.me) == process and replica.longest_s < life_s
            for replica in self.replicas.values()
        )

    def _excused_until_s(self, pod: Pod) -> EpochTime:
        key = kinds.SECRETS.key(pod.secret.namespace, pod.secret.name)
        secret = self.core.peek(kinds.SECRETS, key) or {"metadata": {}}
        # The key of a confirmation with a static token changes with that token.
        has_confirmation = self.names.confirmation in secret["metadata"].get("annotations", {})
        confirmed = has_confirmation and self.static is None
        since_start_s = asyncio.get_running_loop().time()
        if pod.session.session_id not in self.platform.known:
            return NEVER  # the platform did not create this runner
        until_s = self.obstacles.hides_until_s(since_start_s, pod.namespace, confirmed=confirmed)
        served_s = max(until_s, since_start_s + ASKED_S, float(self.truth.time_unknown_until_at))
        if not self.conditions.touch:
            served_s += self.conditions.propagation_s
        return EPOCH_S + served_s

    def _late_until_s(self, due_s: EpochTime, expires_s: EpochTime, namespace: str) -> EpochTime:
        delivery_s = self.conditions.propagation_s
        needed_s = expires_s - delivery_s - EPOCH_S
        until_s = self.obstacles.excused_until_s(due_s - EPOCH_S, needed_s, namespace)
        return EPOCH_S + until_s + delivery_s if until_s else EPOCH

    def _token_times(self, token: str) -> tuple[float, float]:
        return self.remaining_s(token), self.issuer.life_s(token) if self.static is None else 0.0

    def _note(self, commit: Commit) -> None:
        self._versions.append((commit.at, commit.version))
        metadata = commit.object["metadata"]
        verb = "removed" if commit.removed else commit.verb
        name = f"{metadata.get('namespace', '')}/{metadata['name']}"
        self.event_log.note(f"{commit.field_manager} {verb} {commit.kind.plural} {name}")
        if commit.user == US and commit.kind is kinds.SECRETS:
            self.writes_total += 1
