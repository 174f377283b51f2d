"""One controller during an operator's changes of an issuer, with tokens of some seconds."""

import re

import pytest

from reconciler.lab.cluster.ports import free_port
from tests.commands import command
from tests.controller import running
from tests.issuers.conftest import LIMIT_S, SESSIONS, until
from tests.issuers.fleet import Fleet
from tests.issuers.issuer import RealIssuer

STEADY_S = 120

REFUSED = 'token_reconciler_endpoint_refused{endpoint="issuer"}'

pytestmark = pytest.mark.timeout(600)


async def test_the_fleet_notices_nothing_of_what_an_operator_does(
    issuer: RealIssuer, fleet: Fleet
) -> None:
    checked = await command("check", **fleet.environment())
    lived = re.search(r"gives tokens of (\d+) s", checked.stdout)
    assert lived is not None, checked.stdout
    # Hydra takes the two instants at different moments of its work, whole seconds each.
    assert issuer.ttl_s / 2 < int(lived[1]) <= issuer.ttl_s
    listen = f"127.0.0.1:{free_port()}"
    async with running(fleet.environment(RECONCILER_LISTEN=listen)) as controller:
        await controller.wait_for_event("startup_resync_finished", limit_s=LIMIT_S)
        [resync] = controller.events("startup_resync_finished")
        assert resync["sessions"] == SESSIONS
        assert resync.get("failed", 0) == 0
        # A token is refreshed at an age of 0.2-0.6 of its life, 0.4 on average.
        rounds = round(STEADY_S / (0.4 * issuer.ttl_s))
        await fleet.wait_for_writes(rounds, limit_s=2 * STEADY_S)
        assert fleet.expired_s == 0, "two minutes without any fault"

        outlasting = await issuer.make_tokens_last()
        if outlasting:
            await fleet.wait_for_life(outlasting, limit_s=LIMIT_S)
        issuer.kill()
        await issuer.start()
        if outlasting:
            await issuer.make_tokens_short()
        else:
            await fleet.wait_for_writes(2, limit_s=LIMIT_S)
            assert fleet.expired_s == 0, "a restart of the issuer"

        before = fleet.kids
        if await issuer.rotate_key():
            await fleet.wait_for(
                "tokens under another key", lambda: not before & fleet.kids, limit_s=LIMIT_S
            )
        assert fleet.expired_s == 0, "a restart of the issuer, or another signing key"

        await issuer.rotate_secret("obviously-fake-second-secret")
        fleet.put_secret(issuer.client_secret)
        await fleet.wait_for_writes(1, limit_s=LIMIT_S)
        await until(f"http://{listen}/metrics", f"{REFUSED} 0")
        assert fleet.expired_s == 0, "another client secret"

        await issuer.set_enabled(False)
        # The log has said what the other secret was answered, and says no second begin so soon.
        await until(f"http://{listen}/metrics", f"{REFUSED} 1")
        await issuer.set_enabled(True)
        await fleet.wait_for_writes(1, limit_s=LIMIT_S)
        await until(f"http://{listen}/metrics", f"{REFUSED} 0")
        assert fleet.expired_s == 0, "a client that was disabled, and enabled again"
        assert await controller.terminate() == 0
