"""Credentials that are waited for: not there, empty, or not yet whole."""

from pathlib import Path

import pytest

from reconciler.preflight.wait_for_credentials import missing
from reconciler.settings import load_settings
from tests.unit.tokens.support import OLD, jwt


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        (None, "AMBIENT_API_TOKEN_FILE names a file that does not exist: FILE"),
        ("", "FILE is empty"),
        ("obviously fake", "AMBIENT_API_TOKEN: "),
        (OLD, ""),
        (jwt(iat=0, exp=2**33), ""),
    ],
)
def test_a_static_tokens_file_is_waited_for_until_it_holds_one(
    content: str | None, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
    monkeypatch.setenv("AMBIENT_API_TOKEN_FILE", str(file))
    found = missing(load_settings())
    assert found.startswith(shown.replace("FILE is", f"{file} is").replace(": FILE", f": {file}"))
    assert bool(found) == bool(shown)
    assert "obviously" not in found


@pytest.mark.parametrize("content", ["", "\n"])
def test_a_client_secrets_file_is_waited_for_while_it_is_empty(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clientSecret"
    file.write_text(content)
    monkeypatch.setenv("OIDC_CLIENT_ID", "obviously-fake-id")
    monkeypatch.setenv("OIDC_TOKEN_URL", "https://issuer.example/token")
    monkeypatch.setenv("OIDC_CLIENT_SECRET_FILE", str(file))
    settings = load_settings()
    assert missing(settings) == f"{file} is empty"
    file.write_text("obviously-fake-secret\n")
    assert missing(settings) == ""
