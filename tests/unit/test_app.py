"""The composition root: settings reach what they are about, and process 1 has its reaper."""

import asyncio
import math
import os
import re
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from reconciler.app import main
from reconciler.app.election import Election
from reconciler.app.telemetry import Telemetry
from reconciler.clock import LONG_AGO, SystemClock
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.http_server import ApiServer
from reconciler.lab.apiserver.kinds import NAMESPACES
from reconciler.lab.issuer.server import Issuer
from reconciler.lab.issuer.signing_key import IssuerKey
from reconciler.leadership.lease import Identity
from reconciler.settings import load_settings
from reconciler.telemetry.otlp_settings import OtlpSettings
from reconciler.telemetry.stderr_writer import StderrWriter
from tests.unit.leadership.electors import Ready

NOWHERE = "http://127.0.0.1:1"
KUBECONFIG = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": NOWHERE}}],
    "users": [{"name": "u", "user": {}}],
}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster, an issuer and a platform that are not there."""
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(KUBECONFIG))
    variables = {
        "AMBIENT_API_SERVER_URL": NOWHERE,
        "KUBECONFIG": str(config),
        "OIDC_TOKEN_URL": NOWHERE,
        "OIDC_CLIENT_ID": "fake-id",
        "OIDC_CLIENT_SECRET": "obviously-fake-secret",
        "RECONCILER_LEADER_ELECT": "false",
        "RECONCILER_LISTEN": "127.0.0.1:0",
        "RECONCILER_PLATFORM_PARALLEL": "3",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("heeds", [True, False])
async def test_the_issuers_keys_and_the_platforms_limit_are_as_set(
    heeds: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_REFRESH_ON_KEY_ROTATION", str(heeds).lower())
    clock = SystemClock()
    telemetry = Telemetry(clock, OtlpSettings(traces=False))
    async with Issuer(client_id="fake-id", client_secret="obviously-fake-secret") as issuer:
        monkeypatch.setenv("OIDC_TOKEN_URL", issuer.token_url)
        async with main.build(load_settings(), clock, telemetry) as controller:
            assert controller.endpoints.platform.allowed == 3
            source = controller.endpoints.source
            await source.refresh()
            issuer.key = IssuerKey()
            token = await source.refresh()
            rotated_s = math.floor(token.issued_s) if heeds else LONG_AGO
            assert source.rotated_s == rotated_s
            await source.close()


@pytest.mark.parametrize(("pid", "reaps"), [(1, True), (2, False)])
async def test_process_1_waits_for_what_others_left_to_it(
    pid: int, reaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    class Reaper:
        async def run(self) -> None:
            begun.set()

    monkeypatch.setattr(main, "OrphanReaper", Reaper)
    monkeypatch.setattr(main, "os", SimpleNamespace(getpid=lambda: pid, environ=os.environ))
    before = signal.getsignal(signal.SIGTERM)
    running = asyncio.create_task(main.run_until_signal(load_settings(), StderrWriter(2)))
    while signal.getsignal(signal.SIGTERM) is before or begun.is_set() is not reaps:
        await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    await running
    assert begun.is_set() is reaps


async def test_a_lease_of_an_earlier_history_has_every_list_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_LEADER_ELECT", "true")
    monkeypatch.setenv("RECONCILER_RETRY_PERIOD_S", "0.1")
    settings, clock = load_settings(), SystemClock()
    core = Core(clock)
    core.create(NAMESPACES, "", {"metadata": {"name": settings.namespace}})
    relisted: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    election = Election(settings, Identity("replica-0", "", "nonce"), clock, asyncio.new_event_loop)
    async with ApiServer(core) as server, asyncio.timeout(60):
        (tmp_path / "config").write_text(server.kubeconfig())
        async with election.contend(Ready(), lambda *found: relisted.set_result(found)):
            tasks = [asyncio.create_task(part()) for part in election.background_tasks]
            await election.leadership.wait_started()
            before = core.version
            while core.version == before:  # the next renewal
                await asyncio.sleep(0)
            core.restore(before)
            namespace, why = await relisted
            await election.leadership.release()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
    assert namespace == settings.namespace
    assert re.fullmatch(r"the Lease has version \d+, and \d+ was known: was etcd restored\?", why)
