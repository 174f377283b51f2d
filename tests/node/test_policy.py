"""The shipped NetworkPolicy, enforced: which ports a replica can reach, and who can reach it.

Each closed port has a listener that a pod without the policy can reach.
"""

import asyncio
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
import yaml

from tests.cluster.manifests import Object, overlay
from tests.node import network
from tests.node.guide import blocks
from tests.node.installation import Installation
from tests.node.knocks import Answer, Inside

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]

HTTP = 8080
COLLECTOR = 4318
"""OTLP's port, which the policy does not allow: the guide's example of an added port."""

LIMIT_S = 60.0
POLL_S = 0.2


def is_for_metrics(found: Object) -> bool:
    return bool(found["metadata"]["name"] == "token-reconciler-metrics")


async def until(answer: Answer, inside: Inside, host: str, port: int) -> None:
    """Wait until a connection has the expected result: a policy takes effect after some time."""
    try:
        async with asyncio.timeout(LIMIT_S):
            while await inside.knock(host, port) != answer:
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        enforcer = inside.node.enforcer
        pytest.fail(f"{host}:{port} is not {answer}; {enforcer!r}: {enforcer.tail()}")


@pytest.fixture(scope="module")
def elsewhere(installed: Installation) -> Iterator[str]:
    """The address of issuer and platform, and of a collector."""
    host = urlsplit(installed.world.platform.url).hostname
    assert host
    with socket.create_server((host, COLLECTOR)):
        yield host


@pytest.fixture(scope="module")
def strangers(installed: Installation) -> list[Inside]:
    """Pods that the policy does not select: the runners."""
    return [Inside(installed.node, one.namespace, one.pod) for one in installed.runners]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replica(installed: Installation, elsewhere: str) -> Inside:
    """A replica for which the policy is in effect."""
    [name, *_] = await installed.settled()
    inside = Inside(installed.node, installed.namespace, name)
    await until("shut", inside, elsewhere, COLLECTOR)
    return inside


class TestPolicy:
    async def test_lets_a_replica_out_to_the_api_server_the_issuer_and_the_platform(
        self, replica: Inside, elsewhere: str
    ) -> None:
        places = [(network.SERVICE, 443), (elsewhere, 6443), (elsewhere, 8000)]
        assert [await replica.knock(*place) for place in places] == ["open"] * 3

    async def test_lets_a_replica_out_to_no_other_port(
        self, replica: Inside, strangers: list[Inside], elsewhere: str
    ) -> None:
        stranger, other, *_ = strangers
        async with other.listening(COLLECTOR), other.listening(8000):
            pod = await other.address()
            for host in (elsewhere, pod):
                assert await stranger.knock(host, COLLECTOR) == "open"
                assert await replica.knock(host, COLLECTOR) == "shut"
                assert await replica.knock(host, 8000) == "open"

    async def test_lets_in_its_own_namespace_at_one_port_and_no_other(
        self, replica: Inside, strangers: list[Inside], installed: Installation
    ) -> None:
        stranger, other, *_ = strangers
        [name, *_] = await installed.settled() - {replica.pod}
        neighbour = Inside(installed.node, installed.namespace, name)
        address = await replica.address()
        async with (
            replica.listening(COLLECTOR), other.listening(COLLECTOR), other.listening(HTTP),
        ):  # fmt: skip
            for port in (HTTP, COLLECTOR):
                assert await replica.knock(address, port) == "open"  # from within
                assert await stranger.knock(await other.address(), port) == "open"
                assert await stranger.knock(address, port) == "shut"
            assert await neighbour.knock(address, HTTP) == "open"
            assert await neighbour.knock(address, COLLECTOR) == "shut"

    async def test_lets_prometheus_in_where_the_component_says_that_it_is(
        self, replica: Inside, strangers: list[Inside], installed: Installation
    ) -> None:
        [rule] = [found for found in overlay("monitoring") if is_for_metrics(found)]
        words = rule["spec"]["ingress"][0]["from"][0]["namespaceSelector"]["matchExpressions"]
        words[0]["values"] = [strangers[0].namespace]
        (installed.home / "metrics.yaml").write_text(yaml.safe_dump(rule))
        await installed.sh("kubectl apply -f metrics.yaml")
        address = await replica.address()
        await until("open", strangers[0], address, HTTP)
        async with replica.listening(COLLECTOR):
            assert await strangers[0].knock(address, COLLECTOR) == "shut"
        await installed.sh("kubectl delete -f metrics.yaml")
        await until("shut", strangers[0], address, HTTP)

    async def test_one_more_beside_it_as_the_guide_shows_opens_the_collectors_port(
        self, replica: Inside, elsewhere: str, installed: Installation
    ) -> None:
        [policy] = blocks("yaml", under="Another port")
        (installed.home / "site/egress.yaml").write_text(policy)
        await installed.sh("kubectl apply -f site/egress.yaml")
        await until("open", replica, elsewhere, COLLECTOR)
        await installed.sh("kubectl delete -f site/egress.yaml")
        await until("shut", replica, elsewhere, COLLECTOR)
