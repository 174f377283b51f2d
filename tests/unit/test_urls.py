"""URLs that people set: what no request can be sent to is a wrong setting, in words."""

import pytest
from pydantic import TypeAdapter, ValidationError

from reconciler.errors import SettingsError
from reconciler.net.proxies import proxy_for
from reconciler.net.urls import url_problem
from reconciler.settings import BaseUrl, HttpUrl, read_settings
from reconciler.telemetry.otlp_settings import read_otlp

GOOD = [
    "http://host", "HTTPS://host:443/", "https://host:", "https://[::1]:6443", "https://10.0.0.1:1",
    "https://a_b.team-a.svc.cluster.local./token", "https://m\u00fcnchen.example", "https://0x7f.1",
    "https://host/a;b/%2F/\u00e9", "https://host:00443", "https://[fe80::1%25eth0]:1",
]  # fmt: skip

BAD = {
    "must be a URL that begins with http:// or https://": [
        "x", ":1", "//host", "localhost:1", "https:/host", "https:host", "ftp://host", "https://",
        "https://:1", "https://?x", "https://[::1", "https://[::g]", "https://\u2100",
    ],
    "must not hold a space or a control character": [
        "https://ho st", "https://host/a b", "https://ho\tst", "https://ho\nst", "https://ho\x00st",
        " https://host", "https://a\u00adb",
    ],
    "must not hold a user or password": ["https://u:p@host", "https://@host"],
    "must not hold a fragment (#)": ["https://host#b", "https://host/#", "https://host?x#b"],
    "must not hold a query (?)": ["https://host?x", "https://host/?", "https://host/a?b=c"],
    "must have a port from 1 to 65535": [
        f"https://host:{port}"
        for port in ("0", "65536", "x", "-1", "+1", "1_0", "\u0661", "000", "9" * 5000)
    ],
    "must name a host": [
        "https://a..b", "https://.", f"https://{'a' * 64}", "https://a\\b", "https://a|b",
        "https://a%20b", "https://a{b}", "https://1.2.3", "https://256.1.1.1", "https://127.1",
        "https://[v1.x]", "https://xn--\u00e9", f"https://{'.'.join(['a' * 60] * 5)}",
    ],
}  # fmt: skip

CASES = [(url, problem) for problem, urls in BAD.items() for url in urls]

OF_A_USE = ("must not hold a user", "must not hold a query")
"""Problems that only some of the settings have."""


@pytest.mark.parametrize("url", GOOD, ids=ascii)
def test_a_url_that_can_be_used_has_no_problem(url: str) -> None:
    assert url_problem(url) == ""
    assert TypeAdapter(BaseUrl).validate_python(url) == url.rstrip("/")


@pytest.mark.parametrize(("url", "problem"), CASES, ids=lambda text: ascii(text)[:60])
def test_a_url_that_cannot_be_used_is_said_so_by_each_setting(url: str, problem: str) -> None:
    assert url_problem(url).startswith(problem)
    with pytest.raises(ValidationError):
        TypeAdapter(BaseUrl).validate_python(url)
    if problem.startswith(OF_A_USE):
        return
    with pytest.raises(ValidationError):
        TypeAdapter(HttpUrl).validate_python(url)
    [unserved] = read_otlp({"OTEL_EXPORTER_OTLP_ENDPOINT": url}).unserved
    assert unserved.variable == "OTEL_EXPORTER_OTLP_ENDPOINT"
    if "://" in url and url == url.strip():
        with pytest.raises(SettingsError, match=r"^HTTPS_PROXY "):
            proxy_for("https://host", {"HTTPS_PROXY": url})


def test_a_token_endpoint_may_have_a_query_and_a_proxy_a_password() -> None:
    assert url_problem("https://host/token?tenant=a", query=True) == ""
    assert url_problem("http://u:p@proxy:3128", user=True) == ""


@pytest.mark.parametrize("name", ["AMBIENT_API_SERVER_URL", "OIDC_TOKEN_URL"])
@pytest.mark.parametrize("url", ["https://host/a#b", "https://a..b", "https://host:1_0"])
def test_the_sentence_begins_with_the_name_of_the_setting(
    monkeypatch: pytest.MonkeyPatch, name: str, url: str
) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(SettingsError, match=rf"^{name} must "):
        read_settings()
