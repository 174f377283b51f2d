"""A secret that comes out is found in each form, and its test fails."""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

import reconciler
from reconciler.lab.issuer.signing_key import IssuerKey
from tests.secrecy.outputs import Outputs, body_of, head_of, object_of
from tests.secrecy.search import PIECE, SecretIndex

ROOT = Path(__file__).parents[2]
KEY = IssuerKey()
TOKEN = KEY.sign({"iss": "http://issuer.example", "iat": 1_767_225_600, "jti": "0" * 16})
OTHER = KEY.sign({"iss": "http://issuer.example", "iat": 1_767_225_600, "jti": "1" * 16})
SECRET = "p@ss:w%rd+Qx7\u00fc/9Lm"

Encode = Callable[[str], str]


def _base64(shift: int, altchars: bytes | None = None) -> Encode:
    def encode(value: str) -> str:
        return base64.b64encode(b"?" * shift + value.encode(), altchars).decode().rstrip("=")

    return encode


FORMS: dict[str, Encode] = {
    "plain": str,
    "in a URL": lambda value: quote(value, safe=""),
    "in a form": quote_plus,
    "in JSON": json.dumps,
    "in JSON, each character escaped": lambda v: "".join(f"\\u{ord(c):04x}" for c in v),
    "in JSON in JSON": lambda value: json.dumps(json.dumps(value)),
    **{f"base64 at {n}": _base64(n) for n in range(3)},
    **{f"base64url at {n}": _base64(n, b"-_") for n in range(3)},
    "base64 of base64": lambda value: _base64(1)(_base64(2)(value)),
    "base64 in a URL": lambda value: quote(_base64(0)(value) + "==", safe=""),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", [TOKEN, SECRET], ids=["token", "secret"])
def test_a_secret_is_found_in_each_form(secret: str, form: str) -> None:
    text = f'{{"a": 1}} key={FORMS[form](secret)} and more'
    assert SecretIndex([secret]).source_of(text) == "a secret" or secret == TOKEN
    assert SecretIndex([secret]).source_of(text)
    assert SecretIndex(["another-secret-0123456789"]).source_of(f"key={_base64(1)(SECRET)}") == ""


@pytest.mark.parametrize("shift", range(3))
def test_each_piece_of_a_signature_is_found_also_of_its_base64(shift: int) -> None:
    index, signature = SecretIndex([TOKEN]), TOKEN.rpartition(".")[2]
    for text in (signature, _base64(shift)(signature)[4:]):
        pieces = [text[at : at + PIECE] for at in range(len(text) - PIECE)]
        missed = [piece for piece in pieces if not index.source_of(f"cut {piece}...")]
        # Sixteen characters without a digit and of one case are taken for words.
        assert len(missed) <= len(pieces) / 50


def test_what_all_tokens_of_a_key_share_is_no_leak_unless_it_is_a_token() -> None:
    header = TOKEN.partition(".")[0]
    assert SecretIndex([TOKEN]).source_of(f"its header is {header}.") == ""
    assert SecretIndex([TOKEN]).source_of(f"another: {OTHER}") == "a JWT"
    assert SecretIndex().source_of(f"unknown to the run: {OTHER}") == "a JWT"


def test_plain_words_of_a_secret_are_no_leak_and_the_whole_is() -> None:
    index = SecretIndex(["obviously-fake-client-secret"])
    assert index.source_of("obviously-fake-client-of-another") == ""
    assert index.source_of('"obviously-fake-client-secret"') == "a secret"


def test_a_secret_of_fewer_than_eight_characters_is_not_searched_for() -> None:
    assert SecretIndex(["secret"]).source_of("the secret is") == ""


BEARER = {"Authorization": f"Bearer {SECRET}"}
FORM, FORM_TYPE = f"client_secret={quote_plus(SECRET)}", "application/x-www-form-urlencoded"
WRITTEN: dict[str, object] = {"stringData": {"api-token": SECRET}}


def opened() -> Outputs:
    outputs = Outputs()
    outputs.is_on = True
    outputs.add_secret(SECRET, "the secret")
    return outputs


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(head_of("/api/v1/pods", BEARER), id="the-callers-header"),
        pytest.param(
            body_of("/token", FORM_TYPE, f"grant_type=client_credentials&{FORM}".encode()),
            id="a-request-for-a-token",
        ),
        pytest.param(
            body_of("/api/v1/namespaces/a/secrets/b", "x/json", json.dumps(WRITTEN).encode()),
            id="a-secret-that-is-written",
        ),
    ],
)
def test_a_request_carries_a_secret_where_it_belongs(text: str | bytes) -> None:
    outputs = opened()
    outputs.left("a request", text)
    assert outputs.take_leaks() == []


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(head_of("/v1/traces", BEARER), id="to-a-collector"),
        pytest.param(head_of("/api/v1/pods", {"X-Token": SECRET}), id="another-header"),
        pytest.param(head_of(f"/token?{FORM}", {}), id="the-query"),
        pytest.param(body_of("/login", FORM_TYPE, FORM.encode()), id="another-form"),
        pytest.param(
            object_of("secrets", WRITTEN | {"metadata": {"a": SECRET}}), id="an-annotation"
        ),
        pytest.param(object_of("configmaps", {"data": {"a": f"x{SECRET}"}}), id="a-config-map"),
    ],
)
def test_a_request_carries_no_secret_elsewhere(text: str | bytes) -> None:
    outputs = opened()
    outputs.left("a request", text)
    assert [leak.place for leak in outputs.take_leaks()] == ["a request"]
    assert outputs.take_leaks() == []


def test_a_word_that_leaves_in_two_parts_is_found_and_secrets_end_with_their_module() -> None:
    outputs = opened()
    outputs.add_secret(SECRET[::-1], "another", lasting=True)
    for part in (SECRET.encode()[:5], SECRET.encode()[5:]):
        outputs.left_in_parts("a log", 1, part)
    assert [str(leak) for leak in outputs.take_leaks()] == ["a log has the secret, or a part of it"]

    outputs.forget_module()
    outputs.left("a log", f"{SECRET} {SECRET[::-1]}")
    assert [leak.source for leak in outputs.take_leaks()] == ["another"]


LEAKY = {
    "prints it": "print(token())",
    "prints a piece of it": "print('...' + token()[-30:-5])",
    "logs it": "structlog.get_logger().warning('a_line', value=token())",
    "logs it, captured by the test": (
        "with structlog.testing.capture_logs():\n"
        "        structlog.get_logger().warning('a_line', value={'a': token()})"
    ),
    "raises it": (
        "with pytest.raises(SettingsError):\n        raise SettingsError(f'wrong: {token()}')"
    ),
    "prints a secret setting": "print(SecretStr('obviously-fake-setting').get_secret_value())",
    "reads back what it printed": "print(token())\n    capsys.readouterr()",
    "starts a process that prints it": (
        "subprocess.run(\n        ['sh', '-c', 'echo $OIDC_CLIENT_SECRET'], check=True, "
        "capture_output=True,\n        env={'OIDC_CLIENT_SECRET': 'obviously-fake-client'})"
    ),
    "writes it into an annotation": (
        "Core(SystemClock()).create(\n        NAMESPACES, '', "
        "{'metadata': {'name': 'a', 'annotations': {'a': token()}}})"
    ),
    "puts it into a span": "ReadableSpan(name='a', attributes={'a': token()})",
    "puts it into the metrics": (
        "metrics = MetricsRegistry()\n    metrics.count(ERRORS, token())\n    metrics.render()"
    ),
}
CLEAN = {
    "does not": "print(SecretStr('obviously-fake-setting'), len(token()))",
    "says that it does": "print(token())",
}

HEAD = """
import subprocess
import pytest
import structlog
from opentelemetry.sdk.trace import ReadableSpan
from pydantic import SecretStr
from reconciler.clock import EPOCH, Instant, SystemClock
from reconciler.errors import SettingsError
from reconciler.lab.apiserver.core import Core
from reconciler.lab.apiserver.kinds import NAMESPACES
from reconciler.telemetry.metrics import ERRORS
from reconciler.telemetry.registry import MetricsRegistry
from reconciler.tokens.token import Token
from tests.conftest import *


def token():
    value = 'opaque-0123456789-ABCDEFGHIJ-klmnopqrst'
    return Token(value, issued_s=EPOCH, expires_s=EPOCH, received_at=Instant(0)).reveal()
"""


def test_each_test_that_leaks_fails_and_no_other(tmp_path: Path) -> None:
    tests = list((LEAKY | CLEAN).values())
    marks = [*[""] * (len(tests) - 1), "@pytest.mark.shows_secrets('on purpose')\n"]
    text = HEAD + "".join(
        f"\n{mark}def test_{number}(capsys):\n    {body}\n"
        for number, (mark, body) in enumerate(zip(marks, tests, strict=True))
    )
    (tmp_path / "test_leaks.py").write_text(text)
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c",
         str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=120,
    )  # fmt: skip
    # pytest appends the message to a summary line where it has the width, and always with CI=true.
    failed = re.findall(r"^ERROR \S+::(test_\d+)(?: - .*)?$", done.stdout, re.MULTILINE)
    assert failed == [f"test_{n}" for n in range(len(LEAKY))], done.stdout


WRITES = re.compile(
    r"write_text|write_bytes|NamedTemporaryFile|TemporaryDirectory|mkstemp|mkdtemp|O_CREAT"
    r"|open\([^)]*[\"'][wax]"
)


def test_the_product_itself_writes_no_file() -> None:
    """Its credential loader writes a kubeconfig's client key, since ssl reads keys from files."""
    product = Path(reconciler.__file__).parent
    files = [path for path in product.rglob("*.py") if "lab" not in path.parts]
    assert [path for path in files if WRITES.search(path.read_text())] == []
    assert len(files) > 100
