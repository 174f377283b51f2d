"""Which variables are settings, and what is said of those that are none, or have a wrong value."""

import pytest

from reconciler.errors import SettingsError
from reconciler.settings import Settings, read_settings, unknown_variables


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


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("RECONCILER_WORKERS", "many", "must be a whole number (is 'many')"),
        ("RECONCILER_WORKERS", "1.5", "must be a whole number (is '1.5')"),
        ("RECONCILER_WORKERS", "0", "must be at least 1 (is '0')"),
        ("RECONCILER_WORKERS", "257", "must be at most 256 (is '257')"),
        ("RECONCILER_REQUEST_LIMIT_S", "0", "must be more than 0 (is '0')"),
        ("RECONCILER_REQUEST_LIMIT_S", "10 s", "must be a number (is '10 s')"),
        ("RECONCILER_RESYNC_S", "inf", "must be a number (is 'inf')"),
        ("RECONCILER_TOUCH", "maybe", "must be true or false (is 'maybe')"),
        ("LOG_LEVEL", "loud", "must be 'debug', 'info', 'warning' or 'error' (is 'loud')"),
        ("RECONCILER_POD_UID", "a" * 65, f"must have at most 64 characters (is '{'a' * 65}')"),
        ("RECONCILER_POD_UID", "a_b", "must be letters, digits and dashes (is 'a_b')"),
        ("OIDC_TOKEN_URL", "x", "must be a URL that begins with http:// or https://"),
    ],
)
def test_a_wrong_value_is_refused_in_words_for_the_operator(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    assert str(refused.value) == f"{name} {words}"


@pytest.mark.shows_secrets("all variables have one value, which is shown of those without a secret")
def test_every_setting_says_which_form_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = [str(field.validation_alias) for field in Settings.model_fields.values()]
    for name in variables:
        monkeypatch.setenv(name, "/nowhere/@ ?")
    with pytest.raises(SettingsError) as refused:
        read_settings()
    lines = str(refused.value).splitlines()
    assert len(lines) > len(variables) / 2
    assert [line for line in lines if line.split()[1] not in ("must", "names")] == []
