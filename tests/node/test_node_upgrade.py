"""docs/upgrade.md and the private CA of docs/install.md on a real node, word for word.

The file is collected before test_removal.py, which removes the installation.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import yaml
from yarl import URL

from tests.image.build import IMAGE
from tests.lab.tls import Certificate, make_certificate, serving
from tests.node import network
from tests.node.guide import UPGRADE, blocks, commands
from tests.node.installation import LABEL, Installation

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]

NEXT_TAG = "0.1.1"


async def images(installed: Installation) -> set[str]:
    """Return the images that our pods' specifications name; the runtime shows any tag of each."""
    pods = ("get", "pods", "-n", installed.namespace, "-l", LABEL)
    answer = await installed.kubectl(*pods, "-o", "jsonpath={.items[*].spec.containers[0].image}")
    return set(answer.split())


async def test_an_upgrade_and_its_rollback_cost_no_session_its_token(
    installed: Installation,
) -> None:
    [upgrade, _] = blocks("sh", under="Upgrade", guide=UPGRADE)
    [roll_back] = blocks("sh", under="Roll back", guide=UPGRADE)
    name = IMAGE.rpartition(":")[0]
    newer = f"{name}:{NEXT_TAG}"
    installed.node.runtime.tag(IMAGE, newer)
    site = installed.home / "site/kustomization.yaml"
    before = site.read_text()
    former = await installed.settled()
    named = f"newName: {name}\n"
    assert named in before
    site.write_text(before.replace(named, f"{named}    newTag: {NEXT_TAG}\n"))
    apply, status, check = commands(upgrade)
    for command in (apply, status):
        await installed.sh(command)
    later = await installed.settled()
    assert not former & later
    assert "FAIL" not in await installed.sh(check)
    assert await images(installed) == {newer}
    await installed.everybody_renewed()
    for command in commands(roll_back):
        await installed.sh(command)
    assert not later & await installed.settled()
    assert await images(installed) == {IMAGE}
    await installed.everybody_renewed()
    site.write_text(before)


@asynccontextmanager
async def tls_front(address: str, certificate: Certificate, to: URL) -> AsyncIterator[list[str]]:
    """Serve TLS at an address, and pass the bytes on; yields a list that grows with each client."""
    clients: list[str] = []

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):  # a client that ends its connection is no fault
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def passed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clients.append(str(writer.get_extra_info("peername")))
        behind = await asyncio.open_connection(to.host, to.port)
        async with asyncio.TaskGroup() as both:
            both.create_task(pipe(reader, behind[1]))
            both.create_task(pipe(behind[0], writer))

    server = await asyncio.start_server(
        passed, address, network.ISSUER_PORT, ssl=serving(certificate)
    )
    async with server:
        yield clients


async def test_an_issuer_with_a_certificate_of_a_private_ca_gives_tokens(
    installed: Installation, tmp_path: Path
) -> None:
    address = network.add_address()
    certificate = make_certificate(tmp_path, name=f"IP:{address}")
    plain = URL(installed.world.issuer.token_url)
    secure = str(plain.with_scheme("https").with_host(address).with_port(network.ISSUER_PORT))
    [ca] = blocks("yaml", under="A private CA")
    site = installed.home / "site/kustomization.yaml"
    before = site.read_text()
    body = before.replace(str(plain), secure)
    body = body.replace("resources:\n", "resources:\n  - private-ca.yaml\n")
    assert body.count(secure) == body.count("private-ca.yaml") == 1
    example = yaml.safe_load(ca)
    example["data"]["ca.crt"] = certificate[0].read_text()
    (installed.home / "site/private-ca.yaml").write_text(yaml.safe_dump(example))
    former = await installed.settled()
    async with tls_front(address, certificate, plain) as clients:
        site.write_text(body)
        await installed.sh("kubectl apply -k site")
        assert not former & await installed.settled()
        await installed.everybody_renewed()
        assert clients
        site.write_text(before)
        await installed.sh("kubectl apply -k site")
        await installed.sh("kubectl delete -f site/private-ca.yaml")  # apply deletes nothing
        await installed.settled()
    await installed.everybody_renewed()
