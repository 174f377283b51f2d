"""Sessions in the lab's API server with the tokens of a real issuer, and their expired time."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from reconciler.clock import EpochTime, SystemClock
from reconciler.lab.apiserver import kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.rbac import EVERYTHING, Authorizer, User
from reconciler.lab.apiserver.write_log import Caller, Commit
from reconciler.lab.cluster import fixtures
from reconciler.lab.cluster.fixtures import LabSession
from reconciler.lab.platform.server import LabPlatform
from reconciler.naming import Names
from tests.issuers.issuer import CLIENT_ID, POLL_S, Json, RealIssuer
from tests.secrecy.outputs import OUTPUTS

NAMES = Names()
HOME = "ambient-code"
PROJECT = "team-a"
PLATFORM = Caller(manager=NAMES.managed_by)
OLD_TOKEN = "obviously-fake-token-of-before"


@dataclass
class Account:
    """The tokens of one session's Secret, by this machine's clock, which is also the issuer's.

    Args:
        expires_s: Expiry of the token in the Secret; None before the first one.
        expired_s: Seconds with an expired token, after the first one.
    """

    expires_s: EpochTime | None = None
    expired_s: float = 0.0
    tokens: list[str] = field(default_factory=list)
    kids: list[str] = field(default_factory=list)


class Fleet:
    """An API server and a platform with running sessions in them; the issuer is a real one.

    Attributes:
        claims: The issuer's claims of each token that a Secret has had, read when it first appears:
            an issuer gives none of an expired token.
    """

    def __init__(self, issuer: RealIssuer, core: Core, server: ApiServer, folder: Path) -> None:
        self.issuer = issuer
        self.platform = LabPlatform()
        self.accounts: dict[str, Account] = {}
        self.patches = 0
        self.claims: dict[str, Json] = {}
        self._core = core
        self._server = server
        self._folder = folder
        self._clock = SystemClock()
        self._written: asyncio.Queue[tuple[str, str, EpochTime]] = asyncio.Queue()
        self._news = asyncio.Condition()
        self._judging: asyncio.Task[None] | None = None
        self._is_judgement_over = False

    def environment(self, **settings: str) -> dict[str, str]:
        """Return what `reconciler run` and `check` need; the client's secret is in a file."""
        kubeconfig = self._folder / "kubeconfig"
        kubeconfig.write_text(self._server.kubeconfig(token="admin"))
        self.put_secret(self.issuer.client_secret)
        return {
            "KUBECONFIG": str(kubeconfig),
            "AMBIENT_API_SERVER_URL": self.platform.url,
            "OIDC_TOKEN_URL": self.issuer.token_url,
            "OIDC_CLIENT_ID": CLIENT_ID,
            "OIDC_CLIENT_SECRET_FILE": str(self._folder / "client-secret"),
            "NAMESPACE": HOME,
            "RECONCILER_LISTEN": "127.0.0.1:0",
            "RECONCILER_LOG_FORMAT": "json",
            "RECONCILER_PROPAGATION_ALLOWANCE_S": "5",
        } | settings

    def put_secret(self, secret: str) -> None:
        """Replace the file with the client's secret atomically, as a kubelet does."""
        OUTPUTS.add_secret(secret, "the client secret of a real issuer")
        new = self._folder / "client-secret.new"
        new.write_text(f"{secret}\n")
        new.replace(self._folder / "client-secret")

    def add(self, count: int) -> None:
        """Begin sessions as the platform does: its row, the Secret with an old token, the pod."""
        for number in range(count):
            session = fixtures.new_session(NAMES, f"2AbRealIssuer{number:04d}", PROJECT)
            self.accounts[session.secret] = Account()
            self.platform.add_session(session.session_id, PROJECT)
            self._create(session)

    def put_token(self, token: str) -> None:
        """Write this token into every Secret, as another writer."""
        for secret in self.accounts:
            body = {"stringData": {NAMES.secret_key: token}}
            self._core.patch(kinds.SECRETS, PROJECT, secret, body, by=PLATFORM)

    async def wait_for_writes(self, count: int, *, limit_s: float = 60.0) -> None:
        """Wait until every session's Secret has got this many more tokens.

        Raises:
            AssertionError: As of `wait_for`.
        """
        wanted = {name: len(one.tokens) + count for name, one in self.accounts.items()}
        await self.wait_for(
            f"{count} tokens more in each Secret",
            lambda: all(len(self.accounts[n].tokens) >= k for n, k in wanted.items()),
            limit_s=limit_s,
        )

    async def wait_for_life(self, ttl_s: int, *, limit_s: float) -> None:
        """Wait until each Secret's token has this life, seconds, by its claims."""

        def is_so(account: Account) -> bool:
            claims = self.claims[account.tokens[-1]]
            return bool(claims["exp"] - claims["iat"] == ttl_s)

        await self.wait_for(
            f"tokens of {ttl_s} s", lambda: all(map(is_so, self.accounts.values())), limit_s=limit_s
        )

    async def wait_for(
        self, what: str, condition: Callable[[], bool], *, limit_s: float = 60.0
    ) -> None:
        """Wait until a condition on the sessions holds.

        Raises:
            AssertionError: Not within `limit_s`, or a Secret has an invalid token.
        """
        try:
            async with asyncio.timeout(limit_s), self._news:
                await self._news.wait_for(lambda: self._is_judgement_over or condition())
        except TimeoutError:
            counts = {name: len(one.tokens) for name, one in self.accounts.items()}
            raise AssertionError(
                f"not within {limit_s:g} s: {what}; tokens so far: {counts}"
            ) from None
        if self._is_judgement_over and self._judging is not None:
            await self._judging  # raises why

    @property
    def kids(self) -> set[str]:
        """The keys that the tokens in the Secrets are signed with."""
        return {account.kids[-1] for account in self.accounts.values()}

    @property
    def expired_s(self) -> float:
        """Sum of the seconds in which a Secret had an expired token, up to now."""
        now_s = self._clock.wall()
        return sum(
            one.expired_s + max(0.0, now_s - (one.expires_s or now_s))
            for one in self.accounts.values()
        )

    def record(self, commit: Commit) -> None:
        """Record one commit of the store."""
        if commit.kind is not kinds.SECRETS or commit.removed:
            return
        name = commit.object["metadata"]["name"]
        encoded = commit.object.get("data", {}).get(NAMES.secret_key, "")
        token = base64.b64decode(encoded).decode()
        if commit.verb == "patch":
            self.patches += 1
        account = self.accounts.get(name)
        if account is None or token == OLD_TOKEN or token in account.tokens[-1:]:
            return
        self._written.put_nowait((name, token, self._clock.wall()))

    @asynccontextmanager
    async def judged(self) -> AsyncIterator[None]:
        """Read each token's expiry from the issuer while entered, and count expired seconds.

        Raises:
            AssertionError: At the end, in every case: the issuer reported a Secret's token as
                invalid.
        """
        self._judging = asyncio.create_task(self._judge(), name="judge")
        try:
            yield
        finally:
            self._judging.cancel()
            await asyncio.wait((self._judging,))
            if not self._judging.cancelled():
                self._judging.result()

    async def _judge(self) -> None:
        try:
            while True:
                await self._take_one()
                async with self._news:
                    self._news.notify_all()
        finally:
            self._is_judgement_over = True
            async with self._news:  # who waits for writes hears of it
                self._news.notify_all()

    async def _take_one(self) -> None:
        name, token, at_s = await self._written.get()
        if token not in self.claims:
            self.claims[token] = await self._ask_of(token)
        account = self.accounts[name]
        account.expired_s += max(0.0, at_s - (account.expires_s or at_s))
        account.expires_s = EpochTime(self.claims[token]["exp"])
        account.tokens.append(token)
        account.kids.append(_kid(token))

    async def _ask_of(self, token: str) -> Json:
        """Request the claims until the issuer answers: it may be restarting."""
        while True:
            try:
                return await self.issuer.claims(token)
            except (aiohttp.ClientError, TimeoutError):
                await asyncio.sleep(POLL_S)

    def _create(self, session: LabSession) -> None:
        body = fixtures.secret_body(NAMES, session, OLD_TOKEN)
        self._core.create(kinds.SECRETS, PROJECT, body, by=PLATFORM)
        self._core.create(kinds.PODS, PROJECT, fixtures.pod_body(NAMES, session), by=PLATFORM)


@asynccontextmanager
async def open_fleet(issuer: RealIssuer, folder: Path, *, sessions: int) -> AsyncIterator[Fleet]:
    """Start an API server and a platform with this many sessions, and count expired seconds."""
    core = Core(SystemClock())
    rights = Authorizer({"admin": User("admin", (EVERYTHING,))})
    async with ApiServer(core, authorizer=rights) as server:
        fleet = Fleet(issuer, core, server, folder)
        core.on_commit.append(fleet.record)
        for namespace in (HOME, PROJECT):
            core.create(kinds.NAMESPACES, "", {"metadata": {"name": namespace}})
        async with fleet.platform:
            fleet.platform.add_project(PROJECT)
            fleet.add(sessions)
            async with fleet.judged():
                yield fleet


def _kid(token: str) -> str:
    """Return the `kid` of a JWT's header, "" of any other token."""
    head = token.split(".")[0]
    if not token.startswith("eyJ"):
        return ""
    decoded = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
    return str(decoded.get("kid", ""))
