"""One issuer with wrong settings, wrong credentials and a wrong clock of the product."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from reconciler.lab.cluster.ports import free_port
from tests.commands import command
from tests.controller import running
from tests.issuers.conftest import LIMIT_S, SESSIONS, program_of, until
from tests.issuers.fleet import Fleet, open_fleet
from tests.issuers.issuer import AUDIENCE, SCOPE, RealIssuer

pytestmark = [pytest.mark.timeout(600), pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def issuer(
    kind: type[RealIssuer], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RealIssuer]:
    """Return one issuer for all tests here: none of them changes it."""
    async with kind(program_of(kind), tmp_path_factory.mktemp(kind.name)) as running_one:
        yield running_one


@pytest_asyncio.fixture(loop_scope="module")
async def fleet(
    issuer: RealIssuer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Fleet]:
    async with open_fleet(issuer, tmp_path_factory.mktemp("fleet"), sessions=SESSIONS) as opened:
        yield opened


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
        [line] = controller.events("clock_skew")
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
            status, ready = await until(f"http://{listen}/readyz", refusal.answer)
        assert status == 503
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
