"""A real `reconciler run` reports on /readyz that it has had no token yet, and why."""

import asyncio
import socket
from datetime import UTC, datetime

import aiohttp

from reconciler.lab.cluster.cluster import LabCluster
from reconciler.leadership.elector import NO_TOKEN_DELAY_S
from tests.controller import running


async def _answer(http: aiohttp.ClientSession, url: str) -> tuple[int, str]:
    async with http.get(url) as answer:
        return answer.status, await answer.text()


async def test_a_wrong_token_url_is_not_ready_and_names_it_until_it_gives_a_token() -> None:
    async with LabCluster() as lab:
        lab.populate(2)
        lab.issuer.faults.status = 404
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            listen = f"127.0.0.1:{reserved.getsockname()[1]}"
        environment = lab.environment() | {"RECONCILER_LISTEN": listen, "LOG_LEVEL": "debug"}
        async with running(environment) as controller, aiohttp.ClientSession() as http:
            await controller.wait_for_event("stores_synced")
            async with asyncio.timeout(30):
                while (await _answer(http, f"http://{listen}/readyz"))[1].count("404") == 0:
                    await asyncio.sleep(0.2)
            status, why = await _answer(http, f"http://{listen}/readyz")
            assert status == 503
            assert "waiting for the first token" in why
            assert lab.issuer.token_url in why
            assert (await _answer(http, f"http://{listen}/livez"))[0] == 200
            healed = datetime.now(UTC)
            lab.issuer.clear_faults()
            await controller.wait_for_event("runner_token_refreshed", count=2)
            assert await _answer(http, f"http://{listen}/readyz") == (200, "ok\n")
            lab.issuer.faults.unreachable = True
            async with asyncio.timeout(30):
                asked = lab.issuer.requests_total
                while lab.issuer.requests_total == asked:
                    await asyncio.sleep(0.2)
            assert (await _answer(http, f"http://{listen}/readyz"))[0] == 200
            assert await controller.terminate() == 0
        # The Lease was left to others for a while, or until the token came.
        [synced] = controller.events("stores_synced")
        [acquired] = controller.events("lease_acquired")
        acquired_at = datetime.fromisoformat(acquired["timestamp"])
        waited_s = (acquired_at - datetime.fromisoformat(synced["timestamp"])).total_seconds()
        assert acquired_at >= healed or waited_s >= NO_TOKEN_DELAY_S - 5.0
