"""Certificates that are rotated under each of our four clients: no restart, no gap, one line."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from reconciler.net import client_pool
from reconciler.net.file_rotation import LOOK_S
from tests.lab.scripted_server import Scripted, answer, scripted
from tests.lab.tls import Certificate, make_certificate, serving
from tests.lab.tls_clients import BODY, CLIENTS, Ask, believe
from tests.support import ManualClock

MANY = 1000


@dataclass
class Peer:
    """A server over TLS, the CA bundle of our clients, and one client."""

    server: Scripted
    tls: ssl.SSLContext
    bundle: Path
    clock: ManualClock
    ask: Ask

    async def later(self) -> bool:
        """Wait for two checks of the files, and return whether a request then succeeds."""
        self.clock.advance(LOOK_S)
        await self.ask()
        self.clock.advance(LOOK_S)
        return await self.ask()


@pytest.fixture
def first(tmp_path: Path) -> Certificate:
    return _certificate(tmp_path / "first")


@pytest.fixture
def second(tmp_path: Path) -> Certificate:
    return _certificate(tmp_path / "second")


def _certificate(folder: Path) -> Certificate:
    folder.mkdir()
    return make_certificate(folder)


@pytest.fixture(params=CLIENTS)
async def peer(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    first: Certificate,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Peer]:
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(first[0].read_bytes())
    believe(bundle, monkeypatch)
    tls, clock = serving(first), ManualClock()
    turns = [answer(200, BODY, headers="Connection: close\r\n")] * MANY
    async with (
        scripted(*turns, tls=tls) as server,
        CLIENTS[request.param](server.url, bundle, clock) as ask,
    ):
        yield Peer(server, tls, bundle, clock, ask)


async def test_a_rotated_ca_is_read_again_and_the_old_one_no_more_believed(
    peer: Peer, first: Certificate, second: Certificate
) -> None:
    assert await peer.ask()
    peer.bundle.write_bytes(second[0].read_bytes())
    peer.tls.load_cert_chain(*second)
    with capture_logs() as lines:
        assert await peer.later()
    assert [line["event"] for line in lines if "rotated" in line["event"]] == ["rotated_file_read"]
    heard = len(peer.server.requests)
    peer.tls.load_cert_chain(*first)
    assert not await peer.later()
    assert len(peer.server.requests) == heard


@pytest.mark.parametrize("half", [b"", b"#\n", None, "cut"], ids=["empty", "text", "gone", "cut"])
async def test_a_bundle_that_is_half_written_keeps_the_last_good_one_with_one_line(
    peer: Peer, half: bytes | str | None, second: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_pool, "RETRY_S", 0.0)  # each request tries the files again
    assert await peer.ask()
    whole = peer.bundle.read_bytes()
    with capture_logs() as lines:
        if half is None:
            peer.bundle.unlink()
        else:
            cut = second[0].read_bytes() + second[0].read_bytes()[:300]
            peer.bundle.write_bytes(cut if isinstance(half, str) else half)
        for _ in range(3):
            assert await peer.later()
        [kept] = [line for line in lines if "rotated" in line["event"]]
        assert (kept["event"], kept["log_level"]) == ("rotated_file_kept", "warning")
        assert str(peer.bundle) in kept["reason"]
        peer.bundle.write_bytes(whole + second[0].read_bytes())
        peer.tls.load_cert_chain(*second)
        assert await peer.later()
