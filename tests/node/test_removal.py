"""The guide's commands for other permissions and for the removal, after all other tests."""

import pytest

from tests.cluster.world import NAMES
from tests.node.guide import blocks, commands
from tests.node.installation import LABEL, Installation

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]

KINDS = (
    "deployments,services,serviceaccounts,configmaps,poddisruptionbudgets,networkpolicies,roles,"
    "rolebindings,clusterroles,clusterrolebindings,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings"
)


class TestAnotherOverlay:
    async def test_shrinks_the_rights_to_listed_namespaces_without_a_gap(
        self, installed: Installation
    ) -> None:
        before = set(await installed.pods())
        [block] = blocks("sh", under="Another overlay")
        for command in commands(block):
            await installed.sh(command)
        await installed.settled()
        await installed.everybody_renewed(times=2)
        assert not before & set(await installed.pods())
        account = f"system:serviceaccount:{installed.namespace}:token-reconciler"
        for where, word in (("-A", "no"), ("-n team-a", "yes")):
            answer = await installed.sh(
                f"kubectl auth can-i list secrets {where} --as={account} || true"
            )
            assert answer.strip() == word


class TestRemoval:
    async def test_leaves_annotations_and_in_the_end_not_even_those(
        self, installed: Installation
    ) -> None:
        removal, cleaning = blocks("sh", under="Remove")
        for command in commands(removal):
            await installed.sh(command)
        listed = await installed.kubectl(
            "get", KINDS, "-A", "-l", LABEL, "-o", "jsonpath={.items[*].metadata.namespace}"
        )
        assert installed.namespace not in listed.split()
        everywhere = await installed.kubectl("get", KINDS, "-l", LABEL, "-o", "name")
        assert everywhere.split() == []
        assert await self.annotations(installed) > {NAMES.expires_at, NAMES.confirmation}
        for command in commands(cleaning):
            await installed.sh(command)
        assert await self.annotations(installed) == set()

    async def annotations(self, installed: Installation) -> set[str]:
        """Return the names of all annotations on the sessions' Secrets and pods."""
        found: set[str] = set()
        for runner in installed.runners:
            for thing in (await installed.world.secret(runner), await installed.world.pod(runner)):
                found |= thing["metadata"].get("annotations", {}).keys()
        return found
