"""Account tokens that are replaced in their files: the last test, since it takes ten minutes.

Both tokens of mpp live ten minutes. The kubelet replaces the token of the pod's account after eight
minutes; that of the other account changes when its Secret is written. The API server's audit log
names the token of each request.
"""

import asyncio

import pytest

from tests.cluster.accounts import SHORTEST_S
from tests.cluster.audit import AuditLog
from tests.node.installation import Installation
from tests.node.tenants import (
    ACCOUNT_FILE,
    OWN_USER,
    TENANT_FILE,
    TENANT_USER,
    Place,
    account_tokens,
)

LIMIT_S = SHORTEST_S + 120.0
LOOK_S = 10.0
"""Period of a check, which starts a program in each pod while other tests run."""

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2 * LIMIT_S),
    pytest.mark.asyncio(loop_scope="session"),
]

ACCOUNTS = {ACCOUNT_FILE: OWN_USER, TENANT_FILE: TENANT_USER}


def in_use(now: dict[Place, str], first: dict[Place, str], audit: AuditLog) -> bool:
    """Return whether no file has its first token, and each account's last request has a new one."""
    if set(now.values()) & set(first.values()):
        return False
    for file, user in ACCOUNTS.items():
        new = {token for (_, where), token in now.items() if where == file}
        seen = audit.of(user)
        if not seen or seen[-1].credential not in new:
            return False
    return True


async def test_both_accounts_go_on_with_the_tokens_that_took_the_place_of_their_first(
    tenants: Installation, first_tokens: dict[Place, str], node_audit: AuditLog
) -> None:
    node_audit.forget()
    async with asyncio.timeout(LIMIT_S):
        while not in_use(now := await account_tokens(tenants), first_tokens, node_audit):
            await asyncio.sleep(LOOK_S)
    assert now.keys() == first_tokens.keys()
    await tenants.everybody_renewed()
    for user in ACCOUNTS.values():
        assert 403 not in {seen.status for seen in node_audit.of(user)}
    assert {state["restartCount"] for state in (await tenants.pods()).values()} == {0}
