"""The message of `check` about an unreachable issuer, and without an issuer."""

import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import indent

import pytest
from aiohttp import web

from reconciler.clock import SystemClock
from reconciler.lab.platform.server import LabPlatform
from reconciler.net import client_session
from reconciler.preflight import checks
from reconciler.preflight.findings import Finding
from reconciler.settings import read_settings
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.token import Token
from tests.lab.tls import make_certificate, serving
from tests.unit.tokens.support import jwt

BASE = {"AMBIENT_API_SERVER_URL": "http://127.0.0.1:1", "OIDC_CLIENT_ID": "fake-client"}


async def asked(monkeypatch: pytest.MonkeyPatch, **variables: str) -> list[Finding]:
    """Return the findings about settings and issuer for these variables."""
    for name, value in (BASE | variables).items():
        monkeypatch.setenv(name, value)
    settings, clock = read_settings(), SystemClock()
    found, _ = await checks._issuer(settings, clock, IssuerTime(clock))
    return [checks._settings(settings), *found]


@contextmanager
def closed_port() -> Iterator[str]:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound, never listening
        yield f"127.0.0.1:{reserved.getsockname()[1]}"


async def test_no_connection_is_a_matter_of_the_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "obviously-fake")
    with closed_port() as address:
        _, found = await asked(monkeypatch, OIDC_TOKEN_URL=f"http://{address}/t")
    assert "cannot connect" in found.message
    assert found.remedy.startswith(f"check the route to http://{address}/t")
    assert "is the token endpoint" not in found.remedy


async def test_a_certificate_that_is_not_trusted_is_a_matter_of_its_ca(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OIDC_CLIENT_SECRET", "obviously-fake")
    runner = web.AppRunner(web.Application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving(make_certificate(tmp_path)))
    await site.start()
    port = runner.addresses[0][1]
    try:
        _, found = await asked(monkeypatch, OIDC_TOKEN_URL=f"https://127.0.0.1:{port}/t")
    finally:
        await runner.cleanup()
    assert "TLS failed" in found.message
    assert "SSL_CERT_FILE" in found.remedy
    assert "is the token endpoint" not in found.remedy


@pytest.mark.parametrize("form", ["indented", "base64", "empty", "half", "PEM"])
def test_a_bundle_of_cas_that_is_not_used_is_named(
    form: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pem = make_certificate(tmp_path)[0].read_text()
    bundle = tmp_path / "private-ca.crt"
    forms = {
        "indented": indent(pem, "    "), "base64": b64encode(pem.encode()).decode(), "empty": "",
        "half": f"{pem}{pem[:300]}", "PEM": f"# of the site\n{pem}{pem}",
    }  # fmt: skip
    bundle.write_text(forms[form])
    monkeypatch.setattr(client_session, "ADDED_CAS", (bundle, tmp_path / "none.crt"))
    found = [each.message for each in checks._bundles() if str(bundle) in each.message]
    assert len(found) == (form != "PEM")


async def test_a_missing_file_is_named_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gone = str(tmp_path / "gone")
    found = await asked(
        monkeypatch, OIDC_TOKEN_URL="http://127.0.0.1:1/t", OIDC_CLIENT_SECRET_FILE=gone
    )
    assert [each.level for each in found] == ["FAIL", "FAIL"]
    assert " ".join(each.message for each in found).count(gone) == 1


@pytest.mark.parametrize(
    ("variables", "names_scope"),
    [
        ({"OIDC_CLIENT_SECRET": "obviously-fake", "OIDC_TOKEN_URL": "http://127.0.0.1:1/t"}, True),
        ({"OIDC_CLIENT_ID": "", "AMBIENT_API_TOKEN": "obviously-fake-static-token"}, False),
    ],
)
async def test_a_token_that_the_platform_refuses_may_lack_a_scope_or_audience(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], names_scope: bool
) -> None:
    async with LabPlatform() as platform:
        platform.faults.status = 401
        for name, value in (BASE | variables | {"AMBIENT_API_SERVER_URL": platform.url}).items():
            monkeypatch.setenv(name, value)
        clock = SystemClock()
        now_s = clock.wall()
        token = Token(
            "obviously-fake", issued_s=now_s, expires_s=now_s + 900, received_at=clock.monotonic()
        )
        found, _ = await checks._platform(read_settings(), clock, token)
    assert "check that the platform trusts this issuer and client" in found.remedy
    for name in ("RECONCILER_OIDC_SCOPE", "RECONCILER_OIDC_AUDIENCE"):
        assert (name in found.remedy) is names_scope


async def test_with_a_static_token_no_issuer_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OIDC_CLIENT_ID", raising=False)
    monkeypatch.setitem(BASE, "OIDC_CLIENT_ID", "")
    found = await asked(monkeypatch, AMBIENT_API_TOKEN="obviously-fake-static-token")
    assert found[1].message.startswith("none is used: runners get the token in AMBIENT_API_TOKEN")
    assert not any("gives tokens" in each.message for each in found)
    assert [each.level for each in found[1:]] == ["OK", "WARN"]


async def test_of_an_expired_static_token_its_own_variable_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OIDC_CLIENT_ID", raising=False)
    monkeypatch.setitem(BASE, "OIDC_CLIENT_ID", "")
    found = await asked(monkeypatch, AMBIENT_API_TOKEN=jwt(iat=1_000, exp=2_000))
    [issuer] = [each for each in found if each.area == "issuer"]
    assert (issuer.level, issuer.remedy) == ("FAIL", "check AMBIENT_API_TOKEN")
