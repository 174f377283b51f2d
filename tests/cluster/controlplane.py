"""A real kube-apiserver on a real etcd, for tests and benches; no node, no controller manager.

Everything is synchronous; an async test calls it through `asyncio.to_thread`. This
cluster lacks default ServiceAccounts (the admission plugin that requires them is off), a
scheduler, kubelets, garbage collection, and the end of terminating namespaces.
"""

import contextlib
import http.client
import json
import random
import shutil
import socket
import ssl
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.cluster.credentials import ADMIN, Credentials, kubeconfig
from tests.cluster.process import Server, ServerError

READY_LIMIT_S = 50.0
"""Ready 3.5 s after start on an idle machine; builds and other tests may run at the same time."""

HTTPS = 443

POLL_S = 0.05
ASK_LIMIT_S = 5.0
PORT_TRIES = 5
PORTS = range(20_000, 32_000)
"""Below the ephemeral range (32768 up on Linux): while our server is down for an outage test, no
outgoing connection of another process is given its port."""

_TAKEN = "address already in use"


class ControlPlane:
    """One etcd and one kube-apiserver on loopback, in a temporary directory.

    Args:
        binaries: Name -> path, as `tests.assets.find` returns it.
        flags: More kube-apiserver flags; a later flag overrides an earlier one.
        ready_limit_s: Longest wait for each start.
        node_addresses: Serve a node as well: on these addresses of this machine, at port 443, with
            ServiceAccounts demanded of every pod. For a separate network namespace only.
    """

    def __init__(
        self,
        binaries: Mapping[str, Path],
        *,
        flags: Iterable[str] = (),
        ready_limit_s: float = READY_LIMIT_S,
        node_addresses: Sequence[str] = (),
    ) -> None:
        self.binaries = binaries
        self._node_addresses = node_addresses
        self._flags = list(flags)
        self._ready_limit_s = ready_limit_s
        # Short, as unix sockets live in it and their paths end at 107 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="cp-"))
        self._credentials = Credentials(self._folder, node_addresses)
        self._trust = ssl.create_default_context(cafile=str(self.ca_file))
        self._data, self._copy = self._folder / "etcd", self._folder / "etcd-copy"
        self.etcd = self._etcd_server()
        self._port = 0
        self._apiserver: Server | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<ControlPlane {self.url} {self.etcd!r} {self._apiserver!r}>"

    @property
    def url(self) -> str:
        """`https://127.0.0.1:PORT`; stays the same until `stop`."""
        return f"https://127.0.0.1:{self._port}"

    @property
    def account_key(self) -> Path:
        """PEM file of the key that signs ServiceAccount tokens."""
        return self._credentials.account_key

    @property
    def ca_file(self) -> Path:
        """PEM file that verifies the server."""
        return self._credentials.serving_cert

    @property
    def certificate(self) -> tuple[Path, Path]:
        """PEM files of the serving certificate and its key, for a proxy in front of the server."""
        return self._credentials.serving_cert, self._credentials.serving_key

    @property
    def admin_token(self) -> str:
        """Bearer token of a member of system:masters (exempt from priority and fairness, too)."""
        return self.token_for(ADMIN)

    def token_for(self, user: str) -> str:
        """Return the bearer token of one of `credentials.USERS`; raises KeyError for others."""
        return self._credentials.tokens[user]

    def kubeconfig(self, path: Path, *, user: str = ADMIN) -> Path:
        """Write a kubeconfig for `user` to `path`, readable by its owner only; return `path`."""
        text = kubeconfig(url=self.url, ca_file=self.ca_file, user=user, token=self.token_for(user))
        path.touch(mode=0o600)
        path.write_text(text)
        return path

    def start(self) -> None:
        """Start both servers and wait until ready; after a failure none runs.

        Raises:
            ServerError: With the last lines of the log of the server that failed.
        """
        try:
            self.etcd.start()
            self._start_onfree_port()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill both servers and delete their data; idempotent.

        After a SIGTERM the API server would drain for a minute.
        """
        if self._apiserver is not None:
            self._apiserver.kill()
        self.etcd.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def kill_apiserver(self) -> None:
        """End the API server as a crash would; etcd keeps the data."""
        self._running().kill()

    def start_apiserver(self) -> None:
        """Start a killed API server on its old port and wait until it is ready.

        Raises:
            ServerError: It ended, the port is taken, or it is not ready in time.
        """
        server = self._running()
        server.start()
        self._wait_ready(server)

    def restart_apiserver(self) -> None:
        """Kill and start the API server: every watch breaks, all data stays."""
        self.kill_apiserver()
        self.start_apiserver()

    def revision(self) -> int:
        """Return etcd's revision, as the API server sees it."""
        status, words = self._ask("/api/v1/namespaces?limit=1", self._port)
        if status != http.HTTPStatus.OK:
            raise ServerError(f"a list got {status}")
        return int(json.loads(words)["metadata"]["resourceVersion"])

    def back_up(self) -> None:
        """Keep a copy of etcd's data, taken while both servers are stopped."""
        self._stopped()
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._data, self._copy)
        self._go_on()

    def restore(self) -> None:
        """Restore the copy of `back_up`, as after a disaster: revisions continue from there."""
        self._stopped()
        shutil.rmtree(self._data)
        shutil.copytree(self._copy, self._data)
        self._go_on()

    def _stopped(self) -> None:
        self.kill_apiserver()
        self.etcd.kill()

    def _go_on(self) -> None:
        self.etcd.start()
        self.start_apiserver()

    def pause(self) -> None:
        """Freeze the API server: the kernel accepts connections, and no request gets an answer."""
        self._running().pause()

    def resume(self) -> None:
        """Undo `pause`; requests that waited are answered now."""
        self._running().resume()

    def _running(self) -> Server:
        if self._apiserver is None:
            raise ServerError("the control plane was not started")
        return self._apiserver

    def _etcd_server(self) -> Server:
        """Start etcd on unix sockets: no port that another process could take, no network.

        Of the peer URL etcd uses only the (empty) host, so that the kernel chooses a name; a single
        member has no peer.
        """
        client, peer = self.etcd_url, f"unix://{self._folder}/peer.sock"
        command = [
            str(self.binaries["etcd"]),
            "--name=test",
            f"--data-dir={self._data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            "--unsafe-no-fsync",
            # The default of 2 GiB is full after some writes of 100,000 objects.
            f"--quota-backend-bytes={8 * 2**30}",
            "--log-level=warn",
        ]
        return Server("etcd", command, log=self._folder / "etcd.log")

    @property
    def etcd_socket(self) -> Path:
        """Where etcd serves its clients, without TLS and credentials."""
        return self._folder / "etcd.sock"

    @property
    def etcd_url(self) -> str:
        """The same for a client of gRPC."""
        return f"unix://{self.etcd_socket}"

    def _start_onfree_port(self) -> None:
        """Start the API server on a free port; on another one if that port was taken since."""
        for attempt in range(1, PORT_TRIES + 1):
            self._port = HTTPS if self._node_addresses else free_port()
            server = self._apiserver = self._apiserver_server(self._port)
            server.start()
            try:
                return self._wait_ready(server)
            except ServerError as error:
                if _TAKEN not in str(error) or attempt == PORT_TRIES:
                    raise
                server.kill()
                server.log.unlink()

    def _apiserver_server(self, port: int, binary: Path | None = None) -> Server:
        have = self._credentials
        command = [
            str(binary or self.binaries["kube-apiserver"]),
            f"--etcd-servers={self.etcd_url}",
            f"--bind-address={'0.0.0.0' if self._node_addresses else '127.0.0.1'}",  # noqa: S104
            # Without it the server looks for a network interface, which a sandbox may not have.
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--cert-dir={self._folder}/apiserver-{port}",
            f"--tls-cert-file={have.serving_cert}",
            f"--tls-private-key-file={have.serving_key}",
            f"--token-auth-file={have.token_file}",
            "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={have.account_public_key}",
            f"--service-account-signing-key-file={have.account_key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            # Without a node there is no default ServiceAccount, which it would require for pods.
            *([] if self._node_addresses else ["--disable-admission-plugins=ServiceAccount"]),
            *self._flags,
        ]
        return Server("kube-apiserver", command, log=self._folder / f"apiserver-{port}.log")

    @contextlib.contextmanager
    def another(self, binary: Path) -> Iterator[str]:
        """Run one more API server on the same etcd, as in a highly available cluster; its URL."""
        port = free_port()
        server = self._apiserver_server(port, binary)
        server.start()
        try:
            self._wait_ready(server, port)
            yield f"https://127.0.0.1:{port}"
        finally:
            server.kill()

    def _wait_ready(self, server: Server, port: int = 0) -> None:
        """Poll /readyz until it answers ok, within the limit.

        The answer comes from our server: its certificate is ours, no other process has the key,
        and the server accepts a token that we created.
        """
        deadline_at = time.monotonic() + self._ready_limit_s
        reason: str | None = "not asked"
        while time.monotonic() < deadline_at:
            if not self.etcd.alive:
                raise self.etcd.failed("ended")
            if not server.alive:
                raise server.failed("ended")
            reason = self._ask_ready(port or self._port)
            if reason is None:
                return
            time.sleep(POLL_S)
        raise server.failed(f"was not ready in {self._ready_limit_s:.0f} s ({reason})")

    def _ask_ready(self, port: int) -> str | None:
        """Request /readyz once; return None if ready, or else the reason."""
        try:
            status, words = self._ask("/readyz", port)
        except (OSError, http.client.HTTPException) as error:
            return str(error)
        return None if status == http.HTTPStatus.OK else f"{status} {words[:500]}"

    def _ask(self, path: str, port: int) -> tuple[int, str]:
        """Send one GET as the administrator; return status and body."""
        server = http.client.HTTPSConnection(
            "127.0.0.1", port, context=self._trust, timeout=ASK_LIMIT_S
        )
        with contextlib.closing(server):
            server.request("GET", path, headers={"Authorization": f"Bearer {self.admin_token}"})
            answer = server.getresponse()
            return answer.status, answer.read().decode(errors="replace")


def free_port() -> int:
    """Return a port of `PORTS` that no process listens on now."""
    for port in random.sample(PORTS, k=100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerError("no free port in 100 tries")
