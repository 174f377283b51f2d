"""The guide's Helm commands on a real node, word for word; the readers' tokens decide."""

import json

import pytest

from tests.node.guide import blocks, commands
from tests.node.installation import Installation, own_values

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.asyncio(loop_scope="session"),
]

HELM = "By Helm"


class TestHelm:
    async def test_takes_over_from_kustomize_rolls_back_and_hands_back_without_a_gap(
        self, installed: Installation
    ) -> None:
        [values] = blocks("yaml", under=HELM)
        file = installed.home / "site/values.yaml"
        file.write_text(own_values(values, installed.world))
        install, take_over, hand_back, roll_back, _ = blocks("sh", under=HELM)
        before = await installed.settled()
        [check] = commands(install)[1:]
        for command in commands(take_over):
            await installed.sh(command)
        assert "FAIL" not in await installed.sh(check)
        by_helm = await installed.settled()
        assert not before & by_helm
        await installed.everybody_renewed()
        file.write_text(file.read_text().replace("settings:\n", "settings:\n  LOG_LEVEL: debug\n"))
        await installed.sh(commands(install)[0])
        assert not by_helm & await installed.settled()
        assert await self.level(installed) == "debug"
        for command in commands(roll_back):
            await installed.sh(command)
        await installed.settled()
        assert await self.level(installed) == "info"
        await installed.everybody_renewed()
        for command in commands(hand_back):
            await installed.sh(command)
        await installed.settled()
        await installed.everybody_renewed(times=2)
        assert await installed.sh("helm list --all-namespaces --output json") == "[]\n"

    async def level(self, installed: Installation) -> str:
        """Return the level of the log that a replica uses."""
        answer = await installed.sh(
            "kubectl -n ambient-code exec deployment/token-reconciler --"
            " reconciler settings -o json"
        )
        rows = {row["variable"]: row for row in json.loads(answer)["settings"]}
        assert rows["LOG_LEVEL"]["source"] == "environment"
        return str(rows["LOG_LEVEL"]["value"])
