"""A platform with sessions on a real API server, as the replaced control plane leaves it."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from reconciler.clock import NEVER, EpochTime
from reconciler.lab.issuer.server import Issuer
from reconciler.lab.issuer.signing_key import TokenRejected
from reconciler.lab.platform.server import LabPlatform
from reconciler.naming import Names
from tests.cluster.admin import LIMIT_S, MERGE, PODS, SECRETS, Admin, collection, item
from tests.cluster.controlplane import ControlPlane
from tests.cluster.installed import account_file, install

NAMES = Names()
PLATFORM_MANAGER = "ambient-control-plane"
PARALLEL = 8
"""Sessions that are created at one time."""


@dataclass(frozen=True, slots=True)
class Runner:
    """One session's objects in the cluster."""

    session_id: str
    namespace: str
    secret: str
    pod: str
    project: str = ""
    """The project, if its name is not that of the namespace."""


@dataclass
class World:
    """Issuer, platform and cluster; `add` creates a session in all three.

    Attributes:
        home: The controllers' namespace, with their Lease.
        account_token: A token of the manifests' account in that namespace.
    """

    admin: Admin
    control_plane: ControlPlane
    issuer: Issuer
    platform: LabPlatform
    folder: Path
    home: str
    account_token: str
    runners: list[Runner] = field(default_factory=list)

    def environment(self, **settings: str) -> dict[str, str]:
        """Return the environment of a `reconciler run` for this world only."""
        kubeconfig = account_file(
            self.control_plane, self.account_token, self.folder / "kubeconfig"
        )
        return {
            "KUBECONFIG": str(kubeconfig),
            "AMBIENT_API_SERVER_URL": self.platform.url,
            "OIDC_TOKEN_URL": self.issuer.token_url,
            "OIDC_CLIENT_ID": self.issuer.client_id,
            "OIDC_CLIENT_SECRET": self.issuer.client_secret,
            "NAMESPACE": self.home,
            # One pod; its container may be killed and started again.
            "RECONCILER_REPLICA": "reconciler-0",
            "RECONCILER_POD_UID": "11111111-2222-3333-4444-555555555555",
            "RECONCILER_LISTEN": "127.0.0.1:0",
            "RECONCILER_LOG_FORMAT": "json",
            "RECONCILER_NAMESPACES": ",".join(sorted({r.namespace for r in self.runners})),
        } | settings

    async def add_project(self) -> str:
        """Create a project and its namespace; return the name of both."""
        project = f"team-{secrets.token_hex(4)}"
        await self.admin.create_namespace(project)
        self.platform.add_project(project)
        return project

    async def add(
        self,
        project: str,
        *,
        session_id: str = "",
        token: str = "obviously-fake-old-token",
        with_secret: bool = True,
        with_pod: bool = True,
        known: bool = True,
        namespace: str = "",
        subpath: str = "",
        **labels: str,
    ) -> Runner:
        """Create a running session: the platform's row, its Secret and its pod, in that order."""
        session_id = session_id or f"2Ab{secrets.token_hex(12)}"
        name = session_id[:40].lower()
        namespace = namespace or project
        runner = Runner(
            session_id, namespace, f"session-{name}-creds", f"session-{name}-runner", project
        )
        if known:
            self.platform.add_session(session_id, project)
        if with_secret:
            await self.add_secret(runner, token)
        if with_pod:
            await self.admin.create_pod(
                namespace, runner.pod, labels=self.labels(runner) | labels, secret=runner.secret,
                subpath=subpath,
            )  # fmt: skip
        self.runners.append(runner)
        return runner

    async def add_sessions(self, *, projects: int = 1, each: int) -> list[Runner]:
        """Create sessions in new projects, `PARALLEL` at a time; return them project by project."""
        slots = asyncio.Semaphore(PARALLEL)

        async def add(project: str) -> Runner:
            async with slots:
                return await self.add(project)

        names = [await self.add_project() for _ in range(projects)]
        return await asyncio.gather(*(add(name) for name in names for _ in range(each)))

    async def add_secret(self, runner: Runner, token: str, **more: Any) -> None:
        body = {
            "metadata": {"name": runner.secret, "labels": self.labels(runner)},
            "stringData": {NAMES.secret_key: token},
        } | more
        path = collection(runner.namespace, SECRETS)
        await self.admin.expect("POST", path, body, fieldManager=PLATFORM_MANAGER)

    async def add_quota(self, namespace: str, *, secrets: int) -> None:
        """Limit a namespace to this many more Secrets.

        We update the quota's count, since there is no controller manager.
        """
        path = collection(namespace, "resourcequotas")
        there = len((await self.admin.expect("GET", collection(namespace, SECRETS)))["items"])
        hard, used = ({"count/secrets": str(count)} for count in (there + secrets, there))
        body = {"metadata": {"name": "objects"}, "spec": {"hard": hard}}
        await self.admin.call("POST", path, body)
        await self.admin.expect(
            "PATCH", f"{path}/objects/status", {"status": {"hard": hard, "used": used}},
            content_type=MERGE,
        )  # fmt: skip

    async def refuse_writes(self, runner: Runner, *, policy: str) -> None:
        """Refuse every write of a session's Secret with a 403, and wait until that is effective."""
        rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["UPDATE"],
                "resources": [SECRETS], "resourceNames": [runner.secret]}  # fmt: skip
        spec = {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": "false", "reason": "Forbidden"}],
        }
        binding = {"policyName": policy, "validationActions": ["Deny"]}
        for kind, body in (("ies", spec), ("ybindings", binding)):
            path = f"/apis/admissionregistration.k8s.io/v1/validatingadmissionpolic{kind}"
            await self.admin.expect("POST", path, {"metadata": {"name": policy}, "spec": body})
        probe = {"metadata": {"annotations": {"example.com/probe": "x"}}}
        path = item(runner.namespace, SECRETS, runner.secret)
        async with asyncio.timeout(LIMIT_S):
            while (
                await self.admin.call("PATCH", path, probe, content_type=MERGE, dryRun="All")
            ).status != 403:
                await asyncio.sleep(0.05)

    def labels(self, runner: Runner) -> dict[str, str]:
        return {
            NAMES.session_id: runner.session_id,
            NAMES.project_id: runner.project or runner.namespace,
            NAMES.managed: "true",
            NAMES.managed_by_label: PLATFORM_MANAGER,
        }

    async def read_all(self) -> None:
        """Read what the product may have written: what is read is searched for secrets."""
        leases = "/apis/coordination.k8s.io/v1/namespaces"
        try:
            for namespace in {self.home, *(runner.namespace for runner in self.runners)}:
                for plural in (SECRETS, PODS, "events"):
                    await self.admin.call("GET", collection(namespace, plural), limit="500")
                await self.admin.call("GET", f"{leases}/{namespace}/leases")
        except (aiohttp.ClientConnectionError, TimeoutError):
            return  # the test has stopped its API server

    async def secret(self, runner: Runner) -> dict[str, Any]:
        return await self.admin.expect("GET", item(runner.namespace, SECRETS, runner.secret))

    async def pod(self, runner: Runner) -> dict[str, Any]:
        return await self.admin.expect("GET", item(runner.namespace, PODS, runner.pod))

    async def token(self, runner: Runner) -> str:
        """Read the token as a runner would."""
        return token_in(await self.secret(runner))


def token_in(secret: dict[str, Any]) -> str:
    return base64.b64decode(secret["data"][NAMES.secret_key]).decode()


class ExpiryWatch:
    """Reads every version of the Secrets and counts expired-token seconds.

    A Secret counts from the first valid token of the controller; from then on, the time after the
    `exp` of its newest token is added.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._expires_s: dict[str, EpochTime] = {}
        self._tokens: dict[str, str] = {}
        self.versions: dict[str, int] = {}
        self.expired_s = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator["ExpiryWatch"]:
        namespaces = {runner.namespace for runner in self._world.runners}
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._follow(namespace)) for namespace in namespaces]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                self.close()

    @asynccontextmanager
    async def polling(self, *, every_s: float = 0.25) -> AsyncIterator["ExpiryWatch"]:
        """Like `running`, by lists, which go on where a restart of the API server ends a watch."""
        task = asyncio.create_task(self._poll(every_s))
        try:
            yield self
            self.close()
        finally:
            task.cancel()

    async def _poll(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            for namespace in {runner.namespace for runner in self._world.runners}:
                try:
                    listed = await self._world.admin.call("GET", collection(namespace, SECRETS))
                except (aiohttp.ClientError, TimeoutError):
                    continue  # the server is not there: the next list has the same versions
                present = {runner.secret for runner in self._world.runners}
                for secret in listed.body.get("items", ()):
                    # One of a session that has ended since then would count without end.
                    if secret["metadata"]["name"] in present:
                        self.seen(secret)

    async def _follow(self, namespace: str) -> None:
        async with self._world.admin.watch(collection(namespace, SECRETS)) as lines:
            async for line in lines:
                event = json.loads(line)
                if event["type"] in ("ADDED", "MODIFIED"):
                    self.seen(event["object"])

    def close(self) -> None:
        """Add the expired time up to now."""
        for name in self._expires_s:
            self._account(name)

    def seen(self, secret: dict[str, Any]) -> None:
        """Record a version of a Secret; a known version changes nothing."""
        token = token_in(secret)
        if token not in self._world.issuer.issued:
            return
        name = f"{secret['metadata']['namespace']}/{secret['metadata']['name']}"
        if self._tokens.get(name) == token:
            return
        self._account(name)
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        self._expires_s[name] = claims["exp"]
        self._tokens[name] = token
        self.versions[name] = self.versions.get(name, 0) + 1

    def forget(self, runner: Runner) -> None:
        """Count a session up to now, and no longer: it has ended."""
        name = f"{runner.namespace}/{runner.secret}"
        self._account(name)
        self._expires_s.pop(name, None)

    def _account(self, name: str) -> None:
        """Add the time since the former token expired."""
        expired_s = self._world.issuer.now_s() - self._expires_s.get(name, NEVER)
        self.expired_s += max(0.0, expired_s)


def _accepts(issuer: Issuer, token: str) -> bool:
    try:
        issuer.verify(token)
    except TokenRejected:
        return False
    return True


@asynccontextmanager
async def open_world(
    control_plane: ControlPlane,
    admin: Admin,
    folder: Path,
    *,
    ttl_s: float = 900.0,
    host: str = "127.0.0.1",
    issuer_port: int = 0,
    platform_port: int = 0,
    installs: bool = True,
) -> AsyncIterator[World]:
    """Start an issuer and a platform for a control plane; port 0: a free one.

    Args:
        installs: Whether to apply the account of the manifests with its permissions and policies;
            if not, the caller sets the `KUBECONFIG` of another account.
    """
    async with (
        Issuer(ttl_s=ttl_s, host=host, port=issuer_port) as issuer,
        LabPlatform(partial(_accepts, issuer), host=host, port=platform_port) as platform,
    ):
        home = f"reconciler-{secrets.token_hex(4)}"
        await admin.create_namespace(home)
        token = await install(admin, control_plane, home) if installs else ""
        world = World(admin, control_plane, issuer, platform, folder, home, token)
        yield world
        await world.read_all()


@asynccontextmanager
async def open_fleet(
    control_plane: ControlPlane, folder: Path, *, sessions: int, ttl_s: float
) -> AsyncIterator[World]:
    """Open a world whose one project has `sessions` sessions."""
    connected = Admin.connect(
        control_plane.url, ca_file=control_plane.ca_file, token=control_plane.admin_token
    )
    async with connected as admin, open_world(control_plane, admin, folder, ttl_s=ttl_s) as world:
        project = await world.add_project()
        for _ in range(sessions):
            await world.add(project)
        yield world
