"""What to look at after a refusal follows the error code; it is not always the secret."""

from pathlib import Path

import pytest

from reconciler.tokens import token_response
from reconciler.tokens.refusals import refusal_hint, refused_part

SECRET, SCOPE = "OIDC_CLIENT_SECRET", "RECONCILER_OIDC_SCOPE"
AUDIENCE, RESOURCE = "RECONCILER_OIDC_AUDIENCE", "RECONCILER_OIDC_RESOURCE"
DOCUMENT = Path(__file__).parents[3] / "docs" / "issuers.md"
CREDENTIALS, REQUEST = "our credentials", "our request"


@pytest.mark.parametrize(
    ("code", "status", "what", "named"),
    [
        ("invalid_client", 401, CREDENTIALS, {SECRET}),
        ("invalid_client", 400, CREDENTIALS, {SECRET}),
        ("invalid_grant", 400, CREDENTIALS, {SECRET}),
        ("no_credentials", 0, CREDENTIALS, {SECRET}),
        ("unauthorized_client", 401, CREDENTIALS, {SECRET}),
        ("unauthorized_client", 400, REQUEST, set()),
        ("unsupported_grant_type", 400, REQUEST, set()),
        ("invalid_scope", 400, REQUEST, {SCOPE}),
        ("invalid_target", 400, REQUEST, {AUDIENCE, RESOURCE}),
        ("invalid_resource", 400, REQUEST, {SCOPE, AUDIENCE, RESOURCE}),
        ("invalid_request", 400, REQUEST, {SCOPE, AUDIENCE, RESOURCE}),
        ("access_denied", 403, REQUEST, {SCOPE, AUDIENCE}),
        ("", 401, CREDENTIALS, {SECRET}),
        ("", 400, CREDENTIALS, {SECRET, SCOPE, AUDIENCE}),
        ("", 403, CREDENTIALS, {SECRET, SCOPE, AUDIENCE}),
    ],
)
def test_a_hint_names_the_settings_that_the_code_is_about(
    code: str, status: int, what: str, named: set[str]
) -> None:
    hint = refusal_hint(code, status)
    assert {name for name in (SECRET, SCOPE, AUDIENCE, RESOURCE) if name in hint} == named
    assert ("client_credentials" in hint) is (not named)
    assert refused_part(code, status) == what


def test_the_document_says_of_every_code_what_is_wrong() -> None:
    rows = [line.split("|") for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    first = " ".join(row[1] for row in rows)
    assert {code for code in token_response._REFUSAL_CODES if f"`{code}`" not in first} == set()
