"""An API server, or a gateway before it, that sends whole Secrets where metadata was asked for."""

import asyncio
from types import SimpleNamespace

import pytest

from reconciler.controller.runtime import REPEAT_S
from reconciler.lab.apiserver import in_process_client
from reconciler.lab.apiserver.representations import Representation
from tests.unit.controller.virtual import World, finished, running, simulate

PLAIN = SimpleNamespace(
    PARTIAL=Representation.PLAIN, PARTIAL_LIST=Representation.PLAIN, PLAIN=Representation.PLAIN
)


@pytest.mark.parametrize("whole", [True, False])
def test_it_is_said_once_tokens_go_on_and_no_value_is_kept(
    *, whole: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if whole:
        monkeypatch.setattr(in_process_client, "Representation", PLAIN)

    async def scenario(world: World) -> None:
        for number in range(3):
            world.add(f"2Ab{number}")
        async with running(world):
            await finished(world, 1)
            await asyncio.sleep(REPEAT_S - 60)
            assert {world.token(f"2Ab{number}") for number in range(3)} <= set(world.issuer.minted)
            assert all(world.remaining_s(f"2Ab{number}") > 0 for number in range(3))
            kept = f"{world.controller.secrets.snapshot()} {world.logs}"
        assert len(world.events("secret_value_received")) == (1 if whole else 0)
        assert not [value for value in world.issuer.minted if value in kept]

    simulate(scenario)
