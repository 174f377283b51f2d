"""Which variables are settings, and what is said of those that are none."""

import pytest

from reconciler.errors import SettingsError
from reconciler.settings import read_settings, unknown_variables


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("RECONCILER_NAMESPACE", "RECONCILER_NAMESPACES"),
        ("RECONCILER_LEADER_ELECTION", "RECONCILER_LEADER_ELECT"),
        ("RECONCILER_WORKER", "RECONCILER_WORKERS"),
        ("reconciler_workers", "RECONCILER_WORKERS"),
        ("RECONCILER_ZZZ", ""),
        ("OIDC_CLIENT_SECERT", "OIDC_CLIENT_SECRET"),
        ("OIDC_CLIENTID", "OIDC_CLIENT_ID"),
        ("OIDC_CLIENT_SECRET_FIEL", "OIDC_CLIENT_SECRET_FILE"),
        ("AMBIENT_API_SERVER_ULR", "AMBIENT_API_SERVER_URL"),
    ],
)
def test_a_variable_that_is_no_setting_is_named_with_the_nearest(name: str, nearest: str) -> None:
    assert unknown_variables([name, "PATH", "RECONCILER_WORKERS"]) == {name: nearest}


@pytest.mark.parametrize(
    "name",
    [
        "RECONCILER_SERVICE_HOST",
        "RECONCILER_SERVICE_PORT",
        "RECONCILER_SERVICE_PORT_HTTP",
        "RECONCILER_PORT",
        "RECONCILER_PORT_8080_TCP",
        "RECONCILER_PORT_8080_TCP_ADDR",
        "RECONCILER_METRICS_SERVICE_HOST",
        "OIDC_ISSUER",
        "OIDC_TOKEN_URL",
        "AMBIENT_UI_URL",
    ],
)
def test_what_a_kubelet_adds_or_another_program_uses_is_not_named(name: str) -> None:
    assert unknown_variables([name]) == {}


def test_a_variable_in_another_case_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("reconciler_workers", "3")
    monkeypatch.setenv("log_level", "debug")
    settings = read_settings()
    assert (settings.workers, settings.log_level) == (64, "info")
    monkeypatch.setenv("RECONCILER_WORKERS", "5")
    assert read_settings().workers == 5


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("trace", "debug"),
        ("DEBUG", "debug"),
        ("warn", "warning"),
        ("Warning", "warning"),
        ("fatal", "error"),
        ("panic", "error"),
        ("disabled", "error"),
        ("-1", "debug"),
        ("2", "warning"),
    ],
)
def test_log_levels_of_the_replaced_loop_are_accepted(
    monkeypatch: pytest.MonkeyPatch, text: str, level: str
) -> None:
    monkeypatch.setenv("LOG_LEVEL", text)
    assert read_settings().log_level == level


@pytest.mark.parametrize("text", [":8080", "127.0.0.1:0", "[::]:8080", "[::1]:65535", "host:1"])
def test_addresses_to_listen_on(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("RECONCILER_LISTEN", text)
    assert read_settings().listen == text


@pytest.mark.parametrize("text", [":99999", "::1:8080", "8080", "host:", "[::1", "[x]:80", ":-1"])
def test_an_address_that_nothing_can_listen_on_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("RECONCILER_LISTEN", text)
    with pytest.raises(SettingsError, match=r"^RECONCILER_LISTEN must"):
        read_settings()
