"""Each fault of HTTP, TLS and TCP between the product and each of its peers.

The faults of a peer run at one time, each with a product of its own. API server and etcd are real
ones; issuer and platform are those of the lab, over real HTTP.
"""

import asyncio
from pathlib import Path

import pytest

from tests.cluster.controlplane import ControlPlane
from tests.faults.breaks import BREAKS, Break
from tests.faults.stage import Outcome, Peer, play_all

pytestmark = [pytest.mark.cluster, pytest.mark.realtime, pytest.mark.timeout(600)]


def breaks_of(peer: Peer) -> dict[str, Break]:
    every = peer is Peer.API_SERVER
    return {name: found for name, found in BREAKS.items() if every or not found.of_api_server}


@pytest.fixture(scope="module")
def outcomes(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> dict[Peer, dict[str, Outcome]]:
    return {}


@pytest.mark.parametrize(
    ("peer", "name"), [(peer, name) for peer in Peer for name in breaks_of(peer)]
)
def test_a_fault_costs_no_token_and_no_flood(
    peer: Peer,
    name: str,
    control_plane: ControlPlane,
    outcomes: dict[Peer, dict[str, Outcome]],
    tmp_path: Path,
) -> None:
    if peer not in outcomes:
        outcomes[peer] = asyncio.run(play_all(control_plane, tmp_path, peer, breaks_of(peer)))
    outcome = outcomes[peer][name]
    print(outcome)
    assert outcome.problems == []
