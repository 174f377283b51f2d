"""The guide's commands for other permissions and for the removal, after all other tests."""

import asyncio

import pytest

from tests.cluster.world import NAMES, Runner
from tests.node.conftest import FIRST
from tests.node.guide import blocks, commands
from tests.node.installation import LABEL, ROUND_S, Installation, own_values
from tests.node.test_helm import HELM

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

    async def test_is_the_same_with_helm_after_a_first_installation_by_it(
        self, installed: Installation
    ) -> None:
        [values] = blocks("yaml", under=HELM)
        file = installed.home / "site/values.yaml"
        file.write_text(own_values(values, installed.world))
        _, create_secret, _ = commands(blocks("sh", under=FIRST)[0])
        install, *_, removal = blocks("sh", under=HELM)
        first, check = commands(install)
        for command in (create_secret, first):
            await installed.sh(command)
        assert "FAIL" not in await installed.sh(check)
        await installed.settled()
        await self.first_refresh(installed)
        for command in commands(removal):
            await installed.sh(command)
        everywhere = await installed.kubectl("get", KINDS, "-l", LABEL, "-o", "name")
        assert everywhere.split() == []
        kinds = ",".join(
            kind for kind in KINDS.split(",") if not kind.startswith(("cluster", "validating"))
        )
        own = ("get", f"{kinds},secrets,leases", "-n", installed.namespace, "-o", "name")
        assert set((await installed.kubectl(*own)).split()) == {
            "configmap/kube-root-ca.crt",
            "serviceaccount/default",
        }

    async def first_refresh(self, installed: Installation) -> None:
        """Wait until every session has a token of the installation."""
        async with asyncio.timeout(ROUND_S):
            while not all([await self.is_confirmed(installed, one) for one in installed.runners]):
                await asyncio.sleep(0.5)

    async def is_confirmed(self, installed: Installation, runner: Runner) -> bool:
        secret = await installed.world.secret(runner)
        return NAMES.confirmation in secret["metadata"].get("annotations", {})

    async def annotations(self, installed: Installation) -> set[str]:
        """Return the names of all annotations on the sessions' Secrets and pods."""
        found: set[str] = set()
        for runner in installed.runners:
            for thing in (await installed.world.secret(runner), await installed.world.pod(runner)):
                found |= thing["metadata"].get("annotations", {}).keys()
        return found
