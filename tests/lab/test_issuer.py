"""The real client against the lab's issuer over loopback: every fault, and the recovery."""

import asyncio
import socket
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import aiohttp
import pytest

from reconciler.clock import SystemClock
from reconciler.errors import (
    InvalidToken,
    IssuerError,
    IssuerRefused,
    IssuerUnavailable,
    SettingsError,
)
from reconciler.lab.issuer.server import Issuer, IssuerFaults
from reconciler.lab.issuer.signing_key import IssuerKey, TokenRejected
from reconciler.net.circuit_breaker import CircuitBreaker
from reconciler.tokens.date_clock import DateClock
from reconciler.tokens.issuer_time import IssuerTime
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint
from reconciler.tokens.source import OidcSource
from tests.support import ManualClock

SECRET = "p@ss:w%rd+ \u00fc/\u20ac"
CLIENT = "control plane:1"


@dataclass
class Bench:
    issuer: Issuer
    session: aiohttp.ClientSession
    credentials: ClientCredentials

    def endpoint(self, *, url: str = "", limit_s: float = 5.0) -> TokenEndpoint:
        return TokenEndpoint(
            url or self.issuer.token_url,
            session=self.session,
            credentials=lambda: self.credentials,
            clock=SystemClock(),
            limit_s=limit_s,
        )

    def source(self, endpoint: TokenEndpoint | None = None) -> OidcSource:
        clock = SystemClock()
        return OidcSource(
            (endpoint or self.endpoint()).request_token,
            clock=clock,
            issuer_time=IssuerTime(clock),
            breaker=CircuitBreaker("issuer", clock, Random(1)),
            random=Random(1),
        )


@pytest.fixture(scope="module")
def key() -> IssuerKey:
    """One key for all tests: generating one takes longer than a test."""
    return IssuerKey()


@pytest.fixture
async def bench(key: IssuerKey) -> AsyncIterator[Bench]:
    async with (
        Issuer(client_id=CLIENT, client_secret=SECRET, key=key) as issuer,
        aiohttp.ClientSession() as session,
    ):
        yield Bench(issuer, session, ClientCredentials(CLIENT, SECRET))


async def test_a_token_is_minted_verified_and_counted(bench: Bench) -> None:
    token = await bench.source().refresh()
    claims = bench.issuer.verify(token.reveal())
    assert claims["preferred_username"] == f"service-account-{CLIENT}"
    assert (claims["iat"], claims["exp"]) == (token.issued_s, token.expires_s)
    assert token.ttl_s == 900
    assert bench.issuer.issued == {token.reveal()}
    assert (bench.issuer.requests_total, bench.issuer.tokens_total) == (1, 1)


async def test_every_token_is_another_one(bench: Bench) -> None:
    source = bench.source()
    values = {(await source.refresh()).reveal() for _ in range(5)}
    assert values == bench.issuer.issued
    assert len(values) == 5


async def test_the_public_key_is_served(bench: Bench) -> None:
    async with bench.session.get(f"{bench.issuer.url}/jwks") as response:
        served = await response.json()
    assert served == bench.issuer.jwks
    assert served["keys"][0]["alg"] == "RS256"
    assert "d" not in served["keys"][0]


async def test_basic_comes_first_and_survives_any_character(bench: Bench) -> None:
    bench.issuer.faults.body_refused = True
    await bench.endpoint().request_token()
    assert bench.issuer.requests_total == 1


async def test_body_credentials_are_tried_second_and_remembered(bench: Bench) -> None:
    bench.issuer.faults.basic_refused = True
    endpoint = bench.endpoint()
    await endpoint.request_token()
    assert bench.issuer.requests_total == 2
    await endpoint.request_token()
    assert bench.issuer.requests_total == 3


async def test_an_issuer_that_changes_its_mind_is_followed_back(bench: Bench) -> None:
    endpoint = bench.endpoint()
    for faults, requests in [
        (IssuerFaults(basic_refused=True), 2),
        (IssuerFaults(body_refused=True), 4),
        (IssuerFaults(body_refused=True), 5),
    ]:
        bench.issuer.faults = faults
        await endpoint.request_token()
        assert bench.issuer.requests_total == requests


async def test_wrong_credentials_are_refused_in_both_styles(bench: Bench) -> None:
    bench.credentials = ClientCredentials(CLIENT, "another")
    endpoint = bench.endpoint()
    with pytest.raises(IssuerRefused) as caught:
        await endpoint.request_token()
    assert (caught.value.status, caught.value.reason) == (401, "invalid_client")
    assert bench.issuer.requests_total == 2


async def test_rotated_credentials_are_seen_without_a_restart(bench: Bench) -> None:
    endpoint = bench.endpoint()
    bench.issuer.client_secret = "rotated"
    with pytest.raises(IssuerRefused):
        await endpoint.request_token()
    bench.credentials = ClientCredentials(CLIENT, "rotated")
    bench.issuer.faults.body_refused = True
    assert bench.issuer.verify((await endpoint.request_token()).value)
    assert bench.issuer.requests_total == 3, "the refused body was remembered"


async def test_missing_credentials_are_a_refusal_that_names_the_setting(bench: Bench) -> None:
    def read() -> ClientCredentials:
        raise SettingsError("OIDC_CLIENT_SECRET_FILE cannot be read")

    endpoint = TokenEndpoint(
        bench.issuer.token_url, session=bench.session, credentials=read, clock=SystemClock()
    )
    with pytest.raises(IssuerRefused, match="OIDC_CLIENT_SECRET_FILE"):
        await endpoint.request_token()
    assert bench.issuer.requests_total == 0


def _set(**changes: object) -> Callable[[], IssuerFaults]:
    return lambda: IssuerFaults(**changes)  # type: ignore[arg-type]  # a table of faults by name


@pytest.mark.parametrize(
    ("faults", "error", "status", "reason"),
    [
        pytest.param(_set(unreachable=True), IssuerUnavailable, 0, "connection", id="unreachable"),
        pytest.param(_set(status=401), IssuerRefused, 401, "invalid_client", id="401"),
        pytest.param(_set(status=500), IssuerUnavailable, 500, "", id="500"),
        pytest.param(_set(status=503), IssuerUnavailable, 503, "", id="503"),
        pytest.param(_set(status=429, retry_after="7"), IssuerUnavailable, 429, "", id="429"),
        pytest.param(_set(html=True), IssuerUnavailable, 200, "not_json", id="html"),
        pytest.param(_set(redirect=True), IssuerUnavailable, 302, "", id="redirect"),
        pytest.param(
            _set(error_in_200=True), IssuerUnavailable, 200, "server_error", id="error-in-200"
        ),
        pytest.param(_set(token="expired"), InvalidToken, 0, "expired", id="expired"),
        pytest.param(_set(token="malformed"), InvalidToken, 0, "malformed", id="malformed"),
        pytest.param(_set(token="huge"), InvalidToken, 0, "huge", id="huge"),
        pytest.param(
            _set(token="huge", huge_bytes=400_000), InvalidToken, 0, "huge", id="endless-answer"
        ),
        pytest.param(_set(token_type="mac"), InvalidToken, 0, "not_bearer", id="not-bearer"),
        pytest.param(
            _set(token="no_exp", expires_in="absent"), InvalidToken, 0, "no_expiry", id="no-expiry"
        ),
        pytest.param(
            _set(ttl_s=0.0, expires_in="absent"), InvalidToken, 0, "malformed", id="no-life"
        ),
    ],
)
async def test_a_fault_is_one_error_and_healing_gives_a_token(
    bench: Bench,
    faults: Callable[[], IssuerFaults],
    error: type[IssuerError],
    status: int,
    reason: str,
) -> None:
    bench.issuer.faults = faults()
    with pytest.raises(IssuerError) as caught:
        await bench.source().refresh()
    assert type(caught.value) is error
    assert (caught.value.status, caught.value.reason) == (status, reason)
    _assert_clean(caught.value, bench)
    bench.issuer.clear_faults()
    token = await bench.source().refresh()
    assert bench.issuer.verify(token.reveal())


def _assert_clean(error: IssuerError, bench: Bench) -> None:
    """Assert that an error and its causes contain no secret, no token and no body."""
    shown = "".join(traceback.format_exception(error, chain=True)) + repr(vars(error))
    assert error.__cause__ is None
    forbidden = {SECRET, "upstream trouble", "log in", "never-a-token", "the lab's issuer says"}
    assert not [text for text in forbidden | bench.issuer.issued if text in shown]


async def test_a_retry_after_reaches_the_error(bench: Bench) -> None:
    bench.issuer.faults = IssuerFaults(status=429, retry_after="7")
    with pytest.raises(IssuerUnavailable) as caught:
        await bench.endpoint().request_token()
    assert caught.value.retry_after_s == 7.0


async def test_a_slow_issuer_is_given_up_on_at_the_limit(bench: Bench) -> None:
    bench.issuer.faults.slow_s = 60
    with pytest.raises(IssuerUnavailable) as caught:
        await bench.endpoint(limit_s=0.05).request_token()
    assert caught.value.reason == "timeout"
    assert "0.05 s" in str(caught.value)
    _assert_clean(caught.value, bench)


async def test_a_slow_issuer_within_the_limit_gives_a_token(bench: Bench) -> None:
    bench.issuer.faults.slow_s = 0.02
    assert bench.issuer.verify((await bench.endpoint().request_token()).value)


async def test_a_refused_connection_is_an_outage(bench: Bench) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/token?key=hidden"
        with pytest.raises(IssuerUnavailable) as caught:
            await bench.endpoint(url=url).request_token()
    assert caught.value.reason == "connection"
    assert "hidden" not in str(caught.value)
    _assert_clean(caught.value, bench)


async def test_a_url_with_credentials_in_it_is_refused_at_construction(bench: Bench) -> None:
    with pytest.raises(ValueError, match="user name") as caught:
        bench.endpoint(url="https://user:hidden@issuer.example/token")
    assert "hidden" not in str(caught.value)


async def test_a_name_that_does_not_resolve_is_an_outage(bench: Bench) -> None:
    with pytest.raises(IssuerUnavailable) as caught:
        await bench.endpoint(url="http://issuer.invalid/token").request_token()
    assert caught.value.reason == "dns"


async def test_tls_to_a_plain_port_is_an_outage(bench: Bench) -> None:
    url = bench.issuer.token_url.replace("http:", "https:")
    with pytest.raises(IssuerUnavailable) as caught:
        await bench.endpoint(url=url).request_token()
    assert caught.value.reason == "tls"


@asynccontextmanager
async def _peer(*answers: bytes, then: bytes = b"") -> AsyncIterator[str]:
    """Answer one connection after the other with these bytes; `then` is repeated until it ends."""
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(left.pop(0))
            await writer.drain()
            while then:
                writer.write(then)
                await writer.drain()
        except OSError:
            pass  # the client has seen enough
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/token"


async def test_an_answer_that_breaks_off_is_an_outage(bench: Bench) -> None:
    half = b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"access_token": "abc'
    async with _peer(half) as url:
        with pytest.raises(IssuerUnavailable) as caught:
            await bench.endpoint(url=url).request_token()
    assert caught.value.reason == "connection"


async def test_an_answer_without_an_end_is_read_no_further_than_its_limit(bench: Bench) -> None:
    start = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
    async with _peer(start, then=b" " * 10_000) as url:
        with pytest.raises(InvalidToken) as caught:
            await bench.endpoint(url=url).request_token()
    assert caught.value.reason == "huge"


async def test_of_two_refusals_the_preferred_styles_is_reported(bench: Bench) -> None:
    async with _peer(_refusal(401, "invalid_client"), _refusal(400, "invalid_request")) as url:
        with pytest.raises(IssuerRefused) as caught:
            await bench.endpoint(url=url).request_token()
    assert (caught.value.status, caught.value.reason) == (401, "invalid_client")


async def test_an_outage_between_the_two_styles_is_an_outage(bench: Bench) -> None:
    async with _peer(_refusal(401, "invalid_client"), _refusal(503, "server_error")) as url:
        with pytest.raises(IssuerUnavailable) as caught:
            await bench.endpoint(url=url).request_token()
    assert caught.value.status == 503


def _refusal(status: int, code: str) -> bytes:
    body = f'{{"error":"{code}"}}'
    return (
        f"HTTP/1.1 {status} No\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(_set(expires_in="absent"), id="no-expires-in"),
        pytest.param(_set(expires_in="string"), id="expires-in-a-string"),
        pytest.param(_set(clock_offset_s=7200.0), id="clock-ahead"),
        pytest.param(_set(clock_offset_s=-7200.0), id="clock-behind"),
    ],
)
async def test_an_odd_but_usable_answer_gives_a_whole_life(
    bench: Bench, faults: Callable[[], IssuerFaults]
) -> None:
    bench.issuer.faults = faults()
    token = await bench.source().refresh()
    # Whole seconds of `iat` and Date may differ by one; two on a stalled machine.
    assert 897 < token.remaining_s(SystemClock().monotonic()) <= 900


async def test_the_issuers_clock_is_learnt_from_its_date(bench: Bench) -> None:
    bench.issuer.faults.clock_offset_s = -7200.0
    grant = await bench.endpoint().request_token()
    assert grant.date_s is not None
    time = DateClock(SystemClock())
    time.observe(grant.date_s, grant.sent_at, grant.received_at)
    assert time.skew_s == pytest.approx(-7200, abs=1.0 + time.error_s)


@pytest.mark.parametrize(
    ("faults", "ahead_s"),
    [
        pytest.param(_set(date="absent"), None, id="none"),
        pytest.param(_set(date="gateway", date_offset_s=901.0), 901.0, id="a-gateways"),
        pytest.param(_set(date="gateway", clock_offset_s=700.0), 0.0, id="a-step-it-does-not-see"),
        pytest.param(_set(clock_offset_s=700.0), 700.0, id="a-step"),
    ],
)
async def test_the_lab_stamps_the_date_of_a_gateway_or_none(
    bench: Bench, faults: Callable[[], IssuerFaults], ahead_s: float | None
) -> None:
    bench.issuer.faults = faults()
    grant = await bench.endpoint().request_token()
    if ahead_s is None:
        assert grant.date_s is None
    else:
        assert grant.date_s == pytest.approx(SystemClock().wall() + ahead_s, abs=10)


async def test_an_answer_without_a_date_gives_the_time_by_its_token(bench: Bench) -> None:
    bench.issuer.faults.date = "absent"
    bench.issuer.faults.clock_offset_s = 120.0
    clock = SystemClock()
    time = IssuerTime(clock)
    grant = await bench.endpoint().request_token()
    time.observe(grant.times, grant.date_s)
    assert time.skew_s == pytest.approx(120, abs=1.0 + time.error_s)


async def test_the_lab_gives_a_cached_answer_for_as_long_as_it_is_configured(bench: Bench) -> None:
    bench.issuer.faults.cached_s = 3600.0
    values = {(await bench.endpoint().request_token()).value for _ in range(3)}
    assert len(values) == 1
    bench.issuer.clear_faults()
    assert (await bench.endpoint().request_token()).value not in values


async def test_a_short_life_is_claimed_by_the_token(bench: Bench) -> None:
    bench.issuer.faults.ttl_s = 45
    assert (await bench.source().refresh()).ttl_s == 45


async def test_many_callers_over_the_network_make_one_request(bench: Bench) -> None:
    bench.issuer.faults.slow_s = 0.02
    source = bench.source()
    await asyncio.gather(*(source.get(min_remaining=0.8) for _ in range(200)))
    assert bench.issuer.requests_total == 1


async def test_tokens_outlive_a_restart_of_their_issuer(bench: Bench, key: IssuerKey) -> None:
    value = (await bench.endpoint().request_token()).value
    async with Issuer(key=key) as restarted:
        assert restarted.verify(value)


@pytest.mark.shows_secrets("the test asks for a grant that the product never asks for")
async def test_another_grant_type_is_unsupported(bench: Bench) -> None:
    form = {"grant_type": "password", "client_id": CLIENT, "client_secret": SECRET}
    async with bench.session.post(bench.issuer.token_url, data=form) as response:
        assert response.status == 400
        assert (await response.json())["error"] == "unsupported_grant_type"


def test_a_validator_rejects_expired_foreign_and_broken_tokens() -> None:
    clock = ManualClock()
    issuer, stranger = Issuer(ttl_s=60, clock=clock), Issuer(ttl_s=60, clock=clock)
    token = issuer.issue()
    assert issuer.verify(token, now_s=clock.wall_s + 59.9)["exp"] == clock.wall_s + 60
    cases = [
        (token, clock.wall_s + 60, "expired"),
        (stranger.issue(), clock.wall_s, "signature"),
        (token[:40], clock.wall_s, "malformed"),
        ("", clock.wall_s, "malformed"),
        ("not.a.token", clock.wall_s, "malformed"),
        ("\u00e9.\u00e9.\u00e9", clock.wall_s, "malformed"),
    ]
    for value, now_s, reason in cases:
        with pytest.raises(TokenRejected) as caught:
            issuer.verify(value, now_s=now_s)
        assert caught.value.reason == reason
    assert issuer.verify(token, 5.0, now_s=clock.wall_s + 64)


def test_a_validator_keeps_its_own_clock_when_the_issuers_is_off() -> None:
    clock = ManualClock()
    issuer = Issuer(ttl_s=60, clock=clock)
    issuer.faults.clock_offset_s = -3600
    with pytest.raises(TokenRejected, match="expired"):
        issuer.verify(issuer.issue())
