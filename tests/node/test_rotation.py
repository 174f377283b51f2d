"""Tokens of accounts that the real kubelet replaces: last of all, since it takes its time.

Both of mpp's live ten minutes. The pod's own one is replaced in its file after eight, the tenants'
when somebody writes another into its Secret.
"""

import asyncio

import pytest

from tests.cluster.accounts import SHORTEST_S, refused
from tests.node.installation import Installation
from tests.node.tenants import Place, account_tokens, give_token

LEEWAY_S = 60
"""For so long after its end the API server takes a token. Source: go-jose, DefaultLeeway."""

LIMIT_S = SHORTEST_S + LEEWAY_S + 120.0

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2 * LIMIT_S),
    pytest.mark.asyncio(loop_scope="session"),
]


async def test_accounts_whose_first_tokens_have_died_go_on_as_before(
    tenants: Installation, first_tokens: dict[Place, str]
) -> None:
    await give_token(tenants.world)
    plane = tenants.world.control_plane
    async with asyncio.TaskGroup() as group:
        for token in set(first_tokens.values()):
            group.create_task(refused(plane, token, limit_s=LIMIT_S))
    now = await account_tokens(tenants)
    assert now.keys() == first_tokens.keys()
    assert not set(now.values()) & set(first_tokens.values())
    await tenants.everybody_renewed()
    assert {state["restartCount"] for state in (await tenants.pods()).values()} == {0}
