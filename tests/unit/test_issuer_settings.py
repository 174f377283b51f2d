"""The issuer's settings: the URL is unchanged, and the further fields of a token request."""

import pytest

from reconciler.errors import SettingsError
from reconciler.settings import Settings, load_settings, read_settings

CLIENT = {"OIDC_CLIENT_ID": "fake-client", "OIDC_CLIENT_SECRET": "obviously-fake"}
URL = "https://issuer.example/token"


def read(patch: pytest.MonkeyPatch, **variables: str) -> Settings:
    for name, value in variables.items():
        patch.setenv(name, value)
    return read_settings()


@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example/o/token/",
        "https://issuer.example/token?tenant=a%2Fb&x=",
        "https://issuer.example",
        "http://127.0.0.1:8443/token",
        "https://[::1]:8443/token",
        "https://issuer.example./token",
    ],
)
def test_a_token_url_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert read(monkeypatch, OIDC_TOKEN_URL=url).token_url() == url


@pytest.mark.parametrize("name", ["OIDC_TOKEN_URL", "AMBIENT_API_SERVER_URL"])
@pytest.mark.parametrize(
    "url",
    [
        "https://issuer.example:80000/token",
        "https://issuer.example:0/token",
        "https://issuer.example:port/token",
        "https://issuer..example/token",
        "https://.example/token",
        f"https://{'a' * 64}.example/token",
        "https://[::1/token",
        "issuer.example/token",
        "https://user:obviously-fake@issuer.example/token",
        "https://issuer.example/token#here",
    ],
)
def test_a_url_that_nothing_can_be_sent_to_stops_the_start_in_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        read(monkeypatch, **{name: url})
    assert "\n" not in str(caught.value)
    assert "obviously-fake" not in str(caught.value)


def test_client_credentials_without_a_token_url_stop_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in CLIENT.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="OIDC_TOKEN_URL is required"):
        load_settings()


def test_further_fields_come_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(
        monkeypatch,
        OIDC_TOKEN_URL=URL,
        RECONCILER_OIDC_SCOPE="api://platform/.default",
        RECONCILER_OIDC_AUDIENCE="urn:platform",
        RECONCILER_OIDC_RESOURCE="https://platform.example",
        RECONCILER_OIDC_FORM="organization=fake%20one&resource2=x&empty=",
        **CLIENT,
    )
    assert settings.token_request_fields() == [
        ("scope", "api://platform/.default"),
        ("audience", "urn:platform"),
        ("resource", "https://platform.example"),
        ("organization", "fake one"),
        ("resource2", "x"),
        ("empty", ""),
    ]
    assert read_settings().token_request_fields() == settings.token_request_fields()


@pytest.mark.parametrize(
    "form", ["word", "=value", "a b=c", "client_secret=x", "scope=x", "a=1&&b"]
)
def test_a_form_that_no_request_may_hold_is_refused(
    monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    with pytest.raises(SettingsError, match="RECONCILER_OIDC_FORM must") as caught:
        read(monkeypatch, RECONCILER_OIDC_FORM=form)
    assert repr(form) not in str(caught.value)  # it may have a secret
