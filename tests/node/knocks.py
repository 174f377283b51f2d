"""Connections from pods, and listeners in pods, to test which ones a policy allows."""

import asyncio
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

from tests.node.node import Node

PYTHON = "/opt/reconciler/bin/python3"

KNOCK = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
except (ConnectionRefusedError, TimeoutError):
    print("shut")
else:
    print("open")
"""

LISTEN = """
import socket, sys
with socket.create_server(("", int(sys.argv[1]))):
    print("listening", flush=True)
    sys.stdin.read()
"""

Answer = Literal["open", "shut"]


@dataclass(frozen=True, slots=True)
class Inside:
    """A running pod with our image, from which connections are tried."""

    node: Node
    namespace: str
    pod: str

    async def address(self) -> str:
        found = ("pod", self.pod, "-o", "jsonpath={.status.podIP}")
        return await asyncio.to_thread(self.node.kubectl, "get", "-n", self.namespace, *found)

    async def knock(self, host: str, port: int) -> Answer:
        """Try a connection; "shut": refused, or no answer for 5 s; any other result is an error."""
        command = ("--", PYTHON, "-c", KNOCK, host, str(port))
        words = await asyncio.to_thread(
            self.node.kubectl, "exec", "-n", self.namespace, self.pod, *command
        )
        return "open" if words.strip() == "open" else "shut"

    @asynccontextmanager
    async def listening(self, port: int) -> AsyncIterator[None]:
        """Listen on a port of the pod, at all its addresses."""
        process = await asyncio.create_subprocess_exec(
            "kubectl", f"--kubeconfig={self.node.kubeconfig}", "exec", "--stdin",
            "-n", self.namespace, self.pod, "--", PYTHON, "-c", LISTEN, str(port),
            stdin=PIPE, stdout=PIPE,
        )  # fmt: skip
        assert process.stdin
        assert process.stdout
        try:
            assert await process.stdout.readline() == b"listening\n"
            yield
        finally:
            process.stdin.close()  # it ends with its input
            await process.wait()
