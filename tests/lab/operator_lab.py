"""An API server with sessions, and users with different permissions, for the commands."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reconciler.clock import SystemClock, format_utc, format_utc_millis
from reconciler.controller.decide.confirmation_mac import ConfirmationMac
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.rbac import EVERYTHING, Authorizer, Rule, User
from reconciler.lab.apiserver.write_log import Caller
from reconciler.lab.cluster import fixtures
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.naming import Names, SessionKey
from tests.commands import Ended, command
from tests.lab.leaks import find_leaks

NAMES = Names()
TOKEN = "obviously-fake-token-of-a-runner"
READER = (Rule(("list",), ("pods", "secrets", "events")),)
WRITER = (*READER, Rule(("patch",), ("pods",)))
CONTROLLER = Caller(manager=NAMES.field_manager)
PLATFORM = Caller(manager=NAMES.managed_by)
TTL_S = 900.0


class PastClock(SystemClock):
    """This machine's clocks; a test may set the wall clock back for a moment."""

    def __init__(self) -> None:
        super().__init__()
        self._real = self.wall

    @contextmanager
    def ago(self, seconds: float) -> Iterator[None]:
        self.wall = lambda: self._real() - seconds
        try:
            yield
        finally:
            self.wall = self._real


@dataclass
class Lab:
    """An API server with sessions, and a kubeconfig for each kind of user.

    Attributes:
        start: What `run` starts in place of `reconciler`.
    """

    server: ApiServer
    folder: Path
    clock: PastClock
    start: Sequence[str] = ()

    def kubeconfig(self, token: str, *, namespace: str = "team-a") -> str:
        path = self.folder / f"{token}-{namespace}"
        path.write_text(self.server.kubeconfig(token=token, namespace=namespace))
        return str(path)

    async def run(self, *words: str, user: str = "reader", **settings: str) -> Ended:
        """Run a command; its output must contain no token."""
        settings = {"KUBECONFIG": self.kubeconfig(user)} | settings
        ended = await command(*words, start=self.start, **settings)
        leaks = find_leaks({"out": ended.stdout, "err": ended.stderr}, [TOKEN, user + "-token"])
        assert leaks == []
        assert "Traceback" not in ended.stderr
        return ended

    def add(
        self,
        name: str,
        *,
        namespace: str = "team-a",
        age_s: float | None = 10.0,
        annotations: dict[str, str] | None = None,
        on_pod: dict[str, str] | None = None,
        secret: bool = True,
    ) -> LabSession:
        """Make a session; with an age, its token was written by the controller."""
        core = self.server.core
        if core.peek(kinds.NAMESPACES, namespace) is None:
            core.create(kinds.NAMESPACES, "", {"metadata": {"name": namespace}})
        session = fixtures.new_session(NAMES, name, namespace)
        body: Any = fixtures.pod_body(NAMES, session)
        body["metadata"]["annotations"] = on_pod or {}
        core.create(kinds.PODS, namespace, body, by=PLATFORM)
        if secret:
            made = fixtures.secret_body(NAMES, session, TOKEN)
            core.create(kinds.SECRETS, namespace, made, by=PLATFORM)
            if age_s is not None:
                self.write(session, age_s=age_s, annotations=annotations)
        return session

    def write(
        self, session: LabSession, *, age_s: float = 0.0, annotations: dict[str, str] | None = None
    ) -> None:
        """Put a token into a Secret as the controller does, issued `age_s` ago."""
        issued_s = SystemClock().wall() - age_s
        written = {
            NAMES.issued_at: format_utc(issued_s),
            NAMES.expires_at: format_utc(issued_s + TTL_S),
            NAMES.refreshed_at: format_utc_millis(issued_s),
            NAMES.refreshed_by: "replica-0/fake",
            NAMES.confirmation: self._confirmation(session),
        }
        patch = {
            "metadata": {"annotations": written | (annotations or {})},
            "stringData": {NAMES.secret_key: f"{TOKEN}-{issued_s}"},
        }
        where = (kinds.SECRETS, session.namespace, session.secret)
        with self.clock.ago(age_s):
            self.server.core.patch(*where, patch, by=CONTROLLER)

    def _confirmation(self, session: LabSession) -> str:
        secret = self.server.core.get(kinds.SECRETS, session.namespace, session.secret)
        key = SessionKey(session.namespace, session.session_id)
        return ConfirmationMac("obviously-fake-client-secret").make(key, secret["metadata"]["uid"])

    def pod(self, session: LabSession) -> Any:
        return self.server.core.get(kinds.PODS, session.namespace, session.pod)

    def annotation(self, session: LabSession, name: str) -> str | None:
        found: str | None = self.pod(session)["metadata"].get("annotations", {}).get(name)
        return found


@asynccontextmanager
async def open_lab(folder: Path, *, start: Sequence[str] = ()) -> AsyncIterator[Lab]:
    """Start the server; each user's token is its role: admin, reader, writer, `nobody`."""
    rights = Authorizer(
        {
            "admin": User("admin", (EVERYTHING,)),
            "reader": User("reader", READER),
            "writer": User("writer", WRITER),
            "nobody": User("nobody"),
        }
    )
    clock = PastClock()
    async with ApiServer(Core(clock), authorizer=rights, bookmark_s=0.2) as server:
        yield Lab(server, folder, clock, start)
