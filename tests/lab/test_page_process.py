"""The status page of real `reconciler run` processes: both roles, and never a token."""

import asyncio
import re

import aiohttp

from reconciler.lab.cluster.cluster import LabCluster
from reconciler.lab.cluster.replicas import Replica, Replicas
from reconciler.naming import SessionKey
from tests.lab.leaks import find_leaks

SESSIONS = 12


async def page(http: aiohttp.ClientSession, replica: Replica, query: str = "") -> str:
    """Return a replica's page, "" before it is up."""
    try:
        async with http.get(f"http://127.0.0.1:{replica.port}/{query}") as answer:
            assert answer.status == 200
            return await answer.text()
    except aiohttp.ClientConnectionError:
        return ""


async def pages_until(
    http: aiohttp.ClientSession, replicas: Replicas, *patterns: str
) -> dict[str, str]:
    """Return a matching page for each pattern, as soon as a replica has one."""
    found: dict[str, str] = {}
    async with asyncio.timeout(40):
        while len(found) < len(patterns):
            for replica in replicas.all:
                html = await page(http, replica)
                found |= {each: html for each in patterns if re.search(each, html)}
            await asyncio.sleep(0.1)
    return found


async def test_a_leader_and_a_follower_each_say_so_and_neither_shows_a_token() -> None:
    logs: list[str] = []
    async with LabCluster(ttl_s=20.0, projection_delay=(0.2, 0.6)) as lab:
        lab.populate(SESSIONS)
        replicas = Replicas(2, lab.environment(), logs.append)
        running = asyncio.create_task(replicas.run())
        async with aiohttp.ClientSession() as http:
            found = await pages_until(
                http,
                replicas,
                rf"(?s)All {SESSIONS} sessions hold a valid token.*</strong> leader.*refreshed in",
                rf"(?s)All {SESSIONS} sessions hold a valid token.*</strong> standby",
            )
            session = next(iter(lab.sessions.values()))
            key = SessionKey(session.namespace, session.session_id)
            (leader,) = [each for each in replicas.all if "leading" in each.state]
            opened = await page(http, leader, f"?q={key.session_id}&open={key}")
            async with http.get(f"http://127.0.0.1:{leader.port}/events") as answer:
                assert answer.content_type == "text/event-stream"
                news = (await answer.content.readuntil(b"</main>")).decode()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert session.secret in opened
        assert "refreshed: first refresh of the token that came with its Secret" in opened
        texts = found | {"opened": opened, "news": news}
        assert lab.issuer.tokens_total > 0
        assert find_leaks(texts, lab.secret_values()) == []


async def test_the_page_can_be_switched_off() -> None:
    logs: list[str] = []
    async with LabCluster(ttl_s=20.0) as lab:
        environment = lab.environment() | {"RECONCILER_STATUS_PAGE": "false"}
        replicas = Replicas(1, environment, logs.append)
        running = asyncio.create_task(replicas.run())
        (replica,) = replicas.all
        async with aiohttp.ClientSession() as http, asyncio.timeout(40):
            while replica.state == "starting" or "down" in replica.state:
                await asyncio.sleep(0.05)
            statuses = {}
            for path in ("", "events", "page.js", "livez"):
                async with http.get(f"http://127.0.0.1:{replica.port}/{path}") as answer:
                    statuses[path] = answer.status
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert statuses == {"": 404, "events": 404, "page.js": 404, "livez": 200}
