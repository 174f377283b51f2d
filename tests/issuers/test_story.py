"""One controller through what an operator does to an issuer, on tokens of seconds."""

import asyncio
import re

import aiohttp
import pytest

from reconciler.lab.ports import free_port
from tests.commands import command
from tests.controller import running
from tests.issuers.conftest import SESSIONS
from tests.issuers.fleet import Fleet
from tests.issuers.issuer import AUDIENCE, POLL_S, SCOPE, RealIssuer

STEADY_S = 120

LIMIT_S = 170.0
"""Longest wait for one thing: Keycloak starts slowly beside other tests."""

pytestmark = pytest.mark.timeout(600)


async def test_the_fleet_notices_nothing_of_what_an_operator_does(
    issuer: RealIssuer, fleet: Fleet
) -> None:
    checked = await command("check", **fleet.environment())
    lived = re.search(r"gives tokens of (\d+) s", checked.stdout)
    assert lived is not None, checked.stdout
    # Hydra takes the two instants at different moments of its work, whole seconds each.
    assert issuer.ttl_s / 2 < int(lived[1]) <= issuer.ttl_s
    async with running(fleet.environment()) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
        [resync] = controller.events("startup_resync_finished")
        assert resync["sessions"] == SESSIONS
        assert resync.get("failed", 0) == 0
        # A token is refreshed at an age of 0.2-0.6 of its life, 0.4 on average.
        rounds = round(STEADY_S / (0.4 * issuer.ttl_s))
        await fleet.wait_for_writes(rounds, limit_s=2 * STEADY_S)
        assert fleet.expired_s == 0, "two minutes without any fault"

        if await issuer.make_tokens_last():
            await fleet.wait_for_writes(2, limit_s=LIMIT_S)
        issuer.kill()
        await issuer.start()
        await fleet.wait_for_writes(2, limit_s=LIMIT_S)
        assert fleet.expired_s == 0, "a restart of the issuer"

        before = {account.kids[-1] for account in fleet.accounts.values()}
        if await issuer.rotate_key():
            await fleet.wait_for_writes(1, limit_s=LIMIT_S)
            after = {account.kids[-1] for account in fleet.accounts.values()}
            assert not before & after
        assert fleet.expired_s == 0, "another signing key"

        await issuer.rotate_secret("obviously-fake-second-secret")
        fleet.put_secret(issuer.client_secret)
        await fleet.wait_for_writes(1, limit_s=LIMIT_S)
        assert fleet.expired_s == 0, "another client secret"

        await issuer.set_enabled(False)
        await controller.wait_for_event("issuer_refused", limit_s=LIMIT_S)
        await issuer.set_enabled(True)
        await fleet.wait_for_writes(1, limit_s=LIMIT_S)
        assert fleet.expired_s == 0, "a client that was disabled, and enabled again"
        assert await controller.terminate() == 0


async def test_a_wrong_secret_is_named_by_check_and_log(issuer: RealIssuer, fleet: Fleet) -> None:
    settings = fleet.environment()
    fleet.put_secret("obviously-fake-wrong-secret")
    checked = await command("check", **settings)
    assert checked.code == 3
    assert "OIDC_CLIENT_SECRET" in checked.stdout
    async with running(settings) as controller:
        await controller.wait_for_event("issuer_refused", limit_s=LIMIT_S)
        fleet.put_secret(issuer.client_secret)
        await fleet.wait_for_writes(1, limit_s=LIMIT_S)


@pytest.mark.parametrize("off_s", [-120, 120])
async def test_a_clock_that_is_two_minutes_off_costs_no_token(
    issuer: RealIssuer, fleet: Fleet, off_s: int
) -> None:
    settings = fleet.environment()
    async with running(settings, offset_s=off_s) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
        written = fleet.patches
        await fleet.wait_for_writes(3, limit_s=LIMIT_S)
        assert fleet.expired_s == 0
        # Scheduled refreshes, and no others: one or two more are under way at the end.
        assert fleet.patches - written <= 5 * SESSIONS
        [line] = controller.events("clock_off")
        assert round(line["skew_s"] / 10) * 10 == -off_s  # the issuer's less ours


async def test_a_scope_or_audience_is_granted_or_named_as_what_is_refused(
    issuer: RealIssuer, fleet: Fleet
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    for refusal in issuer.refused:
        settings = fleet.environment(RECONCILER_LISTEN=listen, **refusal.settings)
        checked = await command("check", **settings)
        assert checked.code == 3
        [at] = [n for n, line in enumerate(checked.lines) if f"answered {refusal.answer}" in line]
        remedy = checked.lines[at + 1]
        async with running(settings) as controller:
            await controller.wait_for_event("issuer_refused", limit_s=LIMIT_S)
            [line] = controller.events("issuer_refused")
            assert f"answered {refusal.answer}" in line["error"]
            ready = await _not_ready(f"http://{listen}/readyz", refusal.answer)
        assert "the issuer refuses our request" in ready
        for words in (remedy, line["hint"], ready):
            assert refusal.names in words
            assert "OIDC_CLIENT_SECRET" not in words

    settings = fleet.environment(**issuer.granted)
    checked = await command("check", **settings)
    assert "gives tokens of" in checked.stdout
    async with running(settings) as controller:
        await fleet.wait_for_writes(1, limit_s=LIMIT_S)
        assert controller.events("issuer_refused") == []
    for account in fleet.accounts.values():
        claims = fleet.claims[account.tokens[-1]]
        assert SCOPE in _words(claims["scp"] if "scp" in claims else claims["scope"])
        assert AUDIENCE in _words(claims["aud"])


def _words(member: str | list[str]) -> list[str]:
    """Return a claim's values: a list, or one string with spaces (RFC 9068 2.2, RFC 7662 2.2)."""
    return member.split() if isinstance(member, str) else member


async def _not_ready(url: str, answer: str) -> str:
    """Return what a replica that is not ready says, once it has heard the issuer's answer."""
    async with aiohttp.ClientSession() as http, asyncio.timeout(LIMIT_S):
        while True:
            async with http.get(url) as ready:
                text = await ready.text()
                if answer in text:
                    assert ready.status == 503
                    return text
            await asyncio.sleep(POLL_S)
