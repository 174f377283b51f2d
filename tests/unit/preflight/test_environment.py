"""What the log's first lines say of the way out and of settings that do nothing."""

import os

import pytest
from structlog.testing import capture_logs

from reconciler.errors import SettingsError
from reconciler.preflight import environment
from reconciler.settings import load_settings

OIDC = {
    "OIDC_TOKEN_URL": "https://issuer.example/token",
    "OIDC_CLIENT_ID": "obviously-fake-id",
    "OIDC_CLIENT_SECRET": "obviously-fake-secret",
}
STATIC = {"AMBIENT_API_TOKEN": "obviously-fake-static-token"}


@pytest.mark.parametrize(
    ("given", "shown"), [(OIDC, []), (STATIC, []), (OIDC | STATIC, ["static_token_ignored"])]
)
def test_a_static_token_beside_client_credentials_is_named(
    given: dict[str, str], shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("RECONCILER_")]:
        monkeypatch.delenv(name)  # the environment of the tests may have some of them
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with capture_logs() as lines:
        environment.warn(load_settings())
    named = [line["event"] for line in lines if line["event"] != "no_ca_certificates"]
    assert named == shown


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxy"),
    [
        ("10.96.0.1", "", "proxy.example:3128"),
        ("10.96.0.1", "10.0.0.0/8", None),
        ("fd00::1", "", "proxy.example:3128"),
        ("fd00::1", "fd00::/8", None),
        ("", "", None),
    ],
)
def test_the_api_servers_proxy_is_named(
    host: str, no_proxy: str, proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    variables = STATIC | {
        "HTTPS_PROXY": "http://user:obviously-fake@proxy.example:3128",
        "NO_PROXY": no_proxy,
        "KUBERNETES_SERVICE_HOST": host,
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert environment.described(load_settings()).get("kube_proxy") == proxy


def test_the_first_line_shows_no_query_of_the_token_url(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://issuer.example/token?code=obviously-fake"
    for name, value in (OIDC | {"OIDC_TOKEN_URL": url}).items():
        monkeypatch.setenv(name, value)
    shown = environment.described(load_settings())
    assert shown["issuer"] == "https://issuer.example/token"
    assert "obviously-fake" not in str(shown)


def test_a_base_url_with_a_query_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://platform.example:8000?code=obviously-fake"
    for name, value in (OIDC | {"AMBIENT_API_SERVER_URL": url}).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="AMBIENT_API_SERVER_URL must not hold a query"):
        load_settings()
