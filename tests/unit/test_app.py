"""The composition root: settings reach what they are about, and process 1 has its reaper."""

import asyncio
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from reconciler.app import main
from reconciler.app.election import Election
from reconciler.app.telemetry import Telemetry
from reconciler.clock import EpochTime, SystemClock
from reconciler.leadership.lease import Identity
from reconciler.settings import load_settings
from reconciler.telemetry.otlp_settings import OtlpSettings
from reconciler.telemetry.stderr_writer import StderrWriter
from reconciler.tokens.source import OidcSource

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


@pytest.mark.parametrize(("heeds", "rotated_s"), [("true", 5.0), ("false", -math.inf)])
async def test_the_issuers_keys_and_the_platforms_limit_are_as_set(
    heeds: str, rotated_s: EpochTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RECONCILER_REFRESH_ON_KEY_ROTATION", heeds)
    clock = SystemClock()
    telemetry = Telemetry(clock, OtlpSettings(traces=False))
    async with main.build(load_settings(), clock, telemetry) as controller:
        assert controller.endpoints.platform.allowed == 3
        source = controller.endpoints.source
        assert isinstance(source, OidcSource)
        source._keys.rotated_s = EpochTime(5)
        assert source.rotated_s == rotated_s


@pytest.mark.parametrize(("pid", "reaps"), [(1, True), (2, False)])
async def test_process_1_waits_for_what_others_left_to_it(
    pid: int, reaps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    class Reaper:
        async def run(self) -> None:
            begun.set()

    monkeypatch.setattr(main, "OrphanReaper", Reaper)
    monkeypatch.setattr(main, "os", SimpleNamespace(getpid=lambda: pid))
    before = signal.getsignal(signal.SIGTERM)
    running = asyncio.create_task(main._run(load_settings(), StderrWriter(2)))
    while signal.getsignal(signal.SIGTERM) is before or begun.is_set() is not reaps:
        await asyncio.sleep(0)
    signal.raise_signal(signal.SIGTERM)
    await running
    assert begun.is_set() is reaps


async def test_a_lease_of_an_earlier_history_has_every_list_read_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RECONCILER_LEADER_ELECT", "true")
    relisted: asyncio.Future[tuple[str, str]] = asyncio.get_running_loop().create_future()
    candidate: Any = SimpleNamespace()
    settings = load_settings()
    me = Identity("replica-0", "", "nonce")
    election = Election(settings, me, SystemClock(), asyncio.new_event_loop)
    async with election._opening(candidate, lambda *found: relisted.set_result(found)) as elector:
        elector._on_history_rewound("version 7 after version 9")
        async with asyncio.timeout(5):
            assert await relisted == (settings.namespace, "version 7 after version 9")
