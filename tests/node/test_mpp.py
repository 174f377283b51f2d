"""The platform's mpp mode on a real node: two accounts, no cluster-wide permission."""

import pytest

from tests.cluster.manifests import of_kind, overlay
from tests.node.installation import Installation
from tests.node.tenants import OWN_USER, TENANT_FILE, TENANT_USER, Place

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]


class TestMpp:
    async def test_tokens_change_in_the_tenants_containers_before_they_die(
        self, tenants: Installation
    ) -> None:
        await tenants.everybody_renewed()

    async def test_each_replica_reads_the_tokens_of_two_accounts(
        self, first_tokens: dict[Place, str]
    ) -> None:
        assert len(first_tokens) == 2 * 2
        assert len({token for (_, file), token in first_tokens.items() if file == TENANT_FILE}) == 1

    async def test_no_account_has_a_cluster_wide_permission(self, tenants: Installation) -> None:
        assert of_kind(overlay("mpp"), "ClusterRole", "ClusterRoleBinding") == []
        for user in (OWN_USER, TENANT_USER):
            answer = await tenants.sh(f"kubectl auth can-i list secrets -A --as={user} || true")
            assert answer.strip() == "no"
