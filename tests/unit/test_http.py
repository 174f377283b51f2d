"""The way out: which proxy, and who vouches for a peer."""

import ssl
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from reconciler.errors import SettingsError
from reconciler.net import client_session
from reconciler.net.client_session import (
    Peer,
    Trust,
    environment_proxy,
    has_system_trust,
    shown_origin,
    shown_url,
)
from tests.lab.tls import Certificate, make_certificate, serving
from tests.support import ManualClock


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of certificates, which is all that OpenSSL knows."""
    folder = tmp_path / "certs"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    return folder


def trusted_names() -> set[str]:
    """Return the names in the certificates that a new connection of ours trusts."""
    certificates = Trust().context().get_ca_certs()
    return {str(one["subjectAltName"][0][1]) for one in certificates}


def accepts(tls: ssl.SSLContext, certificate: Certificate, name: str) -> bool:
    """Return whether a client with this context trusts a server with this certificate."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = tls.wrap_bio(to_client, to_server, server_hostname=name)
    server = serving(certificate).wrap_bio(to_server, to_client, server_side=True)
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()  # says hello
    with suppress(ssl.SSLWantReadError):
        server.do_handshake()  # sends its certificate
    try:
        client.do_handshake()
    except ssl.SSLCertVerificationError:
        return False
    return True


class TestTrust:
    def test_an_empty_folder_vouches_for_no_peer(self, folder: Path) -> None:
        assert not has_system_trust()
        (folder / "one.pem").write_text("certificate")
        assert has_system_trust()

    def test_an_empty_file_vouches_for_no_peer(self, folder: Path, tmp_path: Path) -> None:
        bundle = tmp_path / "none.pem"
        bundle.touch()
        assert ssl.get_default_verify_paths().cafile == str(bundle)
        assert not has_system_trust()
        bundle.write_text("certificate")
        assert has_system_trust()

    def test_a_bundle_that_ends_in_the_middle_of_a_certificate_is_refused(
        self, tmp_path: Path
    ) -> None:
        bundle = tmp_path / "ca.crt"
        whole = make_certificate(tmp_path)[0].read_bytes()
        bundle.write_bytes(whole)
        Trust(bundle).context()
        bundle.write_bytes(whole + b"-----BEGIN CERTIFI")  # OpenSSL loads what comes before
        with pytest.raises(SettingsError, match="ends in the middle of a certificate"):
            Trust(bundle).context()

    @pytest.mark.parametrize("name", ["tls.crt", "tls.key"])
    def test_a_certificate_of_ours_that_is_replaced_is_noticed(
        self, name: str, tmp_path: Path
    ) -> None:
        for file in ("tls.crt", "tls.key"):
            (tmp_path / file).write_text("first")
        trust = Trust(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key")
        peer = Peer("https://collector.example", ManualClock(), trust)
        before = peer.version(fresh=True)
        (tmp_path / name).write_text("second")
        assert peer.version(fresh=True) != before

    def test_a_private_ca_is_added_to_the_public_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("public", "private"):
            (tmp_path / name).mkdir()
        public, _ = make_certificate(tmp_path / "public", name="DNS:public.example")
        private, _ = make_certificate(tmp_path / "private", name="DNS:private.example")
        added = tmp_path / "private-ca.crt"
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
        monkeypatch.setattr(client_session, "ADDED_CAS", (tmp_path / "none.crt", added))
        peer = Peer("https://issuer.example", ManualClock())
        before = peer.version(fresh=True)
        assert trusted_names() == {"public.example"}
        added.write_bytes(private.read_bytes())
        assert peer.version(fresh=True) != before
        assert trusted_names() == {"public.example", "private.example"}

    async def test_peers_share_a_context_until_a_bundle_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        public, _ = make_certificate(tmp_path, name="DNS:public.example")
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        trust, urls = Trust(), ("https://issuer.example", "https://platform.example")
        peers = [Peer(url, ManualClock(), trust) for url in urls]
        first, second = [(await peer.connection()).tls for peer in peers]
        assert first is second
        public.write_bytes(make_certificate(tmp_path, name="DNS:another.example")[0].read_bytes())
        changed, same = [(await peer.connection()).tls for peer in peers]
        assert changed is same is not None
        assert changed is not first

    def test_each_bundle_is_loaded_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        public, _ = make_certificate(tmp_path, name="DNS:public.example")
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
        loads: list[object] = []
        load = ssl.SSLContext.load_verify_locations
        load_defaults = ssl.SSLContext.set_default_verify_paths

        def load_one(tls: ssl.SSLContext, cafile: Any = None, *more: Any) -> None:
            loads.extend(filter(None, [cafile]))
            load(tls, cafile, *more)

        def load_all(tls: ssl.SSLContext) -> None:
            loads.append(public)
            load_defaults(tls)

        monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", load_one)
        monkeypatch.setattr(ssl.SSLContext, "set_default_verify_paths", load_all)
        assert trusted_names() == {"public.example"}
        assert loads == [public]

    @pytest.mark.parametrize("is_trusted", [True, False])
    def test_each_folder_of_the_systems_cas_is_trusted(
        self, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *, is_trusted: bool
    ) -> None:
        certificate = make_certificate(tmp_path, name="DNS:public.example")
        monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'none'}:{folder}")
        digest = subprocess.run(
            ["openssl", "x509", "-hash", "-noout", "-in", certificate[0]],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        if is_trusted:
            name = f"{digest.stdout.strip()}.0"
            (folder / name).write_bytes(certificate[0].read_bytes())
        assert accepts(Trust().context(), certificate, "public.example") is is_trusted


class TestProxy:
    @pytest.mark.parametrize(
        ("url", "no_proxy", "is_direct"),
        [
            ("https://10.96.0.1:443", ".svc,10.0.0.0/8", True),
            ("https://10.96.0.1:443", ".svc, 10.1.2.3/8 ", True),
            ("https://10.96.0.1:443", "10.96.0.1", True),
            ("https://10.96.0.1:443", "10.97.0.0/16,fd00::/8", False),
            ("https://[fd00::1]:443", "10.0.0.0/8,fd00::/8", True),
            ("https://[fd00::1]:443", "fe80::/10", False),
            ("https://api.ambient-code.svc:8000", ".svc,10.0.0.0/8", True),
            ("https://issuer.example", ".svc,10.0.0.0/8", False),
            ("https://10.example", "10.0.0.0/8", False),
            ("https://issuer.example", "*", True),
            ("https://issuer.example", "", False),
        ],
    )
    def test_no_proxy_names_hosts_domains_and_ranges(
        self, url: str, no_proxy: str, *, is_direct: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
        monkeypatch.setenv("NO_PROXY", no_proxy)
        for name in ("https_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert environment_proxy(url) == (None if is_direct else "http://proxy.example:3128")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://issuer.example/token", "https://issuer.example/token"),
        ("https://issuer.example/token?code=obviously-fake", "https://issuer.example/token"),
        ("https://issuer.example?code=obviously-fake#x", "https://issuer.example"),
        ("https://issuer.example/token#obviously-fake", "https://issuer.example/token"),
        ("https://u:obviously-fake@issuer.example:8443/t", "https://issuer.example:8443/t"),
        ("https://u:obviously@fake@issuer.example/t", "https://issuer.example/t"),
        ("http://obviously-fake@[fd00::1]:3128", "http://[fd00::1]:3128"),
        ("u:obviously-fake@proxy.example:3128", "(not a URL)"),
        ("http://obviously-fake@[fd00::1", "(not a URL)"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_user_info_query_and_fragment(url: str, shown: str) -> None:
    assert shown_url(url) == shown
    assert "fake" not in shown_url(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:6443/token/obviously-fake", "http://127.0.0.1:6443"),
        ("https://u:obviously-fake@[fd00::1]/p?q#f", "https://[fd00::1]"),
        ("u:obviously-fake@host", "(not a URL)"),
    ],
)
def test_the_origin_of_a_url_is_shown_without_its_path(url: str, shown: str) -> None:
    assert shown_origin(url) == shown
