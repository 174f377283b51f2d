"""What is sent to a token endpoint, byte for byte, and to which URL."""

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from reconciler.clock import SystemClock
from reconciler.errors import IssuerRefused
from reconciler.factories import token_endpoint
from reconciler.settings import load_settings
from reconciler.tokens.oidc import ClientCredentials, TokenEndpoint

TOKEN = "obviously-fake-opaque-token-of-an-issuer"
FIELDS = (("scope", "a b"), ("resource", "https://platform.example/?x"), ("note", ""))


class Recorder:
    """Answers each request from a list; keeps the path with its query, headers and body."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, object]]] = []
        self.seen: list[tuple[str, str, str]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        basic = request.headers.get("Authorization", "")
        self.seen.append((request.raw_path, basic, (await request.text())))
        status, body = self.answers.pop(0)
        return web.json_response(body, status=status)


@pytest.fixture
async def recorder() -> AsyncIterator[Recorder]:
    found = Recorder()
    app = web.Application()
    app.router.add_post("/{path:.*}", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    await runner.cleanup()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as opened:
        yield opened


def endpoint(session: aiohttp.ClientSession, url: str) -> TokenEndpoint:
    return TokenEndpoint(
        url,
        session=session,
        credentials=lambda: ClientCredentials("fake-client", "obviously-fake"),
        clock=SystemClock(),
        fields=FIELDS,
    )


GOOD: tuple[int, dict[str, object]] = (200, {"access_token": TOKEN, "expires_in": 900})
FORM = (
    "grant_type=client_credentials&scope=a+b&resource=https%3A%2F%2Fplatform.example%2F%3Fx&note="
)


@pytest.mark.parametrize("path", ["/o/token/", "/token?tenant=a%2Fb&empty=", "/a%20b/token"])
async def test_the_url_is_sent_as_it_is_with_every_further_field(
    recorder: Recorder, session: aiohttp.ClientSession, path: str
) -> None:
    recorder.answers = [GOOD]
    grant = await endpoint(session, recorder.url + path).request_token()
    assert grant.value == TOKEN
    [(sent_to, basic, form)] = recorder.seen
    assert (sent_to, basic[:6], form) == (path, "Basic ", FORM)


async def test_settings_are_sent_and_files_of_credentials_are_read_for_each_request(
    recorder: Recorder,
    session: aiohttp.ClientSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {f"OIDC_CLIENT_{name}_FILE": tmp_path / name for name in ("ID", "SECRET")}
    variables = {name: str(file) for name, file in files.items()} | {
        "OIDC_TOKEN_URL": f"{recorder.url}/token",
        "RECONCILER_OIDC_SCOPE": "a b",
        "RECONCILER_OIDC_FORM": "tenant=one",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    asked = token_endpoint(load_settings(), session, SystemClock())
    logins = [("one", "obviously-fake"), ("two", "obviously-fake-other")]
    for login in logins:
        for file, value in zip(files.values(), login, strict=True):
            file.write_text(value)
        recorder.answers = [GOOD]
        await asked.request_token()
    assert [basic for _, basic, _ in recorder.seen] == [
        aiohttp.encode_basic_auth(*login) for login in logins
    ]
    assert {form for _, _, form in recorder.seen} == {
        "grant_type=client_credentials&scope=a+b&tenant=one"
    }


async def test_credentials_go_into_the_body_after_any_refusal_of_basic(
    recorder: Recorder, session: aiohttp.ClientSession
) -> None:
    for status, code in [(403, "access_denied"), (400, "invalid_scope"), (400, "invalid_grant")]:
        recorder.seen.clear()
        recorder.answers = [(status, {"error": code}), GOOD, GOOD]
        asked = endpoint(session, f"{recorder.url}/token")
        await asked.request_token()
        await asked.request_token()
        [_, *later] = recorder.seen
        form = f"{FORM}&client_id=fake-client&client_secret=obviously-fake"
        assert [(basic, body) for _, basic, body in later] == [("", form)] * 2


async def test_a_refusal_that_is_not_about_the_client_is_the_one_that_is_reported(
    recorder: Recorder, session: aiohttp.ClientSession
) -> None:
    recorder.answers = [(401, {"error": "invalid_client"}), (400, {"error": "invalid_target"})]
    with pytest.raises(IssuerRefused) as caught:
        await endpoint(session, f"{recorder.url}/token").request_token()
    assert (caught.value.reason, caught.value.status) == ("invalid_target", 400)
