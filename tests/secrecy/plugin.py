"""Fails each test in which a secret came out: where secrets are made, and where texts leave.

Loaded by tests/conftest.py for every tier. `observe` has the places at which the
product and the labs are observed; doubles of the tests add what they make by `OUTPUTS.add_secret`.
"""

import asyncio.subprocess
import base64
import subprocess
from collections.abc import Callable, Generator, Mapping
from functools import wraps
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from aiohttp import ClientResponse, web
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import SecretStr

from reconciler.errors import ReconcilerError
from reconciler.lab.apiserver import handlers, kinds
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.rbac import Authorizer
from reconciler.lab.apiserver.write_log import Commit
from reconciler.lab.issuer.server import Issuer
from reconciler.statuspage.render import Render
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.tokens.token import Token
from reconciler.tokens.token_response import TokenResponse
from tests.secrecy.outputs import OUTPUTS, body_of, head_of, object_of

CREDENTIALS = ("OIDC_CLIENT_SECRET", "AMBIENT_API_TOKEN")
"""Variables with a secret; each may be given as a file instead."""

SHOWS = "shows_secrets"
"""Marks a test that puts out a secret on purpose, with the reason."""

_PROBES = ("/livez", "/readyz", "/metrics")


def _around(owner: object, name: str, note: Callable[..., None]) -> None:
    """After each call of a method, call `note` with its result and its arguments."""
    method = getattr(owner, name)

    @wraps(method)
    def observed(*args: Any, **options: Any) -> Any:
        result = method(*args, **options)
        note(result, *args, **options)
        return result

    setattr(owner, name, observed)


def _around_async(owner: object, name: str, note: Callable[..., None]) -> None:
    method = getattr(owner, name)

    @wraps(method)
    async def observed(*args: Any, **options: Any) -> Any:
        result = await method(*args, **options)
        note(result, *args, **options)
        return result

    setattr(owner, name, observed)


# Where secrets are made or come in.


def _token(_: None, _token: object, value: str, *_args: object, **_options: object) -> None:
    OUTPUTS.add_secret(value, "a token")


def _issued(value: str, *_: object) -> None:
    OUTPUTS.add_secret(value, "a token of the lab's issuer")


def _issuer_attribute(_: None, _issuer: object, name: str, value: object) -> None:
    if name == "client_secret":
        OUTPUTS.add_secret(value, "the client secret of the lab's issuer")


def _users(_: None, _authorizer: object, users: Mapping[str, object]) -> None:
    for token in users:
        OUTPUTS.add_secret(token, "a credential of the lab's API server")


def _setting(_: None, _secret: object, value: object) -> None:
    OUTPUTS.add_secret(value, "a secret setting")


def _child(_: None, _process: object, *_args: object, **options: Any) -> None:
    """Register the secrets in the environment of a program that a test starts."""
    environment: Mapping[str, str] = options.get("env") or {}
    for name in CREDENTIALS:
        OUTPUTS.add_secret(environment.get(name), f"{name} of a process")
        file = environment.get(f"{name}_FILE")
        if file and Path(file).is_file():
            text = Path(file).read_text(errors="replace").strip()
            OUTPUTS.add_secret(text, f"{name}_FILE of a process")


# Where texts leave.


def _printed(
    _: None, protocol: asyncio.subprocess.SubprocessStreamProtocol, fd: int, data: bytes
) -> None:
    place = "standard error" if fd == 2 else "standard output"
    OUTPUTS.left_in_parts(f"{place} of a process", id(protocol), data)


def _communicated(result: tuple[Any, Any], *_: object, **_options: object) -> None:
    for name, text in zip(("standard output", "standard error"), result, strict=True):
        if text:
            OUTPUTS.left(f"{name} of a process", text)


def _captured(result: Any, *_: object) -> None:
    for text in (result.out, result.err):
        OUTPUTS.left("the test's own output", text)


def _request_began(_: None, request: web.BaseRequest, *_args: object, **_options: object) -> None:
    OUTPUTS.left(f"the head of {request.method}", head_of(request.path_qs, request.headers))


def _requested(body: bytes, request: web.BaseRequest) -> None:
    rest = body_of(request.path, request.content_type, body)
    OUTPUTS.left(f"the body of {request.method}", rest)


def _written(body: Mapping[str, Any], request: web.BaseRequest) -> None:
    plural = "secrets" if "/secrets" in request.path else ""
    OUTPUTS.left(f"the body of {request.method}", object_of(plural, body))


def _answered(body: bytes, response: ClientResponse) -> None:
    if response.headers.get("Server") == "token-reconciler" or response.url.path in _PROBES:
        OUTPUTS.left(f"the answer to {response.url.path}", body)


def _rendered(text: str | bytes, *_: object) -> None:
    OUTPUTS.left("the page or the metrics", text)


def _failed(_: None, error: ReconcilerError, *words: object, **_options: object) -> None:
    for word in words:
        OUTPUTS.left(f"the message of {type(error).__name__}", str(word))


def _span(_: None, _span: object, *_args: object, **options: object) -> None:
    shown = {name: options.get(name) for name in ("name", "attributes", "status")}
    events = [(event.name, event.attributes) for event in options.get("events") or ()]  # type: ignore[attr-defined]  # our own spans
    OUTPUTS.left("a span", repr((shown, events)))


def _committed(commit: Commit) -> None:
    """Note an object without the values of a Secret, which are secrets themselves."""
    plural = commit.kind.plural
    if commit.kind is kinds.SECRETS:
        for value in (commit.object.get("data") or {}).values():
            OUTPUTS.add_secret(base64.b64decode(value).decode(errors="replace"), "a Secret")
    OUTPUTS.left(f"an object of {plural}", object_of(plural, commit.object))


def _core(_: None, core: Core, *_args: object, **_options: object) -> None:
    core.on_commit.insert(0, _committed)


class _Log(structlog.testing.LogCapture):
    """Keeps each line as `LogCapture` does, and notes it."""

    def __call__(self, logger: Any, method_name: str, event_dict: Any) -> Any:
        OUTPUTS.left("a log line", repr(event_dict))
        super().__call__(logger, method_name, event_dict)


def observe() -> None:
    """Begin to observe, once in a process."""
    if OUTPUTS.is_on:
        return
    OUTPUTS.is_on = True
    _around(Token, "__init__", _token)
    _around(TokenResponse, "__init__", _token)
    _around(SecretStr, "__init__", _setting)
    _around(Issuer, "issue", _issued)
    _around(Issuer, "__setattr__", _issuer_attribute)
    _around(Authorizer, "__init__", _users)
    _around(subprocess.Popen, "__init__", _child)
    _around(subprocess.Popen, "communicate", _communicated)
    _around(asyncio.subprocess.SubprocessStreamProtocol, "pipe_data_received", _printed)
    _around(pytest.CaptureFixture, "readouterr", _captured)
    _around_async(web.BaseRequest, "read", _requested)
    _around(web.BaseRequest, "__init__", _request_began)
    _around_async(handlers, "read_body", _written)
    _around_async(ClientResponse, "read", _answered)
    _around(Render, "view", _rendered)
    _around(MetricsRegistry, "render", _rendered)
    _around(ReconcilerError, "__init__", _failed)
    _around(ReadableSpan, "__init__", _span)
    _around(Core, "__init__", _core)
    structlog.testing.LogCapture = _Log  # type: ignore[misc]  # `capture_logs` makes this one


class Plugin:
    """Searches what each test put out, after its fixtures have ended."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if call.when == "teardown":
            for name, text in report.sections:
                OUTPUTS.left(name, text)
            if item.get_closest_marker(SHOWS) is not None:
                OUTPUTS.drop()
            elif leaks := OUTPUTS.take_leaks():
                report.outcome = "failed"
                found = "\n".join(map(str, leaks))
                report.longrepr = f"{report.longrepr or ''}\na secret came out:\n{found}".lstrip()
        return report

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        done = yield
        if nextitem is None or nextitem.path != item.path:
            OUTPUTS.forget_module()
        return done

    def pytest_collection_finish(self) -> None:
        """Forget what the import of the tests has made: it is the same in each order of tests."""
        OUTPUTS.take_leaks()
        OUTPUTS.forget_module()
