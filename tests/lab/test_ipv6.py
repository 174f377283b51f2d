"""A cluster with only IPv6 addresses."""

import socket

import aiohttp
import pytest

from reconciler.settings import read_settings
from reconciler.telemetry.http_server import serve_health


@pytest.fixture
def port() -> int:
    """A free port on ::1."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
            free: int = probe.getsockname()[1]
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    return free


def test_endpoints_may_have_such_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AMBIENT_API_SERVER_URL", "https://[fd00::1]:8000/")
    assert read_settings().api_server_url == "https://[fd00::1]:8000"


@pytest.mark.parametrize("listen", ["[::1]:{}", ":{}"], ids=["loopback", "every"])
async def test_probes_are_answered_there(listen: str, port: int) -> None:
    address = listen.format(port)
    async with (
        serve_health(address, live=lambda: "", ready=lambda: ""),
        aiohttp.ClientSession() as session,
        session.get(f"http://[::1]:{port}/livez") as answer,
    ):
        assert answer.status == 200
