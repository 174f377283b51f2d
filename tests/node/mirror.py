"""A site's own registry, mirror.example, which the node and the guide's commands reach by name."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.process import Server
from tests.node import network

NAME = "mirror.example"
PORT = 80
LIMIT_S = 30.0
POLL_S = 0.1

CONFIGURATION = """
version: 0.1
storage: {{filesystem: {{rootdirectory: {folder}/blobs}}}}
http: {{addr: "{address}:{port}"}}
"""
HOSTS = f"""
server = "http://{NAME}"
[host."http://{NAME}"]
  capabilities = ["pull", "resolve"]
"""
INSECURE = f"""
[[registry]]
location = "{NAME}"
insecure = true
"""


@contextmanager
def mirror(folder: Path, *, home: Path, registries: Path) -> Iterator[None]:
    """Run the registry without TLS, inside the tests' own namespaces.

    Args:
        home: Home of the user who runs the guide's commands.
        registries: containerd's folder of registries.
    """
    address = network.add_address()
    file = folder / "registry.yaml"
    file.write_text(CONFIGURATION.format(folder=folder, address=address, port=PORT))
    for path, text in (
        (registries / NAME / "hosts.toml", HOSTS),
        (home / ".config/containers/registries.conf", INSECURE),
        (folder / "hosts", f"{Path('/etc/hosts').read_text()}\n{address} {NAME}\n"),
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    command = ["/usr/bin/docker-registry", "serve", str(file)]
    server = Server("docker-registry", command, log=folder / "registry.log")
    subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True, timeout=LIMIT_S)
    try:
        server.start()
        _wait_listening(server, address)
        yield
    finally:
        server.kill()
        subprocess.run(["umount", "/etc/hosts"], check=True, timeout=LIMIT_S)


def _wait_listening(server: Server, address: str) -> None:
    deadline_at = time.monotonic() + LIMIT_S
    while True:
        try:
            socket.create_connection((address, PORT), timeout=LIMIT_S).close()
        except OSError as error:
            if not server.alive or time.monotonic() > deadline_at:
                raise server.failed("does not listen") from error
            time.sleep(POLL_S)
        else:
            return
