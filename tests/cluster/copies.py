"""Many sessions in little time: copies of one session's stored objects, put into etcd.

The API server creates some hundred sessions a second, etcd takes some ten thousand. Each text that
differs has the length of the original's, so that a copy is valid in the API server's binary form.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from uuid import uuid4

import aiohttp

from tests.cluster.admin import PODS, SECRETS
from tests.cluster.world import Runner, World

OPERATIONS = 100
"""Puts of one transaction; etcd's default limit is 128."""

PARALLEL = 4

LIMIT_S = 60.0


class Etcd:
    """The storage of an API server: its keys and values."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http

    @classmethod
    @asynccontextmanager
    async def connect(cls, socket: Path) -> AsyncIterator["Etcd"]:
        connector = aiohttp.UnixConnector(path=str(socket))
        timeout = aiohttp.ClientTimeout(total=LIMIT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
            yield cls(http)

    async def get(self, key: str) -> bytes:
        found = await self._call("range", {"key": _encoded(key.encode())})
        return base64.b64decode(found["kvs"][0]["value"])

    async def put(self, values: Mapping[str, bytes]) -> None:
        """Put all values, some at a time."""
        pairs = iter(values.items())

        async def work() -> None:
            while batch := list(islice(pairs, OPERATIONS)):
                puts = [
                    {"requestPut": {"key": _encoded(key.encode()), "value": _encoded(value)}}
                    for key, value in batch
                ]
                await self._call("txn", {"success": puts})

        await asyncio.gather(*(work() for _ in range(PARALLEL)))

    async def _call(self, what: str, body: object) -> dict[str, list[dict[str, str]]]:
        async with self._http.post(f"http://etcd/v3/kv/{what}", json=body) as response:
            response.raise_for_status()
            found: dict[str, list[dict[str, str]]] = await response.json()
            return found


def _encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


async def add_copies(world: World, original: Runner, projects: Iterable[str]) -> list[Runner]:
    """Create one session for each item of `projects` as `World.add` does; return them.

    Args:
        original: A session that `World.add` made, whose pod and Secret are unchanged since.
    """
    copies = [_copy(original, project) for project in projects]
    async with Etcd.connect(world.control_plane.etcd_socket) as etcd:
        for kind, name in ((SECRETS, original.secret), (PODS, original.pod)):
            await copy_object(world, etcd, kind, name, original, copies)
    for runner in copies:
        world.platform.add_session(runner.session_id, runner.project)
    world.runners += copies
    return copies


async def copy_object(
    world: World, etcd: Etcd, kind: str, name: str, original: Runner, copies: Iterable[Runner]
) -> None:
    """Put a copy of one object of the original session for each other session."""
    path = f"/api/v1/namespaces/{original.namespace}/{kind}/{name}"
    uid = (await world.admin.expect("GET", path))["metadata"]["uid"]
    key = f"/registry/{kind}/{original.namespace}/{name}"
    value = await etcd.get(key)
    values: dict[str, bytes] = {}
    for runner in copies:
        texts = {
            original.session_id: runner.session_id,
            original.session_id.lower(): runner.session_id.lower(),
            original.namespace: runner.namespace,
            uid: str(uuid4()),
        }
        values[_replaced(key.encode(), texts).decode()] = _replaced(value, texts)
    await etcd.put(values)


def _copy(original: Runner, project: str) -> Runner:
    session_id = f"2Ab{secrets.token_hex(12)}"
    old, new = original.session_id.lower(), session_id.lower()
    secret, pod = original.secret.replace(old, new), original.pod.replace(old, new)
    return Runner(session_id, project, secret, pod, project)


def _replaced(value: bytes, texts: Mapping[str, str]) -> bytes:
    for old, new in texts.items():
        if len(old) != len(new):
            raise ValueError(f"{new!r} has not the length of {old!r}")
        value = value.replace(old.encode(), new.encode())
    return value
