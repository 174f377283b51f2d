"""`python -m tests.bench.storm_server SESSIONS`: the lab's servers, and a storm of pod changes.

It prints one JSON object, the environment of a controller. A line on standard input, `RATE SECONDS
URGENT`, then makes it change the annotations of the pods RATE times a second for SECONDS. In the
same time it overwrites URGENT tokens with an expired one, as another writer would. It prints a
second object: `rate`, the changes a second; `waits_s`, the time from each expired token to the
controller's write; `lag_p99_s` and `lag_worst_s`, how late this server's own event loop was, which
is a part of each wait.
"""

import asyncio
import gc
import json
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random

from reconciler.clock import Instant, SystemClock
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.rbac import EVERYTHING, Authorizer, User
from reconciler.lab.apiserver.write_log import Caller, Commit
from reconciler.lab.cluster import fixtures
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.lab.issuer.server import Issuer
from reconciler.lab.platform.server import LabPlatform
from reconciler.naming import Names
from tests.bench.figures import quantile
from tests.cluster.controlplane import free_port

NAMES = Names()
HOME = "ambient-code"
TOKEN = "obviously-fake-lab-token"
PROJECT_SESSIONS = 250
SLICE_S = 0.002
"""Between two groups of changes. A group of ten takes a millisecond, for which requests wait."""
HISTORY = 1_000_000
"""Changes that a watch may be behind: it does not have to list again."""
LIMIT_S = 60.0

PLATFORM = Caller(user="platform", manager=NAMES.managed_by)
CONTROLLER = "controller"


class StormServer:
    """A fleet in the lab's API server, without a kubelet: no other client watches its pods."""

    def __init__(self, sessions: int) -> None:
        self._random = Random(1)
        self._clock = SystemClock()
        self.core = Core(self._clock, seed="storm", history=HISTORY)
        self.issuer = Issuer()
        self.platform = LabPlatform(lambda token: bool(self.issuer.verify(token)))
        user = User(CONTROLLER, (EVERYTHING,))
        self.server = ApiServer(self.core, authorizer=Authorizer({TOKEN: user}))
        self._sessions: list[LabSession] = []
        self._written: dict[str, asyncio.Future[Instant]] = {}
        self._namespace(HOME)
        for number in range(sessions):
            self._add(f"2Ab{number:024d}", f"team-{number // PROJECT_SESSIONS}")
        self.core.on_commit.append(self._note)

    def _namespace(self, name: str) -> None:
        if self.core.peek(kinds.NAMESPACES, name) is None:
            self.core.create(kinds.NAMESPACES, "", {"metadata": {"name": name}}, by=PLATFORM)

    def _add(self, session_id: str, project: str) -> None:
        self._namespace(project)
        self.platform.add_project(project)
        self.platform.add_session(session_id, project)
        session = fixtures.new_session(NAMES, session_id, project)
        body = fixtures.secret_body(NAMES, session, "obviously-fake-old-token")
        self.core.create(kinds.SECRETS, project, body, by=PLATFORM)
        self.core.create(kinds.PODS, project, fixtures.pod_body(NAMES, session), by=PLATFORM)
        self._sessions.append(session)

    def environment(self, kubeconfig: Path) -> dict[str, str]:
        kubeconfig.write_text(self.server.kubeconfig(token=TOKEN))
        return {
            "KUBECONFIG": str(kubeconfig),
            "AMBIENT_API_SERVER_URL": self.platform.url,
            "OIDC_TOKEN_URL": self.issuer.token_url,
            "OIDC_CLIENT_ID": self.issuer.client_id,
            "OIDC_CLIENT_SECRET": self.issuer.client_secret,
            "NAMESPACE": HOME,
            "RECONCILER_LISTEN": f"127.0.0.1:{free_port()}",
            "RECONCILER_LOG_FORMAT": "json",
        }

    async def storm(self, *, rate: float, seconds: float, urgent: int) -> dict[str, object]:
        """Change pods at this rate; return what was reached, and the waits of the urgent."""
        waits = asyncio.create_task(self._make_urgent(urgent, seconds))
        began, changes = self._clock.monotonic(), 0
        lags_s = []
        while (passed_s := self._clock.monotonic() - began) < seconds:
            due = int(rate * passed_s) - changes
            # Behind, it makes no more at one time: requests are answered between the slices.
            for _ in range(min(due, max(1, int(rate * SLICE_S)))):
                self._change(changes)
                changes += 1
            pause_s = SLICE_S if due <= rate * SLICE_S else 0
            paused_at = self._clock.monotonic()
            await asyncio.sleep(pause_s)
            lags_s.append(self._clock.monotonic() - paused_at - pause_s)
        return {
            "rate": changes / passed_s,
            "waits_s": await waits,
            "lag_p99_s": quantile(lags_s, 0.99),
            "lag_worst_s": quantile(lags_s, 1.0),
        }

    def _change(self, number: int) -> None:
        session = self._sessions[number % len(self._sessions)]
        patch = {"metadata": {"annotations": {"example.invalid/heartbeat": f"{number}"}}}
        self.core.patch(kinds.PODS, session.namespace, session.pod, patch, by=PLATFORM)

    async def _make_urgent(self, count: int, seconds: float) -> list[float]:
        """Overwrite one token after another, spread over the storm, each of another session."""
        self.issuer.faults.token = "expired"
        expired = self.issuer.issue()
        self.issuer.clear_faults()
        waits = []
        for session in self._random.sample(self._sessions, count):
            await asyncio.sleep(seconds / count)
            waits.append(asyncio.create_task(self._overwrite(session, expired)))
        return [await wait for wait in waits]

    async def _overwrite(self, session: LabSession, token: str) -> float:
        written = self._written[session.secret] = asyncio.get_running_loop().create_future()
        began = self._clock.monotonic()
        patch = {"stringData": {NAMES.secret_key: token}}
        self.core.patch(kinds.SECRETS, session.namespace, session.secret, patch, by=PLATFORM)
        async with asyncio.timeout(LIMIT_S):
            waited_s: float = await written - began
        return waited_s

    def _note(self, commit: Commit) -> None:
        if commit.kind is not kinds.SECRETS or commit.user != CONTROLLER:
            return
        written = self._written.pop(commit.object["metadata"]["name"], None)
        if written is not None:
            written.set_result(commit.at)


async def main() -> None:
    # The changes stay in the history, and none is part of a cycle: to collect garbage would be to
    # read all of them again and again, at the end for seconds, in which no request is answered.
    gc.disable()
    found = StormServer(int(sys.argv[1]))
    async with AsyncExitStack() as stack:
        for part in (found.issuer, found.platform, found.server):
            await stack.enter_async_context(part)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="storm-")))
        print(json.dumps(found.environment(folder / "kubeconfig")), flush=True)
        line = await asyncio.to_thread(sys.stdin.readline)
        if not line:
            return
        rate, seconds, urgent = line.split()
        result = await found.storm(rate=float(rate), seconds=float(seconds), urgent=int(urgent))
        print(json.dumps(result), flush=True)
        await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main())
