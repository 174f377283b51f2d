"""The composition root: settings reach the parts that they are about."""

import math
from pathlib import Path

import pytest
import yaml

from reconciler.app.main import build
from reconciler.app.telemetry import Telemetry
from reconciler.clock import SystemClock
from reconciler.settings import load_settings
from reconciler.telemetry.otlp_settings import OtlpSettings
from reconciler.tokens.source import OidcSource

NOWHERE = "http://127.0.0.1:1"
KUBECONFIG = {
    "current-context": "c",
    "contexts": [{"name": "c", "context": {"cluster": "k", "user": "u"}}],
    "clusters": [{"name": "k", "cluster": {"server": NOWHERE}}],
    "users": [{"name": "u", "user": {}}],
}


@pytest.mark.parametrize(("heeds", "rotated_s"), [("true", 5.0), ("false", -math.inf)])
async def test_the_issuers_keys_and_the_platforms_limit_are_as_set(
    heeds: str, rotated_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    config.write_text(yaml.safe_dump(KUBECONFIG))
    variables = {
        "AMBIENT_API_SERVER_URL": NOWHERE,
        "KUBECONFIG": str(config),
        "OIDC_TOKEN_URL": NOWHERE,
        "OIDC_CLIENT_ID": "fake-id",
        "OIDC_CLIENT_SECRET": "obviously-fake-secret",
        "RECONCILER_LEADER_ELECT": "false",
        "RECONCILER_PLATFORM_PARALLEL": "3",
        "RECONCILER_REFRESH_ON_KEY_ROTATION": heeds,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    clock = SystemClock()
    telemetry = Telemetry(clock, OtlpSettings(traces=False))
    async with build(load_settings(), clock, telemetry) as controller:
        dependencies = controller._dependencies
        assert dependencies.platform_allowed is not None
        assert dependencies.platform_allowed() == 3
        source = dependencies.source
        assert isinstance(source, OidcSource)
        source._keys.rotated_s = 5.0
        assert source.rotated_s == rotated_s
