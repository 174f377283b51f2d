"""Answers to errors, and the two forms of Retry-After."""

import pytest

from reconciler.errors import PlatformError, PlatformRefused, PlatformUnavailable
from reconciler.platform.errors import ErrorAnswer, error_of

OURS = b'{"kind":"Error","code":"ambient-api-server-9","reason":"free text"}'
RBAC = b'{"kind":"Error","reason":"Forbidden"}'
HTML = b"<html>free text</html>"


@pytest.mark.parametrize(
    ("status", "body", "error", "message"),
    [
        (400, OURS, PlatformError, "x: the platform answered 400 (ambient-api-server-9)"),
        (401, b"Unauthorized", PlatformRefused, "x: the platform answered 401"),
        (403, RBAC, PlatformError, "x: the platform answered 403"),
        (404, OURS, PlatformError, "x: the platform answered 404 (ambient-api-server-9)"),
        (429, HTML, PlatformUnavailable, "x: the platform answered 429"),
        (500, OURS, PlatformUnavailable, "x: the platform answered 500 (ambient-api-server-9)"),
        (302, b"", PlatformUnavailable, "302, not in the platform's words"),
        (403, HTML, PlatformUnavailable, "403, not in the platform's words"),
        (404, HTML, PlatformUnavailable, "404, not in the platform's words"),
        (502, HTML, PlatformUnavailable, "502, not in the platform's words"),
        (404, b'{"kind":"Status"}', PlatformUnavailable, "404, not in the platform's words"),
    ],
)
def test_answer_becomes_its_error_and_quotes_no_text(
    status: int, body: bytes, error: type[PlatformError], message: str
) -> None:
    result = error_of(ErrorAnswer(status, body, 3.0), what="x")
    assert type(result) is error
    assert str(result).endswith(message)
    assert "free text" not in str(result)
    assert (result.status, result.retry_after_s) == (status, 3.0)


def test_a_403_is_about_us_where_no_project_was_named() -> None:
    answer = ErrorAnswer(403, RBAC, None)
    assert type(error_of(answer, what="x")) is PlatformError
    assert type(error_of(answer, what="x", is_of_project=False)) is PlatformRefused


def test_code_that_is_free_text_is_dropped() -> None:
    result = error_of(ErrorAnswer(400, b'{"kind":"Error","code":"two words"}', None), what="x")
    assert (str(result), result.reason) == ("x: the platform answered 400", "")
