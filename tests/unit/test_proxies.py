"""Go's own cases for the proxy variables, and what differs from them."""

import pytest

from reconciler.errors import SettingsError
from reconciler.net.proxies import proxy_for

PROXY = {"HTTP_PROXY": "proxy"}

NO_PROXY = (
    "foobar.com, .barbaz.net, *.wildcard.io, 192.168.1.1, 192.168.1.2:81, 192.168.1.3:80,"
    " 10.0.0.0/30, 2001:db8::52:0:1, [2001:db8::52:0:2]:443, [2001:db8::52:0:3]:80,"
    " 2002:db8:a::45/64, http://not.a.name, :80, ,"
)


@pytest.mark.parametrize(
    ("environment", "url", "proxy"),
    [
        ({"HTTP_PROXY": "127.0.0.1:8080"}, "http://example.com", "http://127.0.0.1:8080"),
        ({"HTTP_PROXY": "cache.example:1234"}, "http://example.com", "http://cache.example:1234"),
        ({"HTTP_PROXY": "cache.example"}, "http://example.com", "http://cache.example"),
        ({"HTTP_PROXY": "localhost"}, "http://example.com", "http://localhost"),
        ({"HTTP_PROXY": "https://cache.example"}, "http://example.com", "https://cache.example"),
        ({"HTTP_PROXY": "a.tld", "HTTPS_PROXY": "b.tld"}, "http://one.tld/", "http://a.tld"),
        ({"HTTP_PROXY": "a.tld", "HTTPS_PROXY": "b.tld"}, "https://one.tld/", "http://b.tld"),
        ({"HTTPS_PROXY": "https://b.tld"}, "https://one.tld/", "https://b.tld"),
        ({"HTTP_PROXY": "a.tld"}, "https://one.tld/", None),
        ({"HTTP_PROXY": "a.tld"}, "ftp://one.tld/", None),
        ({}, "http://example.com", None),
        ({"HTTP_PROXY": " "}, "http://example.com", None),
        ({"http_proxy": "a.tld"}, "http://example.com", "http://a.tld"),
        ({"http_proxy": "a.tld", "HTTP_PROXY": "b.tld"}, "http://example.com", "http://b.tld"),
        (PROXY | {"NO_PROXY": "example.com"}, "http://example.com/", None),
        (PROXY | {"NO_PROXY": ".example.com"}, "http://example.com/", "http://proxy"),
        (PROXY | {"NO_PROXY": "*.example.com"}, "http://example.com/", "http://proxy"),
        (PROXY | {"NO_PROXY": "*.example.com"}, "http://a.example.com/", None),
        (PROXY | {"NO_PROXY": "ample.com"}, "http://example.com/", "http://proxy"),
        (PROXY | {"NO_PROXY": "example.com"}, "http://foo.example.com/", None),
        (PROXY | {"NO_PROXY": ".foo.com"}, "http://example.com/", "http://proxy"),
        (PROXY | {"NO_PROXY": ".示例.com"}, "http://www.示例.com", None),
        (PROXY | {"NO_PROXY": "xn--fsq092h.com"}, "http://www.示例.com", None),
        (PROXY | {"NO_PROXY": "示例.com"}, "http://www.xn--fsq092h.com", None),
        (PROXY | {"no_proxy": "example.com"}, "http://example.com/", None),
        (PROXY | {"NO_PROXY": "Example.COM"}, "http://eXample.com/", None),
        (PROXY | {"NO_PROXY": "example.com."}, "http://example.com/", None),
        (PROXY | {"NO_PROXY": "example.com"}, "http://example.com./", None),
        (PROXY | {"NO_PROXY": "example.com:80"}, "http://example.com", None),
        (PROXY | {"NO_PROXY": "example.com:80"}, "http://example.com:81", "http://proxy"),
        (PROXY | {"NO_PROXY": "*"}, "http://example.com", None),
        (PROXY | {"NO_PROXY": "a.example, * "}, "http://example.com", None),
    ],
)
def test_which_proxy_applies(environment: dict[str, str], url: str, proxy: str | None) -> None:
    assert proxy_for(url, environment) == proxy


@pytest.mark.parametrize(
    ("host", "is_proxied"),
    [
        ("localhost", False),
        ("127.0.0.1", False),
        ("127.0.0.2", False),
        ("[::1]", False),
        ("[::ffff:127.0.0.1]", False),
        ("[::2]", True),
        ("192.168.1.1", False),
        ("192.168.1.2", True),
        ("192.168.1.3", False),
        ("192.168.1.4", True),
        ("10.0.0.2", False),
        ("[2001:db8::52:0:1]", False),
        ("[2001:db8::52:0:2]", True),
        ("[2001:db8::52:0:3]", False),
        ("[2002:db8:a::123]", False),
        ("[fe80::424b:c8be:1643:a1b6]", True),
        ("barbaz.net", True),
        ("www.barbaz.net", False),
        ("foobar.com", False),
        ("www.foobar.com", False),
        ("foofoobar.com", True),
        ("wildcard.io", True),
        ("nested.wildcard.io", False),
        ("awildcard.io", True),
        ("baz.com", True),
        ("localhost.net", True),
        ("local.localhost", True),
    ],
)
def test_what_no_proxy_covers(host: str, *, is_proxied: bool) -> None:
    found = proxy_for(f"http://{host}/", PROXY | {"NO_PROXY": NO_PROXY})
    assert found == ("http://proxy" if is_proxied else None)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://127.0.0.1", "HTTP_PROXY names a proxy of the scheme socks5"),
        ("foo://host", "HTTP_PROXY names a proxy of the scheme foo"),
        ("http://", "HTTP_PROXY must be a URL"),
        ("http://[::1", "HTTP_PROXY must be a URL"),
        ("proxy:80000", "HTTP_PROXY must be a URL"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_by_its_variable(value: str, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        proxy_for("http://example.com", {"HTTP_PROXY": value})
    assert proxy_for("http://127.0.0.1", {"HTTP_PROXY": value}) is None
