"""The lab cluster: API server, issuer, platform, kubelet and runners in one process."""

import asyncio
import os
import secrets
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from reconciler.clock import EPOCH, SystemClock
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.rbac import EVERYTHING, Authorizer, Rule, User
from reconciler.lab.apiserver.write_log import Caller, WriteLog
from reconciler.lab.cluster import fixtures
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.lab.cluster.ports import free_port
from reconciler.lab.issuer.server import Issuer
from reconciler.lab.issuer.signing_key import TokenRejected
from reconciler.lab.kubelet.node import KubeletTiming
from reconciler.lab.platform.server import LabPlatform
from reconciler.lab.runners.fleet import FleetOptions, RunnerFleet
from reconciler.lab.runners.runner import Rates
from reconciler.naming import Names

MARGIN_S = 0.5
"""Added to the longest projection delay in the controllers' propagation allowance."""
GRACE_TTL = 0.1
"""Largest grace period, as a part of a token's life: a terminating pod gets no new token, and must
end before its token expires."""
RENEWAL_TTL = 0.4
LEASE_TTL = 1 / 6
"""Longest lease duration, as a part of a token's life."""
HOME = "ambient-code"
"""Namespace of the controllers themselves."""
SHORTEST_RESYNC_S = 5.0
PROJECT_SESSIONS = 25
SHM = Path("/dev/shm")  # noqa: S108 - memory, not disk: files in it hold tokens
_LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

CONTROLLER_RULES = (
    Rule(("get", "list", "watch", "patch"), ("pods",)),
    Rule(("get", "list", "watch", "patch", "create"), ("secrets",)),
    Rule(("create", "patch"), ("events",)),
    Rule(("get", "create", "update", "patch", "list", "watch"), ("leases",)),
)
KUBELET_RULES = (
    Rule(("get", "list", "watch", "delete"), ("pods",)),
    Rule(("patch",), ("pods/status",)),
    Rule(("get", "list", "watch"), ("secrets",)),
)


class LabCluster:
    """Every system that a controller uses, on free loopback ports, while entered.

    Create it inside a running event loop.

    Two HTTP servers share one store: `server` for controllers and kubectl, `node_server` for the
    kubelet. A fault of the controllers' connections does not affect the node's.

    Args:
        ttl_s: Life of the tokens, seconds.
        projection_delay: Shortest and longest time from a Secret's change to the file, seconds.
        seed: Of all random numbers here; None: a new one for each run.
    """

    def __init__(
        self,
        *,
        ttl_s: float = 30.0,
        projection_delay: tuple[float, float] = (1.0, 3.0),
        seed: int | None = None,
    ) -> None:
        self.names = Names()
        self.ttl_s = ttl_s
        self.projection_delay = projection_delay
        self.random = Random(seed)
        self.clock = SystemClock()
        self.sessions: dict[str, LabSession] = {}
        """By session ID, forged ones included."""
        client_secret = f"lab-client-{secrets.token_hex(16)}"
        self.issuer = Issuer(ttl_s=ttl_s, client_secret=client_secret, clock=self.clock)
        self.platform = LabPlatform(self._accepts, clock=self.clock)
        self.core = Core(self.clock, seed=str(seed) if seed is not None else secrets.token_hex(8))
        self.write_log = WriteLog()
        self.core.on_commit.append(self.write_log.record)
        rights, self._tokens = _users()
        self.server = ApiServer(self.core, authorizer=rights)
        self.node_server = ApiServer(self.core, authorizer=rights, collects=False)
        self.port = free_port()
        self._control_plane = Caller(user="control-plane", manager=self.names.managed_by)
        self._fleet: RunnerFleet | None = None
        self._folder = Path()
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"<LabCluster {len(self.sessions)} sessions at {self.server.url}>"

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self._folder = Path(stack.enter_context(_private_folder()))
            for part in (self.issuer, self.platform, self.server, self.node_server):
                await stack.enter_async_context(part)
            self.core.create(kinds.NODES, "", {"metadata": {"name": fixtures.NODE}})
            self.add_namespace(HOME)
            self._fleet = await stack.enter_async_context(self._make_fleet())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @property
    def fleet(self) -> RunnerFleet:
        """The kubelet and its runners; raises `RuntimeError` before the cluster is entered."""
        if self._fleet is None:
            raise RuntimeError("the lab cluster is not started")
        return self._fleet

    @property
    def allowance_s(self) -> float:
        """The controllers' propagation allowance: from a Secret's change to the runner's file."""
        return self.projection_delay[1] + MARGIN_S

    @property
    def lease_s(self) -> int:
        """The controllers' lease duration: whole seconds, at most a sixth of a token's life."""
        return min(15, max(1, int(self.ttl_s * LEASE_TTL)))

    # For controllers and operators

    def environment(self) -> dict[str, str]:
        """Return the complete environment of `reconciler run`; writes its kubeconfig, which also
        serves kubectl with the controller's rights."""
        return {
            "KUBECONFIG": str(self._write("kubeconfig", token=self._tokens["reconciler"])),
            "AMBIENT_API_SERVER_URL": self.platform.url,
            "OIDC_TOKEN_URL": self.issuer.token_url,
            "OIDC_CLIENT_ID": self.issuer.client_id,
            "OIDC_CLIENT_SECRET": self.issuer.client_secret,
            "RECONCILER_PROPAGATION_ALLOWANCE_S": f"{self.allowance_s:g}",
            "RECONCILER_RESYNC_S": f"{max(SHORTEST_RESYNC_S, RENEWAL_TTL * self.ttl_s):g}",
            "RECONCILER_LISTEN": f"127.0.0.1:{self.port}",
            "RECONCILER_LOG_FORMAT": "json",
            "NAMESPACE": HOME,
            **self._lease_environment(),
        }

    def kubectl_config(self) -> Path:
        """Write an administrator's kubeconfig for kubectl and return its path."""
        return self._write("kubectl.config")

    def secret_values(self) -> set[str]:
        """Return every value that must not appear in any output: issued tokens and credentials."""
        return self.issuer.issued | {self.issuer.client_secret} | set(self._tokens.values())

    # In place of the platform's control plane

    def populate(self, count: int) -> None:
        """Begin `count` sessions, `PROJECT_SESSIONS` a project. Cost: about 1 ms a session."""
        projects = [f"team-{1 + number}" for number in range(-(-count // PROJECT_SESSIONS))]
        for number in range(count):
            self.begin_session(projects[number % len(projects)])

    def begin_session(self, project: str) -> LabSession:
        """Begin one session: the platform's row, a Secret with a new token, and the pod."""
        self.add_namespace(project)
        self.platform.add_project(project)
        session = self.new_session(project)
        self.platform.add_session(session.session_id, project)
        session.first_token = self.issuer.issue()
        self.add_secret(session, session.first_token)
        self.add_pod(session)
        return session

    def new_session(self, namespace: str) -> LabSession:
        """Return a new session; create no object for it."""
        tail = "".join(self.random.choices(_LETTERS, k=20))
        session_id = f"2Ab{len(self.sessions):04d}{tail}"
        session = fixtures.new_session(self.names, session_id, namespace)
        self.sessions[session_id] = session
        return session

    def add_namespace(self, name: str) -> None:
        """Create a namespace unless it exists."""
        if self.core.peek(kinds.NAMESPACES, name) is None:
            body = {"metadata": {"name": name}}
            self.core.create(kinds.NAMESPACES, "", body, by=self._control_plane)

    def add_secret(self, session: LabSession, token: str) -> None:
        body = fixtures.secret_body(self.names, session, token)
        self.core.create(kinds.SECRETS, session.namespace, body, by=self._control_plane)

    def put_token(self, session: LabSession, token: str) -> None:
        """Overwrite the token in the Secret, as the platform's control plane."""
        patch = {"stringData": {self.names.secret_key: token}}
        self.core.patch(
            kinds.SECRETS, session.namespace, session.secret, patch, by=self._control_plane
        )

    def delete_secret(self, session: LabSession) -> None:
        self.core.delete(kinds.SECRETS, session.namespace, session.secret, by=self._control_plane)

    def add_pod(self, session: LabSession) -> None:
        body = fixtures.pod_body(self.names, session)
        self.core.create(kinds.PODS, session.namespace, body, by=self._control_plane)

    async def stop_session(self, session: LabSession) -> None:
        """Stop a session and return when its pod is gone; the Secret stays."""
        self.platform.set_phase(session.session_id, "Stopping")
        self.core.delete(kinds.PODS, session.namespace, session.pod, by=self._control_plane)
        while self.has(kinds.PODS, session.namespace, session.pod):
            await asyncio.sleep(0.05)
        self.platform.set_phase(session.session_id, "Stopped")

    def resume_session(self, session: LabSession) -> None:
        """Begin a stopped session again, with its old Secret."""
        self.platform.set_phase(session.session_id, "Running")
        self.add_pod(session)

    def has(self, kind: kinds.Kind, namespace: str, name: str) -> bool:
        return self.core.peek(kind, kind.key(namespace, name)) is not None

    def _lease_environment(self) -> dict[str, str]:
        """Return the lease's times in their default proportions, and a request limit that fits."""
        lease_s = self.lease_s
        return {
            "RECONCILER_LEASE_DURATION_S": f"{lease_s}",
            "RECONCILER_RENEW_DEADLINE_S": f"{lease_s * 2 / 3:.3f}",
            "RECONCILER_RETRY_PERIOD_S": f"{lease_s * 2 / 15:.3f}",
            "RECONCILER_REQUEST_LIMIT_S": f"{lease_s * 2 / 3:.3f}",
        }

    def _accepts(self, token: str) -> bool:
        try:
            self.issuer.verify(token)
        except TokenRejected:
            return False
        return True

    def _claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token of this issuer, expired or not: the fleet checks `exp`."""
        return self.issuer.verify(token, now_s=EPOCH)

    def _make_fleet(self) -> RunnerFleet:
        push_s = max(0.5, self.ttl_s / 10)
        return RunnerFleet(
            self.node_server.url,
            self._tokens["kubelet"],
            self._claims,
            self.clock,
            Random(self.random.random()),
            self._folder / "pods",
            FleetOptions(
                timing=KubeletTiming(
                    projection_s=self.projection_delay,
                    grace_cap_s=min(float(fixtures.GRACE_S), GRACE_TTL * self.ttl_s),
                ),
                rates=Rates(
                    push_s=(push_s / 2, push_s * 2), reconnect_s=(self.ttl_s, self.ttl_s * 4)
                ),
                names=self.names,
            ),
        )

    def _write(self, name: str, *, token: str = "") -> Path:
        """Write a kubeconfig that kubectl can use, too; by default the administrator's."""
        path = self._folder / name
        path.write_text(self.server.kubeconfig(token=token, kubectl=True))
        path.chmod(0o600)
        return path


def _private_folder() -> tempfile.TemporaryDirectory[str]:
    """Create a directory that only its owner can read, in memory if possible."""
    parent = SHM if os.access(SHM, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="reconciler-lab-", dir=parent)


def _users() -> tuple[Authorizer, dict[str, str]]:
    """Return the authorizer, and the tokens by user name."""
    rules = {"admin": (EVERYTHING,), "reconciler": CONTROLLER_RULES, "kubelet": KUBELET_RULES}
    tokens = {name: f"lab-{name}-{secrets.token_hex(12)}" for name in rules}
    return Authorizer({tokens[name]: User(name, found) for name, found in rules.items()}), tokens
