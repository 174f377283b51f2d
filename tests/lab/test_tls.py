"""A server with the wrong certificate gets no request bytes from any of our clients."""

import ssl
from pathlib import Path

import pytest

from tests.lab.scripted_server import answer, scripted
from tests.lab.tls import make_certificate, serving
from tests.lab.tls_clients import BODY, CLIENTS, believe
from tests.support import ManualClock


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("wrong", ["self-signed", "another name"])
async def test_a_server_that_cannot_prove_its_name_hears_nothing(
    wrong: str, client: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tmp_path / name for name in ("good", "wrong")]
    for folder in folders:
        folder.mkdir()
    good = make_certificate(folders[0])
    name = "DNS:another.example" if wrong == "another name" else "IP:127.0.0.1"
    bad = make_certificate(folders[1], name=name)
    bundle = tmp_path / "ca.crt"
    trusted = [good, bad] if wrong == "another name" else [good]
    bundle.write_bytes(b"".join(certificate[0].read_bytes() for certificate in trusted))
    believe(bundle, monkeypatch)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=obviously-fake-token")
    turns = [answer(200, BODY, headers="Connection: close\r\n")] * 10
    tls: ssl.SSLContext = serving(bad)
    async with (
        scripted(*turns, tls=tls) as server,
        CLIENTS[client](server.url, bundle, ManualClock()) as ask,
    ):
        assert not await ask()
        assert (server.requests, bytes(server.raw)) == ([], b"")
        tls.load_cert_chain(*good)
        assert await ask()
        assert server.requests
