"""The way out: who vouches for a peer."""

import ssl
from pathlib import Path

import pytest

from reconciler.http import has_system_trust


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of certificates, which is all that OpenSSL knows."""
    folder = tmp_path / "certs"
    folder.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(folder))
    return folder


class TestTrust:
    def test_an_empty_folder_vouches_for_nobody(self, folder: Path) -> None:
        assert not has_system_trust()
        (folder / "one.pem").write_text("certificate")
        assert has_system_trust()

    def test_an_empty_file_vouches_for_nobody(self, folder: Path, tmp_path: Path) -> None:
        bundle = tmp_path / "none.pem"
        bundle.touch()
        assert ssl.get_default_verify_paths().cafile == str(bundle)
        assert not has_system_trust()
        bundle.write_text("certificate")
        assert has_system_trust()
