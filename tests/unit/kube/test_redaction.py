"""What a program wrote is shown as far as it looks like no secret, in one line."""

import base64
import json

import pytest

from reconciler.kube.auth.redaction import LIMIT, REDACTED, shown_output
from tests.unit.tokens.support import jwt

JWT = jwt(iat=1_767_225_600, exp=1_767_226_500)
BASE64 = base64.b64encode(bytes(range(97, 150))).decode()

CAUSES = [
    'Unable to locate credentials. You can configure credentials by running "aws configure".',
    "error: could not find profile named 'staging' in /root/.aws/config",
    "failed to get token: invalid_grant: AADSTS700016: application was not found in tenant",
    "dial tcp: lookup sts.eu-central-1.amazonaws.com on 10.96.0.10:53: no such host",
    "An error occurred (ExpiredToken): Request ID: 3f0c4b1e-6b0c-4a53-9d3a-0a3b6f1f7c11",
    "arn:aws:iam::123456789012:role/reconciler is not authorized to perform sts:AssumeRole",
    "/usr/lib/python3.11/site-packages/awscli/clidriver.py: No module named 'botocore'",
    "x509: certificate signed by unknown authority",
    "cannot get a token: 403 Forbidden",
    'error reading secret: secrets "cloud-credentials" not found',
    "token: AADSTS700016",
]


@pytest.mark.parametrize("text", CAUSES)
def test_a_cause_is_shown_as_it_is(text: str) -> None:
    assert shown_output(f"\n  {text}\n\n".encode()) == text


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"got {JWT} from the issuer", JWT),
        (f"Authorization: Bearer {JWT}", JWT),
        ("Authorization: Basic ZmFrZTpmYWtl", "ZmFrZTpmYWtl"),
        ("curl -H 'authorization: fake words here'", "fake words here"),
        ("bearer fake-words-here", "fake-words-here"),
        ('{"access_token": "fake words", "expires_in": 3}', "fake words"),
        ("{'clientSecret': 'fake'}", "fake"),
        ("client_secret=fake&grant_type=client_credentials", "fake"),
        ("AWS_SECRET_ACCESS_KEY=fake", "=fake"),
        ("password='two fakes' is wrong", "fakes"),
        ("password: fake", "fake"),
        ("the token: fake123 is wrong", "fake123"),
        ("login --client-secret fake --verbose", "fake"),
        ("https://name:fake@proxy.example:3128 refused", "fake"),
        ("key AKIA0FAKE0FAKE0FAKE0 is unknown", "AKIA0FAKE0FAKE0FAKE0"),
        (f"response: {BASE64}", BASE64[:30]),
        ("-----BEGIN EC PRIVATE KEY-----\nfake\nkey\n-----END EC PRIVATE KEY-----", "fake"),
        ("-----BEGIN EC PRIVATE KEY-----\nfake\nkey", "fake"),
        (json.dumps({"status": {"token": "fake", "clientKeyData": JWT}}), JWT),
        ("0123456789abcdef0123456789abcdef is wrong", "0123456789abcdef"),
    ],
)
def test_what_looks_like_a_secret_is_not(text: str, secret: str) -> None:
    found = shown_output(text.encode())
    assert secret not in found
    assert REDACTED in found


def test_it_is_one_line_without_control_characters() -> None:
    text = "\x1b[31mError:\x1b[0m one\r\n\x1b]0;title\x07two\x00\x7f\u202e three\t\n"
    assert shown_output(text.encode() + b"\xff") == "Error: one two three \N{REPLACEMENT CHARACTER}"


def test_the_last_words_are_shown_up_to_a_bound() -> None:
    text = "first " + "word " * 1000 + "the cause"
    found = shown_output(text.encode())
    assert (len(found), found[:3], found[-9:]) == (LIMIT, "...", "the cause")


@pytest.mark.parametrize("cut", range(1, len(JWT), 7))
def test_half_a_secret_at_a_cut_is_not_shown(cut: int) -> None:
    text = f"{JWT[cut:]} in the first line\nthe cause"
    assert shown_output(text.encode(), is_cut=True) == "the cause"
    assert JWT[cut:] not in shown_output(f"{JWT[cut:]} the cause".encode(), is_cut=True)
    assert shown_output(JWT[cut:].encode(), is_cut=True) == ""


@pytest.mark.parametrize("sign", ["a", "ab1", "=", "/", "-", '"token":', "eyJ", "://", "\x1b["])
def test_a_huge_output_of_one_pattern_is_shown_in_no_time(sign: str) -> None:
    # A rule that backtracks from each sign takes minutes with it.
    assert len(shown_output(b"\n" + (sign * 400_000).encode())) <= LIMIT
