"""`reconciler settings`: what is effective, from where, and that no secret is shown."""

import json
import os
from pathlib import Path

import pytest

from reconciler.cli.exit_codes import CommandError
from reconciler.cli.settings import effective_settings, run_settings
from reconciler.errors import SettingsError
from reconciler.settings import Settings, read_settings

SECRET = "obviously-fake-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine that runs the tests."""
    for field in Settings.model_fields.values():
        monkeypatch.delenv(str(field.validation_alias), raising=False)


def found() -> dict[str, tuple[str, str]]:
    """Return variable -> value and source."""
    settings = effective_settings(read_settings(), os.environ)
    return {one.variable: (one.value, one.source) for one in settings}


def test_every_setting_has_a_row_with_its_default() -> None:
    rows = found()
    assert set(rows) == {str(field.validation_alias) for field in Settings.model_fields.values()}
    assert {source for _, source in rows.values()} == {"default"}
    assert rows["RECONCILER_WORKERS"] == ("64", "default")
    assert rows["RECONCILER_PROPAGATION_ALLOWANCE_S"] == ("90", "default")
    assert rows["RECONCILER_TOUCH"] == ("true", "default")
    assert rows["OIDC_TOKEN_URL"] == ("none", "default")


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("RECONCILER_WORKERS", "32", "32"),
        ("LOG_LEVEL", "WARN", "warning"),
        ("RECONCILER_NAMESPACES", "team-b, team-a", "team-b,team-a"),
        ("RECONCILER_TOUCH", "0", "false"),
        ("AMBIENT_API_SERVER_URL", "https://platform.example/", "https://platform.example"),
    ],
)
def test_a_variable_gives_the_value_that_is_used(
    variable: str, text: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, text)
    assert found()[variable] == (value, "environment")


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_WORKERS", "")
    assert found()["RECONCILER_WORKERS"] == ("64", "default")


def test_a_file_takes_precedence_over_a_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "secret"
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "obviously-fake-variable")
    monkeypatch.setenv("OIDC_CLIENT_SECRET_FILE", str(file))
    value, source = found()["OIDC_CLIENT_SECRET"]
    assert source == f"file {file}"
    assert value == f"(unusable: {file}: No such file or directory)"
    file.write_text(SECRET)
    assert found()["OIDC_CLIENT_SECRET"] == ("(redacted)", f"file {file}")
    assert found()["OIDC_CLIENT_SECRET_FILE"] == (str(file), "environment")


@pytest.mark.parametrize("output", ["table", "json"])
def test_no_secret_is_printed(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)
    for variable, text in (
        ("OIDC_CLIENT_ID", "fake-id"),
        ("OIDC_CLIENT_SECRET", SECRET),
        ("OIDC_TOKEN_URL", f"https://issuer.example/token?key={SECRET}"),
        ("RECONCILER_OIDC_FORM", f"password={SECRET}&organization=x"),
        ("AMBIENT_API_TOKEN_FILE", str(file)),
    ):
        monkeypatch.setenv(variable, text)
    assert run_settings(output=output) == 0
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
    for shown in ("https://issuer.example/token?(redacted)",
                  "password=(redacted)&organization=(redacted)", "fake-id"):  # fmt: skip
        assert shown in printed.out
    if output == "json":
        rows = json.loads(printed.out)["settings"]
        assert rows[0] == {
            "variable": "AMBIENT_API_SERVER_URL",
            "value": "http://localhost:8000",
            "source": "default",
        }


def test_a_variable_that_is_no_setting_is_named_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RECONCILER_WORKER", "3")
    assert run_settings(output="table") == 0
    assert "RECONCILER_WORKER is no setting" in capsys.readouterr().err


def test_a_wrong_setting_ends_the_command_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECONCILER_WORKERS", "many")
    with pytest.raises(SettingsError, match="RECONCILER_WORKERS"):
        run_settings(output="table")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(CommandError, match="table and json"):
        run_settings(output="yaml")
